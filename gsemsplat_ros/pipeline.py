"""The entry to the core without ROS: build a scene from a pair once, then query it many times.

pipeline = Pipeline.load()
scene = pipeline.build(Pair(View(left), View(right)))
answer = pipeline.query(scene, 'chair')  # or Question('chair', threshold=0.6); a map: pipeline.index(map)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from gsemsplat_ros.checkpoints import checkpoint as checkpoints
from gsemsplat_ros.checkpoints.backbone import load_backbone
from gsemsplat_ros.device import choose, upload, within_gpu_memory
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.geometry.matches import match_pair
from gsemsplat_ros.geometry.solve import solve
from gsemsplat_ros.images.calibration import doubt_camera
from gsemsplat_ros.images.detail import check_image
from gsemsplat_ros.images.view import Pair, fit, network_size
from gsemsplat_ros.mapping.ask_map import ask_map
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_index import MapIndex
from gsemsplat_ros.network.backbone import Backbone, with_geometry
from gsemsplat_ros.network.config import CLASSES
from gsemsplat_ros.network.inference import Inference, keep_memory
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.network.nanodet import OBJECTS
from gsemsplat_ros.scene.ask import ask_scene, not_asked
from gsemsplat_ros.scene.coded_file import CodeSpace
from gsemsplat_ros.scene.scene import Keyframe, Scene, drawn_for_queries
from gsemsplat_ros.semantics.answer import THRESHOLD, Answer, Question
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.semantics.relevancy import CANONICAL, Mixture
from gsemsplat_ros.semantics.text import TextEncoder
from gsemsplat_ros.semantics.text_spaces import load_text_encoder
from gsemsplat_ros.semantics.words import read

TOGETHER = 8  # phrases compared at once: bounds the memory


class Pipeline:
    """A network, its text space and a device. One thread builds; `query` may run in another meanwhile."""

    def __init__(
        self,
        checkpoint: checkpoints.Checkpoint,
        text_encoder: TextEncoder,
        device: torch.device,
        square: bool = False,
        canonical: tuple[str, ...] = CANONICAL,
        exact: bool = False,
        geometry: tuple[Backbone, str] | None = None,
    ):
        self.model: GSemSplat = checkpoint.model
        self.card = checkpoint.card
        self.weights = checkpoint.path.name
        mixture = Mixture.of_card(checkpoint.card)
        self.threshold = mixture.threshold if mixture else THRESHOLD
        decoders = Decoders.from_state_dict(checkpoint.decoders, mixture)
        check_sizes(checkpoint, decoders, text_encoder)
        self.decoders = decoders.to(device).eval().requires_grad_(False)
        self.text_encoder = text_encoder
        self.device = device
        self.network = Inference(self.model, device, exact)
        self.backbone = geometry[0] if geometry else None
        self.geometry = geometry[1] if geometry else ''  # by what the points are made, in words
        # without calibration, a public network's points are left alone
        self.as_published = self.backbone is None and (exact or not self.model.config.stem)
        self.square = square
        self.canonical = upload(text_encoder.encode(canonical), device)
        self.code_space = CodeSpace.of(
            checkpoint.path.name, text_encoder.name, checkpoint.decoders, decoders.code_dim
        )

    @classmethod
    def load(
        cls,
        weights: str | Path | None = None,
        device: str = 'auto',
        text_checkpoint: str | Path | None = None,
        square: bool = False,
        canonical: tuple[str, ...] = CANONICAL,
        exact: bool = False,
        geometry: str | Path | None = None,
    ) -> Pipeline:
        """A pipeline from files.

        weights: a checkpoint of this package (None: the shipped small network); device: 'auto', 'cpu' or
        'cuda'; text_checkpoint: the OpenCLIP file, for a checkpoint with that text encoder; square: the
        published 512 x 512 centre crop instead of the whole field of view; canonical: phrases that every
        query is compared with; exact: compute the network in float32 even where the machine has units for
        bfloat16, and leave the points of a pair without calibration as predicted (a public network's always
        are). These units are about three times as fast and change an output by at most a hundredth of its
        range in the mean (`gsemsplat bench` measures both). geometry: the file of another network that
        makes the points (Depth Anything 3, docs/backbones.md); the network of `weights` sees the words.

        On Linux the process keeps up to half a gigabyte of freed memory from then on.
        Raises ValueError in one line for a file or device that cannot be used; NoGpuMemory, which is one.
        """
        chosen = choose(device)
        keep_memory()
        return within_gpu_memory(
            lambda: cls._load(weights, chosen, text_checkpoint, square, canonical, exact, geometry),
            'the network',
        )

    @classmethod
    def _load(
        cls,
        weights: str | Path | None,
        chosen: torch.device,
        text_checkpoint: str | Path | None,
        square: bool,
        canonical: tuple[str, ...],
        exact: bool,
        geometry: str | Path | None,
    ) -> Pipeline:
        checkpoint = checkpoints.load(weights, chosen)
        if not checkpoint.decoders:
            raise ValueError(
                f'{checkpoint.path} has no semantic decoders, so it cannot answer words: '
                'give a GSemSplat checkpoint'
            )
        backbone = None if geometry is None else load_backbone(geometry, chosen, exact)
        mean = None if checkpoint.text_mean is None else checkpoint.text_mean.cpu().numpy()
        encoder = load_text_encoder(checkpoint.card.get('text_encoder'), text_checkpoint, mean)
        return cls(checkpoint, encoder, chosen, square, canonical, exact, backbone)

    def build(self, pair: Pair) -> Scene:
        """The scene of `pair`: one pass of the network, its geometry and Gaussians, and the rendering that
        queries read, with its codes prepared.

        Raises ValueError for an image that is too small or shows nothing, a camera that cannot be one, and a
        stereo pair whose images are none; NoGpuMemory, which is one.
        """
        height, width = pair.first.image.shape[:2]
        what = f'a pair of {width}x{height} px'
        return within_gpu_memory(lambda: self._build(pair), what, self.network.forget)

    @torch.inference_mode()
    def _build(self, pair: Pair) -> Scene:
        clock = Clock()
        for view, name in (pair.first, 'the first image'), (pair.second, 'the second image'):
            check_image(view.image, name)
            if doubt := view.camera and doubt_camera(view.camera, whole=False):
                raise ValueError(f'the camera of {name}: {doubt}')
        height, width = pair.first.image.shape[:2]
        size = network_size(width, height, self.model.config.long_side, self.square)
        first, second = fit(pair.first, *size), fit(pair.second, *size)
        clock.lap('preprocess')
        encoded_first, encoded_second = self.network.encode(
            (first.view.image, second.view.image), (pair.first.image, pair.second.image)
        )
        clock.lap('encode')
        # one descriptor for 4 x 4 pixels, as the small network has them, is too coarse for a motion
        described = pair.baseline_m is None and not self.model.config.shared_trunk
        prediction = self.network.predict(encoded_first, encoded_second, described)
        if self.backbone is not None:
            images = encoded_first.images, encoded_second.images
            prediction = with_geometry(prediction, self.backbone(*images), images)
        clock.lap('predict')
        matches = match_pair(pair)  # on the CPU, while a GPU works
        clock.lap('match')
        self.network.wait()
        clock.lap('predict')
        solved = solve(pair, first, second, prediction, matches, self.as_published)
        # what cannot be placed in the first view would cover what is there
        placed = solved.first_from_second is not None or self.as_published
        gaussians = Gaussians.from_prediction(solved.prediction, pair.first.frame, placed).scaled(
            solved.scale
        )
        clock.lap('pose')
        # the picture itself is asked where the text space has its classes, else the codes alone
        counts = None
        if encoded_first.context is not None and self.decoders.summed:
            counts = encoded_first.context[0]
        rendering = render(drawn_for_queries(gaussians, counts), solved.camera, np.eye(4))
        clock.lap('render')
        hidden = self.decoders.prepare(rendering.codes, self.canonical, rendering.alpha, counts)
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
            solved.focal_source,
            solved.focal_spread,
            solved.measured,
        )

    def query(self, target: Scene | MapIndex, question: Question | str) -> Answer:
        """The answer of the scene, or of the whole map, to `question`; a text has the default threshold. What
        the text encoder does not understand is in the answer's note.

        Raises ValueError for an unusable text (see Question), NoGpuMemory, which is one.
        """
        return self.query_all(target, (question,))[0]

    def query_all(self, target: Scene | MapIndex, questions: Sequence[Question | str]) -> list[Answer]:
        """`query` for each of `questions`, in order; for a scene several are compared in one product.

        Raises ValueError as `query`.
        """
        return within_gpu_memory(lambda: self._query_all(target, questions), 'the question')

    def _query_all(self, target: Scene | MapIndex, questions: Sequence[Question | str]) -> list[Answer]:
        asked = [Question(question) if isinstance(question, str) else question for question in questions]
        asked = [replace(each, threshold=each.threshold or self.threshold) for each in asked]
        readings = [read(each.text, self.text_encoder.knows) for each in asked]
        understood = [(each, reading.words) for each, reading in zip(asked, readings) if reading.words]
        answers = self._ask(target, understood)
        return [
            replace(next(answers) if reading.words else nothing(target, each), note=reading.note)
            for each, reading in zip(asked, readings)
        ]

    def _ask(self, target: Scene | MapIndex, asked: Sequence[tuple[Question, str]]) -> Iterator[Answer]:
        """The answers to questions, each with the words that stand for it."""
        if isinstance(target, MapIndex):
            for question, words in asked:
                yield ask_map(target, question, self.text_encoder.encode([words]))
            return
        for start in range(0, len(asked), TOGETHER):
            some = asked[start : start + TOGETHER]
            phrases = self.text_encoder.encode([words for _, words in some])
            yield from ask_scene(target, [question for question, _ in some], phrases)

    def index(self, map_: Map, before: MapIndex | None = None) -> MapIndex:
        """The map prepared for `query`; codes that did not change since `before` are not decoded again."""
        return within_gpu_memory(
            lambda: MapIndex.prepare(map_, self.decoders, self.canonical, before), 'the codes of the map'
        )


def nothing(target: Scene | MapIndex, question: Question) -> Answer:
    """The answer to a question of which nothing is understood."""
    if isinstance(target, MapIndex):
        return not_asked(question, len(target.map))
    return not_asked(question, len(target.gaussians), target.keyframe.rendering.alpha.shape)


def check_sizes(checkpoint: checkpoints.Checkpoint, decoders: Decoders, text_encoder: TextEncoder) -> None:
    """Raises ValueError for decoders that lead from other codes than the network's, or to another space than
    the text encoder's."""
    config = checkpoint.model.config
    found, wanted = (decoders.code_dim, decoders.dim), (config.code_dim, text_encoder.dim)
    if found != wanted:
        raise ValueError(
            f'{checkpoint.path}: its decoders lead from {found[0]} to {found[1]} channels, wanted '
            f'{wanted[0]} of its network to {wanted[1]} of {text_encoder.name}: convert or train it again'
        )
    if decoders.summed and decoders.dims[1] != CLASSES + OBJECTS:
        raise ValueError(
            f'{checkpoint.path}: its context decoder has {decoders.dims[1]} classes, wanted '
            f'{CLASSES + OBJECTS}: convert or train it again'
        )


class Clock:
    """Seconds between laps; laps of one name add up."""

    def __init__(self):
        self.laps: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self.last
        self.last = now
