"""Scenes, maps, GLBs and PLY files for the live page: shown at once, queried when the pipeline is loaded.

Each `open_*` shows its file and returns a function that loads the rest. Both raise ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from gsemsplat_ros.formats.ply import read_ply
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.live import shown_scene as scenes
from gsemsplat_ros.live.pipeline_source import asks, semantic_colors_by
from gsemsplat_ros.live.shared_state import SharedState
from gsemsplat_ros.mapping import map_file as mapfile
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.saved import WITHOUT_WORDS, is_scene, open_saved
from gsemsplat_ros.scene import scene_file as scenefile
from gsemsplat_ros.scene.coded_file import check_space
from gsemsplat_ros.scene.scene import Scene, is_metric

PICTURE = 512  # pixels of the long side of an image that a camera shows
LOADING = 'the network that reads words is still loading'
Load = Callable[[], Pipeline]
Rest = Callable[[], None]


def open_any(path: Path, shared: SharedState, budget: int, load: Load) -> Rest:
    """Open a PLY file, a GLB, a scene or a map, depending on the file."""
    if path.suffix.lower() == '.ply':
        return open_ply(path, shared, budget)
    if path.suffix.lower() == '.glb':
        return open_glb(path, shared, budget, load)
    return (open_scene if is_scene(path) else open_map)(path, shared, budget, load)


def open_ply(path: Path, shared: SharedState, budget: int) -> Rest:
    """Show a PLY file. It cannot be queried: the decoders of its codes are unknown."""
    shown = scenes.shown_from_file(path.name, read_ply(path, 'the frame of the file'), budget)
    shared.write(
        shown=shown,
        no_query_reason='a PLY file holds no codes that words can be compared with; open a map of '
        '~/save_map or a folder of `gsemsplat infer`',
    )
    return lambda: None


def open_glb(path: Path, shared: SharedState, budget: int, load: Load) -> Rest:
    """Show a GLB; one of `gsemsplat export` can be queried as the scene or map that it was."""
    saved = open_saved(path)
    splats, gaussians = saved.splats, saved.splats.joined()
    if saved.map is not None:
        shown = scenes.shown_from_above(path.name, gaussians, budget, splats.metric)
    elif splats.camera is not None:
        camera = splats.camera
        seen = scenes.ShownCamera('first camera', np.eye(4), camera.fov_y, camera.aspect)
        shown = scenes.shown_from_camera(path.name, gaussians, budget, splats.metric, (seen,))
    else:
        shown = scenes.shown_from_file(path.name, gaussians, budget)
    if splats.space is None:
        shared.write(shown=shown, no_query_reason=f'{path.name} {WITHOUT_WORDS}')
        return lambda: None
    shared.write(shown=shown, no_query_reason=LOADING)

    def rest() -> None:
        pipeline = load()
        target = saved.target(pipeline)
        shared.write(ask=asks(pipeline, target, shown), semantic_colors=semantic_colors_by(pipeline))

    return rest


def open_scene(path: Path, shared: SharedState, budget: int, load: Load) -> Rest:
    """Show a scene written by `gsemsplat infer`."""
    gaussians, card, image, second = scenefile.read_scene(path)
    cameras = cameras_of(Camera(**card['camera']), card['first_from_second'], image, second)
    shown = scenes.shown_from_camera(
        title_of(path), gaussians, budget, is_metric(card['scale_source']), cameras
    )
    shared.write(shown=shown, no_query_reason=LOADING)

    def rest() -> None:
        pipeline = load()
        scene, _ = scenefile.load_scene(path, pipeline.code_space, pipeline.decoders, pipeline.canonical)
        shared.write(ask=asks(pipeline, scene, shown), semantic_colors=semantic_colors_by(pipeline))

    return rest


def open_map(path: Path, shared: SharedState, budget: int, load: Load) -> Rest:
    """Show a map written by ~/save_map."""
    map_, theirs = mapfile.read_map(path)
    first = map_.keyframes[0] if map_.keyframes else None
    shown = scenes.shown_from_above(title_of(path), map_.gaussians, budget, map_.metric, keyframe=first)
    shared.write(shown=shown, no_query_reason=LOADING)

    def rest() -> None:
        pipeline = load()
        check_space(path, theirs, pipeline.code_space, 'give that checkpoint as --weights')
        shared.write(
            ask=asks(pipeline, pipeline.index(map_), shown), semantic_colors=semantic_colors_by(pipeline)
        )

    return rest


def show_scene(
    title: str, scene: Scene, second: np.ndarray, pipeline: Pipeline, shared: SharedState, budget: int
) -> None:
    """Show a scene in memory; `second` (H, W, 3) uint8 RGB: the second image."""
    cameras = cameras_of(scene.keyframe.camera, scene.first_from_second, scene.keyframe.image, second)
    shown = scenes.shown_from_camera(title, scene.gaussians, budget, scene.metric, cameras)
    shared.write(
        shown=shown, ask=asks(pipeline, scene, shown), semantic_colors=semantic_colors_by(pipeline), status=''
    )


def cameras_of(
    camera: Camera, first_from_second: np.ndarray | None, image: np.ndarray, second: np.ndarray
) -> tuple[scenes.ShownCamera, ...]:
    """The cameras of a pair in the frame of the first; the second only if its pose (4, 4) is known."""
    fov, aspect = camera.fov_y, camera.aspect
    seen = [scenes.ShownCamera('first camera', np.eye(4), fov, aspect, small(image))]
    if first_from_second is not None:
        seen.append(
            scenes.ShownCamera(
                'second camera', np.asarray(first_from_second, np.float64), fov, aspect, small(second)
            )
        )
    return tuple(seen)


def small(image: np.ndarray) -> np.ndarray:
    """The image shrunk to at most PICTURE pixels on its long side."""
    height, width = image.shape[:2]
    factor = PICTURE / max(height, width)
    if factor >= 1:
        return image
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def title_of(path: Path) -> str:
    """The title on the page: the file's name, for a scene that of its folder."""
    return path.resolve().parent.name if path.name == 'scene.safetensors' else path.name
