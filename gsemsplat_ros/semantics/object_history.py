"""What a map remembers of one object: its id, the texts that found it, and when it was seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

MOST_TEXTS = 8  # of one object


class State(IntEnum):
    """What became of an object; the numbers are those of gsemsplat_msgs/msg/Object."""

    THERE = 1
    NOT_SEEN_LATELY = 2
    GONE = 3


@dataclass(frozen=True)
class History:
    """id: from 1, over keyframes and restarts, never given twice. texts: that found it, with the newest score
    of each, best first, MOST_TEXTS at most. first_seen_ns, last_seen_ns: stamps of the first and last
    keyframe that showed it, 0: unknown; times_seen: number of keyframes that did. gone_ns: stamp of the
    keyframe by which it was gone, 0 unless it is."""

    id: int
    state: State
    texts: tuple[tuple[str, float], ...]
    first_seen_ns: int
    last_seen_ns: int
    times_seen: int
    gone_ns: int = 0

    @property
    def label(self) -> str:
        """The text with the highest score."""
        return self.texts[0][0]

    def found_by(self, text: str, score: float) -> History:
        """The history after `text` found the object with `score`."""
        others = [pair for pair in self.texts if pair[0] != text][: MOST_TEXTS - 1]
        return replace(self, texts=tuple(sorted([*others, (text, score)], key=lambda pair: -pair[1])))
