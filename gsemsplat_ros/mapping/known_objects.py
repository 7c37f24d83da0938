"""The objects that a map remembers, each with an id that is never given twice.

They come from the answers to queries, so a map knows what was asked for. A value never changes:
object_identity.py makes new ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from gsemsplat_ros.semantics.object_history import History, State
from gsemsplat_ros.semantics.objects import Object

MOST = 1000  # objects of a map, 2.5 MB
SAMPLE = 256  # voxels that are kept of an object


@dataclass(frozen=True, eq=False)
class KnownObject:
    """thing: its newest box and score, with its history. keys (K,) int64, ascending: SAMPLE of its voxels at
    most, evenly chosen; voxels: how many it has. owner: number of the scene with whose pose it moves."""

    thing: Object
    keys: np.ndarray
    voxels: int
    owner: int

    @property
    def history(self) -> History:
        """What is known of it."""
        assert self.thing.history is not None
        return self.thing.history

    @property
    def gone(self) -> bool:
        """Whether it was carried away."""
        return self.history.state == State.GONE

    def with_history(self, history: History) -> KnownObject:
        """The object with another history."""
        return replace(self, thing=replace(self.thing, history=history))


@dataclass(frozen=True, eq=False)
class KnownObjects:
    """All objects of a map by ascending id, and the id of the next one."""

    objects: tuple[KnownObject, ...] = ()
    next_id: int = 1

    def changed(self, objects: Iterable[KnownObject]) -> KnownObjects:
        """With these in the place of those of the same ids, or new. Beyond MOST those that went first are
        forgotten, then those that were not seen for the longest time."""
        by_id = {known.history.id: known for known in (*self.objects, *objects)}
        kept = sorted(
            by_id.values(),
            key=lambda known: (not known.gone, known.history.gone_ns, known.history.last_seen_ns),
        )[-MOST:]
        kept.sort(key=lambda known: known.history.id)
        return KnownObjects(tuple(kept), max([self.next_id, *(number + 1 for number in by_id)]))

    def gone_of(self, text: str) -> tuple[Object, ...]:
        """What `text` found and has gone, newest first."""
        gone = [known for known in self.objects if known.gone and text in dict(known.history.texts)]
        gone.sort(key=lambda known: -known.history.gone_ns)
        return tuple(known.thing for known in gone)

    def since(self, stamp_ns: int) -> tuple[list[Object], list[Object]]:
        """What appeared from `stamp_ns` on and is not gone, and what went since then; oldest first."""
        there = [known for known in self.objects if not known.gone]
        appeared = [known for known in there if known.history.first_seen_ns >= stamp_ns]
        gone = [known for known in self.objects if known.gone and known.history.gone_ns >= stamp_ns]
        appeared.sort(key=lambda known: known.history.first_seen_ns)
        gone.sort(key=lambda known: known.history.gone_ns)
        return [known.thing for known in appeared], [known.thing for known in gone]
