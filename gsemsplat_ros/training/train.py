"""`gsemsplat train`: the small network from nothing but packed rooms and a packaged ImageNet classifier.

One folder holds a run: `state.pt` (everything, resumed from when it exists), `log.jsonl` (a line every 20 steps),
TensorBoard events, and `small.safetensors`, the checkpoint with its card. The same seed and data give the same losses.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gsemsplat_ros.network import weights
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.semantics.codec import Codec
from gsemsplat_ros.semantics.relevancy import CANONICAL
from gsemsplat_ros.semantics.text import MiniLM
from gsemsplat_ros.training.batches import Batch, collate, reversed_pair
from gsemsplat_ros.training.datasets import PackedRooms
from gsemsplat_ros.training.losses import losses
from gsemsplat_ros.training.teacher import class_names, distil_context, load_stem

EMA = 0.998              # of the weights that are shipped
WARMUP = 100             # steps
CLIP = 1.0               # largest gradient norm
LOG_EVERY = 20           # steps
SAVE_EVERY = 200         # steps
TEACHER_IMAGES = 256     # images whose class probabilities the context codes are distilled on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--data', type=Path, required=True, metavar='DIR',
                        help='packed rooms (python -m gsemsplat_ros.training.datasets --help)')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='the run; resumed when it exists')
    parser.add_argument('--steps', type=int, default=20000, help='steps in all, of the learning-rate schedule too')
    parser.add_argument('--batch', type=int, default=4, help='pairs a step')
    parser.add_argument('--lr', type=float, default=4e-4, help='peak learning rate')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--init', type=Path, metavar='FILE', help='start from this checkpoint instead of from nothing')
    parser.add_argument('--minutes', type=float, metavar='M', help='save and stop after this time [min]')


class TextSpace:
    """The centred MiniLM space of a run: its mean, and ways to name what the rooms hold.

    A step asks for full names, for base nouns, or for what people say instead (phrasings.txt: synonyms and
    descriptions, another one for each noun and step). The canonical phrases stand among the rivals, so that a named
    thing learns to beat what queries are compared with.
    """

    def __init__(self, vocabulary: dict[str, str], mean: np.ndarray | None = None):
        self.vocabulary = vocabulary
        self.classes = class_names()
        self.others = {noun: phrases for noun, phrases in read_phrasings().items() if noun in set(vocabulary.values())}
        self.mean = MiniLM().encode([*self.classes, *vocabulary]).mean(0) if mean is None else mean
        self.encoder = MiniLM(self.mean)
        phrases = {*vocabulary, *vocabulary.values(), *(p for others in self.others.values() for p in others)}
        self.row = {phrase: i for i, phrase in enumerate([*sorted(phrases - {*CANONICAL}), *CANONICAL])}
        self.embeddings = torch.from_numpy(self.encoder.encode(list(self.row)))

    def names(self, step: int, rng: np.random.Generator) -> tuple[dict[str, int], Tensor]:
        """Row of each name in the step's table of phrases, and the table (K, C) of unit embeddings."""
        said = self.vocabulary if step % 3 == 1 else {name: name for name in self.vocabulary}
        if step % 3 == 2:
            drawn = {noun: str(rng.choice(self.others[noun])) if noun in self.others else noun
                     for noun in sorted(set(self.vocabulary.values()))}
            said = {name: drawn[noun] for name, noun in self.vocabulary.items()}
        phrases = sorted({*said.values()} - {*CANONICAL})
        row = {phrase: i for i, phrase in enumerate([*phrases, *CANONICAL])}
        return {name: row[phrase] for name, phrase in said.items()}, self.embeddings[[self.row[p] for p in row]]


def read_phrasings() -> dict[str, list[str]]:
    """Noun -> synonyms and descriptions, from phrasings.txt."""
    lines = (resources.files('gsemsplat_ros.training') / 'phrasings.txt').read_text().splitlines()
    parts = [line.split('|') for line in lines if line and not line.startswith('#')]
    return {noun.strip(): [phrase.strip() for group in groups for phrase in group.split(';')] for noun, *groups in parts}


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


