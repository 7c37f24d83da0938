"""The permissions of the node, as a policy of SROS 2: its own topics and services and no others.

A table and not a look at the graph: what a node does in one mode does not show what it may do in another. The
test of this file compares it with running nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape, quoteattr

from gsemsplat_ros.ros.inputs import TOPICS

NODE = 'gsemsplat'
PUBLISHED = (
    '~/gaussians',
    '~/gaussians/packed',
    '~/map',
    '~/map/packed',
    '~/objects',
    '~/objects/markers',
    '~/pose',
    '~/relevancy',
    '~/relevancy/image',
    '~/relevancy/map',
    '~/scale',
    '~/status',
    '~/transition_event',
    '/diagnostics',
    '/parameter_events',
    '/rosout',
    '/tf',
)
HEARD = '/clock', '/tf', '/tf_static'  # besides the cameras
ANSWERED = (
    'query',
    '~/save_map',
    '~/load_map',
    '~/clear_map',
    '~/relocalize',
    '~/changes',
    *(
        f'~/{name}'
        for name in (
            'change_state',
            'get_state',
            'get_available_states',
            'get_available_transitions',
            'get_transition_graph',
        )
    ),  # of the lifecycle
    *(
        f'~/{name}'
        for name in (
            'describe_parameters',
            'get_parameter_types',
            'get_parameters',
            'list_parameters',
            'set_parameters',
            'set_parameters_atomically',
            'get_type_description',
        )
    ),
)
KINDS = ('topics', 'publish', 'topic'), ('topics', 'subscribe', 'topic'), ('services', 'reply', 'service')


def permissions(namespace: str = '', remaps: Mapping[str, str] = {}) -> dict[str, list[str]]:
    """What is allowed: 'publish', 'subscribe', 'reply' -> full names, sorted.

    namespace: of the node; remaps: names as in the code (left/image_raw, query) -> names that they have here.
    An image topic may be heard compressed too.
    """
    namespace = '/' + namespace.strip('/') if namespace.strip('/') else ''

    def full(name: str) -> str:
        name = remaps.get(name, name)
        if name.startswith('/'):
            return name
        return f'{namespace}/{NODE}{name[1:]}' if name.startswith('~') else f'{namespace}/{name}'

    cameras = {camera for mode in TOPICS.values() for camera in mode}
    images = [full(image) for image, _ in cameras]
    heard = {
        *images,
        *(f'{image}/compressed' for image in images),
        *(full(info) for _, info in cameras),
        *map(full, HEARD),
    }
    return {
        'publish': sorted(map(full, PUBLISHED)),
        'subscribe': sorted(heard),
        'reply': sorted(map(full, ANSWERED)),
    }


def policy(namespace: str = '', remaps: Mapping[str, str] = {}) -> str:
    """The same as XML, for `ros2 security create_permission`, with the enclave named as the node."""
    allowed = permissions(namespace, remaps)
    place = '/' + namespace.strip('/')
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<policy version="0.2.0">',
        '  <enclaves>',
        f'    <enclave path={quoteattr(place.rstrip("/") + "/" + NODE)}>',
        '      <profiles>',
        f'        <profile ns={quoteattr(place)} node="{NODE}">',
    ]
    for group, act, kind in KINDS:
        lines += [
            f'          <{group} {act}="ALLOW">',
            *(f'            <{kind}>{escape(name)}</{kind}>' for name in allowed[act]),
            f'          </{group}>',
        ]
    return '\n'.join(
        [
            *lines,
            '        </profile>',
            '      </profiles>',
            '    </enclave>',
            '  </enclaves>',
            '</policy>',
            '',
        ]
    )
