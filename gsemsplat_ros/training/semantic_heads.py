"""`gsemsplat train semantics`: trains semantic heads and code decoders on a network that already predicts
points and Gaussians (docs/published.md 38, 41).

Codes are rendered at target views, decoded, and compared with the features that were prepared for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.checkpoints.licences import ROOMS, Licence, inherited, not_stated, stated, united
from gsemsplat_ros.checkpoints.lpips import LPIPS
from gsemsplat_ros.datasets.frames import Source
from gsemsplat_ros.datasets.sources import SceneSampler, open_source
from gsemsplat_ros.network.inference import channels_last
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.supervision.features import Features, Space
from gsemsplat_ros.training import context_branch
from gsemsplat_ros.training.distributed import Processes
from gsemsplat_ros.training.options import SemanticHeadsOptions
from gsemsplat_ros.training.scene_batches import SceneArrays, SceneBatch, SceneLoader, ScenePlan, scene_batch
from gsemsplat_ros.training.semantic_losses import SemanticObjective
from gsemsplat_ros.training.snapshots import scene_snapshot
from gsemsplat_ros.training.trainer import Trainer, parent_of, part

# widths before the text space: LangSplat's, because the paper's are not published
DECODER = 16, 32, 64, 128, 256, 256
LANGUAGE_CHANNELS = 33  # of the public head; the last is unused
DECAY = 10 / 12  # share of the steps after which the rate drops (published: epoch 10)
DECAYED = 0.1  # factor of the rate from then on
LEARNT = {  # tune -> parts of the names of the trained parameters
    'semantics': ('.gaussian_language.', '.language_layer.', 'codec.'),
    'gaussians': (
        *('.gaussian_language.', '.gaussian_dpt.', 'codec.'),
        *('.surface.', '.language_layer.', '.gaussian_layer.'),
    ),
    'all': ('',),
}
FROZEN = 'model.stem.', 'model.context.'  # of the small network: packaged networks, and the code between
CARRIED = 'licence', 'context'  # from the card of the network that a run started from


class SemanticHeadsTrainer(Trainer[SemanticHeadsOptions]):
    """The training of semantic heads and decoders."""

    objective: SemanticObjective
    shown = 'total', 'region', 'context', 'colour'
    checkpoint = 'semantics.safetensors'
    clip = 0.5  # published
    save_every = 500

    def __init__(self, options: SemanticHeadsOptions, processes: Processes):
        super().__init__(options, processes)
        self.features = Features(options.features)
        self.space = self.features.space()
        self.sampler = SceneSampler(open_prepared(options.source, self.features), options.features)
        self.load = self.loader = SceneLoader(self.sampler, self.features, self.space.dim)
        torch.manual_seed(options.seed)
        state = self.begin()
        path = options.init or weights.SHIPPED
        start = weights.load(path)
        if processes.first:
            self.check_same_run(parent_of(path, start.card), path)
        self.carried = {key: start.card[key] for key in CARRIED if key in start.card}
        added = materials_of(self.space, options.lpips)
        self.carried['licences'] = united(added, inherited(path.name, start.card))
        model = with_heads(start)
        decoders = self.decoders(start)
        perceptual = LPIPS.load(options.lpips) if options.lpips else None
        objective = SemanticObjective(model, decoders, perceptual, options.tune == 'all')
        for name, p in objective.named_parameters():
            p.requires_grad_(
                any(word in name for word in LEARNT[options.tune])
                and not name.startswith((*FROZEN, 'perceptual.'))
            )
        if state:
            objective.load_state_dict(part(state, 'weights'), strict=False)
        if model.config.stem:
            channels_last(model)
        self.optimize(objective, state, weight_decay=0.0, betas=(0.9, 0.999))  # published: Adam without decay

    def check_same_run(self, parent: dict, path: Path) -> None:
        """Raises ValueError if the state started from another checkpoint or has another `tune`."""
        options = self.options
        if self.facts.setdefault('parent', parent) != parent:
            raise ValueError(
                f'{options.out} started from {self.facts["parent"]["file"]} '
                f'({self.facts["parent"]["sha256"]}), and {path} is another file: give that one as --init'
            )
        if self.facts.setdefault('tune', options.tune) != options.tune:
            raise ValueError(
                f'{options.out} trains --tune {self.facts["tune"]}, got {options.tune}: give another --out'
            )

    def decoders(self, start: weights.Checkpoint) -> Decoders:
        """The checkpoint's decoders if they decode into the prepared text space, else new ones."""
        if start.decoders and start.card.get('text_encoder') == self.space.encoder:
            return Decoders.from_state_dict(start.decoders)
        return Decoders.small((*DECODER, self.space.dim), start.model.config.context_dim)

    def plan(self, step: int, tasks: Sequence[range]) -> list[ScenePlan]:
        return [
            ScenePlan(
                tuple((self.options.seed, step, number) for number in numbers),
                tuple(self.seed(step, number) for number in numbers),
            )
            for numbers in tasks
        ]

    def batch(self, parts: Sequence[SceneArrays]) -> SceneBatch:
        return scene_batch(parts, self.objective.model.config.output_stride)

    def rate(self) -> float:
        return self.options.lr * (1.0 if self.step < DECAY * self.options.steps else DECAYED)

    def save(self) -> np.ndarray:
        """Write the state and the checkpoint. Returns the averaged network's `scene_snapshot` of a pair."""
        # frozen weights are not saved: they are in the file that the run started from
        self.save_state(self.trained)
        model, decoders = self.objective.model, self.objective.codec
        with self.averaged():
            tensors = {**model.state_dict(), **decoders.state_dict()}
            if self.space.text_mean is not None:
                tensors[weights.TEXT_MEAN] = torch.tensor(self.space.text_mean)
            # public weights keep their precision
            tensors = (
                weights.stored(tensors) if model.config.stem else {k: t.cpu() for k, t in tensors.items()}
            )
            weights.save(self.options.out / self.checkpoint, tensors, self.card())
            shown = self.sampler.draw(np.random.default_rng(0))  # the same pair each time
            arrays = self.loader.arrays(shown, seed=0).to(self.processes.device)
            return scene_snapshot(self.objective, shown, self.batch([arrays]))

    def card(self) -> dict:
        """The card of the checkpoint: how, where and on what it was trained."""
        space, options = self.space, self.options
        training = {
            **self.spent(),
            'kind': 'semantics',
            'tune': options.tune,
            'perceptual_loss': bool(options.lpips),
            'data': {
                'source': space.source,
                'split': space.split,
                'scenes': len(self.sampler.source.scenes),
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
            'training': training,
            **({'frozen': context_branch.FROZEN} if self.objective.model.config.stem else {}),
            **self.carried,
        }


def materials_of(space: Space, lpips: Path | None) -> list[Licence]:
    """What a training on prepared features adds to the licence list. Only the user knows the licences of
    scenes of their own, of masks from a folder and of the file of the perceptual loss."""
    known = {'rooms': ROOMS, 'scannetpp': ('scannetpp',)}.get(space.source, ())
    items = stated(*known) or [
        not_stated('posed frames', 'training data', 'the user', 'scenes of semantic heads')
    ]
    items += stated('openclip-vit-b-16' if space.encoder.startswith('openclip') else 'minilm')
    if space.regions.startswith('segment anything'):
        items += stated('segment-anything')
    elif space.regions == 'mask folder':
        items.append(not_stated('masks', 'teacher', 'the user', 'regions whose features are learnt'))
    if lpips:
        items.append(not_stated(lpips.name, 'teacher', 'the user', 'LPIPS, the perceptual loss'))
    return items


def with_heads(start: weights.Checkpoint) -> GSemSplat:
    """The network of a checkpoint with Gaussian and language heads; missing heads are new."""
    config = start.model.config
    wanted = config.replace(gaussians=True, language_channels=config.language_channels or LANGUAGE_CHANNELS)
    if wanted == config:
        return start.model
    model = GSemSplat(wanted)
    missing, unexpected = model.load_state_dict(start.model.state_dict(), strict=False)
    assert not unexpected and all('gaussian_' in name for name in missing), (missing, unexpected)
    return model


def open_prepared(path: Path, features: Features) -> Source:
    """The scenes at `path`. Raises ValueError if the features were prepared for others."""
    space = features.space()
    source = open_source(path, space.split, space.height, space.width)
    if (source.kind, source.height, source.width) != (space.source, space.height, space.width):
        raise ValueError(
            f'{features.folder} holds features of {space.source} at {space.height}x{space.width} px, '
            f'{path} is {source.kind} at {source.height}x{source.width} px: prepare the features of '
            'these scenes'
        )
    return source
