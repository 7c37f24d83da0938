"""TF while time goes on, starts again, or is told by two clocks.

tf2 forgets everything when the ROS clock jumps back, and only then. A bag that starts again without /clock
does not do that, and what was known would be newer than what comes, for ever. But one frame that steps back
means little: each message of a second publisher whose clock is behind does so.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import TransformStamped

from gsemsplat_ros.ros.conversions import quoted
from gsemsplat_ros.ros.synchronize import JUMP_BACK_NS
from gsemsplat_ros.ros.tf_buffer import Buffer, sample_of

SETTLED_NS = 3 * 10**9  # by then slow frames that are dated ahead (map to odom) are in the young buffer
TOLD_S = 10.0  # for so long after its last message a second publisher is reported


class Epoch:
    """A buffer, and the newest stamp of each moving frame in it [ns]."""

    def __init__(self, buffer: Buffer):
        self.buffer = buffer
        self.newest: dict[str, int] = {}

    def add(self, message: TransformStamped, static: bool, child: str, stamp_ns: int) -> None:
        """Take in a transform of the frame `child`."""
        self.buffer.add(message, static)
        if not static:
            self.newest[child] = max(stamp_ns, self.newest.get(child, stamp_ns))


class TfHistory:
    """What was heard of TF, across a new start of time.

    When a frame steps back by more than JUMP_BACK_NS, a young buffer is begun beside the old one, and asked
    first. When the frame has gone on in it for SETTLED_NS, the young one replaces the old: time has started
    again. A frame that steps back and as far ahead again, or ahead and back, has two publishers.
    """

    def __init__(self, make: Callable[[], Buffer]):
        """`make`: an empty buffer."""
        self._make = make
        self._static: dict[str, TransformStamped] = {}
        self._rivals, self._rivals_s = '', float('-inf')
        self.clear()

    def clear(self) -> None:
        """Forget what moves."""
        self._old = self._fresh()
        self._young: Epoch | None = None
        self._fallen = ''  # the frame for which the young one was begun
        self._fallen_ns = 0  # and at which stamp
        self._last: dict[str, int] = {}  # frame -> stamp [ns]
        self._steps: dict[str, int] = {}  # frame -> its last step by more than JUMP_BACK_NS, either way [ns]

    def _fresh(self) -> Epoch:
        epoch = Epoch(self._make())
        for message in self._static.values():
            epoch.buffer.add(message, True)
        return epoch

    @property
    def rivals(self) -> str:
        """The frame that two publishers have sent of late, in words, or ''."""
        return self._rivals if time.monotonic() - self._rivals_s < TOLD_S else ''

    def add(self, message: TransformStamped, static: bool) -> None:
        """Take in a transform. Raises ValueError for what is none."""
        child, sample = sample_of(message)
        stamp_ns = sample.stamp_ns
        if static:
            self._static[child] = message
        else:
            self._judge(child, stamp_ns)
        for epoch in (self._old, self._young):
            if epoch:
                epoch.add(message, static, child, stamp_ns)

    def _judge(self, child: str, stamp_ns: int) -> None:
        """What the stamp of a moving frame says about time."""
        step = stamp_ns - self._last.get(child, stamp_ns)
        self._last[child] = stamp_ns
        if abs(step) > JUMP_BACK_NS:
            before = self._steps.get(child, 0)
            self._steps[child] = step
            if before * step < 0 and abs(before + step) < 2 * JUMP_BACK_NS:
                seconds = abs(before - step) / 2e9
                self._rivals = f'two publishers of {quoted(child)} differ by {seconds:.1f} s'
                self._rivals_s = time.monotonic()
        newest = (self._young or self._old).newest.get(child, stamp_ns)
        if newest - stamp_ns > JUMP_BACK_NS:
            self._young, self._fallen, self._fallen_ns = self._fresh(), child, stamp_ns
        elif self._young and child == self._fallen:
            if step > JUMP_BACK_NS:  # up to where it was, or ahead
                self._fallen_ns = stamp_ns
            elif stamp_ns - self._fallen_ns >= SETTLED_NS:
                self._old, self._young = self._young, None

    def lookup(self, target: str, source: str, at_ns: int) -> np.ndarray:
        """As `Buffer.lookup`."""
        if self._young:
            try:
                return self._young.buffer.lookup(target, source, at_ns)
            except LookupError:
                pass
        return self._old.buffer.lookup(target, source, at_ns)
