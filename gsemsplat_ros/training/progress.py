"""The output of the first process of a training: bar, log.jsonl and TensorBoard."""

from __future__ import annotations

import json
import math

from tqdm import tqdm

from gsemsplat_ros.training.trainer import Trainer

LOG_EVERY = 20  # steps
LOG_SINGLY = 10  # first steps, logged one by one


def has_line(step: int) -> bool:
    """Whether the log has a line for this step."""
    return step <= LOG_SINGLY or step % LOG_EVERY == 0


class ProgressLog:
    """A bar on stderr, and means since the last line in log.jsonl and TensorBoard in the folder of the run.

    losses: the means of the newest line.
    """

    def __init__(self, training: Trainer, quiet: bool):
        from torch.utils.tensorboard import SummaryWriter

        self.training, options = training, training.options
        self.losses: dict[str, float] = {}
        self.log = (options.out / 'log.jsonl').open('a')
        self.board = SummaryWriter(str(options.out), purge_step=training.step + 1)
        # in pairs, not steps, so that the bar shows pairs per second
        self.bar = tqdm(
            total=options.steps * options.batch,
            initial=training.step * options.batch,
            unit='pair',
            disable=True if quiet else None,
        )

    def step(self, rows: list[list[float]]) -> None:
        """Count a step. `rows`, unless empty: of the steps since the last line the objective's terms, NaN for
        those that a step lacks, and the gradient norm."""
        self.bar.update(self.training.options.batch)
        if not rows:
            return
        step = self.training.step
        names = *self.training.objective.terms, 'gradient_norm'
        values = {name: [v for v in column if not math.isnan(v)] for name, column in zip(names, zip(*rows))}
        self.losses = {name: sum(some) / len(some) for name, some in values.items() if some}
        self.losses['lr'] = self.training.optimizer.param_groups[0]['lr']
        self.bar.set_postfix(
            {name: f'{self.losses[name]:.3f}' for name in self.training.shown if name in self.losses}
        )
        facts = self.training.facts
        line = {
            'step': step,
            'pairs': facts['pairs'],
            'seconds': 3600 * sum(facts['hours'].values()),
            **self.losses,
        }
        self.log.write(json.dumps({name: round(value, 6) for name, value in line.items()}) + '\n')
        self.log.flush()
        for name, value in self.losses.items():
            self.board.add_scalar(name, value, step)

    def save(self) -> None:
        """Write state and checkpoint, and a picture of the predictions to TensorBoard."""
        self.board.add_image('first pair', self.training.save(), self.training.step, dataformats='HWC')

    def close(self) -> None:
        self.bar.close()
        self.board.close()
        self.log.close()
