"""The launch file with the arguments of docs/cameras.md: each is known, and the node gets the topics that
were meant.

launch and launch_ros come with a ROS distribution. Where they are missing, stand-ins with the few classes
that the file uses take their place: they note what they are given.
"""

import re
import runpy
import shlex
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from gsemsplat_ros.ros.client.bag_topics import COMPRESSED, IMAGE, INFO, choose

ROOT = Path(__file__).parents[2]
HERE = 'ros2 launch gsemsplat_ros gsemsplat.launch.py '
COMMANDS = [
    ' '.join(block.replace('\\\n', ' ').split())
    for block in re.findall(
        rf'^    ({re.escape(HERE)}(?:.*\\\n)*.*)$',
        '\n'.join((ROOT / name).read_text() for name in ('docs/cameras.md', 'README.md', 'docs/nav2.md')),
        re.M,
    )
]


class Noted(SimpleNamespace):
    """A class of launch: notes its arguments."""

    def __init__(self, *values, **names):
        super().__init__(values=values, **names)


class Configuration(Noted):
    def perform(self, context):
        return context[self.values[0]]


@pytest.fixture
def launch_file(monkeypatch):
    """The names that the launch file defines, its packages stood in for."""
    modules = {
        'launch': ['LaunchDescription'],
        'launch.actions': ['DeclareLaunchArgument', 'OpaqueFunction', 'SetEnvironmentVariable'],
        'launch.substitutions': ['LaunchConfiguration'],
        'launch_ros': [],
        'launch_ros.actions': ['Node'],
        'launch_ros.parameter_descriptions': ['ParameterValue'],
        'ament_index_python': [],
        'ament_index_python.packages': ['get_package_share_directory'],
    }
    for name, classes in modules.items():
        module = ModuleType(name)
        for each in classes:
            setattr(
                module,
                each,
                {
                    'LaunchConfiguration': Configuration,
                    'get_package_share_directory': lambda name: str(ROOT),
                }.get(each, type(each, (Noted,), {})),
            )
        monkeypatch.setitem(sys.modules, name, module)
    return runpy.run_path(str(ROOT / 'launch' / 'gsemsplat.launch.py'))


def launched(launch_file, arguments):
    """The processes of these arguments, as launch would start them: unknown arguments and values are
    refused.
    """
    declared = {
        a.values[0]: a
        for a in launch_file['generate_launch_description']().values[0]
        if type(a).__name__ == 'DeclareLaunchArgument'
    }
    given = dict(argument.split(':=', 1) for argument in arguments)
    assert given.keys() <= declared.keys(), f'no launch arguments {given.keys() - declared.keys()}'
    for name, value in given.items():
        choices = declared[name].choices
        assert not choices or value in choices, (name, value)
    return launch_file['start']({name: given.get(name, a.default_value) for name, a in declared.items()})


def test_the_documents_show_commands():
    assert len(COMMANDS) >= 7


@pytest.mark.parametrize('command', COMMANDS)
def test_each_documented_command_reaches_the_node(launch_file, command):
    arguments = shlex.split(command.removeprefix(HERE), comments=True)
    given = dict(argument.split(':=', 1) for argument in arguments)
    node = launched(launch_file, arguments)[0]
    remapped = dict(node.remappings)
    topics = {
        'left': 'left/image_raw',
        'left_info': 'left/camera_info',
        'right': 'right/image_raw',
        'right_info': 'right/camera_info',
        'image': 'image',
        'camera_info': 'camera_info',
    }
    assert remapped == {topics[name]: value for name, value in given.items() if name in topics}
    parameters = node.parameters[1]
    assert parameters.pop('use_sim_time').values == (False,)
    assert parameters == {
        name: given[name] for name in ('mode', 'map_frame', 'image_transport') if name in given
    }
    if 'left' in given:  # a recording of the same topics is understood without being told
        kind, ending = (
            (COMPRESSED, '/compressed') if given.get('image_transport') == 'compressed' else (IMAGE, '')
        )
        found = choose(
            {
                given['left'] + ending: kind,
                given['right'] + ending: kind,
                given['left_info']: INFO,
                given['right_info']: INFO,
            }
        )
        assert found.images == (given['left'] + ending, given['right'] + ending)
        assert found.infos == (given['left_info'], given['right_info'])


@pytest.mark.parametrize(
    'text, topic',
    [
        ('/**: {ros__parameters: {mode: sequential}}', '/mono'),
        ('robot: {gsemsplat: {ros__parameters: {mode: sequential}}}', '/mono'),
        ('/**: {ros__parameters: {mode: stereo}}', '/left'),
        ('/**: {ros__parameters: {queries: [chair]}}', '/left'),
        ('- no: [parameters', '/left'),  # the node says so
    ],
)
def test_rviz_shows_the_images_of_the_mode_that_params_file_says(launch_file, tmp_path, text, topic):
    (tmp_path / 'mine.yaml').write_text(text)
    arguments = ['rviz:=true', f'params_file:={tmp_path}/mine.yaml', 'left:=/left', 'image:=/mono']
    assert launched(launch_file, arguments)[1].remappings[0] == ('/left/image_raw', topic)
    assert launched(launch_file, [*arguments, 'mode:=sequential'])[1].remappings[0][1] == '/mono'


def test_the_enclave_of_sros_reaches_the_node(launch_file):
    assert launched(launch_file, ['enclave:=/gsemsplat'])[0].ros_arguments[-2:] == ['--enclave', '/gsemsplat']
    assert '--enclave' not in launched(launch_file, [])[0].ros_arguments


def test_rviz_and_namespaces(launch_file):
    node, rviz = launched(
        launch_file, ['rviz:=true', 'namespace:=robot', 'fixed_frame:=odom', 'use_sim_time:=true']
    )
    assert (node.namespace, rviz.namespace, rviz.package) == ('robot', 'robot', 'rviz2')
    assert node.parameters[1]['use_sim_time'].values == (True,) and rviz.arguments[-2:] == ['-f', 'odom']
    assert ('/gsemsplat/map', 'gsemsplat/map') in rviz.remappings
    with pytest.raises(AssertionError, match='no launch arguments'):
        launched(launch_file, ['lleft:=/a'])
    with pytest.raises(AssertionError):
        launched(launch_file, ['mode:=mono'])
