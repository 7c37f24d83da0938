"""README, docs and the references to them hold what they promise."""

import ast
import re
import runpy
import shlex
from pathlib import Path

import pytest

from gsemsplat_ros.cli import COMMANDS, build_parser

ROOT = Path(__file__).resolve().parents[1]
CODE = [
    p for folder in ('gsemsplat_ros', 'test', 'launch', 'msg') for p in sorted((ROOT / folder).rglob('*.py'))
]
TEXTS = [*sorted(ROOT.glob('*.md')), *sorted((ROOT / 'docs').glob('*.md')), ROOT / 'test' / 'README.md']
WIDTH = 110
TARGETS = re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.M)
FOLDERS = ('.github', 'config', 'docs', 'gsemsplat_ros', 'launch', 'msg', 'test')
ROOMS = sorted({p.parent for p in (ROOT / 'gsemsplat_ros').rglob('*.py')} - {ROOT / 'gsemsplat_ros'})


def test_every_reference_to_a_published_fact_exists():
    facts = re.findall(r'^(\d+)\. \*', (ROOT / 'docs/published.md').read_text(), re.M)
    assert sorted(map(int, facts)) == list(range(1, len(facts) + 1)), 'each number once'
    referred = 0
    for path in CODE:
        for numbers in re.findall(r'docs/published\.md\s+(\d+(?:(?:-|, )\d+)*)', path.read_text()):
            missing = set(re.findall(r'\d+', numbers)) - set(facts)
            assert not missing, f'{path.relative_to(ROOT)} refers to docs/published.md {sorted(missing)}'
            referred += 1
    assert referred > 25


def test_nothing_refers_to_texts_that_are_not_here():
    for path in CODE:
        if path != Path(__file__):
            found = re.search(r'architecture\s+note|[(\s]notes\s+\d|pitfall\s+\d', path.read_text(), re.I)
            assert found is None, f'{path.relative_to(ROOT)}: {found[0]!r}: docs/published.md has the facts'


def command_lines(path: Path) -> list[tuple[str, bool]]:
    """(arguments of `gsemsplat`, whether complete): the lines of code blocks, continuations joined and
    comments cut off, and what the text quotes, which may leave out what a command needs.
    """
    text = path.read_text()
    quoted = re.findall(r'`(gsemsplat [a-z][^`]*)`', text)
    lines = [line for line in text.replace('\\\n', ' ').splitlines() if line.startswith('    ')]
    found = []
    for complete, line in [*((True, line) for line in lines), *((False, line) for line in quoted)]:
        words = line.replace('$(which gsemsplat)', 'gsemsplat').replace('\\$SLURM_ARRAY_TASK_ID', '0')
        command = re.search(r'(?:^|[\s"])(?:\.venv/bin/)?gsemsplat (?=[a-z])(.*)', words, re.S)
        if command and not line.strip().startswith('ros2'):
            plain = re.split(r' {2,}#| # |"| > ', command[1])[0]
            found.append((re.sub(r'[\[\]]|\.\.\.', '', plain), complete))
    return found


@pytest.mark.parametrize('path', TEXTS, ids=lambda p: p.name)
def test_lines_are_at_most_110_columns(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        assert len(line) <= WIDTH or line.startswith('|') or 'http' in line, f'{path.name}:{number}'


@pytest.mark.parametrize('path', TEXTS, ids=lambda p: p.name)
def test_links_and_named_files_exist(path):
    text = path.read_text()
    for link in re.findall(r'\]\(([^)\s]+)\)', text):
        if badge := re.fullmatch(r'\.\./\.\./actions/workflows/([\w.]+)(?:/badge\.svg)?', link):
            assert (ROOT / '.github' / 'workflows' / badge[1]).is_file()  # a page of the host, not a file
        elif '://' not in link:
            target, _, anchor = link.partition('#')
            place = path.parent / target if target else path
            assert place.exists(), f'{path.name} links to {link}'
            if anchor:
                titles = re.findall(r'^#+ (.+)$', place.read_text(), re.M)
                anchors = [re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles]
                assert anchor in anchors, f'{path.name} links to {link}; there are {anchors}'
    for name in re.findall(r'`([\w.*/{},-]+/[\w.*/-]+)`', text):
        if name.split('/')[0] in FOLDERS:
            assert list(ROOT.glob(name.replace('NAME', '*'))), f'{path.name} names {name}'


def test_each_page_is_in_the_navigation_of_the_site():
    nav = re.findall(r'^ +- (?:\w+: )?([\w/]+\.md)$', (ROOT / 'mkdocs.yml').read_text(), re.M)
    assert len(nav) == len(set(nav))
    assert {str(path.relative_to(ROOT)) for path in TEXTS} <= set(nav)


def test_pages_are_laid_out_for_the_site(tmp_path):
    stage = runpy.run_path(str(ROOT / '.ci/site/stage.py'))
    stage['stage'](tmp_path / 'site')
    pages = {str(path.relative_to(tmp_path / 'site')) for path in (tmp_path / 'site').rglob('*.md')}
    nav = re.findall(r'([\w/]+\.md)$', (ROOT / 'mkdocs.yml').read_text(), re.M)
    assert pages == set(nav)
    changes = (tmp_path / 'site/CHANGELOG.md').read_text()
    assert changes.startswith('# Changelog') and '## Forthcoming' in changes and '``' not in changes
    assert 'float32 score' in (tmp_path / 'site/messages.md').read_text()
    assert '::: gsemsplat_ros.pipeline' in (tmp_path / 'site/api/pipeline.md').read_text()
    assert (tmp_path / 'site/docs/images/demo.jpg').exists()  # what a page links to comes along


@pytest.mark.parametrize('path', TEXTS, ids=lambda p: p.name)
def test_make_targets_exist(path):
    for target in re.findall(r'(?:^ +|`)make ([a-z-]+)', path.read_text(), re.M):
        assert target in TARGETS, f'{path.name}: make {target}'


@pytest.mark.parametrize('path', TEXTS, ids=lambda p: p.name)
def test_command_lines_parse(path):
    for line, complete in command_lines(path):
        words = shlex.split(line)
        assert words[0] in COMMANDS, f'{path.name}: gsemsplat {line}'
        try:
            _, unknown = build_parser(words[0]).parse_known_args(words)
        except ValueError as error:
            assert not complete and 'required' in str(error), f'{path.name}: gsemsplat {line}: {error}'
        else:
            assert not unknown or words[0] == 'node', f'{path.name}: gsemsplat {line}: {unknown}'


@pytest.mark.parametrize('room', ROOMS, ids=lambda p: str(p.relative_to(ROOT / 'gsemsplat_ros')))
def test_a_room_names_its_files(room):
    """Its docstring lists the modules in the order of the data; commands are listed by `gsemsplat --help`."""
    text = ast.get_docstring(ast.parse((room / '__init__.py').read_text()))
    if 'commands' in room.parts:
        return
    listed = [
        name
        for line in re.findall(r'^([a-z_0-9]+(?:, [a-z_0-9]+)*): ', text, re.M)
        for name in line.split(', ')
    ]
    assert sorted(listed) == sorted(p.stem for p in room.glob('*.py') if p.stem != '__init__')
