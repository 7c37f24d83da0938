"""The options of a training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What every training is told.

    out: folder of the run, where it goes on; init: checkpoint to start from, None for the training's own
    start; steps: in all, of the learning-rate schedule too; batch: pairs a step, on all processes together;
    accumulate: turns in which a process takes its pairs of a step; lr: peak learning rate; device: 'auto',
    'cpu' or 'cuda'; minutes: after which it saves and stops [min], None for no limit.
    """

    out: Path
    init: Path | None = None
    steps: int
    batch: int
    accumulate: int = 1
    lr: float
    seed: int = 0
    device: str = 'auto'
    minutes: float | None = None

    def check(self, processes: int) -> None:
        """Raises ValueError where so many `processes` cannot share the pairs of a step evenly."""
        parts = processes * self.accumulate
        if self.batch % parts:
            turns = f' that accumulate {self.accumulate} times' if self.accumulate > 1 else ''
            raise ValueError(
                f'{self.batch} pairs a step for {processes} processes{turns}: '
                f'give a --batch that {parts} divides'
            )


@dataclass(frozen=True, kw_only=True)
class SmallNetworkOptions(TrainingOptions):
    """data: folder of packed rooms; rooms: how many to render into it first, of (height, width) px, None for
    none."""

    data: Path
    rooms: int | None = None
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class SemanticHeadsOptions(TrainingOptions):
    """source: scenes on disk; features: folder of what was prepared for them; tune: what learns,
    'semantics', 'gaussians' or 'all'; lpips: public file with the weights of the perceptual loss, None for no
    such loss."""

    source: Path
    features: Path
    tune: str
    lpips: Path | None = None
