"""One training: network, decoders, their running average and the optimizer, from a start to a checkpoint."""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from torch import Tensor, nn

from gsemsplat_ros.network import weights
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.semantics.codec import Codec
from gsemsplat_ros.semantics.text import MiniLM
from gsemsplat_ros.training import furniture
from gsemsplat_ros.training.batches import Batch, collate, reversed_pair
from gsemsplat_ros.training.datasets import VOCABULARY, PackedRooms
from gsemsplat_ros.training.distributed import Processes
from gsemsplat_ros.training.losses import WEIGHTS, item, losses
from gsemsplat_ros.training.pictures import pictures
from gsemsplat_ros.training.state import load_state, save_state
from gsemsplat_ros.training.teacher import distil_context, load_stem
from gsemsplat_ros.training.textspace import TextSpace

EMA = 0.998              # of the weights that are shipped
WARMUP = 100             # steps
CLIP = 1.0               # largest gradient norm
TEACHER_IMAGES = 256     # images whose class probabilities the context codes are distilled on
TERMS = 'total', *WEIGHTS
STATE = 'state'          # folder of a run
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
    images = [torch.from_numpy(rooms[int(i)]['images'][:1]).permute(0, 3, 1, 2).float() / 127.5 - 1 for i in picks]
    return torch.cat([model.context.probabilities(model.stem(image)[32])[0].flatten(1).T for image in images])


class Objective(nn.Module):
    """Network, decoders and losses in one: pairs to what is minimised."""

    def __init__(self, model: GSemSplat, codec: Codec):
        super().__init__()
        self.model, self.codec = model, codec

    def forward(self, pairs: list[Batch], seeds: list[int]) -> Tensor:
        """The means (len(TERMS),) of every loss term over `pairs`, batches of one; a term that a pair lacks is 0.

        Every pair has losses and random numbers of its own, so that they are the same on whatever process it is.
        """
        sizes = sorted({tuple(pair.images.shape[-2:]) for pair in pairs})
        if len(sizes) > 1:
            raise ValueError(f'rooms of {" and ".join(f"{h}x{w}" for h, w in sizes)} px: wanted rooms of one size; '
                             'pack others into a folder of their own')
        images = torch.cat([pair.images for pair in pairs], 1)
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            prediction = self.model(*images)
        terms = [losses(item(prediction, b), pair, self.codec, torch.Generator().manual_seed(seed))
                 for b, (pair, seed) in enumerate(zip(pairs, seeds))]
        zero = images.new_zeros(())
        return torch.stack([sum((t.get(name, zero) for t in terms), zero) for name in TERMS]) / len(pairs)


