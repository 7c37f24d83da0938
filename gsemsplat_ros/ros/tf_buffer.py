"""Frames over time: the buffer of tf2_ros if ROS provides it, else a plain twin.

tf2_ros is no package of the Python package index.
"""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.time import Time

from gsemsplat_ros.gaussians.rotations import quats_to_rotations
from gsemsplat_ros.ros.conversions import quoted, stamp_ns

try:
    import tf2_ros
except ImportError:
    tf2_ros = None

BUFFER_S = 10.0  # how far back transforms are kept
MAX_CHAIN = 1000  # frames from a camera up to the root: more is a loop


class StampedTransform(NamedTuple):
    """`parent_from_child` at a time: translation (3,) [m], unit quaternion (4,) w, x, y, z."""

    stamp_ns: int
    parent: str
    translation: np.ndarray
    quat: np.ndarray


def sample_of(message: TransformStamped) -> tuple[str, StampedTransform]:
    """Child frame and its transform. Raises ValueError for anything but a rigid transform of two frames."""
    parent, child = message.header.frame_id.lstrip('/'), message.child_frame_id.lstrip('/')
    t, q = message.transform.translation, message.transform.rotation
    quat, length = np.array([q.w, q.x, q.y, q.z]), math.hypot(q.w, q.x, q.y, q.z)
    if not parent or not child or parent == child:
        raise ValueError(f'TF from {quoted(parent)} to {quoted(child)}: wanted the names of two frames')
    if not (math.isfinite(t.x + t.y + t.z) and abs(length - 1) < 0.01):  # NaN fails too
        raise ValueError(
            f'TF from {quoted(parent)} to {quoted(child)} with translation ({t.x:g}, {t.y:g}, {t.z:g}) m '
            f'and a quaternion of length {length:g}: wanted finite numbers and a unit quaternion'
        )
    return child, StampedTransform(stamp_ns(message.header), parent, np.array([t.x, t.y, t.z]), quat / length)


def matrix(translation: np.ndarray, quat: np.ndarray) -> np.ndarray:
    """(4, 4) of a translation (3,) and a unit quaternion (4,) w, x, y, z."""
    out = np.eye(4)
    out[:3, :3] = quats_to_rotations(quat)
    out[:3, 3] = translation
    return out


def between(a: StampedTransform, b: StampedTransform, at_ns: int) -> StampedTransform:
    """Translation interpolated linearly, rotation on the shorter great arc (slerp)."""
    part = (at_ns - a.stamp_ns) / (b.stamp_ns - a.stamp_ns)
    dot = float(a.quat @ b.quat)
    end = b.quat if dot >= 0 else -b.quat
    angle = math.acos(min(abs(dot), 1.0))
    if angle < 1e-6:  # sin(angle) would divide by zero; straight and round are the same here
        quat = (1 - part) * a.quat + part * end
    else:
        quat = (math.sin((1 - part) * angle) * a.quat + math.sin(part * angle) * end) / math.sin(angle)
    return StampedTransform(
        at_ns, a.parent, (1 - part) * a.translation + part * b.translation, quat / np.linalg.norm(quat)
    )


class Buffer(Protocol):
    """A tree of frames in time."""

    def add(self, message: TransformStamped, static: bool) -> None:
        """Take in a transform that `sample_of` accepts."""

    def lookup(self, target: str, source: str, at_ns: int) -> np.ndarray:
        """target_from_source (4, 4) at this time; 0: the newest that all frames between them know.

        Raises LookupError with the reason.
        """


