"""Pairing of left and right messages by stamp, with the skew measured: message_filters where ROS provides it.

message_filters is no package of the Python package index; where it cannot be imported,
images.stereo.StereoPairer does the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gsemsplat_ros.images.stereo import StereoPairer
from gsemsplat_ros.ros.conversions import stamp_ns

try:
    import message_filters
except ImportError:
    message_filters = None

DEPTH = 10  # messages of each side that wait for a partner
# stamps older than the newest by more than this: a bag started again, the clock was set back
JUMP_BACK_NS = 10**9

OnPair = Callable[[Any, Any], None]
Add = Callable[[int, Any], None]  # takes in (side, message)
MakeBackend = Callable[[float, OnPair], Add]


def plain_backend(slop_s: float, on_pair: OnPair) -> Add:
    """`add(side, message)` of the plain twin."""
    pairer: StereoPairer[Any] = StereoPairer(slop_s, DEPTH)

    def add(side: int, message: Any) -> None:
        pair = pairer.add(side, stamp_ns(message.header), message)
        if pair:
            on_pair(*pair)

    return add


def filters_backend(slop_s: float, on_pair: OnPair) -> Add:
    """`add(side, message)` of message_filters. It holds its lock while it calls `on_pair`, and for ever after
    an exception there: `on_pair` must return at once and never raise."""
    sides = message_filters.SimpleFilter(), message_filters.SimpleFilter()
    # its test is `<`, ours `<=`: one nanosecond more, or a slop of 0 would never pair
    sync = message_filters.ApproximateTimeSynchronizer(sides, DEPTH, slop_s + 1.5e-9)
    sync.registerCallback(on_pair)
    return lambda side, message: sides[side].signalMessage(message)


class StereoSync:
    """Calls `on_pair(left, right)` for messages whose stamps differ by at most `slop_s`.

    pairs: how many. received: messages of each side; unmatched: those since the last pair, in a row. skew_ns:
    right minus left stamp of the last pair. gap_ns: right minus left stamp of the newest messages, paired or
    not: what a user needs to choose the slop.
    """

    def __init__(self, slop_s: float, on_pair: OnPair, make_backend: MakeBackend | None = None):
        self._make_backend = make_backend or (filters_backend if message_filters else plain_backend)
        self._on_pair = on_pair
        self.slop_s = slop_s
        self._restart()
        self.received, self.unmatched = [0, 0], [0, 0]
        self.pairs = 0
        self.skew_ns: int | None = None
        self.gap_ns: int | None = None

    def add(self, side: int, message: Any) -> None:
        """Take in a message of side 0 (left) or 1 (right)."""
        stamp, newest = stamp_ns(message.header), self._newest[side]
        if newest is not None and stamp < newest - JUMP_BACK_NS:
            self._restart()  # old stamps would win for ever
        self._newest[side] = stamp
        self.received[side] += 1
        self.unmatched[side] += 1
        left, right = self._newest
        if left is not None and right is not None:
            self.gap_ns = right - left
        self._backend(side, message)

    def _restart(self) -> None:
        self._backend = self._make_backend(self.slop_s, self._paired)
        self._newest: list[int | None] = [None, None]

    def _paired(self, left: Any, right: Any) -> None:
        self.pairs += 1
        self.unmatched = [0, 0]
        self.skew_ns = stamp_ns(right.header) - stamp_ns(left.header)
        self._on_pair(left, right)
