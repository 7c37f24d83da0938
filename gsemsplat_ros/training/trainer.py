"""The common part of both trainings: weights, running average, optimiser, steps, time, state in files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from gsemsplat_ros.files import digest
from gsemsplat_ros.training.batches import Arrays
from gsemsplat_ros.training.distributed import Processes
from gsemsplat_ros.training.objective import Objective
from gsemsplat_ros.training.options import TrainingOptions
from gsemsplat_ros.training.random_numbers import pair_seed
from gsemsplat_ros.training.state import load_state, save_state

EMA = 0.998  # decay of the running average of the weights, which is shipped
STATE = 'state'  # folder of a run
TASK = 4  # pairs at most that a loading process prepares at once
Options = TypeVar('Options', bound=TrainingOptions)


class Trainer(ABC, Generic[Options]):
    """One training on one or many processes.

    shown: terms on the progress bar; checkpoint: its file name; clip: largest gradient norm; facts: JSON part
    of the state: pairs, hours by machine, and the checkpoint that the run started from; load: from a plan to
    arrays, in other processes.
    """

    objective: Objective
    load: Callable[[Any], Arrays]
    step: int
    facts: dict[str, Any]
    shown: tuple[str, ...]
    checkpoint: str
    clip: float
    save_every = 200  # steps

    def __init__(self, options: Options, processes: Processes):
        """Keep the options; a subclass then calls `begin` and `optimize`."""
        self.options, self.processes = options, processes

    @classmethod
    def make_data(cls, options: Options) -> None:
        """Make data in the first process before the others join; does nothing by default."""

    def begin(self) -> dict[str, Tensor]:
        """Load the state of the run's folder and return its tensors; empty for a new run."""
        found = load_state(self.options.out / STATE) if self.processes.first else None
        found = self.processes.share(found)
        if found is None:
            self.step, state, self.facts = 0, {}, {'pairs': 0, 'hours': {}}
        else:
            self.step, state, self.facts = found
        return state

    def optimize(
        self, objective: Objective, state: dict[str, Tensor], weight_decay: float, betas: tuple[float, float]
    ) -> None:
        """Set up to train the parameters that require gradients, with averages and moments from `state`."""
        self.objective = objective
        objective.to(self.processes.device).train()
        self.parallel = self.processes.wrap(self.objective)
        self.trained = {name: p for name, p in self.objective.named_parameters() if p.requires_grad}
        trained = list(self.trained.values())
        self.optimizer = torch.optim.AdamW(
            [
                {'params': [p for p in trained if p.ndim > 1], 'weight_decay': weight_decay},
                {'params': [p for p in trained if p.ndim < 2], 'weight_decay': 0.0},
            ],
            lr=self.options.lr,
            betas=betas,
            fused=True,
        )
        self.average = {name: p.detach().clone() for name, p in self.trained.items()}
        if state:
            for name, p in self.trained.items():
                self.average[name].copy_(state[f'average/{name}'])
                for key, value in part(state, f'optimizer/{name}').items():  # in the memory layout of p
                    moment = value.to(p.device) if key == 'step' else torch.empty_like(p).copy_(value)
                    self.optimizer.state[p][key] = moment

    @property
    def turns(self) -> list[list[range]]:
        """Numbers of this process's pairs in every step: `accumulate` turns of equally many pairs, each in
        tasks for the loading processes."""
        mine = range(self.processes.rank, self.options.batch, self.processes.count)
        size = len(mine) // self.options.accumulate
        starts = range(0, len(mine), size)
        return [[mine[i : min(i + TASK, a + size)] for i in range(a, a + size, TASK)] for a in starts]

    def seed(self, step: int, number: int) -> int:
        """The seed of a pair."""
        return pair_seed(self.options.seed, step, number)

    def plans(self, first: int) -> Iterator[Any]:
        """What to load from step `first` on, in order."""
        for step in range(first, self.options.steps):
            yield from self.plan(step, [numbers for turn in self.turns for numbers in turn])

    @abstractmethod
    def plan(self, step: int, tasks: Sequence[range]) -> list[Any]:
        """What `load` needs for each task, pairs of these numbers; depends only on seed, step and number."""

    @abstractmethod
    def batch(self, parts: Sequence[Any]) -> Any:
        """The batch of loaded parts that are on the device."""

    @abstractmethod
    def rate(self) -> float:
        """The learning rate of this step."""

    @abstractmethod
    def save(self) -> np.ndarray:
        """Write state and checkpoint. Returns a picture (H, W, 3) uint8 of the averaged network's output."""

    def refresh(self) -> bool:
        """Include data added since the start; whether there were any."""
        return False

    def train_step(self, loaded: Sequence[Arrays]) -> Tensor:
        """One update from this process's pairs, in turns. Returns the means of the objective's `terms` and
        the gradient norm, (len(terms) + 1,), without waiting for the device."""
        for group in self.optimizer.param_groups:
            group['lr'] = self.rate()
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.options.accumulate
        size = len(loaded) // parts
        terms = torch.zeros(len(self.objective.terms), device=self.processes.device)
        for i in range(parts):
            turn = [one.to(self.processes.device) for one in loaded[i * size : (i + 1) * size]]
            with self.gradients_stay() if i < parts - 1 else nullcontext():  # shared once per step
                values = self.parallel(self.batch(turn)) / parts
                values[0].backward()
            terms += values.detach()
        return torch.cat((terms, self.update()[None]))

    def update(self) -> Tensor:
        """Move the weights along their gradients, and the averages after them. Returns the gradient norm."""
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), self.clip)
        # a NaN would ruin all later steps: told so (as by a GradScaler), the optimiser changes nothing
        self.optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]  # not in the stubs
        self.optimizer.step()
        decay = min(EMA, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(
            list(self.average.values()), [p.detach() for p in self.trained.values()], 1 - decay
        )
        self.step += 1
        self.facts['pairs'] += self.options.batch
        return norm

    def gradients_stay(self) -> AbstractContextManager[None]:
        """Inside, gradients stay in this process instead of being averaged over all."""
        parallel = self.parallel
        return parallel.no_sync() if isinstance(parallel, DistributedDataParallel) else nullcontext()

    def spend(self, seconds: float) -> None:
        """Add to the hours of this machine."""
        hours, machine = self.facts['hours'], self.processes.machine
        hours[machine] = hours.get(machine, 0.0) + seconds / 3600

    def spent(self) -> dict:
        """Steps, time and machines, for a card."""
        hours = self.facts['hours']
        return {
            'steps': self.step,
            'batch': self.options.batch,
            'pairs': self.facts['pairs'],
            'hours': round(sum(hours.values()), 4),
            'machines': {name: round(h, 4) for name, h in hours.items()},
            'learning_rate': self.options.lr,
            'seed': self.options.seed,
            'gsemsplat_ros': package_version(),
        }

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the network has the running average of its weights, which is shipped."""
        trained = [p.data for p in self.trained.values()]
        live = [p.clone() for p in trained]
        torch._foreach_copy_(trained, list(self.average.values()))
        try:
            yield
        finally:
            torch._foreach_copy_(trained, live)

    def save_state(self, live: Mapping[str, Tensor], more: Mapping[str, Tensor] | None = None) -> None:
        """Write the state: the `live` weights, averages, moments, and `more`."""
        state = {f'weights/{name}': t for name, t in live.items()}
        state |= {f'average/{name}': t for name, t in self.average.items()}
        state |= {
            f'optimizer/{name}/{key}': t
            for name, p in self.trained.items()
            for key, t in self.optimizer.state.get(p, {}).items()
        }
        save_state(self.options.out / STATE, self.step, {**state, **(more or {})}, self.facts)


def part(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The entries below `name`/, without that prefix."""
    return {key[len(name) + 1 :]: t for key, t in state.items() if key.startswith(name + '/')}


def parent_of(path: Path, card: dict) -> dict:
    """File, digest and steps of the checkpoint that a run started from, for state and card."""
    return {'file': path.name, 'sha256': short_digest(path), 'steps': card.get('training', {}).get('steps')}


def short_digest(path: Path) -> str:
    """The first 12 hexadecimal digits of the file's SHA-256."""
    return digest(path)[:12]


def package_version() -> str:
    """Version of this package; 'source checkout' where it is not installed."""
    try:
        return version('gsemsplat_ros')
    except PackageNotFoundError:
        return 'source checkout'
