"""`gsemsplat train`: the training of the small network in rooms."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.checkpoints.licences import ROOMS, inherited, stated, united
from gsemsplat_ros.datasets.packed_rooms import FURNITURE_VERSION, VOCABULARY, PackedRooms
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.network.inference import channels_last
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.semantics import class_words
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.training.context_branch import FROZEN
from gsemsplat_ros.training.distributed import Processes
from gsemsplat_ros.training.options import SmallNetworkOptions
from gsemsplat_ros.training.room_batches import (
    PairPlan,
    RoomArrays,
    RoomBatch,
    RoomPlan,
    load_rooms,
    room_arrays,
    room_batch,
)
from gsemsplat_ros.training.room_losses import RoomObjective
from gsemsplat_ros.training.snapshots import room_snapshot
from gsemsplat_ros.training.textspace import TextSpace
from gsemsplat_ros.training.trainer import Trainer, parent_of, part, short_digest

log = logging.getLogger(__name__)

WARMUP = 100  # steps
FROM_SHIPPED = 'frozen network', 'context code', 'text encoder'  # roles of what a new network takes over
DRAW_EVERY = 4  # steps; Gaussians are learnt faster than points and names


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, then a cosine to a hundredth of the peak."""
    if step < WARMUP:
        return peak * (step + 1) / WARMUP
    progress = min(1.0, (step - WARMUP) / max(1, steps - WARMUP))
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def frozen_parts(model: GSemSplat) -> Decoders:
    """Fill the parts of `model` that are never trained from the shipped network: the stem and the context
    branch. Returns decoders, of which the context-aware one is the shipped one too."""
    shipped = weights.load(None)
    model.stem.load_state_dict(shipped.model.stem.state_dict())
    model.context.load_state_dict(shipped.model.context.state_dict())
    context = Decoders.from_state_dict(shipped.decoders).language_decoder_patch
    return Decoders(Decoders.small().language_decoder_sam, context)


def take_over(model: GSemSplat, tensors: dict[str, Tensor]) -> None:
    """Fill `model` from those `tensors` that fit it by name and shape; an older network has other heads."""
    own = model.state_dict()
    fitting = {k: t for k, t in tensors.items() if k in own and t.shape == own[k].shape}
    model.load_state_dict(fitting, strict=False)
    fresh = sorted({name.rpartition('.')[0] for name in own.keys() - fitting.keys()})
    if fresh:
        log.warning('not in the checkpoint to start from, so new: %s', ', '.join(fresh))


