"""The processes of one training: this one alone, or those of `torchrun` on one or several machines."""

from __future__ import annotations

import logging
import os
import platform
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gsemsplat_ros.device import choose

log = logging.getLogger(__name__)

PATIENCE = timedelta(days=1)  # the first process may render rooms so long while the others wait


class Processes:
    """rank, count: this process among all; device: its own. `with` connects them: NCCL on GPUs, else Gloo."""

    def __init__(self, device: str):
        """`device`: 'cpu', 'cuda' (each process of a machine takes the GPU of its number) or 'auto'.

        Raises ValueError for 'cuda' if the machine has too few GPUs.
        """
        started = dist.is_torchelastic_launched()
        self.rank = int(os.environ['RANK']) if started else 0
        self.count = int(os.environ['WORLD_SIZE']) if started else 1
        self.here = int(os.environ['LOCAL_WORLD_SIZE']) if started else 1  # of them on this machine
        local = int(os.environ['LOCAL_RANK']) if started else 0
        self.device, gpus = choose(device), torch.cuda.device_count()
        if device == 'cuda' and gpus < self.here:
            raise ValueError(
                f'{self.here} processes on cuda, but this machine has {gpus} GPUs: start fewer '
                '(torchrun --nproc_per_node), or give --device cpu'
            )
        if self.device.type == 'cuda':
            self.device = torch.device('cuda', local) if gpus >= self.here else torch.device('cpu')
            if gpus < self.here:
                log.warning('%d processes and %d GPUs here: training on the CPU', self.here, gpus)
        self.take_device()

    def __enter__(self) -> Processes:
        if self.count > 1:
            dist.init_process_group('nccl' if self.device.type == 'cuda' else 'gloo', timeout=PATIENCE)
            self.hosts = dist.new_group(backend='gloo', timeout=PATIENCE)
        return self

    def __exit__(self, *error: object) -> None:
        if self.count > 1:
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    @property
    def workers(self) -> int:
        """Number of processes that load pairs: half of this process's share of the cores, beside a GPU all
        but one."""
        cores = (os.cpu_count() or 1) // self.here
        return max(1, cores - 1 if self.device.type == 'cuda' else cores // 2)

    def take_device(self) -> None:
        """Make the device the current one; needed before it is used."""
        if self.device.type == 'cuda':
            torch.cuda.set_device(self.device)

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module` with the first process's tensors; each backward averages gradients over all processes."""
        # in some steps a head has no gradient: no named pixel, or no visible one in the rendered view
        return (
            nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)
            if self.count > 1
            else module
        )

    def share(self, value: Any) -> Any:
        """The first process's `value`."""
        box = [value]
        if self.count > 1:
            dist.broadcast_object_list(box, device=self.device)
        return box[0]

    def any(self, here: bool) -> bool:
        """Whether it holds `here` in any process; devices are not waited for."""
        if self.count == 1:
            return here
        flag = torch.tensor(float(here))
        dist.all_reduce(flag, dist.ReduceOp.MAX, self.hosts)
        return bool(flag)

    def means(self, rows: list[Tensor]) -> list[list[float]]:
        """Means of each of `rows` (K,) over all processes; waits for the device."""
        values = torch.stack(rows)
        if self.count > 1:
            dist.all_reduce(values)
        return (values / self.count).tolist()

    @property
    def machine(self) -> str:
        """Name of the GPU, or of the CPU with its cores, and the number of processes, for a card."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == 'cuda' else cpu_name()
        return name if self.count == 1 else f'{self.count} x {name}'


def cpu_name() -> str:
    """Model and cores of this machine's CPU."""
    info = Path('/proc/cpuinfo')
    model = re.search(r'model name\s*:\s*(.+)', info.read_text()) if info.exists() else None
    return f'{model[1] if model else platform.processor() or platform.machine()}, {os.cpu_count()} cores'
