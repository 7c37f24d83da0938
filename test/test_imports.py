"""Imports point one way through the house, and each outside package stays in the rooms that need it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = 'gsemsplat_ros'
# From the ground up: a room may import rooms of lower floors, and of its own floor only itself.
FLOORS = (
    {'files', 'device', 'images'},
    {'network'},
    {'checkpoints'},
    {'gaussians'},
    {'formats'},
    {'semantics'},
    {'geometry'},
    {'scene'},
    {'mapping'},
    {'pipeline'},
    {'saved'},
    {'pictures'},
    {'flight'},
    {'report', 'datasets'},
    {'live'},
    {'rooms', 'supervision'},
    {'training'},
    {'bench'},
    {'evaluation'},
    {'simulation'},
    {'terminal'},
    {'ros'},
    {'commands'},
    {'cli'},
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# The node and its clients know ROS; the core does not.
ROS = {'ros'}
# Outside packages that only these rooms may import.
ONLY_IN = {
    'av': {'flight'},
    'cv_bridge': {'ros'},
    'depth_anything_3': {'network'},
    'gsplat': {'gaussians'},
    'launch': {'ros'},
    'launch_ros': {'ros'},
    'message_filters': {'ros'},
    'moderngl': {'rooms'},
    'nav2_msgs': {'ros'},
    'onnx': {'checkpoints'},
    'onnx_ir': {'checkpoints'},
    'onnxruntime': {'checkpoints'},
    'onnxscript': {'checkpoints'},
    'open_clip': {'semantics'},
    'rclpy': ROS,
    'rosbags': {'ros'},
    'sam2': {'supervision'},
    'segment_anything': {'supervision'},
    'scipy': {'gaussians', 'mapping'},
    'sensor_msgs_py': {'ros'},
    'std_srvs': ROS,
    'tensorboard': {'training'},
    'tf2_ros': {'ros'},
    'torch': set(FLOOR_OF) - {'files', 'images'},
    'trimesh': {'rooms'},
    'viser': {'live'},
    'vision_msgs': {'ros'},
}
# Optional packages: imported in the function that needs them, or in the `try` of a seam with a plain twin.
LAZY = {
    'av',
    'cv_bridge',
    'depth_anything_3',
    'gsplat',
    'gsplat_msgs',
    'message_filters',
    'nav2_msgs',
    'onnx',
    'onnx_ir',
    'onnxruntime',
    'onnxscript',
    'open_clip',
    'rosbags',
    'sam2',
    'segment_anything',
    'sensor_msgs_py',
    'tf2_ros',
    'viser',
    'vision_msgs',
}


def imported_modules(tree: ast.AST, module: str, is_package: bool):
    """Yields (dotted name, line number, whether the module needs it at import) of every import in `tree`.

    Names of `from a import b` are `a.b`, a module or a value in it; relative ones are made absolute.
    """
    optional = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Try))
        or (isinstance(outer, ast.If) and ast.unparse(outer.test) == 'TYPE_CHECKING')
        for node in ast.walk(outer)
    }
    package = module if is_package else module.rpartition('.')[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ''
            if node.level:
                base = package.split('.')[: len(package.split('.')) - node.level + 1]
                source = '.'.join(base + ([source] if source else []))
            names = [f'{source}.{alias.name}' for alias in node.names]
        else:
            continue
        for name in names:
            yield name, node.lineno, id(node) not in optional


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """Returns one line for each import of `source`, the text of `module`, that the house does not allow."""
    parts = module.split('.')
    room = parts[1] if len(parts) > 1 else ''
    if room and room not in FLOOR_OF:
        return [f'{module}: `{room}` has no floor in the house']
    found = []
    for name, line, needed in imported_modules(ast.parse(source), module, is_package):
        top, _, rest = name.partition('.')
        where = f'{module}:{line}: '
        if top == PACKAGE:
            target = rest.partition('.')[0]
            if target and target not in FLOOR_OF:
                found.append(f'{where}imports {name}, which is no room of the house')
            elif target and target != room and (not room or FLOOR_OF[target] >= FLOOR_OF[room]):
                found.append(f'{where}{room or PACKAGE} must not import {target}')
        else:
            rooms = ROS if top.endswith(('_msgs', '_interfaces')) else ONLY_IN.get(top)
            if rooms is not None and room not in rooms:
                found.append(f'{where}only {", ".join(sorted(rooms))} may import {top}')
            elif top in LAZY and needed:
                found.append(f'{where}{top} is optional: import it inside the function that needs it')
    return found


def test_house():
    paths = sorted((ROOT / PACKAGE).rglob('*.py'))
    assert len(paths) > 10, f'the modules of {PACKAGE} were not found'
    found = []
    for path in paths:
        parts = path.relative_to(ROOT).with_suffix('').parts
        is_package = parts[-1] == '__init__'
        found += violations(path.read_text(), '.'.join(parts[:-1] if is_package else parts), is_package)
    assert not found, '\n' + '\n'.join(found)


@pytest.mark.parametrize(
    'module, source',
    [
        ('images.view', 'import gsemsplat_ros.network.model'),
        ('images.view', 'import torch'),
        ('network.model', 'from gsemsplat_ros.formats.ply import read_ply'),
        ('network.model', 'def f():\n    from gsemsplat_ros import pipeline'),
        ('semantics.objects', 'from gsemsplat_ros.scene import scene'),
        ('semantics.objects', 'from ..scene.scene import Scene'),
        ('semantics.objects', 'from .. import scene'),
        ('geometry.pose', 'import rclpy'),
        ('pipeline', 'from .ros.node import Node'),
        ('pipeline', 'from sensor_msgs.msg import Image'),
        ('training.loop', 'from gsemsplat_ros.evaluation.evaluate import score'),
        ('bench.bench', 'import gsemsplat_ros.cli'),
        ('ros.node', 'from cv_bridge import CvBridge'),
        ('semantics.text', 'import open_clip'),
        ('attic.old', 'import os'),
    ],
)
def test_wrong_direction_is_found(module, source):
    assert len(violations(source, f'{PACKAGE}.{module}')) == 1


@pytest.mark.parametrize(
    'module, source',
    [
        ('cli', 'from gsemsplat_ros.ros.node import main\nfrom gsemsplat_ros import pipeline'),
        ('ros.node', 'import rclpy\nfrom ..pipeline import Pipeline\nfrom .worker import Worker'),
        ('pipeline', 'import torch\nfrom .scene.scene import Scene'),
        ('scene.scene', 'from gsemsplat_ros.semantics.decoder import HiddenCodes'),
        ('semantics.text', 'def load():\n    import open_clip'),
        (
            'ros.conversions',
            'try:\n    from cv_bridge import CvBridge\nexcept ImportError:\n    CvBridge = None',
        ),
        ('images.stereo', 'from .view import View\nimport numpy as np\nimport cv2'),
    ],
)
def test_right_direction_passes(module, source):
    assert violations(source, f'{PACKAGE}.{module}') == []