class SmallNetworkTrainer(Trainer[SmallNetworkOptions]):
    """The training of the small network."""

    objective: RoomObjective
    load = staticmethod(load_rooms)
    shown = 'total', 'points', 'names'
    checkpoint = 'small.safetensors'
    clip = 1.0

    @classmethod
    def make_data(cls, options: SmallNetworkOptions) -> None:
        """Render the requested rooms that are missing."""
        if options.rooms:
            from gsemsplat_ros.rooms.packing import pack

            pack(options.data, options.height, options.width, range(options.rooms))

    def __init__(self, options: SmallNetworkOptions, processes: Processes):
        super().__init__(options, processes)
        self.rooms = rooms = PackedRooms(options.data)
        self.sample = rooms[0]  # of the snapshots
        size = self.sample.depth.shape[1:]
        if options.rooms and size != (options.height, options.width):
            raise ValueError(
                f'{options.data} has rooms of {size[0]}x{size[1]} px, wanted {options.height}x'
                f'{options.width}: give their --height and --width, or another --data'
            )
        torch.manual_seed(options.seed)
        state = self.begin()
        start = weights.load(options.init) if options.init and not state else None
        wanted = NetworkConfig.small().name, class_words.NAME
        if start and (start.model.config.name, start.card.get('text_encoder')) != wanted:
            raise ValueError(
                f'{options.init} is the network {start.model.config.name!r} in the text space '
                f'{start.card.get("text_encoder")!r}: wanted one that `gsemsplat train` wrote, or its '
                'action `words`'
            )
        mean = state[weights.TEXT_MEAN] if state else start.text_mean if start else None
        self.space = TextSpace(rooms.vocabulary(), None if mean is None else mean.numpy())
        model = GSemSplat(NetworkConfig.small())
        decoders = frozen_parts(model)
        objective = RoomObjective(model, decoders)
        if state:
            objective.load_state_dict(part(state, 'weights'))
        elif options.init and start:
            if processes.first:  # the others receive its weights
                model.init_weights()
            take_over(model, start.model.state_dict())
            decoders.load_state_dict(start.decoders)
            self.facts['parent'] = parent_of(options.init, start.card)
            self.facts['mixture'] = start.card.get('mixture')  # `gsemsplat eval calibrate` fits it again
        elif processes.first:  # the others receive its weights
            model.init_weights()
        source = start.card if start else weights.read_card(weights.SHIPPED)
        self.facts.setdefault('context', source.get('context'))  # of which pictures the frozen code is
        taken = (
            inherited(options.init.name, source)
            if options.init and start
            else inherited(weights.SHIPPED.name, source, FROM_SHIPPED)
        )
        self.facts.setdefault('licences', united(stated(*ROOMS), taken))
        for frozen in (model.stem, model.context, decoders.language_decoder_patch):
            frozen.requires_grad_(False)
        channels_last(model)
        self.optimize(objective, state, weight_decay=0.05, betas=(0.9, 0.99))
        self.embeddings = self.space.embeddings.to(processes.device)

    def phrases(self, step: int) -> tuple[dict[str, int], np.ndarray]:
        """The phrases of a step (TextSpace.names)."""
        return self.space.names(step, np.random.default_rng((self.options.seed, step)))

    def plan(self, step: int, tasks: Sequence[range]) -> list[RoomPlan]:
        """Half of the pairs are mirrored, half of the free ones reversed."""
        rows, phrases = self.phrases(step)
        draws = step % DRAW_EVERY == 0
        return [
            RoomPlan(tuple(self.pair(step, number) for number in numbers), phrases, rows, draws)
            for numbers in tasks
        ]

    def pair(self, step: int, number: int) -> PairPlan:
        """One pair of a step."""
        rng = np.random.default_rng((self.options.seed, step, number))
        path, i = self.rooms.index[int(rng.integers(len(self.rooms)))]
        reverse, mirror = (rng.random(2) < 0.5).tolist()
        return PairPlan(self.rooms.rooms[path], i, reverse, mirror, self.seed(step, number))

    def batch(self, parts: Sequence[RoomArrays]) -> RoomBatch:
        return room_batch(parts, self.embeddings, self.objective.model.config.output_stride)

    def rate(self) -> float:
        return learning_rate(self.step, self.options.steps, self.options.lr)

    def refresh(self) -> bool:
        before = len(self.rooms)
        return self.rooms.refresh() > before

    def save(self) -> np.ndarray:
        """Write the state and the checkpoint. Returns the averaged network's `room_snapshot` of a pair."""
        text_mean = {weights.TEXT_MEAN: torch.from_numpy(self.space.mean)}
        self.save_state(self.objective.state_dict(), text_mean)
        model, decoders = self.objective.model, self.objective.codec
        with self.averaged():
            tensors = {**model.state_dict(), **decoders.state_dict(), **text_mean}
            weights.save(self.options.out / self.checkpoint, weights.stored(tensors), self.card())
            rows, phrases = self.phrases(0)
            arrays = room_arrays(self.sample, rows, phrases, seed=0).to(self.processes.device)
            return room_snapshot(self.objective, self.sample, self.batch([arrays]), rows)

    def card(self) -> dict:
        """The card of the checkpoint: how, where and on what it was trained."""
        facts = self.facts
        height, width = self.sample.depth.shape[1:]
        training = {
            **self.spent(),
            'data': {
                'source': 'synthetic rooms of sweethome3d-furniture models (docs/ATTRIBUTION.md)',
                'rooms': len(self.rooms.rooms),
                'pairs': len(self.rooms),
                'height': height,
                'width': width,
                'furniture': FURNITURE_VERSION,
                'names': len(self.space.vocabulary),
                'names_sha256': short_digest(self.rooms.folder / VOCABULARY),
            },
            **({'parent': facts['parent']} if 'parent' in facts else {}),
        }
        return {
            'config': self.objective.model.config.to_json(),
            'text_encoder': class_words.NAME,
            'licence': 'Apache-2.0',
            'training': training,
            'frozen': FROZEN,
            **{name: facts[name] for name in ('context', 'mixture', 'licences') if facts.get(name)},
        }
