"""One training: network, decoders, their running average and the optimizer, from a start to a checkpoint."""

from __future__ import annotations

import argparse
import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.datasets.packed_rooms import FURNITURE_VERSION, VOCABULARY, PackedRooms
from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.semantics.text import MiniLM
from gsemsplat_ros.supervision.teacher import distil_context, load_stem
from gsemsplat_ros.training.batches import Batch, collate
from gsemsplat_ros.training.distributed import Processes
from gsemsplat_ros.training.losses import DRAWN, WEIGHTS, item, losses
from gsemsplat_ros.training.pictures import pictures
from gsemsplat_ros.training.textspace import TextSpace
from gsemsplat_ros.training.trainer import Trainer, part, short_digest

WARMUP = 100  # steps
CLIP = 1.0  # largest gradient norm
TEACHER_IMAGES = 256  # images whose class probabilities the context codes are distilled on
DRAW_EVERY = 4  # steps; Gaussians learn fast, points and names are what takes long
TERMS = 'total', *WEIGHTS
CHECKPOINT = 'small.safetensors'


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, then a cosine to a hundredth of the peak."""
    if step < WARMUP:
        return peak * (step + 1) / WARMUP
    progress = min(1.0, (step - WARMUP) / max(1, steps - WARMUP))
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


@torch.no_grad()
def seen_probabilities(model: GSemSplat, rooms: PackedRooms) -> Tensor:
    """Class probabilities (M, 1000) that the frozen classifier gives on images of the rooms."""
    picks = np.linspace(0, len(rooms) - 1, min(len(rooms), TEACHER_IMAGES)).astype(int)
    images = [
        torch.from_numpy(rooms[int(i)].images[:1]).permute(0, 3, 1, 2).float() / 127.5 - 1 for i in picks
    ]
    return torch.cat([model.context.probabilities(model.stem(image)[32])[0].flatten(1).T for image in images])


class RoomObjective(nn.Module):
    """Network, decoders and losses in one: pairs to what is minimised.

    draws: whether this step's Gaussians are made and drawn.
    """

    def __init__(self, model: GSemSplat, decoders: Decoders):
        super().__init__()
        self.model, self.codec, self.draws = model, decoders, True

    def forward(self, pairs: list[Batch], seeds: list[int]) -> Tensor:
        """The means (len(TERMS),) of every loss term over `pairs`, batches of one; a term that a pair lacks
        is 0, those of drawing are NaN in a step that does not draw.

        Every pair has losses and random numbers of its own, so that they are the same on whatever process it
        is.
        """
        sizes = sorted({tuple(pair.images.shape[-2:]) for pair in pairs})
        if len(sizes) > 1:
            raise ValueError(
                f'rooms of {" and ".join(f"{h}x{w}" for h, w in sizes)} px: wanted rooms of one size; '
                'pack others into a folder of their own'
            )
        images = torch.cat([pair.images for pair in pairs], 1)
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            prediction = self.model(*images, gaussians=self.draws)
        terms = [
            losses(item(prediction, b), pair, self.codec, torch.Generator().manual_seed(seed))
            for b, (pair, seed) in enumerate(zip(pairs, seeds))
        ]
        zero = images.new_zeros(())
        left_out = () if self.draws else DRAWN
        return torch.stack(
            [
                zero + torch.nan if name in left_out else sum((t.get(name, zero) for t in terms), zero)
                for name in TERMS
            ]
        ) / len(pairs)


class SmallNetworkTrainer(Trainer):
    """The training of the small network. `facts` goes into the state and the card: steps, pairs and hours
    that were spent, where, and what the run started from."""

    terms = TERMS
    shown = 'total', 'points', 'names'
    checkpoint = CHECKPOINT
    clip = CLIP

    def __init__(self, args: argparse.Namespace, rooms: PackedRooms, processes: Processes):
        self.rooms = rooms
        self.sample = rooms[0]  # what the pictures show
        torch.manual_seed(args.seed)
        state = self.begin(args, processes)
        start = weights.load(args.init) if args.init and not state else None
        mean = state[weights.TEXT_MEAN] if state else start.text_mean if start else None
        self.space = TextSpace(rooms.vocabulary(), None if mean is None else mean.numpy())
        model, decoders = GSemSplat(NetworkConfig.small()), Decoders.small()
        objective = RoomObjective(model, decoders)
        if state:
            objective.load_state_dict(part(state, 'weights'))
        elif start:
            model.load_state_dict(start.model.state_dict())
            decoders.load_state_dict(start.decoders)
            self.facts['parent'] = {
                'file': args.init.name,
                'sha256': short_digest(args.init),
                'steps': start.card.get('training', {}).get('steps'),
            }
        elif processes.first:  # the others get it from here
            model.init_weights()
            load_stem(model)
            self.facts['context_cosine'] = round(
                distil_context(
                    model,
                    decoders.language_decoder_patch,
                    self.space.encoder.encode(self.space.classes),
                    seen_probabilities(model, rooms),
                    seed=args.seed,
                ),
                4,
            )
        for frozen in (model.stem, model.context, decoders.language_decoder_patch):
            frozen.requires_grad_(False)
        model.to(memory_format=torch.channels_last)  # what bf16 convolutions are fastest in
        self.optimize(objective, state, weight_decay=0.05, betas=(0.9, 0.99))
        self.phrases = lru_cache(4)(self.phrases)

    def phrases(self, step: int) -> tuple[dict[str, int], Tensor]:
        """What a step calls things (TextSpace.names), the table on the device."""
        rows, table = self.space.names(step, np.random.default_rng((self.args.seed, step)))
        return rows, table.to(self.processes.device)

    def pair(self, step: int, number: int) -> Batch:
        """One pair of a step, on the device; half of them mirrored, half of the free-moving ones turned
        round. For loading threads."""
        rng = np.random.default_rng((self.args.seed, step, number))
        sample = self.rooms[int(rng.integers(len(self.rooms)))]
        if not sample.stereo and rng.random() < 0.5:
            sample = sample.reversed()
        if rng.random() < 0.5:
            sample = sample.mirrored()
        return self.collate(sample, step)

    def collate(self, sample: Sample, step: int) -> Batch:
        """A sample with the phrases of a step, on the device."""
        batch = collate([sample], *self.phrases(step), self.objective.model.config.output_stride)
        return self.on_device(batch)

    def rate(self) -> float:
        return learning_rate(self.step, self.args.steps, self.args.lr)

    def train_step(self, pairs: list) -> Tensor:
        self.objective.draws = self.step % DRAW_EVERY == 0
        return super().train_step(pairs)

    def refresh(self) -> None:
        self.rooms.refresh()

    def save(self) -> np.ndarray:
        """Write the state and the checkpoint. Returns what the averaged network sees in the first pair
        (`pictures`).
        """
        text_mean = {weights.TEXT_MEAN: torch.from_numpy(self.space.mean)}
        self.save_state(self.objective.state_dict(), text_mean)
        model, decoders = self.objective.model, self.objective.codec
        with self.averaged():
            tensors = {**model.state_dict(), **decoders.state_dict(), **text_mean}
            weights.save(
                self.args.out / CHECKPOINT, {k: t.cpu().half() for k, t in tensors.items()}, self.card()
            )
            return pictures(model, decoders, self.sample, self.collate(self.sample, 0), self.phrases(0)[0])

    def card(self) -> dict:
        """What the checkpoint is: how, where and on what it was trained."""
        facts = self.facts
        height, width = self.sample.images.shape[1:3]
        training = {
            **self.spent(),
            'data': {
                'source': 'synthetic rooms of sweethome3d-furniture models (docs/ATTRIBUTION.md)',
                'rooms': len(self.rooms.known),
                'pairs': len(self.rooms),
                'height': height,
                'width': width,
                'furniture': FURNITURE_VERSION,
                'names': len(self.space.vocabulary),
                'names_sha256': short_digest(self.rooms.folder / VOCABULARY),
            },
            'stem': 'EfficientNet-Lite0, ImageNet, frozen (Apache-2.0)',
            **{key: facts[key] for key in ('context_cosine', 'parent') if key in facts},
        }
        return {
            'config': self.objective.model.config.to_json(),
            'text_encoder': MiniLM.name,
            'licence': 'Apache-2.0',
            'training': training,
        }
