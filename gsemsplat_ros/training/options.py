"""The options of a training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of every training.

    out: folder of the run, resumed if it has a state; init: checkpoint to start from, None for the default
    start; steps: total, also of the learning-rate schedule; batch: pairs per step over all processes;
    accumulate: passes into which a process splits its pairs of a step; lr: peak learning rate; device:
    'auto', 'cpu' or 'cuda'; minutes: save and stop after this time [min], None for no limit.
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
        """Raises ValueError if `processes` cannot share the pairs of a step evenly."""
        parts = processes * self.accumulate
        if self.batch % parts:
            turns = f' that accumulate {self.accumulate} times' if self.accumulate > 1 else ''
            raise ValueError(
                f'{self.batch} pairs a step for {processes} processes{turns}: '
                f'give a --batch that {parts} divides'
            )


@dataclass(frozen=True, kw_only=True)
class SmallNetworkOptions(TrainingOptions):
    """data: folder of packed rooms; rooms: number to render into it first, of (height, width) px, if any."""

    data: Path
    rooms: int | None = None
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class SemanticHeadsOptions(TrainingOptions):
    """source: scenes on disk; features: folder of their target features; tune: trained part, 'semantics',
    'gaussians' or 'all'; lpips: public file with weights for the perceptual loss, None for no such loss."""

    source: Path
    features: Path
    tune: str
    lpips: Path | None = None