class PlainBuffer:
    """The plain twin of tf2's buffer: a tree of frames, each with its last BUFFER_S under its parent."""

    def __init__(self) -> None:
        self._static: dict[str, StampedTransform] = {}
        self._moving: dict[str, list[StampedTransform]] = defaultdict(list)  # by stamp

    def add(self, message: TransformStamped, static: bool) -> None:
        child, sample = sample_of(message)
        if static:
            self._static[child] = sample
            return
        samples = self._moving[child]
        place = bisect.bisect_left(samples, sample.stamp_ns, key=lambda s: s.stamp_ns)
        same = place < len(samples) and samples[place].stamp_ns == sample.stamp_ns
        samples[place : place + same] = [sample]  # the last one of a stamp counts
        oldest = samples[-1].stamp_ns - BUFFER_S * 1e9
        del samples[: bisect.bisect_left(samples, oldest, key=lambda s: s.stamp_ns)]

    def lookup(self, target: str, source: str, at_ns: int) -> np.ndarray:
        for frame in target, source:
            if not self._known(frame):
                raise LookupError(f'frame {quoted(frame)} is unknown to TF')
        at_ns = at_ns or self._newest_common(target, source)
        up, missing = self._climb(source, at_ns)
        down, missing_too = self._climb(target, at_ns)
        for frame, target_from in down.items():
            if frame in up:
                return np.linalg.inv(target_from) @ up[frame]
        raise LookupError(
            missing
            or missing_too
            or f'frames {quoted(target)} and {quoted(source)} are in trees of TF that nothing connects'
        )

    def _known(self, frame: str) -> bool:
        return any(frame == child or frame == sample.parent for child, sample in self._edges())

    def _edges(self) -> Iterator[tuple[str, StampedTransform]]:
        yield from self._static.items()
        yield from ((child, samples[-1]) for child, samples in self._moving.items() if samples)

    def _climb(self, frame: str, at_ns: int) -> tuple[dict[str, np.ndarray], str]:
        """For `frame` and each frame above it: frame_from_(the one below), multiplied; and why it ended."""
        poses, pose, missing = {frame: np.eye(4)}, np.eye(4), ''
        for _ in range(MAX_CHAIN):
            try:
                sample = self._at(frame, at_ns)
            except LookupError as error:
                missing = str(error)
                break
            if sample is None:
                break
            pose, frame = matrix(sample.translation, sample.quat) @ pose, sample.parent
            if frame in poses:
                raise LookupError(f'TF has a loop at frame {quoted(frame)}')
            poses[frame] = pose
        return poses, missing

    def _at(self, child: str, at_ns: int) -> StampedTransform | None:
        """The child under its parent at this time; None for a root."""
        if child in self._static:
            return self._static[child]
        samples = self._moving.get(child)
        if not samples:
            return None
        place = bisect.bisect_left(samples, at_ns, key=lambda s: s.stamp_ns)
        if place < len(samples) and samples[place].stamp_ns == at_ns:
            return samples[place]
        if place in (0, len(samples)):
            raise LookupError(
                f'TF knows frame {quoted(child)} under {quoted(samples[-1].parent)} from '
                f'{samples[0].stamp_ns / 1e9:.3f} to {samples[-1].stamp_ns / 1e9:.3f} s, wanted at '
                f'{at_ns / 1e9:.3f} s'
            )
        before, after = samples[place - 1], samples[place]
        return between(before, after, at_ns) if before.parent == after.parent else before

    def _newest_common(self, target: str, source: str) -> int:
        edges = dict(self._edges())

        def above(frame: str) -> list[str]:
            chain = [frame]
            while chain[-1] in edges and len(chain) < MAX_CHAIN:
                chain.append(edges[chain[-1]].parent)
            return chain

        up, down = above(source), above(target)
        moving = [f for f in set(up) ^ set(down) if f in edges and f not in self._static]
        return min((edges[f].stamp_ns for f in moving), default=1)


class Tf2Buffer:
    """The buffer of tf2_ros."""

    def __init__(self) -> None:
        self._buffer = tf2_ros.Buffer(cache_time=Duration(seconds=BUFFER_S))

    def add(self, message: TransformStamped, static: bool) -> None:
        (self._buffer.set_transform_static if static else self._buffer.set_transform)(message, 'gsemsplat')

    def lookup(self, target: str, source: str, at_ns: int) -> np.ndarray:
        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=at_ns))
        except tf2_ros.TransformException as error:
            raise LookupError(str(error)) from None
        t, q = found.transform.translation, found.transform.rotation
        return matrix(np.array([t.x, t.y, t.z]), np.array([q.w, q.x, q.y, q.z]))


def make_buffer() -> Buffer:
    """That of tf2_ros where it is installed."""
    return Tf2Buffer() if tf2_ros else PlainBuffer()
