"""Reader of the published `eval_datasets`: annotated views of ScanNet++ scenes, and their input images.

    DIR/<scene>/queries.txt           names to query, separated by line ends or commas
                frame_<n>.json        info {name, width, height, scene_name},
                                      objects [{category, segmentation, bbox}]
                frame_<n>.jpg         the annotated view
                render_frame_<n>.jpg  a rendering of it (optional)
                mask_<n>.npy          (H, W), the pixels that an input view sees
                restored_feat.npy     (2, H, W, C), decoded features of both branches, to score saved features
                cameras.json          ours: input images, cameras and poses, to score a network

A segmentation is one polygon [[x, y], ...] in pixels; polygons of one category are united. The published
layout has one annotated view per scene; with more, each has `restored_feat_frame_<n>.npy` (or .npz).
`cameras.json`:

    {"context": [{"image": "a.jpg", "K": 3x3, "world_from_camera": 4x4}, {...}],
     "frames": {"frame_<n>": {"K": 3x3, "world_from_camera": 4x4}}}

K [px] belongs to that image, pixel centres at integers; OpenCV cameras, metres.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gsemsplat_ros.evaluation.json_fields import Field
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.image_file import ImageFile, read_image, views_of
from gsemsplat_ros.images.view import View
from gsemsplat_ros.semantics.answer import MAX_TEXT
from gsemsplat_ros.semantics.relevancy import SMOOTHING_BOX

FEATURES = 'restored_feat'
MAX_COORDINATE = 30000  # px of a polygon: OpenCV fills it without overflow
WANTED = 'an annotation {"info": {...}, "objects": [...]}'


@dataclass(frozen=True)
class Inputs:
    """The input of a network for one annotated view, and the pose of that view.

    first, second: input views with camera and map_from_camera; camera: of the annotated view;
    first_from_camera (4, 4): its pose in the frame of the first input [m].
    """

    first: View
    second: View
    camera: Camera
    first_from_camera: np.ndarray


@dataclass(frozen=True)
class AnnotatedView:
    """One annotated view.

    image (H, W, 3) uint8 RGB; polygons: category -> its polygons (n, 2) of x, y [px]; visible (H, W) bool: an
    input view sees the pixel; queries: names of the scene, annotated in this view or not; rendering
    (H, W, 3) uint8 RGB, stored with the view, or None; features: file with decoded features, or None.
    """

    scene: str
    name: str
    image: np.ndarray
    polygons: dict[str, tuple[np.ndarray, ...]]
    visible: np.ndarray
    queries: tuple[str, ...]
    rendering: np.ndarray | None
    features: Path | None

    @property
    def phrases(self) -> tuple[str, ...]:
        """The queries that are annotated in this view, in the order of the queries."""
        return tuple(text for text in self.queries if text in self.polygons)

    @property
    def dropped(self) -> tuple[str, ...]:
        """Queries without an annotation: the published evaluation leaves them out."""
        return tuple(text for text in self.queries if text not in self.polygons)


def find_scenes(folder: str | Path) -> list[Path]:
    """The scene folders in `folder`, or itself if it is one. Raises ValueError if there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f'no folder {folder}: wanted the published eval_datasets, a folder a scene')
    if annotation_files(folder):
        return [folder]
    scenes = sorted(path for path in folder.iterdir() if path.is_dir() and annotation_files(path))
    if not scenes:
        raise ValueError(
            f'{folder} holds no scene: wanted folders with frame_*.json in them (the published eval_datasets)'
        )
    return scenes


def annotation_files(scene: Path) -> list[Path]:
    """The annotations frame_*.json of a scene folder, by number."""
    return sorted(scene.glob('frame_*.json'), key=lambda path: (number_of(path.stem) or 0, path.name))


