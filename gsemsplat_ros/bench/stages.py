"""The stages that `gsemsplat bench` measures, from a pair of images to an answer, in both implementations.

The inputs of a stage are made once, by the stages before it, so that each can be repeated alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.bench import plain
from gsemsplat_ros.bench.flops import NOT_COUNTED, Flops, network_flops
from gsemsplat_ros.bench.tools import picture, unit_phrases, wall
from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.checkpoints.parity import covariances_xyzw, rule_model
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.gaussians.render_plain import Rendering
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import View, fit
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.network.inference import Inference
from gsemsplat_ros.network.model import Encoding, GSemSplat, Prediction
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.semantics.relevancy import Mixture, box_size, decide, smooth

WIDTH, HEIGHT = 512, 384  # of the network's input [px]
INPUT = 640, 480  # width and height of the camera's images [px]
# width and height of the queried rendering [px]: the published crop; that of the shipped network
DRAWN = {'large': (512, 512), 'small': (256, 192)}
PUBLIC_WIDTHS = (16, 64, 128, 512)  # of the decoders for `large`; the published ones were not released
Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Stage:
    """One step of both paths: `plain` and `fast` run it once and return its result.

    outputs: function of the result to the tensors, by name, that are compared between the paths, or None.
    network: whether the stage is part of the way from the pair to the Gaussians."""

    name: str
    plain: Callable[[], Any]
    fast: Callable[[], Any]
    flops: Flops = NOT_COUNTED
    outputs: Callable[[Any], Outputs] | None = None
    network: bool = False


@dataclass(frozen=True)
class Workload:
    """The inputs of both paths, for one `size` of network, 'small' or 'large'.

    model: for the plain path; fast: the fast path on a copy of it; weights: description; views: the pair;
    gaussians, camera: the rendered scene; phrases (5, C): unit, one query and four canonical phrases.
    """

    size: str
    device: torch.device
    model: GSemSplat
    fast: Inference
    decoders: Decoders
    weights: str
    views: tuple[View, View]
    gaussians: Gaussians
    camera: Camera
    phrases: Tensor

    @classmethod
    def of_size(cls, size: str, device: torch.device) -> Workload:
        """The workload of the shipped network ('small') or of the public architecture ('large')."""
        torch.manual_seed(0)
        if size == 'small':
            checkpoint = weights.load(device=device)
            model, text = checkpoint.model, 'those that ship'
            decoders = Decoders.from_state_dict(checkpoint.decoders, Mixture.of_card(checkpoint.card))
        else:
            model = rule_model(NetworkConfig.large()).to(device)
            text = 'random ones, by the rule of weights parity'
            decoders = Decoders.small(PUBLIC_WIDTHS)
        decoders = decoders.to(device).eval().requires_grad_(False)
        gaussians, camera = wall(*DRAWN[size], decoders.code_dim)
        return cls(
            size=size,
            device=device,
            model=model,
            fast=Inference(copy.deepcopy(model), device),
            decoders=decoders,
            weights=text,
            views=(View(picture(*INPUT, seed=0)), View(picture(*INPUT, seed=1))),
            gaussians=gaussians.to(device),
            camera=camera,
            phrases=unit_phrases(5, decoders.dim).to(device),
        )


def network_stages(work: Workload) -> list[Stage]:
    """The stages from the pair to the Gaussians and their codes."""
    model, fast = work.model, work.fast
    batch = upload(work)
    plain_encodings = plain.encode(model, batch)
    plain_tokens = plain.decode(model, *plain_encodings)
    images = fitted(work.views)
    fast_encodings = encode_new_keyframe(fast, images)
    flops = network_flops(model.config, HEIGHT, WIDTH)
    first = [
        Stage('preprocess', partial(upload, work), partial(fitted, work.views), network=True),
        Stage(
            'encode',
            partial(plain.encode, model, batch),
            partial(encode_new_keyframe, fast, images),
            flops['encode'],
            network=True,
        ),
    ]
    if work.device.type == 'cuda':  # the fast path has both in one CUDA graph
        return [
            *first,
            Stage(
                'decode and heads',
                lambda: plain.predict(model, *plain_encodings, plain.decode(model, *plain_encodings)),
                partial(fast.predict, *fast_encodings),
                flops['decode'] + flops['heads'],
                prediction_outputs,
                network=True,
            ),
        ]
    fast_tokens = fast.model.decode(*fast_encodings, fast.run)
    return [
        *first,
        Stage(
            'decode',
            partial(plain.decode, model, *plain_encodings),
            partial(fast.model.decode, *fast_encodings, fast.run),
            flops['decode'],
            network=True,
        ),
        Stage(
            'heads',
            partial(plain.predict, model, *plain_encodings, plain_tokens),
            partial(predict_side_by_side, fast, fast_encodings, fast_tokens),
            flops['heads'],
            prediction_outputs,
            network=True,
        ),
    ]


def fitted(views: Sequence[View]) -> list[np.ndarray]:
    """The images (HEIGHT, WIDTH, 3) uint8 of the network's input size."""
    return [fit(view, WIDTH, HEIGHT)[0].image for view in views]


