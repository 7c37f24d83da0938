"""Pairs of stereo images by their stamps: the plain twin of message_filters."""

from __future__ import annotations

from typing import Any


class StereoPairer:
    """Pairs the items of two streams whose stamps differ by at most `slop_s`, each item at most once.

    The plain twin of message_filters.ApproximateTimeSynchronizer for two inputs: the new item takes the
    nearest one of the other stream. Keeps the `depth` newest items of each side.

    pairs: how many were made. dropped: items of each side that left without a partner. skew_ns: stamp of the
    right item minus that of the left one in the last pair [ns], None before the first.
    """

    def __init__(self, slop_s: float, depth: int = 10):
        self._slop_ns = round(slop_s * 1e9)
        self._depth = depth
        self._waiting: tuple[dict[int, Any], dict[int, Any]] = ({}, {})
        self.pairs = 0
        self.dropped = [0, 0]
        self.skew_ns: int | None = None

    def add(self, side: int, stamp_ns: int, item: Any) -> tuple[Any, Any] | None:
        """Take in an item of side 0 (left) or 1 (right); return the (left, right) pair that it completes, or
        None.
        """
        mine, others = self._waiting[side], self._waiting[1 - side]
        self.dropped[side] += stamp_ns in mine  # two items with one stamp: the newer one counts
        mine[stamp_ns] = item
        while len(mine) > self._depth:
            del mine[min(mine)]
            self.dropped[side] += 1
        if stamp_ns not in mine or not others:
            return None
        partner = min(others, key=lambda other: abs(other - stamp_ns))
        if abs(partner - stamp_ns) > self._slop_ns:
            return None
        self.pairs += 1
        self.skew_ns = (partner - stamp_ns) if side == 0 else (stamp_ns - partner)
        pair = mine.pop(stamp_ns), others.pop(partner)
        return pair if side == 0 else pair[::-1]
