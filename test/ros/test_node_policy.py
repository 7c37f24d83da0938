"""The SROS 2 policy allows what running nodes do, in every mode, and nothing else."""

import json
from xml.etree import ElementTree

import pytest

from gsemsplat_ros.cli import main
from gsemsplat_ros.ros import tf_listener
from gsemsplat_ros.ros.policy import permissions, policy

MODES = {
    '/p': ['-p', 'map_frame:=odom', '-p', 'use_sim_time:=true'],
    '/q': ['-p', 'image_transport:=compressed'],
    '/r': ['-p', 'mode:=sequential'],
    '/s': [
        '-p',
        'mode:=sequential',
        '-p',
        'image_transport:=compressed',
        '-r',
        'image:=/cam/image',
        '-r',
        'query:=ask',
    ],
}
# what this machine's ROS lacks: vision_msgs, tf2_msgs
MAY_LACK = {'/gsemsplat/objects', *(() if tf_listener.TFMessage else ('/tf', '/tf_static'))}


def live(node, namespace):
    """What the node does, as `permissions` says it."""
    at = 'gsemsplat', namespace
    found = {
        'publish': node.get_publisher_names_and_types_by_node(*at),
        'subscribe': node.get_subscriber_names_and_types_by_node(*at),
        'reply': node.get_service_names_and_types_by_node(*at),
    }
    assert not node.get_client_names_and_types_by_node(*at)
    return {act: {name for name, _ in names} for act, names in found.items()}


def test_the_policy_is_what_the_live_nodes_do(client, start):
    for name, arguments in MODES.items():
        start('-r', f'__ns:={name}', *arguments)
    union = {'publish': set(), 'subscribe': set(), 'reply': set()}
    for name in MODES:
        remaps = {'image': '/cam/image', 'query': 'ask'} if name == '/s' else {}
        allowed = {act: set(names) for act, names in permissions(name, remaps).items()}
        ready = {
            '/p': {'/p/left/image_raw', '/p/right/image_raw', '/tf'},
            '/q': {'/q/left/image_raw/compressed', '/q/right/image_raw/compressed'},
            '/r': {'/r/image'},
            '/s': {'/cam/image/compressed'},
        }[name] - MAY_LACK

        def active():
            try:
                return ready <= live(client.node, name)['subscribe']
            except RuntimeError:  # the node is not known yet
                return False

        client.until(active, f'{name} to subscribe')
        does = live(client.node, name)
        for act, names in does.items():
            assert names <= allowed[act], f'{name} may not {act} {names - allowed[act]}'
            union[act] |= {other.removeprefix(name) for other in names} if name != '/s' else set()
    single = permissions('')
    union['subscribe'].add('/image/compressed')  # of /s, which has it under another name
    for act, names in union.items():
        assert set(single[act]) - names <= MAY_LACK, (
            f'{act} {set(single[act]) - names - MAY_LACK} is never needed'
        )


def test_it_is_xml_with_full_names_of_this_robot():
    root = ElementTree.fromstring(
        policy('robot', {'left/image_raw': '/camera/infra1/image_rect_raw', 'query': 'ask'}).encode()
    )
    assert root.find('enclaves/enclave').get('path') == '/robot/gsemsplat'
    profile = root.find('enclaves/enclave/profiles/profile')
    assert (profile.get('ns'), profile.get('node')) == ('/robot', 'gsemsplat')
    said = {next(iter(group.attrib)): [item.text for item in group] for group in profile}
    assert set(said) == {'publish', 'subscribe', 'reply'} and all(
        group.attrib == {next(iter(group.attrib)): 'ALLOW'} for group in profile
    )
    assert {
        '/camera/infra1/image_rect_raw',
        '/camera/infra1/image_rect_raw/compressed',
        '/robot/right/camera_info',
        '/tf',
    } <= set(said['subscribe'])
    assert '/robot/left/image_raw' not in said['subscribe']
    assert {'/robot/ask', '/robot/gsemsplat/save_map'} <= set(said['reply']) and '/robot/query' not in said[
        'reply'
    ]
    assert '/robot/gsemsplat/gaussians' in said['publish'] and '/diagnostics' in said['publish']


@pytest.mark.parametrize(
    'name',
    [
        '*',
        'a*',
        'a b',
        '..',
        'a/../b',
        'a//b',
        'a/',
        '1a',
        'a" evil="1',
        '"/><enclave path="',
        'ä',
        '~/a',
        '\n',
    ],
)
def test_a_namespace_grants_nothing_else(name, capsys):
    assert main(['policy', '--namespace', name]) == 2
    said = capsys.readouterr()
    assert 'wanted a namespace of ROS' in said.err and not said.out


@pytest.mark.parametrize('name', ['', '/', 'a', '/a', '/a/b_2'])
def test_namespaces_of_ros_are_known(name):
    assert main(['policy', '--namespace', name]) == 0


def test_private_names_are_remapped_too(capsys):
    assert main(['policy', '--json', '~/gaussians:=/x']) == 0
    allowed = json.loads(capsys.readouterr().out)['publish']
    assert '/x' in allowed and '/gsemsplat/gaussians' not in allowed


def test_the_command_prints_it(capsys):
    assert main(['policy', 'left/image_raw:=/l', '--namespace', '/robot']) == 0
    assert ElementTree.fromstring(capsys.readouterr().out.encode()).get('version') == '0.2.0'
    assert main(['policy', '--json']) == 0
    assert json.loads(capsys.readouterr().out) == permissions()
    for bad, words in (
        ('left/imag:=/l', 'no topic or service left/imag'),
        ('left/image_raw', 'wanted FROM:=TO'),
    ):
        assert main(['policy', bad]) == 2
        assert words in capsys.readouterr().err
