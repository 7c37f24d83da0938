"""/diagnostics made from a Status, for people and monitors: a level, a sentence, and named values.

Pure functions of the message: programs read ~/status, never these words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from gsemsplat_msgs.msg import Status
from std_msgs.msg import Header

LATE_S = 2.0  # an image topic that is silent for longer is late
UNMATCHED = 5  # images of both cameras in a row without a partner: the stamps do not fit

OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)
Value = str | int | float


@dataclass(frozen=True)
class Line:
    """One part of the report: level, a sentence, and values by name."""

    level: bytes
    message: str
    values: dict[str, Value]

    def to_message(self, name: str) -> DiagnosticStatus:
        """As DiagnosticStatus of this name."""
        values = [
            KeyValue(key=key, value=f'{value:.4g}' if isinstance(value, float) else str(value))
            for key, value in self.values.items()
        ]
        return DiagnosticStatus(level=self.level, name=name, message=self.message, values=values)


def report(node_name: str, status: Status) -> DiagnosticArray:
    """All parts that there are, named `node_name: part`."""
    return DiagnosticArray(
        header=Header(stamp=status.header.stamp),
        status=[line.to_message(f'{node_name}: {part}') for part, line in lines(status).items()],
    )


def lines(status: Status) -> dict[str, Line]:
    """All parts that there are, by name."""
    parts = {'inputs': inputs_line(status), 'scene': scene_line(status)}
    if status.configured:
        parts['map'] = map_line(status)
    if status.tf_frame:
        parts['transforms'] = transforms_line(status)
    return parts


def inputs_line(status: Status) -> Line:
    """How the input topics do."""
    if not status.active:
        return Line(STALE, 'not active: no input is subscribed', {})
    values: dict[str, Value] = {}
    missing, late, jumped = [], [], []
    for topic in status.inputs:
        name, never = topic.name, math.isnan(topic.age)
        values[f'{name} messages'] = topic.count
        values[f'{name} age [s]'] = 'never' if never else topic.age
        if never and topic.required:
            missing.append(name)
        elif topic.is_image and topic.age > LATE_S:  # False for NaN
            late.append(f'{name} ({topic.age:.1f} s)')
        if topic.is_image:
            values[f'{name} jumps of the stamps'] = topic.jumps
            if topic.jump:
                jumped.append(f'the stamps of {name} {topic.jump}')
    problems = []
    if missing:
        problems.append('nothing received yet on ' + ', '.join(missing))
    if late:
        problems.append('late: ' + ', '.join(late))
    problems += jumped
    if status.stereo:
        values['stereo pairs'] = status.stereo_pairs
        values['left, right without partner'] = ', '.join(
            str(int(received) - status.stereo_pairs) for received in status.received
        )
        values['skew of the last pair [ms]'] = _known(status.skew * 1e3)
        values['right minus left, newest stamps [ms]'] = _known(status.gap * 1e3)
        values['slop [ms]'] = status.slop * 1e3
        if not math.isnan(status.gap) and min(status.unmatched) >= UNMATCHED:
            problems.append(
                f'left and right do not match: newest stamps differ by {status.gap * 1e3:.1f} ms, '
                f'sync_slop_s allows {status.slop * 1e3:g} ms'
            )
        values['keyframes'] = status.keyframe_reason
        values['stereo pairs that showed nothing new'] = status.still_pairs
        values['motion since the last scene [fraction of the width]'] = _known(status.motion)
        values['changed since the last scene [fraction]'] = status.changed
    else:
        values['keyframes'] = status.keyframe_reason
        values['keyframe pairs'] = status.keyframe_pairs
        values['keyframe pairs dropped'] = status.keyframe_pairs_dropped
        values['motion since the keyframe [fraction of the width]'] = _known(status.motion)
        values['overlap with the keyframe [fraction]'] = _known(status.overlap)
    values['dropped because the worker was busy'] = status.dropped
    problems += status.complaints
    level = ERROR if missing else WARN if problems else OK
    return Line(level, '; '.join(problems) or 'receiving', values)


def scene_line(status: Status) -> Line:
    """What is loaded and what the last pair became."""
    if not status.configured:
        return Line(STALE, 'not configured: no network is loaded', {})
    values: dict[str, Value] = {
        'weights': status.weights,
        'text encoder': status.text_encoder,
        'device': status.device,
        'scenes': status.scenes,
        'refused inputs': status.refused,
        'last error': status.last_error or 'none',
        'peak memory [MB]': status.peak_memory,
    }
    if status.memory:
        values['memory [MB]'] = status.memory
    if status.peak_cuda_memory:
        values['CUDA memory [MB]'] = status.cuda_memory
        values['peak CUDA memory [MB]'] = status.peak_cuda_memory
    if status.scenes:
        values['gaussians'] = status.gaussians
        values['scale'] = status.scale
        values['scale source'] = status.scale_source
        values['inliers'] = f'{status.inliers} of {status.points}'
        values['frame'] = status.header.frame_id
    for latency in status.latencies:
        values[f'{latency.stage} [ms]'] = latency.seconds * 1e3
    if status.last_error:
        return Line(WARN, status.last_error, values)
    return Line(OK, 'scene ready' if status.scenes else 'no scene yet', values)


def map_line(status: Status) -> Line:
    """What the map holds, and why the last scene did not enter."""
    values: dict[str, Value] = {
        'frame': status.map_frame,
        'gaussians': status.map_gaussians,
        'scenes in it': status.map_scenes,
        'from a file': str(status.map_from_file),
        'voxel [m]': status.map_voxel,
        'scale source': status.map_scale_source or 'none',
        'scenes fused': status.scenes_fused,
        'scenes left out': status.scenes_left_out,
        'last scene': status.fusion_reason or 'none',
    }
    if status.save_error:
        return Line(WARN, f'the map was not saved: {status.save_error}', values)
    if status.last_left_out:
        return Line(WARN, f'the last scene was left out: {status.fusion_reason}', values)
    return Line(OK, 'growing' if status.fusion_reason else 'no scene yet', values)


def transforms_line(status: Status) -> Line:
    """Whether TF says where the camera stands."""
    values: dict[str, Value] = {'map frame': status.tf_frame, 'TF messages': status.tf_messages}
    if not status.tf_messages:
        return Line(ERROR, status.tf_error or 'nothing received yet on /tf, /tf_static', values)
    return Line(WARN, status.tf_error, values) if status.tf_error else Line(OK, 'receiving', values)


def _known(value: float) -> Value:
    return 'none' if math.isnan(value) else value
