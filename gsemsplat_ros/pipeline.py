"""The face of the ROS-free core: build a scene from a pair once, then ask it many words.

pipeline = Pipeline.load()
scene = pipeline.build(Pair(View(left), View(right)))
answer = pipeline.query(scene, 'chair')
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gsemsplat_ros.checkpoints import checkpoint as checkpoints
from gsemsplat_ros.device import choose
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.geometry.matches import match_pair
from gsemsplat_ros.geometry.solve import solve
from gsemsplat_ros.images.view import Pair, fit, network_size
from gsemsplat_ros.network.inference import Inference, keep_memory
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.scene.coded_file import CodeSpace
from gsemsplat_ros.scene.map import Map
from gsemsplat_ros.scene.map_index import MapIndex
from gsemsplat_ros.scene.scene import Keyframe, Scene
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.semantics.objects import Object, find_objects
from gsemsplat_ros.semantics.relevancy import CANONICAL, MIN_ALPHA, Answer, Mixture, answer, box_size, smooth
from gsemsplat_ros.semantics.text import TextEncoder, load_text_encoder

MAX_TEXT = 200  # characters: longer phrases are no names of things
THRESHOLD = 0.5  # relevancy below which a phrase is not found (LERF)
FAINT = 0.4  # of the full heat, for what was not found
TOGETHER = 8  # phrases that are compared at once: bounds the memory
MIN_IN_CELL = 3  # Gaussians in a cell of the map, fewer are strays
MIN_IN_OBJECT = 10  # Gaussians of an object in the map, each of which stands for a voxel
TOUCHING = 3  # voxels of the map across which an object goes on: what is far away was seen in wide steps
SAME_SURFACE = 0.1  # a Gaussian within this fraction of the rendered depth belongs to what is seen


@dataclass(frozen=True)
class Relevancy:
    """What a scene answers to one phrase.

    map (h, w) float32: relevancy in [0, 1] over the keyframe's rendering, NaN where nothing was rendered;
    score: its peak; found: score >= threshold; branch: 0 region-specific, 1 context-aware, 0 where both are
    mixed; peak_pixel (u, v) in the first input image; peak_point (3,) [m] in the scene's frame; objects: best
    first, empty when not found.
    """

    text: str
    found: bool
    score: float
    threshold: float
    branch: int
    map: np.ndarray
    peak_pixel: tuple[float, float]
    peak_point: tuple[float, float, float] | None
    objects: tuple[Object, ...]

    @property
    def heat(self) -> np.ndarray:
        """`map` for the eye: the upper half of its own range as 0..1 (docs/published.md 29), faint when
        nothing was found; NaN stays."""
        known = self.map[np.isfinite(self.map)]
        if not known.size:
            return self.map
        level = np.clip(2 * (self.map - known.min()) / max(known.max() - known.min(), 1e-9) - 1, 0, 1)
        return level if self.found else FAINT * level


@dataclass(frozen=True)
class MapRelevancy:
    """What a map answers to one phrase.

    relevancy (N,) float32: of the map's Gaussians, smoothed, in [0, 1], NaN for strays; score: its peak;
    found: score >= threshold; branch: as of Relevancy; peak_point (3,) [m] in the map's frame, None in an
    empty map; objects: in the map's frame, best first, empty when not found.
    """

    text: str
    found: bool
    score: float
    threshold: float
    branch: int
    relevancy: np.ndarray
    peak_point: tuple[float, float, float] | None
    objects: tuple[Object, ...]


class Pipeline:
    """A network, its text space and a device. `build` belongs to one thread; `query` may run beside it."""

    def __init__(
        self,
        checkpoint: checkpoints.Checkpoint,
        text_encoder: TextEncoder,
        device: torch.device,
        square: bool = False,
        canonical: tuple[str, ...] = CANONICAL,
        exact: bool = False,
    ):
        self.model: GSemSplat = checkpoint.model
        self.card = checkpoint.card
        self.weights = checkpoint.path.name
        self.decoders = Decoders.from_state_dict(checkpoint.decoders).to(device).eval().requires_grad_(False)
        self.text_encoder = text_encoder
        self.device = device
        self.network = Inference(self.model, device, exact)
        self.square = square
        self.canonical = text_encoder.encode(canonical)
        if 'mixture' in checkpoint.card:
            self.decoders.mixture = Mixture(**checkpoint.card['mixture'])
        self.code_space = CodeSpace.of(checkpoint.path.name, text_encoder.name, checkpoint.decoders)
        self._map_index: MapIndex | None = None  # of the map that was asked last
        self._map_lock = threading.Lock()

    @classmethod
    def load(
        cls,
        weights: str | Path | None = None,
        device: str = 'auto',
        text_checkpoint: str | Path | None = None,
        square: bool = False,
        canonical: tuple[str, ...] = CANONICAL,
        exact: bool = False,
    ) -> Pipeline:
        """`weights`: a checkpoint of ours (None: the shipped small network); `device`: 'auto', 'cpu' or
        'cuda'; `text_checkpoint`: the OpenCLIP file for a checkpoint that names OpenCLIP; `square`: the
        published 512 x 512 centre crop instead of the whole field of view; `canonical`: phrases that every
        query is compared with; `exact`: the network computes in float32 even where the machine has units for
        bfloat16. These are about three times as fast and change an output by a hundredth of its range at most
        in the mean (`gsemsplat bench` measures both).

        On Linux the process keeps up to half a gigabyte of freed memory from then on.
        Raises ValueError in one line for a file or device that cannot be used.
        """
        chosen = choose(device)
        keep_memory()
        checkpoint = checkpoints.load(weights, chosen)
        if not checkpoint.decoders:
            raise ValueError(
                f'{checkpoint.path} has no semantic decoders, so it cannot answer words: '
                'give a GSemSplat checkpoint'
            )
        mean = None if checkpoint.text_mean is None else checkpoint.text_mean.cpu().numpy()
        encoder = load_text_encoder(checkpoint.card['text_encoder'], text_checkpoint, mean)
        return cls(checkpoint, encoder, chosen, square, canonical, exact)

    @torch.inference_mode()
    def build(self, pair: Pair) -> Scene:
        """One forward pass, pose, scale, and the rendering that queries read. Raises ValueError for a pair
        without depth.
        """
        clock = Clock()
        height, width = pair.first.image.shape[:2]
        size = network_size(width, height, self.model.config.long_side, self.square)
        first, second = fit(pair.first, *size), fit(pair.second, *size)
        clock.lap('preprocess')
        encodings = self.network.encode(
            (first.view.image, second.view.image), (pair.first.image, pair.second.image)
        )
        clock.lap('encode')
        prediction = self.network.predict(*encodings)
        clock.lap('predict')
        matches = match_pair(pair)  # on the CPU, while a GPU works
        clock.lap('match')
        self.network.wait()
        clock.lap('predict')
        solved = solve(pair, first, second, prediction, matches)
        gaussians = Gaussians.from_prediction(solved.prediction, pair.first.frame).scaled(solved.scale)
        clock.lap('pose')
        rendering = render(gaussians, solved.camera, np.eye(4))
        clock.lap('render')
        hidden = self.decoders.prepare(rendering.codes, self.canonical, rendering.alpha)
        clock.lap('decode')
        keyframe = Keyframe(
            solved.camera,
            rendering,
            hidden,
            pair.first.image,
            first.window,
            pair.first.frame,
            pair.first.stamp_ns,
        )
        return Scene(
            gaussians,
            keyframe,
            solved.first_from_second,
            solved.scale,
            solved.scale_source,
            solved.inliers,
            solved.points,
            clock.laps,
        )

    @torch.inference_mode()
    def query(
        self, scene: Scene, text: str, threshold: float | None = None, max_objects: int = 8
    ) -> Relevancy:
        """Where in the scene `text` is. `threshold`: relevancy (0, 1) from which it counts as found (None:
        0.5).

        Raises ValueError for an empty or very long text and a threshold outside (0, 1).
        """
        return self.query_all(scene, (text,), threshold, max_objects)[0]

    def query_all(
        self, scene: Scene, texts: Sequence[str], threshold: float | None = None, max_objects: int = 8
    ) -> list[Relevancy]:
        """`query` for each of `texts`, in their order; several are compared in one product. Errors as of
        `query`.
        """
        threshold = THRESHOLD if threshold is None else threshold
        texts = [self._question(text, threshold)[0] for text in texts]
        keyframe, rendering = scene.keyframe, scene.keyframe.rendering
        alpha, depth = rendering.alpha.cpu().numpy(), rendering.depth.cpu().numpy()
        inside, box = rendering.alpha >= MIN_ALPHA, box_size(*alpha.shape)
        answers = []
        for start in range(0, len(texts), TOGETHER):
            some = texts[start : start + TOGETHER]
            relevancy = keyframe.hidden_codes.relevancy(self.text_encoder.encode(some))  # (2 or 1, K, h, w)
            for k, text in enumerate(some):  # one map stays in the cache, several do not
                smoothed = smooth(relevancy[:, k], box, inside).cpu().numpy()
                result = answer(smoothed, alpha, threshold, MIN_ALPHA)
                answers.append(self._answer(scene, text, result, depth, threshold, max_objects))
        return answers

    def _answer(
        self, scene: Scene, text: str, result: Answer, depth: np.ndarray, threshold: float, max_objects: int
    ) -> Relevancy:
        """Where in space lies what the map of one phrase shows; depth (h, w) [m] of the rendering."""
        if not np.isfinite(result.peak).all():
            return Relevancy(
                text, False, 0.0, threshold, result.branch, result.map, (np.nan, np.nan), None, ()
            )
        keyframe = scene.keyframe
        u, v = int(result.peak[0]), int(result.peak[1])
        pixel = tuple(float(x) for x in keyframe.to_input_pixel(np.array(result.peak)))
        camera = keyframe.camera
        point = tuple(float(x) for x in depth[v, u] * camera.rays(np.array([u, v])))
        objects = (
            find_objects(
                *self.scored(scene, result.map, result.mask, depth), gate=threshold, max_objects=max_objects
            )
            if result.found
            else ()
        )
        return Relevancy(
            text, result.found, result.score, threshold, result.branch, result.map, pixel, point, objects
        )

    def query_map(
        self, map_: Map, text: str, threshold: float | None = None, max_objects: int = 8
    ) -> MapRelevancy:
        """Where in the whole map `text` is; arguments and errors as of `query`.

        The first question to a new map decodes what changed since the one asked before; later ones take
        milliseconds.
        """
        text, threshold = self._question(text, threshold)
        words = self.map_index(map_)
        if not len(map_):
            return MapRelevancy(text, False, 0.0, threshold, 0, np.zeros(0, np.float32), None, ())
        relevancy, support = words.smooth(
            words.relevancy(self.text_encoder.encode([text]))[:, 0].cpu().numpy()
        )
        result = answer(relevancy[..., None], support[:, None], threshold, MIN_IN_CELL)
        if not np.isfinite(result.peak).all():
            return MapRelevancy(text, False, 0.0, threshold, result.branch, result.map[:, 0], None, ())
        means, opacities = map_.gaussians.means.numpy(), map_.gaussians.opacities.numpy()
        objects = (
            find_objects(
                means,
                np.where(result.mask[:, 0], result.map[:, 0], np.nan),
                opacities,
                threshold,
                voxel=TOUCHING * map_.voxel,
                min_points=MIN_IN_OBJECT,
                max_objects=max_objects,
            )
            if result.found
            else ()
        )
        return MapRelevancy(
            text,
            result.found,
            result.score,
            threshold,
            result.branch,
            result.map[:, 0],
            tuple(means[int(result.peak[1])].tolist()),
            objects,
        )

    def map_index(self, map_: Map) -> MapIndex:
        """The map made ready for words, kept until another map is asked."""
        with self._map_lock:
            if self._map_index is None or self._map_index.map is not map_:
                self._map_index = MapIndex.prepare(map_, self.decoders, self.canonical, self._map_index)
            return self._map_index

    def _question(self, text: str, threshold: float | None) -> tuple[str, float]:
        """A question that can be asked. Raises ValueError."""
        text = text.strip()
        if not text:
            raise ValueError("empty query: ask for a thing, such as 'chair'")
        if len(text) > MAX_TEXT:
            raise ValueError(f'query of {len(text)} characters: wanted at most {MAX_TEXT}; name one thing')
        threshold = THRESHOLD if threshold is None else threshold
        if not 0 < threshold < 1:
            raise ValueError(f'threshold {threshold}: wanted a relevancy between 0 and 1')
        return text, threshold

    def scored(
        self, scene: Scene, relevancy: np.ndarray, mask: np.ndarray, depth: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means (N, 3), scores (N,) and opacities (N,): each Gaussian of the seen surface gets the relevancy
        of the pixel that it falls on, if that pixel belongs to the phrase; the others get NaN."""
        camera, gaussians = scene.keyframe.camera, scene.gaussians
        means = gaussians.means.cpu().numpy()
        uv, in_front = camera.project(means)
        pixels, inside = camera.index(uv)
        near = np.abs(means[:, 2] - depth[pixels]) <= SAME_SURFACE * depth[pixels]
        seen = in_front & inside & mask[pixels] & near
        return means, np.where(seen, relevancy[pixels], np.nan), gaussians.opacities.cpu().numpy()


class Clock:
    """Seconds between laps; laps of one name add up."""

    def __init__(self):
        self.laps: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self.last
        self.last = now