def upload(work: Workload) -> Tensor:
    """The pair as one batch (2, 3, HEIGHT, WIDTH) on the device."""
    return torch.cat([work.fast.upload(image) for image in fitted(work.views)])


def encode_new_keyframe(fast: Inference, images: Sequence[np.ndarray]) -> tuple[Encoding, Encoding]:
    """The encodings of the pair: the first image is new, the second kept from the last call."""
    first, second = fast.encode([images[0].copy(), images[1]])
    return first, second


def predict_side_by_side(
    fast: Inference, encodings: Sequence[Encoding], tokens: tuple[list[Tensor], list[Tensor]]
) -> Prediction:
    """The heads of the fast path: no descriptors, both views at once."""
    model = fast.model
    return Prediction(
        *fast.run(
            partial(model.predict, model.downstream_head1, encodings[0], tokens[0], False),
            partial(model.predict, model.downstream_head2, encodings[1], tokens[1], False),
        )
    )


def scene_stages(work: Workload) -> list[Stage]:
    """The stages from the Gaussians to the answer to a phrase, on the fast path's rendering."""
    rendering = render(work.gaussians, work.camera, np.eye(4))
    alpha = rendering.alpha.cpu().numpy()
    features = plain.features(work.decoders, rendering.codes)
    hidden = work.decoders.prepare(rendering.codes, work.phrases[1:])
    return [
        Stage(
            'render',
            partial(plain.composite, work.gaussians, work.camera, np.eye(4)),
            partial(render, work.gaussians, work.camera, np.eye(4)),
            outputs=rendering_outputs,
        ),
        Stage(
            'decode codes',
            partial(plain.features, work.decoders, rendering.codes),
            partial(work.decoders.prepare, rendering.codes, work.phrases[1:]),
        ),
        Stage(
            'relevancy',
            lambda: published_relevancy(features, work.phrases, work.decoders, alpha),
            lambda: decided(
                hidden.relevancy(work.phrases[:1], partial(smooth, box=box_size(*alpha.shape)))[:, 0]
                .cpu()
                .numpy(),
                alpha,
            ),
            outputs=lambda relevancy: {'relevancy': torch.from_numpy(relevancy)},
        ),
    ]


def published_relevancy(
    features: tuple[Tensor, Tensor], phrases: Tensor, decoders: Decoders, alpha: np.ndarray
) -> np.ndarray:
    """The relevancy (H, W) as published: of both branches from features (H, W, C), each smoothed by a box
    filter, then that of the branch with the higher peak. A mixture smooths the contrasts instead."""
    box = box_size(*alpha.shape)
    kernel = np.full((box, box), 1 / box**2, np.float32)
    anchor = (box // 2, box // 2)

    def smoothed(maps: Tensor) -> np.ndarray:
        return np.stack(
            [
                (x + cv2.filter2D(x, -1, kernel, anchor=anchor, borderType=cv2.BORDER_REFLECT_101)) / 2
                for x in maps.cpu().numpy()
            ]
        )

    if decoders.mixture is None:
        return decided(smoothed(plain.relevancy(features, phrases[0], phrases[1:])), alpha)
    contrasts = torch.from_numpy(smoothed(plain.contrasts(features, phrases[0], phrases[1:])))
    return decided(plain.mixed(contrasts, decoders.mixture).numpy(), alpha)


def decided(smoothed: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The deciding branch (H, W) of smoothed relevancy (branches, H, W)."""
    return decide(smoothed, alpha, 0.5, 0.0).relevancy


def prediction_outputs(prediction: Prediction) -> Outputs:
    """Outputs of both views; covariances instead of scales and quaternions, which are ambiguous."""
    out: Outputs = {}
    for name, view in (('first', prediction.first), ('second', prediction.second)):
        assert view.scales is not None and view.quats_xyzw is not None
        values = {
            'pts3d': view.pts3d,
            'conf': view.conf,
            'means': view.means,
            'sh': view.sh,
            'opacities': view.opacities,
            'codes': view.codes,
            'covariances': covariances_xyzw(view.scales, view.quats_xyzw),
        }
        out.update({f'{key} of the {name} view': x for key, x in values.items() if x is not None})
    return out


def rendering_outputs(rendering: Rendering) -> Outputs:
    """All channels of a rendering."""
    return {f'drawn {field.name}': getattr(rendering, field.name) for field in fields(rendering)}
