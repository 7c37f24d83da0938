"""The training of semantic heads and code decoders on a network that predicts points and Gaussians
(docs/published.md 38, 41).

Codes are drawn at target views, decoded, and compared with the prepared region-specific and context-aware
maps.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import Tensor, nn

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.checkpoints.lpips import LPIPS
from gsemsplat_ros.datasets.sources import SceneSampler, SceneViews, open_source
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.supervision.features import Features
from gsemsplat_ros.training.distributed import Processes
from gsemsplat_ros.training.loop import go, stop_asked
from gsemsplat_ros.training.losses import item
from gsemsplat_ros.training.semantic_batches import Views, collate
from gsemsplat_ros.training.semantic_losses import WEIGHTS, semantic_losses
from gsemsplat_ros.training.semantic_pictures import pictures
from gsemsplat_ros.training.trainer import Trainer, part, short_digest

DECODER = (
    16,
    32,
    64,
    128,
    256,
    256,
)  # widths before the text space; LangSplat's, for the paper's are not published
LANGUAGE_CHANNELS = 33  # of the public head; the last is never read
DECAY, DECAYED = (
    10 / 12,
    0.1,
)  # part of the steps after which the rate falls, and to what (published: epoch 10)
TERMS = 'total', *WEIGHTS
HEADS = {  # what is trained: parts of parameter names
    'semantics': ('.gaussian_language.', 'model.context.code.', 'codec.'),
    'gaussians': ('.gaussian_language.', 'model.context.code.', 'codec.', '.gaussian_dpt.'),
    'all': ('',),
}
FROZEN = 'model.stem.', 'model.context.features.', 'model.context.classifier.'  # the packaged classifier


class SemanticObjective(nn.Module):
    """Network, decoders and losses in one: pairs to what is minimised."""

    def __init__(self, model: GSemSplat, decoders: Decoders, perceptual: LPIPS | None, tuned: bool):
        super().__init__()
        self.model, self.codec, self.perceptual, self.tuned = model, decoders, perceptual, tuned

    def train(self, mode: bool = True) -> SemanticObjective:
        """Stays in evaluation mode: a public decoder may hold batch norms, whose statistics are to stay."""
        return super().train(False)

    def forward(self, pairs: list[Views], seeds: list[int]) -> Tensor:
        """The means (len(TERMS),) of every term over `pairs`; a term that a pair lacks is 0. Every pair has
        losses and random numbers of its own, so that they are the same on whatever process it is."""
        images = torch.cat([pair.images for pair in pairs], 1)
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            prediction = self.model(*images)
        true_points = self.model.config.stem  # the small network's geometry is soft, as in its own training
        terms = [
            semantic_losses(
                item(prediction, b),
                pair,
                self.codec,
                self.perceptual,
                true_points,
                self.tuned,
                torch.Generator().manual_seed(seed),
            )
            for b, (pair, seed) in enumerate(zip(pairs, seeds))
        ]
        zero = images.new_zeros(())
        return torch.stack([sum((t.get(name, zero) for t in terms), zero) for name in TERMS]) / len(pairs)


class SemanticHeadsTrainer(Trainer):
    """State of one training."""

    terms = TERMS
    shown = 'total', 'region', 'context', 'colour'
    checkpoint = 'semantics.safetensors'
    clip = 0.5  # published
    save_every = 500

    def __init__(
        self, args: argparse.Namespace, samples: SceneSampler, features: Features, processes: Processes
    ):
        self.samples, self.features, self.space = samples, features, features.space()
        torch.manual_seed(args.seed)
        state = self.begin(args, processes)
        path = args.init or weights.SHIPPED
        start = weights.load(path)
        if processes.first:
            parent = {
                'file': path.name,
                'sha256': short_digest(path),
                'steps': start.card.get('training', {}).get('steps'),
            }
            if self.facts.setdefault('parent', parent) != parent:
                raise ValueError(
                    f'{args.out} started from {self.facts["parent"]["file"]} '
                    f'({self.facts["parent"]["sha256"]}), and {path} is another file: give that one as --init'
                )
            if self.facts.setdefault('tune', args.tune) != args.tune:
                raise ValueError(
                    f'{args.out} trains --tune {self.facts["tune"]}, got {args.tune}: give another --out'
                )
        self.licence = start.card.get('licence')
        model = with_heads(start)
        decoders = self.decoders(start)
        perceptual = LPIPS.load(args.lpips) if args.lpips else None
        objective = SemanticObjective(model, decoders, perceptual, args.tune == 'all')
        for name, p in objective.named_parameters():
            p.requires_grad_(
                any(word in name for word in HEADS[args.tune])
                and not name.startswith((*FROZEN, 'perceptual.'))
            )
        if state:
            objective.load_state_dict(part(state, 'weights'), strict=False)
        if model.config.stem:
            model.to(memory_format=torch.channels_last)  # what bf16 convolutions are fastest in
        self.optimize(objective, state, weight_decay=0.0, betas=(0.9, 0.999))  # published: Adam without decay
        # always the same pair, whatever the run has drawn before
        self.shown_sample = samples.draw(np.random.default_rng(0)) if processes.first else None

    def decoders(self, start: weights.Checkpoint) -> Decoders:
        """Those of the checkpoint where they lead into the prepared text space, else new ones."""
        if start.decoders and start.card.get('text_encoder') == self.space.encoder:
            return Decoders.from_state_dict(start.decoders)
        return Decoders.small((*DECODER, self.space.dim))

    def pair(self, step: int, number: int) -> Views:
        return self.on_device(
            self.collate(self.samples.draw(np.random.default_rng((self.args.seed, step, number))))
        )

    def collate(self, sample: SceneViews) -> Views:
        """A sample with what its targets are to say."""
        wanted = [self.features.load(frame.scene, frame.name) for frame in sample.frames[2:]]
        for frame, supervision in zip(sample.frames[2:], wanted):
            if (
                supervision.features.shape[1:] != (self.space.dim,)
                or supervision.ids.shape != frame.image.shape[:2]
            ):
                raise ValueError(
                    f'{self.features.path(frame.scene, frame.name)} does not fit '
                    f'{self.features.folder}: delete it and prepare again'
                )
        return collate(sample, wanted, self.objective.model.config.output_stride)

    def rate(self) -> float:
        return self.args.lr * (1.0 if self.step < DECAY * self.args.steps else DECAYED)

    def save(self) -> np.ndarray:
        """Write the state and the checkpoint. Returns what the averaged network does with a pair
        (`pictures`).
        """
        # what is frozen stays in the file that the run started from
        self.save_state(self.trained)
        model, decoders = self.objective.model, self.objective.codec
        with self.averaged():
            tensors = {**model.state_dict(), **decoders.state_dict()}
            if self.space.text_mean is not None:
                tensors[weights.TEXT_MEAN] = torch.tensor(self.space.text_mean)
            # the public weights are kept as they are
            tensors = {
                name: t.cpu().half() if model.config.stem and t.is_floating_point() else t.cpu()
                for name, t in tensors.items()
            }
            weights.save(self.args.out / self.checkpoint, tensors, self.card())
            return pictures(
                model, decoders, self.shown_sample, self.on_device(self.collate(self.shown_sample))
            )

    def card(self) -> dict:
        """What the checkpoint is: how, where and on what it was trained."""
        space, args = self.space, self.args
        training = {
            **self.spent(),
            'kind': 'semantics',
            'tune': args.tune,
            'perceptual_loss': bool(args.lpips),
            'data': {
                'source': space.source,
                'split': space.split,
                'scenes': len(self.samples.source.scenes),
                'height': space.height,
                'width': space.width,
                'regions': space.regions,
                'encoder': space.encoder,
            },
            'parent': self.facts['parent'],
        }
        return {
            'config': self.objective.model.config.to_json(),
            'kind': 'gsemsplat',
            'text_encoder': space.encoder,
            'licence': self.licence,
            'training': training,
        }


def with_heads(start: weights.Checkpoint) -> GSemSplat:
    """The network of a checkpoint with Gaussian and language heads; those that it lacks are new."""
    config = start.model.config
    wanted = config.replace(gaussians=True, language_channels=config.language_channels or LANGUAGE_CHANNELS)
    if wanted == config:
        return start.model
    model = GSemSplat(wanted)
    missing, unexpected = model.load_state_dict(start.model.state_dict(), strict=False)
    assert not unexpected and all('gaussian_' in name for name in missing), (missing, unexpected)
    return model


def run(args: argparse.Namespace, quiet: bool = False) -> dict | None:
    """Train until `args.steps`, `args.minutes` or Ctrl-C. The first process returns {'steps', 'checkpoint',
    'losses'}.

    Raises ValueError for what the user can mend.
    """
    deadline = time.monotonic() + 60 * args.minutes if args.minutes else float('inf')
    processes = Processes(args.device)
    parts = processes.count * args.accumulate
    if args.batch % parts:
        raise ValueError(
            f'{args.batch} pairs a step for {processes.count} processes that accumulate '
            f'{args.accumulate} times: give a --batch that {parts} divides'
        )
    features = Features(args.features)
    space = features.space()
    source = open_source(args.source, space.split, space.height, space.width)
    if (source.kind, source.height, source.width) != (space.source, space.height, space.width):
        raise ValueError(
            f'{args.features} holds features of {space.source} at {space.height}x{space.width} px, '
            f'{args.source} is {source.kind} at {source.height}x{source.width} px: prepare the features of '
            'these scenes'
        )
    with processes, stop_asked() as asked:
        return go(
            SemanticHeadsTrainer(args, SceneSampler(source, args.features), features, processes),
            asked,
            deadline,
            quiet,
        )
