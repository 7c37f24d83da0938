"""Methods that are scored on an annotated view: the network, stored features, and baselines.

All get the same queries; each gives a picture, relevancies, or both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.evaluation.annotated_views import AnnotatedView, Inputs, read_features
from gsemsplat_ros.evaluation.splat_points import nearest_points, spacing
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.images.view import Pair, View, fit, network_size
from gsemsplat_ros.network.inference import Inference
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.relevancy import relevancy_of_features
from gsemsplat_ros.semantics.text import TextEncoder

CHUNK = 1 << 26  # values of saved features in memory at a time
WHOLE = 32  # px: sides of images for dense features are multiples of this


@dataclass(frozen=True)
class Shown:
    """The output of a method for one view, None for what it lacks: rgb (H, W, 3) float in [0, 1]; relevancy
    (branches, K, H, W) float32 before smoothing; alpha (H, W), opacity (None: opaque everywhere)."""

    rgb: np.ndarray | None = None
    relevancy: np.ndarray | None = None
    alpha: np.ndarray | None = None


class Method(Protocol):
    """name: of its row in the table."""

    name: str

    def show(
        self, frame: AnnotatedView, inputs: Inputs | None, folder: Path, phrases: Sequence[str]
    ) -> Shown:
        """The output for `frame` of the scene in `folder`; inputs: None if only saved features are scored."""


class SavedFeatures:
    """Decoded features stored with the annotations, as the public script reads them, and their rendering."""

    name = 'saved features'

    def __init__(self, encoder: TextEncoder, canonical: np.ndarray):
        """canonical (M, C): unit embeddings of the phrases that every query is compared with."""
        self.encoder, self.canonical = encoder, torch.as_tensor(canonical)

    def show(
        self, frame: AnnotatedView, inputs: Inputs | None, folder: Path, phrases: Sequence[str]
    ) -> Shown:
        features = read_features(frame, folder)
        if features.shape[-1] != self.encoder.dim:
            raise ValueError(
                f'{frame.features} has {features.shape[-1]} channels, the text encoder {self.encoder.name} '
                f'{self.encoder.dim}: give the --weights that made them, or --text-checkpoint for OpenCLIP'
            )
        words = torch.as_tensor(self.encoder.encode(list(phrases)))
        rows = max(1, CHUNK // (2 * features.shape[2] * features.shape[3]))
        parts = [
            relevancy_of_features(
                torch.from_numpy(np.array(features[:, top : top + rows], np.float32)), words, self.canonical
            ).numpy()
            for top in range(0, features.shape[1], rows)
        ]
        rgb = None if frame.rendering is None else frame.rendering / 255
        return Shown(rgb, np.concatenate(parts, 2))


class Network:
    """Our pipeline. calibrated: it gets cameras and poses of its input, unlike in the published setting."""

    def __init__(self, pipeline: Pipeline, calibrated: bool = False, name: str = 'this network'):
        self.name, self.pipeline, self.calibrated = name, pipeline, calibrated
        self._last: tuple[Inputs, Scene] | None = None

    def scene(self, inputs: Inputs) -> Scene:
        """The scene of two input views, kept for the next view of the same scene."""
        if self._last is None or not same_views(self._last[0], inputs):
            pair = Pair(inputs.first, inputs.second)
            if not self.calibrated:
                pair = Pair(View(pair.first.image), View(pair.second.image))
            self._last = inputs, self.pipeline.build(pair)
        return self._last[1]

    def show(
        self, frame: AnnotatedView, inputs: Inputs | None, folder: Path, phrases: Sequence[str]
    ) -> Shown:
        assert inputs is not None, 'a network is given images'
        drawn = render(self.scene(inputs).gaussians, inputs.camera, np.linalg.inv(inputs.first_from_camera))
        hidden = self.pipeline.decoders.prepare(drawn.codes, self.pipeline.canonical, drawn.alpha)
        words = self.pipeline.text_encoder.encode(list(phrases))
        return Shown(
            drawn.rgb.cpu().numpy(), hidden.relevancy(words).float().cpu().numpy(), drawn.alpha.cpu().numpy()
        )


class ColorOnly:
    """The plain Splatt3R path: the Gaussians that the network predicts from images; no queries."""

    name = 'Splatt3R path'

    def __init__(self, network: Inference, square: bool = False):
        self.network, self.square = network, square

    @classmethod
    def load(cls, path: str | Path, device: torch.device) -> ColorOnly:
        """Load a converted Splatt3R checkpoint in float32. Raises ValueError if it has no Gaussian heads."""
        checkpoint = weights.load(path, device)
        if not checkpoint.model.config.gaussians:
            raise ValueError(f'{path} predicts no Gaussians: wanted a converted Splatt3R checkpoint')
        return cls(Inference(checkpoint.model, torch.device(device), exact=True))

    @torch.inference_mode()
    def gaussians(self, inputs: Inputs) -> Gaussians:
        """The network's prediction from the two images only."""
        height, width = inputs.first.image.shape[:2]
        size = network_size(width, height, self.network.model.config.long_side, self.square)
        images = [fit(View(view.image), *size)[0].image for view in (inputs.first, inputs.second)]
        first, second = self.network.encode(images)
        prediction = self.network.predict(first, second)
        return Gaussians.from_prediction(prediction, 'camera')

    def show(
        self, frame: AnnotatedView, inputs: Inputs | None, folder: Path, phrases: Sequence[str]
    ) -> Shown:
        assert inputs is not None, 'a network is given images'
        drawn = render(self.gaussians(inputs), inputs.camera, np.linalg.inv(inputs.first_from_camera))
        return Shown(drawn.rgb.cpu().numpy(), None, drawn.alpha.cpu().numpy())


