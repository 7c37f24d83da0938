"""Scenes and maps in files of whatever format: opened at once, asked as soon as a pipeline is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gsemsplat_ros.checkpoints.tensor_file import read_tensor_file
from gsemsplat_ros.formats.axes import Axes, guessed
from gsemsplat_ros.formats.glb_reader import read_glb
from gsemsplat_ros.formats.ply import read_ply
from gsemsplat_ros.formats.splats import SPACE, Splats
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_file import read_map
from gsemsplat_ros.mapping.map_index import MapIndex
from gsemsplat_ros.mapping.splats_map import map_of
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.scene import scene_file
from gsemsplat_ros.scene.coded_file import CodeSpace, check_space
from gsemsplat_ros.scene.scene import Scene, is_metric
from gsemsplat_ros.scene.splats_scene import scene_of

WITHOUT_WORDS = (
    'holds no codes that words can be compared with: give a map of ~/save_map, a folder of `gsemsplat '
    'infer`, or a GLB of `gsemsplat export`'
)


@dataclass(frozen=True)
class Saved:
    """What a file holds. map: that of the `splats`, row by row; None: they are a scene."""

    path: Path
    splats: Splats
    map: Map | None = None

    @property
    def space(self) -> CodeSpace:
        """That of the codes. Raises ValueError, in one line, for a file that answers no words."""
        splats = self.splats
        if splats.space is None or (self.map is None and splats.camera is None):
            raise ValueError(f'{self.path} {WITHOUT_WORDS}')
        return CodeSpace(**splats.space, code_dim=splats.parts[0].codes.shape[1])

    def target(self, pipeline: Pipeline) -> Scene | MapIndex:
        """What `Pipeline.query` asks; its answers tell of the Gaussians in the order of the file.

        Raises ValueError, in one line, for a file without codes, and for codes of other decoders.
        """
        splats, space = self.splats, self.space
        check_space(self.path, space, pipeline.code_space, 'give that checkpoint as --weights')
        if self.map is not None:
            return pipeline.index(self.map)
        try:
            return scene_of(splats, pipeline.decoders, pipeline.canonical)
        except ValueError as error:
            raise ValueError(f'{self.path} is damaged: {error}') from None


def open_saved(path: Path) -> Saved:
    """The scene or map in a file of `gsemsplat infer`, ~/save_map or `gsemsplat export`, or the Gaussians of
    a PLY file or another program's GLB.

    Raises ValueError, in one line, for a missing, foreign or damaged file.
    """
    suffix = path.suffix.lower()
    if suffix == '.ply':
        gaussians = read_ply(path, 'the frame of the file')
        return Saved(path, Splats((gaussians,), guessed(gaussians.means.numpy())))
    if suffix == '.glb':
        splats = read_glb(path)
        return Saved(path, splats) if splats.voxel is None else of_map(path, map_of(splats), splats.space)
    if not is_scene(path):
        map_, space = read_map(path)
        return of_map(path, map_, space_of(space))
    gaussians, card, _, _, flat, space = scene_file.read_file(path)
    splats = Splats(
        (gaussians,),
        Axes.OPTICAL,
        is_metric(card['scale_source']),
        Camera(**card['camera']),
        space=space_of(space),
        counts=flat.reshape(card['counts']).float() if flat.numel() else None,
        first_from_second=None if card['first_from_second'] is None else np.array(card['first_from_second']),
    )
    return Saved(path, splats)


def of_scene(scene: Scene, space: CodeSpace) -> Splats:
    """What is written of a scene in memory; space: of the pipeline that made it."""
    return Splats(
        (scene.gaussians,),
        Axes.OPTICAL,
        scene.metric,
        scene.keyframe.camera,
        space=space_of(space),
        counts=scene.keyframe.hidden_codes.counts,
        first_from_second=scene.first_from_second,
    )


def of_map(path: Path, map_: Map, space: Mapping[str, str] | None) -> Saved:
    """A map and its Gaussians, tile by tile, so that a large one is not copied."""
    parts = tuple(tile.gaussians for tile in map_.tiles.values()) or (map_.gaussians,)
    return Saved(path, Splats(parts, Axes.Z_UP, map_.metric, voxel=map_.voxel, space=space), map_)


def space_of(space: CodeSpace) -> dict[str, str]:
    """Of which decoders the codes are, as `Splats` have it."""
    return {name: getattr(space, name) for name in SPACE}


def is_scene(path: Path) -> bool:
    """Whether a .safetensors file holds a scene; if not, it may hold a map. Raises ValueError for another
    file."""
    try:
        return scene_file.KIND.key in read_tensor_file(path).metadata
    except ValueError as error:
        raise ValueError(
            f'{path} is no scene and no map, or only a part of one ({error}): give a file that save_map or '
            '`gsemsplat infer` wrote'
        ) from None
