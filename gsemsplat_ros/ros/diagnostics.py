"""What /diagnostics says once a second: late or missing topics, skew, drops, frames, latency by stage,
memory, what is loaded."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

LATE_S = 2.0  # an image topic that is silent for longer is late
JUMPED_S = 5.0  # for so long it is said that stamps went back or ahead
UNMATCHED = 5  # images of both cameras in a row without a partner: the stamps do not fit

OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)


@dataclass
class Figures:
    """Counters of the worker. latency_s: stage -> seconds of the last pair."""

    scenes: int = 0
    refused: int = 0
    last_error: str = ''
    latency_s: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """One line of the report: level, a sentence, and values by name."""

    level: bytes
    message: str
    values: dict[str, Any]

    def to_message(self, name: str) -> DiagnosticStatus:
        """As DiagnosticStatus of this name."""
        values = [
            KeyValue(key=key, value=f'{value:.4g}' if isinstance(value, float) else str(value))
            for key, value in self.values.items()
        ]
        return DiagnosticStatus(level=self.level, name=name, message=self.message, values=values)


def memory() -> dict[str, int]:
    """What this process holds, by name with unit."""
    used = {'peak memory [MB]': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 1_000_000}
    try:
        with open('/proc/self/statm') as file:
            used['memory [MB]'] = int(file.read().split()[1]) * resource.getpagesize() // 1_000_000
    except OSError:  # not Linux
        pass
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        used['CUDA memory [MB]'] = torch.cuda.memory_allocated() // 1_000_000
        used['peak CUDA memory [MB]'] = torch.cuda.max_memory_allocated() // 1_000_000
    return used


def input_status(subscriptions, source, dropped: int) -> Status:
    """How the input topics do. `subscriptions`: inputs.Subscriptions, None while inactive; `source`: of
    inputs.
    """
    if subscriptions is None:
        return Status(STALE, 'not active: no input is subscribed', {})
    now, values = time.monotonic(), {}
    missing, late, jumped = [], [], []
    for heard in subscriptions.heard:
        age = None if heard.last_s is None else now - heard.last_s
        values[f'{heard.topic} messages'] = heard.count
        values[f'{heard.topic} age [s]'] = 'never' if age is None else age
        if age is None and heard.required:
            missing.append(heard.topic)
        elif heard.is_image and age is not None and age > LATE_S:
            late.append(f'{heard.topic} ({age:.1f} s)')
        if heard.is_image:
            values[f'{heard.topic} jumps of the stamps'] = heard.jumps
            if now - heard.jumped_s < JUMPED_S:
                jumped.append(f'the stamps of {heard.topic} {heard.jumped}')
    problems = []
    if missing:
        problems.append('nothing received yet on ' + ', '.join(missing))
    if late:
        problems.append('late: ' + ', '.join(late))
    problems += jumped
    sync = subscriptions.sync
    if sync:
        values['stereo pairs'] = sync.pairs
        values['left, right without partner'] = ', '.join(str(n - sync.pairs) for n in sync.received)
        values['skew of the last pair [ms]'] = 'none' if sync.skew_ns is None else sync.skew_ns / 1e6
        values['right minus left, newest stamps [ms]'] = 'none' if sync.gap_ns is None else sync.gap_ns / 1e6
        values['slop [ms]'] = sync.slop_s * 1e3
        if sync.gap_ns is not None and min(sync.unmatched) >= UNMATCHED:
            problems.append(
                f'left and right do not match: newest stamps differ by {sync.gap_ns / 1e6:.1f} ms, '
                f'sync_slop_s allows {sync.slop_s * 1e3:g} ms'
            )
    values.update(source.state)
    values['dropped because the worker was busy'] = dropped
    problems += source.complaints
    return Status(ERROR if missing else WARN if problems else OK, '; '.join(problems) or 'receiving', values)


def scene_status(pipeline, scene, figures: Figures) -> Status:
    """What is loaded and what the last pair became."""
    if pipeline is None:
        return Status(STALE, 'not configured: no network is loaded', {})
    values = {
        'weights': pipeline.weights,
        'text encoder': pipeline.text_encoder.name,
        'device': str(pipeline.device),
        'scenes': figures.scenes,
        'refused inputs': figures.refused,
        'last error': figures.last_error or 'none',
        **memory(),
    }
    if scene is not None:
        values.update(
            {
                'gaussians': len(scene.gaussians),
                'scale': float(scene.scale),
                'scale source': scene.scale_source,
                'inliers': f'{scene.inliers} of {scene.points}',
                'frame': scene.gaussians.frame,
            }
        )
    values.update({f'{stage} [ms]': seconds * 1e3 for stage, seconds in figures.latency_s.items()})
    if figures.last_error:
        return Status(WARN, figures.last_error, values)
    return Status(OK, 'no scene yet' if scene is None else 'scene ready', values)


def map_status(keeper) -> Status:
    """What the map holds, and why the last scene did not enter. `keeper`: map_keeper.MapKeeper."""
    kept = keeper.kept
    values = {
        'frame': kept.map.frame,
        'gaussians': len(kept.map),
        'scenes in it': kept.map.scenes,
        'from a file': kept.loaded,
        'voxel [m]': kept.map.voxel,
        'scale source': kept.map.scale_source or 'none',
        'scenes fused': keeper.fused,
        'scenes left out': keeper.left_out,
        'last scene': keeper.reason or 'none',
    }
    if keeper.trouble:
        return Status(WARN, f'the map was not saved: {keeper.trouble}', values)
    return (
        Status(OK, 'growing' if keeper.reason else 'no scene yet', values)
        if keeper.last
        else Status(WARN, f'the last scene was left out: {keeper.reason}', values)
    )


def transform_status(transforms) -> Status:
    """Whether TF says where the camera stands. `transforms`: transforms.Transforms."""
    values = {'map frame': transforms.map_frame, 'TF messages': transforms.messages}
    if not transforms.messages:
        return Status(ERROR, transforms.reason or 'nothing received yet on /tf, /tf_static', values)
    return Status(WARN, transforms.reason, values) if transforms.reason else Status(OK, 'receiving', values)


def report(node_name: str, stamp: Time, **statuses: Status) -> DiagnosticArray:
    """All statuses, named `node_name: key`."""
    return DiagnosticArray(
        header=Header(stamp=stamp),
        status=[status.to_message(f'{node_name}: {name}') for name, status in statuses.items()],
    )
