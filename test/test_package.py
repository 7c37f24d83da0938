"""What the build files promise: one version, a working command, shipped data, interfaces that say units."""

import ast
import configparser
import importlib
import re
from itertools import chain
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = ROOT / 'msg' / 'pyproject.toml'
INTERFACES = sorted((ROOT / 'msg').glob('*/*.msg')) + sorted((ROOT / 'msg').glob('*/*.srv'))
FIELD = re.compile(r'^(?P<type>[A-Za-z]\w*(?:/\w+)?)(?:\[(?:<=)?\d*\])?\s+(?P<name>[a-z]\w*)\s*(?:#.*)?$')
CONSTANT = re.compile(r'[\w/]+ [A-Z_]+=')
# A comment says the unit or the range of what is measured.
MEASURE = re.compile(r'\[(?:m|px|s|rad)\]|\b0 (?:\([^)]*\) )?to 1\b|in metres')
MEASURED = ('float32', 'float64', 'geometry_msgs/Point', 'geometry_msgs/Pose', 'geometry_msgs/Vector3')


def setup_arguments() -> dict[str, ast.expr]:
    """Returns the keyword arguments of setup() in setup.py, not evaluated."""
    for node in ast.walk(ast.parse((ROOT / 'setup.py').read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'setup':
            return {keyword.arg: keyword.value for keyword in node.keywords}
    raise AssertionError('setup.py calls no setup()')


def commented_fields(path: Path):
    """Yields (type, name, comment) of every field; a comment stands above a field or a group."""
    comment, field_seen = [], False
    for line in path.read_text().splitlines():
        line = line.strip()
        if line.startswith('#'):
            comment = [line] if field_seen else comment + [line]
            field_seen = False
        elif not line or line == '---':
            comment, field_seen = [], False
        elif CONSTANT.match(line):
            assert comment, f'{path.name}: {line!r} stands without a comment'
        else:
            match = FIELD.match(line)
            assert match, f'{path.name}: cannot read the line {line!r}'
            field_seen = True
            yield match['type'], match['name'], ' '.join(comment)


def test_one_version():
    versions = {
        'setup.py': ast.literal_eval(setup_arguments()['version']),
        'package.xml': ElementTree.parse(ROOT / 'package.xml').findtext('version'),
        'msg/package.xml': ElementTree.parse(ROOT / 'msg/package.xml').findtext('version'),
        'msg/pyproject.toml': re.search(r'^version = "(.+)"$', PYPROJECT.read_text(), re.M)[1],
        'CITATION.cff': re.search(r'^version: (.+)$', (ROOT / 'CITATION.cff').read_text(), re.M)[1],
        'CHANGELOG.rst': re.search(r'^(\d.*) \(', (ROOT / 'CHANGELOG.rst').read_text(), re.M)[1],
    }
    assert len(set(versions.values())) == 1, versions


def test_console_script():
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    ((name, target),) = [
        line.split(' = ') for line in config['options.entry_points']['console_scripts'].strip().splitlines()
    ]
    module, function = target.split(':')
    assert name == 'gsemsplat'
    assert callable(getattr(importlib.import_module(module), function))


def test_data_ships():
    (patterns,) = [ast.literal_eval(value) for value in setup_arguments()['package_data'].values]
    package = ROOT / 'gsemsplat_ros'
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    data = {
        path
        for path in package.rglob('*')
        if path.is_file() and path.suffix != '.py' and '__pycache__' not in path.parts
    }
    assert data <= shipped, f'setup.py ships no {sorted(str(path) for path in data - shipped)}'


def test_direct_dependencies_are_pinned():
    lock = (ROOT / 'requirements.lock').read_text()
    pinned = {line.partition('==')[0] for line in lock.splitlines() if '==' in line}
    arguments = setup_arguments()
    extras = ast.literal_eval(arguments['extras_require']).values()
    wanted = [*ast.literal_eval(arguments['install_requires']), *chain.from_iterable(extras)]
    build = re.search(r'requires = \[(.*?)^\]', PYPROJECT.read_text(), re.M | re.S)[1]
    wanted += re.findall(r'"([^"]+)"', build)
    names = {re.split(r'[\[<>=;]', name)[0].replace('_', '-').lower() for name in wanted} - {'gsemsplat-msgs'}
    assert len(names) > 30
    assert names <= pinned, f'requirements.lock lacks {sorted(names - pinned)}'


def test_every_pin_has_the_hashes_of_its_files():
    pin = re.compile(
        r"(?P<name>[a-z0-9-]+)==[\w.]+(?: ; python_version (?P<part>(?:<|>=) '3\.1\d'))?"
        r'(?: --hash=sha256:[0-9a-f]{64})+'
    )
    lines = (ROOT / 'requirements.lock').read_text().splitlines()
    pins = [line for line in lines if not line.startswith('#')]
    assert len(pins) > 200
    parts: dict[str, list[str | None]] = {}
    for line in pins:
        found = pin.fullmatch(line)
        assert found, f'{line[:80]}: run `make lock`'
        parts.setdefault(found['name'], []).append(found['part'])
    assert list(parts) == sorted(parts)
    for name, of in parts.items():
        wanted = ([None], ["< '3.11'"], [">= '3.11'"], ["< '3.14'", ">= '3.14'"])
        assert of in wanted, f'{name}: one version, or one for each part of the Pythons'


def test_versions_named_elsewhere_are_those_of_the_lock():
    lock = (ROOT / 'requirements.lock').read_text()
    pinned = dict(re.findall(r'^([a-z0-9-]+)==([\w.]+)', lock, re.M))
    for name in (
        'README.md',
        '.github/workflows/ci.yaml',
        'gsemsplat_ros/live/server.py',
        'docs/troubleshooting.md',
    ):
        found = re.findall(r'([a-z][a-z0-9-]*)==(\d[\w.]*\d)', (ROOT / name).read_text())
        assert found
        for package, version in found:
            assert pinned[package] == version, f'{name}: {package}'


def test_what_is_imported_is_a_dependency_and_only_that():
    package = ElementTree.parse(ROOT / 'package.xml')
    named = {kind: {e.text for e in package.iter(kind)} for kind in ('depend', 'exec_depend', 'test_depend')}
    needed = {name for name in named['depend'] | named['exec_depend'] if not name.startswith('python3-')}
    imported = set()
    for folder in ('gsemsplat_ros', 'launch'):
        for path in (ROOT / folder).rglob('*.py'):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition('.')[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    imported.add(node.module.partition('.')[0])
    indirect = {'lifecycle_msgs', 'rosidl_default_runtime'}  # of rclpy's lifecycle nodes and of our messages
    assert needed - imported == indirect
    ours_or_optional = {'gsemsplat_msgs', 'gsplat_msgs', 'nav2_msgs'}
    of_ros = {name for name in imported if name.endswith(('_msgs', '_srvs', '_ros', '_py', '_bridge'))}
    of_ros |= imported & {'rclpy', 'message_filters'}
    assert of_ros - needed <= ours_or_optional | {'gsemsplat_ros'}


@pytest.mark.parametrize('path', INTERFACES, ids=lambda path: path.stem)
def test_interface_is_documented(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith('# '), f'{path.name} does not begin with what it is'
    fields = list(commented_fields(path))
    assert fields
    for kind, name, comment in fields:
        assert comment or kind == 'bool', f'{path.name}: {name} has no comment'
        if kind in MEASURED:
            assert MEASURE.search(comment), f'{path.name}: {name} says neither unit nor range'


@pytest.mark.parametrize('path', INTERFACES, ids=lambda path: path.stem)
def test_built_interface_is_the_one_in_the_tree(path):
    """A stale build would make every test of the node answer for old messages."""
    pytest.importorskip('gsemsplat_msgs', reason='the core was installed without ROS')
    built = getattr(importlib.import_module(f'gsemsplat_msgs.{path.parent.name}'), path.stem)
    parts = [built.Request, built.Response] if path.suffix == '.srv' else [built]
    names = [name for part in parts for name in part.get_fields_and_field_types()]
    assert names == [name for _, name, _ in commented_fields(path)]
