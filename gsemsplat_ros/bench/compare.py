"""`gsemsplat bench`: the public algorithm in plain steps beside the fast path, stage by stage, interleaved in
one process.

Both have the same weights and see the same pictures. `small` are the weights that ship. `large` has random
ones by the rule of network/parity.py, for the public ones cannot be had here: the time does not depend on
them, but the differences between the paths are those of random weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gsemsplat_ros.bench import plain
from gsemsplat_ros.bench.tools import Memory, Times, machine, peak_product, picture, unit_phrases, wall
from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.checkpoints.parity import covariances_xyzw, rule_model
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.images.view import View, fit
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.network.inference import Inference, keep_memory
from gsemsplat_ros.network.model import GSemSplat, Prediction
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.semantics.relevancy import answer, box_size, smooth

WIDTH, HEIGHT = 512, 384  # of the network's pictures
INPUT = 640, 480  # of the camera's
DRAWN = {
    'large': (512, 512),
    'small': (256, 192),
}  # the picture that is drawn and asked: the published crop; what ships
REPEATS = {'large': 3, 'small': 7}
NETWORK = ('preprocess', 'encode', 'decode', 'heads', 'decode and heads')
# largest and mean difference of an output from the plain path, in parts of the output's range, bfloat16
TOLERANCE, MEAN_TOLERANCE = 0.15, 0.015
PUBLIC_WIDTHS = (16, 64, 128, 512)  # of the decoders for `large`: the published ones were never released


@dataclass(frozen=True)
class Stage:
    """One step of both paths: `plain` and `fast` do it once; plain_flops and fast_flops count it, 0: not
    counted.
    """

    name: str
    plain: Callable[[], object]
    fast: Callable[[], object]
    plain_flops: float = 0.0
    fast_flops: float = 0.0


def bench(
    size: str,
    device: torch.device,
    repeats: int = 0,
    more: Iterable[Callable[[object], Stage]] = (),
    step: Callable[[str], None] = lambda name: None,
) -> dict:
    """Measure; the result is what `gsemsplat bench --json` prints.

    repeats: of each stage (0: REPEATS); more: makers of further stages from the Gaussians that are drawn;
    `step` is told before each measurement what comes.
    """
    keep_memory()
    repeats = repeats or REPEATS[size]
    where = machine(device)
    with torch.inference_mode(), public_precision():
        work = Work(size, device)
        stages = [*work.network_stages(), *work.scene_stages(), *(make(work.gaussians) for make in more)]
        for stage in stages:  # libraries choose their kernels, compiled code is loaded
            step(f'{stage.name}, warming up')
            stage.plain() if stage.name in NETWORK else None
            stage.fast()
        dtype = torch.bfloat16 if work.fast.bf16 else torch.float32
        times = {stage.name: (Times(), Times()) for stage in stages}
        peaks: dict[torch.dtype, float] = {torch.float32: 0.0, dtype: 0.0}
        for repeat in range(repeats):
            for kind in peaks:
                step('matrix products')
                peaks[kind] = max(peaks[kind], peak_product(device, kind))
            for stage in stages:
                step(stage.name)
                # dense compositing takes longer than all else: twice is enough
                if stage.name != 'render' or repeat < 2:
                    times[stage.name][0].of(stage.plain, device)
                times[stage.name][1].of(stage.fast, device)
        memory = {}
        for name in ('plain', 'fast'):
            step(f'memory of the {name} path')
            with Memory(device) as used:
                for stage in stages:
                    if stage.name in NETWORK:
                        getattr(stage, name)()
            memory[name] = used.megabytes
        differences = work.differences()
    rows = {stage.name: row(stage, *times[stage.name]) for stage in stages}
    sums = {name: sum(rows[s][f'{name}_seconds'] for s in rows if s in NETWORK) for name in ('plain', 'fast')}
    flops = sum(stage.fast_flops for stage in stages)
    busy = sum(times[stage.name][1].median for stage in stages if stage.fast_flops)
    largest = max(d['largest'] for d in differences.values())
    mean = max(d['mean'] for d in differences.values())
    return {
        'size': size,
        'device': where,
        'pictures': f'{WIDTH}x{HEIGHT}',
        'drawn': 'x'.join(map(str, DRAWN[size])),
        'gaussians': len(work.gaussians),
        'weights': work.weights,
        'repeats': repeats,
        'plain_seconds': sums['plain'],
        'fast_seconds': sums['fast'],
        'ratio': sums['plain'] / sums['fast'],
        'fast_type': str(dtype).removeprefix('torch.'),
        'fast_flops_per_second': flops / busy,
        'peak_flops_per_second': peaks[dtype],
        'peak_float32_flops_per_second': peaks[torch.float32],
        'peak_fraction': flops / busy / peaks[dtype],
        'max_relative_difference': largest,
        'mean_relative_difference': mean,
        'tolerance': TOLERANCE,
        'mean_tolerance': MEAN_TOLERANCE,
        'within_tolerance': largest <= TOLERANCE and mean <= MEAN_TOLERANCE,
        'differences': differences,
        'peak_memory_megabytes': memory,
        'weights_megabytes': {'plain': megabytes(work.model), 'fast': megabytes(work.fast.model)},
        'gaussians_per_second': len(work.gaussians) / rows['render']['fast_seconds'],
        'stages': rows,
    }


@contextmanager
def public_precision() -> Iterator[None]:
    """On a GPU, float32 products as the public code has them: in TF32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class Work:
    """The workload of one size: models, pictures, the scene that is drawn, and the newest results of both
    paths.
    """

    def __init__(self, size: str, device: torch.device):
        self.size, self.device = size, device
        torch.manual_seed(0)
        if size == 'small':
            checkpoint = weights.load(device=device)
            self.model, self.weights = checkpoint.model, 'those that ship'
            self.decoders = (
                Decoders.from_state_dict(checkpoint.decoders).to(device).eval().requires_grad_(False)
            )
        else:
            self.model = rule_model(NetworkConfig.large()).to(device)
            self.weights = 'random ones, by the rule of weights parity'
            self.decoders = Decoders.small(PUBLIC_WIDTHS).to(device).eval().requires_grad_(False)
        self.fast = Inference(copy.deepcopy(self.model), device)
        self.views = [View(picture(*INPUT, seed)) for seed in (0, 1)]
        self.gaussians, self.camera = wall(*DRAWN[size])
        self.gaussians = self.gaussians.to(device)
        self.phrases = unit_phrases(5, self.decoders.dim).to(device)  # one that is asked, four canonical
        self.results: dict[str, tuple] = {}

    # Network

    def prepare(self) -> None:
        """What comes in: both views at the network's size, and a keyframe whose encoding is kept."""
        self.images = [fit(view, WIDTH, HEIGHT)[0].image for view in self.views]

    def network_stages(self) -> list[Stage]:
        self.prepare()
        upload = self.fast.upload
        self.batch = torch.cat([upload(image) for image in self.images])
        counts = flops(self.model.config)
        stages = [
            Stage('preprocess', self.prepare_tensors, self.prepare),
            Stage('encode', self.plain_encode, self.fast_encode, *counts['encode']),
        ]
        if self.device.type == 'cuda':  # recorded as one
            sums = [a + b for a, b in zip(counts['decode'], counts['heads'])]
            return [
                *stages,
                Stage(
                    'decode and heads',
                    lambda: (self.plain_decode(), self.plain_heads()),
                    self.fast_predict,
                    *sums,
                ),
            ]
        return [
            *stages,
            Stage('decode', self.plain_decode, self.fast_decode, *counts['decode']),
            Stage('heads', self.plain_heads, self.fast_heads, *counts['heads']),
        ]

    def prepare_tensors(self) -> None:
        self.prepare()
        self.batch = torch.cat([self.fast.upload(image) for image in self.images])

    def plain_encode(self) -> None:
        self.plain_encodings = plain.encode(self.model, self.batch)

    def fast_encode(self) -> None:
        """A new keyframe beside one that was encoded before."""
        if not hasattr(self, 'kept'):
            self.kept = self.images[1]
            self.fast.encode([self.kept])
        self.fast_encodings = self.fast.encode([self.images[0].copy(), self.kept])

    def plain_decode(self) -> None:
        self.plain_tokens = plain.decode(self.model, *self.plain_encodings)

    def fast_decode(self) -> None:
        self.fast_tokens = self.fast.model.decode(*self.fast_encodings, self.fast.both)

    def plain_heads(self) -> None:
        self.plain_prediction = plain.predict(self.model, *self.plain_encodings, self.plain_tokens)

    def fast_heads(self) -> None:
        model, (first, second), (own1, own2) = self.fast.model, self.fast_encodings, self.fast_tokens
        self.fast_prediction = Prediction(
            *self.fast.both(
                partial(model.predict, model.downstream_head1, first, own1, False),
                partial(model.predict, model.downstream_head2, second, own2, False),
            )
        )

    def fast_predict(self) -> None:
        self.fast_prediction = self.fast.predict(*self.fast_encodings)

    # Scene and words

    def scene_stages(self) -> list[Stage]:
        def drawn(path: str, draw: Callable) -> Callable[[], None]:
            def work() -> None:
                self.results[path] = draw(self.gaussians, self.camera, np.eye(4))

            return work

        drawn('fast', render)()
        self.codes, self.alpha = self.results['fast'].codes, self.results['fast'].alpha
        return [
            Stage('render', drawn('plain', plain.composite), drawn('fast', render)),
            Stage('decode codes', self.plain_features, self.fast_features),
            Stage('relevancy', self.plain_relevancy, self.fast_relevancy),
        ]

    def plain_features(self) -> None:
        self.features = None  # a gigabyte at 512 x 512
        self.features = plain.features(self.decoders, self.codes)

    def fast_features(self) -> None:
        self.hidden_codes = self.decoders.prepare(self.codes, self.phrases[1:])

    def plain_relevancy(self) -> None:
        """As published: relevancy of both heads, a box filter over each, the head with the higher peak and
        its mask.
        """
        if getattr(self, 'features', None) is None:
            self.plain_features()
        found = (
            plain.relevancy(self.features, self.phrases[0], self.phrases[1:], self.decoders.mixture)
            .cpu()
            .numpy()
        )
        box = box_size(*found.shape[1:])
        kernel = np.full((box, box), 1 / box**2, np.float32)
        smoothed = [
            (x + cv2.filter2D(x, -1, kernel, anchor=(box // 2, box // 2), borderType=cv2.BORDER_REFLECT_101))
            / 2
            for x in found
        ]
        self.plain_answer = answer(np.stack(smoothed), self.alpha.cpu().numpy(), 0.5, 0.0)

    def fast_relevancy(self) -> None:
        found = self.hidden_codes.relevancy(self.phrases[:1])[:, 0]
        smoothed = smooth(found, box_size(*found.shape[1:]))
        self.fast_answer = answer(smoothed.cpu().numpy(), self.alpha.cpu().numpy(), 0.5, 0.0)

    def differences(self) -> dict[str, dict[str, float]]:
        """Output -> its largest and mean difference between the paths, in parts of the plain one's range."""
        outputs = {}
        for name, theirs, ours in zip(
            ('first', 'second'), views(self.plain_prediction), views(self.fast_prediction)
        ):
            for key in theirs:
                outputs[f'{key} of the {name} view'] = ours[key], theirs[key]
        for field in fields(self.results['plain']):
            outputs[f'drawn {field.name}'] = tuple(
                getattr(self.results[path], field.name) for path in ('fast', 'plain')
            )
        outputs['relevancy'] = torch.from_numpy(self.fast_answer.map), torch.from_numpy(self.plain_answer.map)
        return {name: difference(*pair) for name, pair in outputs.items()}


def row(stage: Stage, slow: Times, fast: Times) -> dict:
    """A stage in numbers."""
    out = {
        'plain_seconds': slow.median,
        'plain_iqr_seconds': slow.spread,
        'fast_seconds': fast.median,
        'fast_iqr_seconds': fast.spread,
        'ratio': slow.median / fast.median,
    }
    if stage.fast_flops:
        out.update(
            plain_flops_per_second=stage.plain_flops / slow.median,
            fast_flops_per_second=stage.fast_flops / fast.median,
            plain_flops=stage.plain_flops,
            fast_flops=stage.fast_flops,
        )
    return out


def views(prediction: Prediction) -> list[dict[str, Tensor]]:
    """Outputs of both views by name; covariances for scales and quaternions, whose sign and order mean
    nothing.
    """
    out = []
    for view in (prediction.first, prediction.second):
        out.append(
            {
                'pts3d': view.pts3d,
                'conf': view.conf,
                'means': view.means,
                'sh': view.sh,
                'opacities': view.opacities,
                'codes': view.codes,
                'covariances': covariances_xyzw(view.scales, view.quats_xyzw),
            }
        )
    return out


def difference(ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """Largest and mean difference in parts of the range of `theirs`, where both are known."""
    ours, theirs = ours.float(), theirs.float()
    known = torch.isfinite(theirs) & torch.isfinite(ours)
    ours, theirs = ours[known], theirs[known]
    span = (theirs.max() - theirs.min()).clamp(min=1e-12)
    error = (ours - theirs).abs() / span
    return {'largest': float(error.max()), 'mean': float(error.mean())}


def flops(config: NetworkConfig) -> dict[str, tuple[float, float]]:
    """Stage -> floating-point operations of the plain path (both images encoded, all heads) and of the fast
    one, counted on tensors without data."""
    with torch.device('meta'):
        model = GSemSplat(config).eval()
    images = torch.zeros(2, 3, HEIGHT, WIDTH, device='meta')

    def count(work: Callable) -> tuple[float, object]:
        with FlopCounterMode(display=False) as counter:
            result = work()
        return float(counter.get_total_flops()), result

    both, encodings = count(lambda: model.encode(images).split())
    one, _ = count(lambda: model.encode(images[:1]))
    decode, tokens = count(lambda: model.decode(*encodings))
    heads = [
        sum(
            count(lambda: model.predict(head, encoding, own, descriptors))[0]
            for head, encoding, own in zip(
                (model.downstream_head1, model.downstream_head2), encodings, tokens
            )
        )
        for descriptors in (config.descriptors, False)
    ]
    return {'encode': (both, one), 'decode': (decode, decode), 'heads': tuple(heads)}


def megabytes(model: torch.nn.Module) -> float:
    """Of a model's weights."""
    return sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
