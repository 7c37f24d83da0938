"""Pairs of stereo images by their stamps: the plain twin of message_filters."""

from __future__ import annotations

from typing import Generic, TypeVar

Item = TypeVar('Item')


class StereoPairer(Generic[Item]):
    """Pairs the items of two streams whose stamps differ by at most `slop_s`, each item at most once.

    The plain twin of message_filters.ApproximateTimeSynchronizer for two inputs: the new item takes the
    nearest one of the other stream. Keeps the `depth` newest items of each side.

    pairs: number made. dropped: items of each side discarded without a partner. skew_ns: stamp of the right
    item minus that of the left one in the last pair [ns], None before the first.
    """

    def __init__(self, slop_s: float, depth: int = 10):
        self._slop_ns = round(slop_s * 1e9)
        self._depth = depth
        self._waiting: tuple[dict[int, Item], dict[int, Item]] = ({}, {})
        self.pairs = 0
        self.dropped = [0, 0]
        self.skew_ns: int | None = None

    def add(self, side: int, stamp_ns: int, item: Item) -> tuple[Item, Item] | None:
        """Add an item of side 0 (left) or 1 (right); returns the (left, right) pair it completes, or None."""
        own, others = self._waiting[side], self._waiting[1 - side]
        if stamp_ns in own:  # two items with one stamp: the newer one counts
            self.dropped[side] += 1
        own[stamp_ns] = item
        while len(own) > self._depth:
            del own[min(own)]
            self.dropped[side] += 1
        if stamp_ns not in own or not others:
            return None
        partner = min(others, key=lambda other: abs(other - stamp_ns))
        if abs(partner - stamp_ns) > self._slop_ns:
            return None
        left, right = (stamp_ns, partner) if side == 0 else (partner, stamp_ns)
        self.pairs += 1
        self.skew_ns = right - left
        return self._waiting[0].pop(left), self._waiting[1].pop(right)