def read_view(path: Path) -> AnnotatedView:
    """Read the annotated view of the JSON file `path`.

    Raises ValueError for missing or inconsistent files.
    """
    scene, name = path.parent, path.stem
    content = Field.read(path, WANTED)
    info = content.get('info')
    width, height = (info.get(key).size() for key in ('width', 'height'))
    if min(width, height) <= SMOOTHING_BOX:
        raise ValueError(
            f'{path}: a view of {width} x {height} px: wanted sides above {SMOOTHING_BOX}, the box of the '
            'published smoothing'
        )
    polygons: dict[str, list[np.ndarray]] = {}
    for thing in content.get('objects').items():
        polygons.setdefault(thing.get('category').words(), []).append(read_polygon(thing.get('segmentation')))
    queries = read_queries(scene / 'queries.txt')
    if not set(queries) & set(polygons):
        raise ValueError(
            f'{path}: none of the queries ({", ".join(queries)[:100]}) is annotated; annotated are '
            f'{", ".join(sorted(polygons))[:100] or "nothing"}: check {scene / "queries.txt"}'
        )
    image = picture(scene / f'{name}.jpg', width, height)
    rendering = scene / f'render_{name}.jpg'
    return AnnotatedView(
        scene.name,
        name,
        image,
        {text: tuple(rings) for text, rings in polygons.items()},
        read_mask(scene, name, width, height),
        queries,
        picture(rendering, width, height) if rendering.exists() else None,
        find_features(scene, name),
    )


def read_polygon(field: Field) -> np.ndarray:
    """A polygon (n, 2) of x, y [px]. Raises ValueError."""
    corners = field.items()
    if len(corners) < 3:
        raise field.wrong('a polygon [[x, y], ...] of at least three corners')
    points = field.matrix(len(corners), 2)
    if np.abs(points).max() > MAX_COORDINATE:
        raise field.wrong(f'pixels within {MAX_COORDINATE}')
    return points


def read_queries(path: Path) -> tuple[str, ...]:
    """Distinct names in the order of the file. Raises ValueError."""
    try:
        text = path.read_text(encoding='utf-8')
    except FileNotFoundError:
        raise ValueError(f'no queries at {path}: wanted the names to ask for, one a line') from None
    except (OSError, ValueError) as error:
        raise ValueError(f'{path} cannot be read as text ({error}): wanted names, one a line') from None
    names = tuple(
        dict.fromkeys(name for name in (part.strip(' \t\r\'"[]') for part in re.split('[\n,]', text)) if name)
    )
    if not names or max(map(len, names)) > MAX_TEXT:
        found = f'a name of more than {MAX_TEXT} characters' if names else 'no name'
        raise ValueError(f'{path} holds {found}: wanted names to ask for, one a line')
    return names


def picture(path: Path, width: int, height: int) -> np.ndarray:
    """The image (height, width, 3) uint8 RGB at `path`. Raises ValueError for another size."""
    image = read_image(path)
    if image.shape[:2] != (height, width):
        raise ValueError(
            f'{path} has {image.shape[1]} x {image.shape[0]} px: its annotation says {width} x {height}'
        )
    return image


def read_mask(scene: Path, name: str, width: int, height: int) -> np.ndarray:
    """The visibility mask (height, width) bool of a view: the file with its name or number, or the only mask
    of a scene with one view. Raises ValueError."""
    masks = sorted(scene.glob('mask_*.npy'))
    mine = [path for path in masks if path.stem == f'mask_{name}' or number_of(path.stem) == number_of(name)]
    if not mine and len(masks) == 1 == len(annotation_files(scene)):
        mine = masks
    if len(mine) != 1:
        found = ', '.join(path.name for path in masks) or 'none'
        raise ValueError(
            f'{scene} has no one visibility mask for {name} (found: {found}): wanted mask_{name}.npy, '
            f'({height}, {width}) bool'
        )
    values = load_array(mine[0])
    if values.shape != (height, width) or values.dtype.kind not in 'biuf':
        raise ValueError(
            f'{mine[0]} is {values.dtype} {values.shape}: wanted ({height}, {width}) bool, the size of {name}'
        )
    return np.nan_to_num(np.asarray(values)) > 0