class Run:
    """State of one training. `facts` goes into the state and the card: steps, pairs and hours that were spent, where,
    and what the run started from."""

    def __init__(self, args: argparse.Namespace, rooms: PackedRooms, processes: Processes):
        self.args, self.rooms, self.processes = args, rooms, processes
        self.sample = rooms[0]               # what the pictures show
        torch.manual_seed(args.seed)
        self.step, state, self.facts = processes.share(load_state(args.out / STATE) if processes.first else None) or (
            0, {}, {'pairs': 0, 'hours': {}})
        start = weights.load(args.init) if args.init and not state else None
        mean = state[weights.TEXT_MEAN] if state else start.text_mean if start else None
        self.space = TextSpace(rooms.vocabulary(), None if mean is None else mean.numpy())
        model, codec = GSemSplat(NetworkConfig.small()), Codec.small()
        self.objective = Objective(model, codec)
        if state:
            self.objective.load_state_dict(part(state, 'weights'))
        elif start:
            model.load_state_dict(start.model.state_dict())
            codec.load_state_dict(start.decoders)
            self.facts['parent'] = {'file': args.init.name, 'sha256': digest(args.init.read_bytes()),
                                    'steps': start.card.get('training', {}).get('steps')}
        elif processes.first:                # the others get it from here
            model.init_weights()
            load_stem(model)
            self.facts['context_cosine'] = round(distil_context(
                model, codec.language_decoder_patch, self.space.encoder.encode(self.space.classes),
                seen_probabilities(model, rooms), seed=args.seed), 4)
        for frozen in (model.stem, model.context, codec.language_decoder_patch):
            frozen.requires_grad_(False)
        model.to(memory_format=torch.channels_last)      # what bf16 convolutions are fastest in
        self.objective.to(processes.device).train()
        self.parallel = processes.wrap(self.objective)
        self.trained = {name: p for name, p in self.objective.named_parameters() if p.requires_grad}
        trained = list(self.trained.values())
        self.optimizer = torch.optim.AdamW([{'params': [p for p in trained if p.ndim > 1], 'weight_decay': 0.05},
                                            {'params': [p for p in trained if p.ndim < 2], 'weight_decay': 0.0}],
                                           lr=args.lr, betas=(0.9, 0.99))
        self.average = {name: p.detach().clone() for name, p in self.trained.items()}
        for name, p in self.trained.items() if state else ():
            self.average[name].copy_(state[f'average/{name}'])
            for key, value in part(state, f'optimizer/{name}').items():      # moments lie in memory as p does
                self.optimizer.state[p][key] = value if key == 'step' else torch.empty_like(p).copy_(value)
        self.phrases = lru_cache(4)(self.phrases)

    def phrases(self, step: int) -> tuple[dict[str, int], Tensor]:
        """What a step calls things (TextSpace.names), the table on the device."""
        rows, table = self.space.names(step, np.random.default_rng((self.args.seed, step)))
        return rows, table.to(self.processes.device)

    @property
    def share(self) -> range:
        """Which pairs of a step are this process's."""
        return range(self.processes.rank, self.args.batch, self.processes.count)

    def pair(self, step: int, number: int) -> Batch:
        """One pair of a step, on the device; half of the free-moving ones are turned round. For loading threads."""
        rng = np.random.default_rng((self.args.seed, step, number))
        sample = self.rooms[int(rng.integers(len(self.rooms)))]
        if not sample['stereo'] and rng.random() < 0.5:
            sample = reversed_pair(sample)
        return self.collate(sample, step)

    def collate(self, sample: dict, step: int) -> Batch:
        """A sample with the phrases of a step, on the device; pinned, so that it travels while the device computes."""
        batch = collate([sample], *self.phrases(step), self.objective.model.config.output_stride)
        tensors = {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
        if self.processes.device.type == 'cuda':
            tensors = {name: t if t.is_cuda else t.pin_memory().to(self.processes.device, non_blocking=True)
                       for name, t in tensors.items()}
        return replace(batch, **tensors)

    def train_step(self, pairs: list[Batch]) -> Tensor:
        """One update by this process's pairs of the step. Returns their TERMS and the norm of all gradients."""
        for group in self.optimizer.param_groups:
            group['lr'] = learning_rate(self.step, self.args.steps, self.args.lr)
        seeds = [np.random.SeedSequence((self.args.seed, self.step, number)).generate_state(1) for number in self.share]
        terms = self.parallel(pairs, [seed.item() for seed in seeds])
        self.optimizer.zero_grad(set_to_none=True)
        terms[0].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), CLIP)
        if torch.isfinite(norm):       # a step without a number would spoil all that follow
            self.optimizer.step()
        decay = min(EMA, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self.trained.values()], 1 - decay)
        self.step += 1
        self.facts['pairs'] += self.args.batch
        return torch.cat((terms.detach(), norm[None]))

    def spend(self, seconds: float) -> None:
        """Count time of this machine."""
        hours, machine = self.facts['hours'], self.processes.machine
        hours[machine] = hours.get(machine, 0.0) + seconds / 3600

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the network is the running average, which is what ships."""
        trained = [p.data for p in self.trained.values()]
        live = [p.clone() for p in trained]
        torch._foreach_copy_(trained, list(self.average.values()))
        try:
            yield
        finally:
            torch._foreach_copy_(trained, live)

    def save(self) -> np.ndarray:
        """Write the state and the checkpoint. Returns what the averaged network sees in the first pair (`pictures`)."""
        state = {f'weights/{name}': t for name, t in self.objective.state_dict().items()}
        state |= {f'average/{name}': t for name, t in self.average.items()}
        state |= {f'optimizer/{name}/{key}': t for name, p in self.trained.items()
                  for key, t in self.optimizer.state.get(p, {}).items()}
        text_mean = {weights.TEXT_MEAN: torch.from_numpy(self.space.mean)}
        save_state(self.args.out / STATE, self.step, state | text_mean, self.facts)
        model, codec = self.objective.model, self.objective.codec
        with self.averaged():
            tensors = {**model.state_dict(), **codec.state_dict(), **text_mean}
            weights.save(self.args.out / CHECKPOINT, {k: t.cpu().half() for k, t in tensors.items()}, self.card())
            return pictures(model, codec, self.sample, self.collate(self.sample, 0), self.phrases(0)[0])

    def card(self) -> dict:
        """What the checkpoint is: how, where and on what it was trained."""
        facts, hours = self.facts, self.facts['hours']
        height, width = self.sample['images'].shape[1:3]
        training = {
            'steps': self.step, 'batch': self.args.batch, 'pairs': facts['pairs'],
            'hours': round(sum(hours.values()), 4), 'machines': {name: round(h, 4) for name, h in hours.items()},
            'learning_rate': self.args.lr, 'seed': self.args.seed, 'gsemsplat_ros': package_version(),
            'data': {'source': 'synthetic rooms of sweethome3d-furniture models (docs/ATTRIBUTION.md)',
                     'rooms': len(self.rooms.known), 'pairs': len(self.rooms), 'height': height, 'width': width,
                     'furniture': furniture.VERSION, 'names': len(self.space.vocabulary),
                     'names_sha256': digest((self.rooms.folder / VOCABULARY).read_bytes())},
            'stem': 'EfficientNet-Lite0, ImageNet, frozen (Apache-2.0)',
            **{key: facts[key] for key in ('context_cosine', 'parent') if key in facts}}
        return {'config': self.objective.model.config.to_json(), 'text_encoder': MiniLM.name, 'licence': 'Apache-2.0',
                'training': training}


def part(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """What lies under `name`/, without that prefix."""
    return {key[len(name) + 1:]: t for key, t in state.items() if key.startswith(name + '/')}


def digest(content: bytes) -> str:
    """The first 12 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(content).hexdigest()[:12]


def package_version() -> str:
    """Version of this package; 'source checkout' where it is not installed."""
    try:
        return version('gsemsplat_ros')
    except PackageNotFoundError:
        return 'source checkout'
