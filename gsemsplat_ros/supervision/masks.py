"""Masks of the objects in an image: instance ids of rooms, a folder of masks, or Segment Anything.

Each source gives one map of ids; overlapping masks are painted from large to small, a cup over its table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from gsemsplat_ros.checkpoints.state_dict import read_state_dict
from gsemsplat_ros.datasets.frames import Frame, Source

SMALLEST = 1 / 2000  # share of the image; smaller masks are dropped
SAM_SETTINGS = {  # from LangSplat, which the paper builds on (docs/published.md 42)
    'points_per_side': 32,
    'pred_iou_thresh': 0.7,
    'box_nms_thresh': 0.7,
    'stability_score_thresh': 0.85,
    'crop_n_layers': 1,
    'min_mask_region_area': 100,
}
SAME = 0.8  # IoU above which two masks are duplicates (LangSplat)
SCORE = 0.7  # predicted IoU times stability below which a mask is dropped (LangSplat)

Masks = Callable[[Frame], np.ndarray]  # a frame to ids (H, W) uint16, 0: nothing


def paint(masks: list[np.ndarray]) -> np.ndarray:
    """Paint masks (H, W) bool, at least one, as ids (H, W) uint16, small over large; mask i has id i + 1."""
    ids = np.zeros(masks[0].shape, np.uint16)
    for i in sorted(range(len(masks)), key=lambda i: -int(masks[i].sum())):
        ids[masks[i]] = i + 1
    return ids


def without_small(ids: np.ndarray) -> np.ndarray:
    """The ids, with those that cover less than SMALLEST of the image set to 0."""
    found, counts = np.unique(ids, return_counts=True)
    return np.where(np.isin(ids, found[counts < SMALLEST * ids.size]), 0, ids).astype(np.uint16)


def instances(frame: Frame) -> np.ndarray:
    """The frame's own instance ids. Raises ValueError if it has none."""
    if frame.instance is None:
        raise ValueError(
            'these scenes come without instance ids: give --masks DIR, or --sam FILE with Segment Anything '
            'installed'
        )
    return frame.instance


class MaskFolder:
    """Masks on disk, of the size of the image.

    FOLDER/SCENE/NAME.png holds ids of 8 or 16 bits; NAME.npy ids (H, W), or masks (M, H, W) bool, which may
    overlap. NAME is the file name of the image without its suffix.
    """

    def __init__(self, folder: str | Path, source: Source):
        """Raises ValueError if the folder does not exist."""
        self.folder, self.source = Path(folder), source
        if not self.folder.is_dir():
            raise ValueError(f'no folder of masks at {folder}')

    def __call__(self, frame: Frame) -> np.ndarray:
        """Ids (H, W) uint16 of a frame. Raises ValueError if its masks are missing or of another size."""
        # not Path.stem: names may be time stamps with a dot
        name = re.sub(r'\.(jpe?g|png)$', '', frame.name, flags=re.IGNORECASE)
        path = self.folder / frame.scene / f'{name}.png'
        if not path.is_file():
            path = path.with_name(f'{name}.npy')
        if not path.is_file():
            raise ValueError(f'no masks at {path.with_name(name)}.png (or .npy): every image needs them')
        try:
            ids = (
                cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
                if path.suffix == '.png'
                else np.load(path, allow_pickle=False)
            )
        except (OSError, ValueError) as error:
            raise ValueError(f'{path} cannot be read ({error}): wanted ids or masks') from None
        if ids is not None and ids.ndim == 3 and path.suffix == '.npy' and len(ids):
            ids = paint(list(ids.astype(bool)))
        if (
            ids is None
            or ids.ndim != 2
            or not np.issubdtype(ids.dtype, np.integer)
            or ids.min() < 0
            or ids.max() > 65535
        ):
            raise ValueError(f'{path}: wanted one channel of ids from 0 (nothing) to 65535')
        cut = self.source.cut(frame.scene, frame.name)
        wanted = cut.source.height, cut.source.width
        if ids.shape != wanted:
            raise ValueError(
                f'{path} has {ids.shape[1]}x{ids.shape[0]} px, its image {wanted[1]}x{wanted[0]}'
            )
        return cut.nearest(ids).astype(np.uint16)


class SegmentAnything:
    """Masks by the package `segment_anything`, or `sam2` for a checkpoint of SAM 2."""

    def __init__(self, checkpoint: str | Path, model: str, device: str):
        """`model`: 'vit_h', 'vit_l' or 'vit_b' of SAM, or a configuration of SAM 2 (its name ends in .yaml).

        Raises ValueError if the package or the file is missing. The file is read as tensors only.
        """
        if not Path(checkpoint).is_file():
            raise ValueError(f'no Segment Anything checkpoint at {checkpoint}')
        package = 'sam2' if model.endswith('.yaml') else 'segment_anything'
        try:
            if package == 'sam2':
                from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator as Generator
                from sam2.build_sam import build_sam2

                network = build_sam2(model, None, device=device)
            else:
                from segment_anything import SamAutomaticMaskGenerator as Generator
                from segment_anything import sam_model_registry

                if model not in sam_model_registry:
                    raise ValueError(
                        f'no model {model!r} in {package}: wanted one of {", ".join(sam_model_registry)}'
                    )
                network = sam_model_registry[model](checkpoint=None)
        except ImportError as error:
            raise ValueError(
                f'masks by {package} need its package ({error}): install it, or give --masks DIR'
            ) from None
        try:
            network.load_state_dict(read_state_dict(checkpoint, network))
        except ValueError as error:
            raise ValueError(f'no checkpoint of {package} {model}: {error}') from None
        self._generator = Generator(network.to(device).eval(), **SAM_SETTINGS)

    def __call__(self, frame: Frame) -> np.ndarray:
        found = self._generator.generate(frame.image)
        masks = distinct(
            [np.asarray(mask['segmentation'], bool) for mask in found],
            [float(mask['predicted_iou'] * mask['stability_score']) for mask in found],
        )
        return paint(masks) if masks else np.zeros(frame.image.shape[:2], np.uint16)


def distinct(masks: list[np.ndarray], scores: list[float]) -> list[np.ndarray]:
    """The masks (H, W) bool with a score of at least SCORE, of duplicates the best; parts of objects stay."""
    kept: list[np.ndarray] = []
    for i in sorted(
        (i for i in range(len(masks)) if scores[i] >= SCORE and masks[i].any()), key=lambda i: -scores[i]
    ):
        if all((masks[i] & other).sum() <= SAME * (masks[i] | other).sum() for other in kept):
            kept.append(masks[i])
    return kept