def find_features(scene: Path, name: str) -> Path | None:
    """The saved features of a view; an unnumbered file counts only if the scene has a single view."""
    alone = len(annotation_files(scene)) == 1
    for stem in (f'{FEATURES}_{name}', *((FEATURES,) if alone else ())):
        for suffix in ('.npy', '.npz'):
            if (scene / (stem + suffix)).is_file():
                return scene / (stem + suffix)
    return None


def read_features(frame: AnnotatedView, folder: Path) -> np.ndarray:
    """Decoded features (2, H, W, C) of a view, of any float type, memory-mapped if the file allows it.

    Raises ValueError if they are missing or of another shape.
    """
    height, width = frame.image.shape[:2]
    if frame.features is None:
        several = any(folder.glob(f'{FEATURES}.np*'))
        shared = f' ({FEATURES}.* beside several views belongs to one of them)' if several else ''
        raise ValueError(
            f'{folder} has no saved features of {frame.name}{shared}: wanted {FEATURES}_{frame.name}.npy, '
            f'(2, {height}, {width}, C)'
        )
    values = load_array(frame.features)
    if values.ndim != 4 or values.shape[:3] != (2, height, width) or values.dtype.kind != 'f':
        raise ValueError(
            f'{frame.features} is {values.dtype} {values.shape}: wanted floats (2, {height}, {width}, C)'
        )
    return values


def load_array(path: Path) -> np.ndarray:
    """The array of an .npy, or the first of an .npz, without unpickling. Raises ValueError."""
    try:
        loaded = np.load(path, mmap_mode='r', allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return loaded[loaded.files[0]]
    except (
        OSError,
        ValueError,
        TypeError,
        IndexError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        AttributeError,
        SyntaxError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f'{path} cannot be read as an array of numbers ({reason}): wanted what numpy.save wrote'
        ) from None


def read_cameras(scene: Path, frame: AnnotatedView) -> Inputs | None:
    """The inputs of a view from the scene's `cameras.json`; None without such a file. Raises ValueError."""
    path = scene / 'cameras.json'
    if not path.exists():
        return None
    content = Field.read(path, 'an object with "context" and "frames"')
    context = content.get('context').items()
    if len(context) != 2:
        raise content.get('context').wrong('the two input images')
    views = views_of(*(field.get('image').load(ImageFile.read) for field in context))
    poses = [read_pose(field.get('world_from_camera')) for field in context]
    first, second = (
        replace(view, camera=read_camera(field, view.image), map_from_camera=pose)
        for field, view, pose in zip(context, views, poses)
    )
    where = content.get('frames').get(frame.name)
    pose = np.linalg.inv(poses[0]) @ read_pose(where.get('world_from_camera'))
    return Inputs(first, second, read_camera(where, frame.image), pose)


def read_camera(field: Field, image: np.ndarray) -> Camera:
    """The camera of `image` from K in `field`. Raises ValueError."""
    K = field.get('K').matrix(3, 3)
    if not (K[0, 0] > 0 and K[1, 1] > 0 and (K[2] == (0, 0, 1)).all()):
        raise field.get('K').wrong('[[fx, 0, cx], [0, fy, cy], [0, 0, 1]] [px]')
    return Camera.from_K(K, image.shape[1], image.shape[0])


def read_pose(field: Field) -> np.ndarray:
    """A pose (4, 4) [m]. Raises ValueError if it is not a rigid motion."""
    pose = field.matrix(4, 4)
    turn = pose[:3, :3]
    if not (
        np.allclose(turn @ turn.T, np.eye(3), atol=1e-3)
        and np.linalg.det(turn) > 0
        and (pose[3] == (0, 0, 0, 1)).all()
    ):
        raise field.wrong('a rigid motion: a rotation, a translation [m] and 0 0 0 1')
    return pose


def number_of(stem: str) -> int | None:
    """The number at the end of a file's stem, or None."""
    digits = re.search(r'(\d+)$', stem)
    return int(digits[1]) if digits else None