class Run:
    """State of one training: model, average, optimizer, step."""

    def __init__(self, args: argparse.Namespace, rooms: PackedRooms):
        self.args = args
        torch.manual_seed(args.seed)
        self.state_path = args.out / 'state.pt'
        state = torch.load(self.state_path, map_location='cpu', weights_only=True) if self.state_path.exists() else None
        start = weights.load(args.init) if args.init and not state else None
        if state:          # names and centre are the run's, not those of the rooms that happen to be there
            self.space = TextSpace(state['vocabulary'], state['text_mean'].numpy())
        else:
            self.space = TextSpace(rooms.vocabulary(), start.text_mean.numpy() if start else None)
        self.model = GSemSplat(NetworkConfig.small())
        self.codec = Codec.small()
        if start:
            self.model.load_state_dict(start.model.state_dict())
            self.codec.load_state_dict(start.decoders)
        elif not state:
            self.model.init_weights()
            load_stem(self.model)
            embeddings = self.space.encoder.encode(self.space.classes)
            cosine = distil_context(self.model, self.codec.language_decoder_patch, embeddings,
                                    seen_probabilities(self.model, rooms), seed=args.seed)
            print(f'context codes: mean cosine {cosine:.3f} to the dense classifier in the text space')
        self.model.stem.requires_grad_(False)
        self.model.context.requires_grad_(False)
        self.codec.language_decoder_patch.requires_grad_(False)
        self.step = 0
        self.seconds = 0.0
        if state:
            self.model.load_state_dict(state['model'])
            self.codec.load_state_dict(state['codec'])
            self.step, self.seconds = state['step'], state['seconds']
        self.model.to(args.device, memory_format=torch.channels_last)      # what bf16 convolutions are fastest in
        self.codec.to(args.device)
        trained = [p for module in (self.model, self.codec) for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW([{'params': [p for p in trained if p.ndim > 1], 'weight_decay': 0.05},
                                            {'params': [p for p in trained if p.ndim < 2], 'weight_decay': 0.0}],
                                           lr=args.lr, betas=(0.9, 0.99))
        if state:
            self.optimizer.load_state_dict(state['optimizer'])
        self.trained = trained
        self.average = [t.to(args.device) for t in state['average']] if state else [p.detach().clone() for p in trained]

    def batch(self, rooms: PackedRooms, step: int) -> Batch:
        """The pairs of one step, drawn by seed and step, half of the free-moving ones turned round.

        Steps take turns in how they name things (TextSpace.names).
        """
        rng = np.random.default_rng((self.args.seed, step))
        samples = [rooms[int(i)] for i in rng.integers(len(rooms), size=self.args.batch)]
        samples = [s if s['stereo'] or rng.random() < 0.5 else reversed_pair(s) for s in samples]
        rows, table = self.space.names(step, rng)
        batch = collate(samples, rows, table, self.model.config.output_stride)
        moved = {k: v.to(self.args.device) for k, v in vars(batch).items() if isinstance(v, Tensor)}
        return Batch(**{**vars(batch), **moved})

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One update. Returns every loss term."""
        lr = learning_rate(self.step, self.args.steps, self.args.lr)
        for group in self.optimizer.param_groups:
            group['lr'] = lr
        with torch.autocast(self.args.device, dtype=torch.bfloat16):
            prediction = self.model(*batch.images)
        generator = torch.Generator().manual_seed(self.args.seed * 1_000_003 + self.step)
        terms = losses(prediction, batch, self.codec, generator)
        self.optimizer.zero_grad(set_to_none=True)
        terms['total'].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained, CLIP)
        if torch.isfinite(norm):       # a step without a number would spoil all that follow
            self.optimizer.step()
        decay = min(EMA, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.trained], 1 - decay)
        self.step += 1
        return {name: value.item() for name, value in terms.items()} | {'lr': lr, 'gradient_norm': float(norm)}

    def save(self) -> None:
        """state.pt and the checkpoint, each whole or not at all."""
        state = {'model': self.model.state_dict(), 'codec': self.codec.state_dict(), 'average': self.average,
                 'optimizer': self.optimizer.state_dict(), 'step': self.step, 'seconds': self.seconds,
                 'vocabulary': self.space.vocabulary, 'text_mean': torch.from_numpy(self.space.mean)}
        temporary = self.state_path.with_suffix('.part')
        torch.save(state, temporary)
        os.replace(temporary, self.state_path)
        live = [p.detach().clone() for p in self.trained]
        torch._foreach_copy_([p.data for p in self.trained], self.average)
        tensors = {**self.model.state_dict(), **self.codec.state_dict(), weights.TEXT_MEAN: torch.from_numpy(self.space.mean)}
        tensors = {k: t.cpu().half() for k, t in tensors.items()}
        torch._foreach_copy_([p.data for p in self.trained], live)
        card = {
            'config': self.model.config.to_json(), 'text_encoder': MiniLM.name, 'licence': 'Apache-2.0',
            'training': {'steps': self.step, 'batch': self.args.batch, 'hours': round(self.seconds / 3600, 2),
                         'learning_rate': self.args.lr, 'seed': self.args.seed, 'device': self.args.device,
                         'data': 'synthetic rooms of sweethome3d-furniture models (docs/ATTRIBUTION.md)',
                         'stem': 'EfficientNet-Lite0, ImageNet, frozen (Apache-2.0)'},
        }
        weights.save(self.args.out / 'small.safetensors', tensors, card)


def run(args: argparse.Namespace) -> dict:
    """Train until `args.steps` or `args.minutes`. Returns {'steps', 'checkpoint', 'losses'}."""
    from torch.utils.tensorboard import SummaryWriter
    args.out.mkdir(parents=True, exist_ok=True)
    rooms = PackedRooms(args.data)
    training = Run(args, rooms)
    training.model.train()
    board = SummaryWriter(str(args.out))
    deadline = time.monotonic() + 60 * args.minutes if args.minutes else float('inf')
    mean: dict[str, float] = {}
    with ThreadPoolExecutor(1) as loader, (args.out / 'log.jsonl').open('a') as log, \
            tqdm(total=args.steps, initial=training.step, unit='step', disable=None) as bar:
        following = loader.submit(training.batch, rooms, training.step)
        while training.step < args.steps and time.monotonic() < deadline:
            start = time.monotonic()
            batch = following.result()
            following = loader.submit(training.batch, rooms, training.step + 1)
            terms = training.train_step(batch)
            training.seconds += time.monotonic() - start
            mean = {k: 0.95 * mean.get(k, v) + 0.05 * v for k, v in terms.items()}
            bar.update()
            bar.set_postfix(loss=f"{mean['total']:.3f}", points=f"{mean['points']:.3f}", names=f"{mean['names']:.3f}")
            if training.step % LOG_EVERY == 0:
                log.write(json.dumps({'step': training.step, 'seconds': round(training.seconds, 1),
                                      **{k: round(v, 6) for k, v in mean.items()}}) + '\n')
                log.flush()
                for name, value in terms.items():
                    board.add_scalar(name, value, training.step)
            if training.step % SAVE_EVERY == 0:
                training.save()
                rooms.refresh()
    training.save()
    board.close()
    return {'steps': training.step, 'checkpoint': str(args.out / 'small.safetensors'), 'losses': mean}