class LiftedFeatures:
    """Pixelwise text features of the input images on opaque points from our depth: nothing learnt in 3D.

    A pixel takes colour and relevancy of the nearest point that covers it. `dense`: an image (H, W, 3)
    uint8, sides multiples of 32, to features (h, w, C) of the network's text space, or of its sentences.
    """

    name = '2D features on points'

    def __init__(self, network: Network, dense: Callable[[np.ndarray], np.ndarray]):
        self.network, self.dense = network, dense

    def show(
        self, frame: AnnotatedView, inputs: Inputs | None, folder: Path, phrases: Sequence[str]
    ) -> Shown:
        assert inputs is not None, 'a network is given images'
        scene = self.network.scene(inputs)
        height, width = scene.keyframe.camera.height, scene.keyframe.camera.width
        points = scene.gaussians.means.cpu().numpy().reshape(2, height, width, 3)
        # (H, W), -1 for none
        index = nearest_points(
            points.reshape(-1, 3),
            spacing(points).ravel(),
            inputs.camera,
            np.linalg.inv(inputs.first_from_camera),
        )
        known = index >= 0
        window = scene.keyframe.window
        images = [
            fit(View(view.image), window.width, window.height)[0].image
            for view in (inputs.first, inputs.second)
        ]
        colors = np.stack(
            [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images]
        )
        rgb = np.where(known[..., None], colors.reshape(-1, 3)[index] / 255, 0.0)
        # (K, H, W)
        lifted = self.relevancies(images, height, width, phrases).reshape(len(phrases), -1)[:, index]
        least = lifted[:, known].min(1) if known.any() else np.zeros(len(phrases))
        # pixels without a point get the minimum: neither a peak nor a change of the range
        return Shown(
            rgb,
            np.where(known, lifted, least[:, None, None]).astype(np.float32)[None],
            known.astype(np.float32),
        )

    def relevancies(
        self, images: Sequence[np.ndarray], height: int, width: int, phrases: Sequence[str]
    ) -> np.ndarray:
        """Relevancy (K, 2, height, width) of both input images."""
        pipeline = self.network.pipeline
        sides = [max(WHOLE, round(side / WHOLE) * WHOLE) for side in images[0].shape[1::-1]]
        whole = [cv2.resize(image, sides, interpolation=cv2.INTER_AREA) for image in images]
        features = torch.from_numpy(np.stack([self.dense(image) for image in whole]))  # (2, h, w, C)
        sentence = slice(features.shape[-1])  # of a phrase; classes may follow (semantics/class_words.py)
        words = torch.as_tensor(pipeline.text_encoder.encode(list(phrases)))[:, sentence]
        canonical = torch.as_tensor(pipeline.canonical)[:, sentence]
        coarse = relevancy_of_features(features, words, canonical)  # (2, K, h, w)
        fine = torch.nn.functional.interpolate(coarse, (height, width), mode='bilinear', align_corners=False)
        return fine.transpose(0, 1).numpy()


def same_views(a: Inputs, b: Inputs) -> bool:
    """Whether both inputs have the same two images."""
    return all(np.array_equal(x.image, y.image) for x, y in ((a.first, b.first), (a.second, b.second)))
