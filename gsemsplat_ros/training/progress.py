"""The output of the first process of a training: bar, log.jsonl and TensorBoard."""

from __future__ import annotations

import json
import math

from tqdm import tqdm

from gsemsplat_ros.training.trainer import Trainer

LOG_EVERY = 20  # steps; the first ones are logged singly
LOG_SINGLY = 10  # steps


class ProgressLog:
    """A bar on stderr, log.jsonl and TensorBoard events in the folder of the run: means since the last line.

    losses: the means of the newest line.
    """

    def __init__(self, training: Trainer, quiet: bool):
        from torch.utils.tensorboard import SummaryWriter

        self.training, options = training, training.options
        self.since: list[dict[str, float]] = []
        self.losses: dict[str, float] = {}
        self.log = (options.out / 'log.jsonl').open('a')
        self.board = SummaryWriter(str(options.out), purge_step=training.step + 1)
        # pairs, not steps: the bar then says pairs a second and the time left by itself
        self.bar = tqdm(
            total=options.steps * options.batch,
            initial=training.step * options.batch,
            unit='pair',
            disable=True if quiet else None,
        )

    def step(self, values: dict[str, float]) -> None:
        """Take in the `values` of a step by name; NaN for what it does not have."""
        self.since.append(values)
        self.bar.update(self.training.options.batch)
        step = self.training.step
        if step > LOG_SINGLY and step % LOG_EVERY:
            return
        means = {name: [v[name] for v in self.since if not math.isnan(v[name])] for name in values}
        self.losses = {name: sum(some) / len(some) for name, some in means.items() if some}
        self.since = []
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
        """Write state and checkpoint, and show what the network does."""
        self.board.add_image('first pair', self.training.save(), self.training.step, dataformats='HWC')

    def close(self) -> None:
        self.bar.close()
        self.board.close()
        self.log.close()
