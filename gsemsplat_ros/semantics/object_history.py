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

    def sight(self, now_ns: int) -> str:
        """When it was seen last, in words; now_ns: stamp of the newest images."""
        if not self.last_seen_ns:
            return 'gone' if self.state == State.GONE else f'seen in {self.times_seen} keyframes'
        last = f'last seen {duration(now_ns - self.last_seen_ns)} ago'
        if self.state == State.GONE:
            return f'gone, {last}'
        return last if self.state == State.THERE else f'{last}, and not at the last look there'

    def found_by(self, text: str, score: float) -> History:
        """The history after `text` found the object with `score`."""
        others = [pair for pair in self.texts if pair[0] != text][: MOST_TEXTS - 1]
        return replace(self, texts=tuple(sorted([*others, (text, score)], key=lambda pair: -pair[1])))


def duration(span_ns: int) -> str:
    """A time span in words, as '0 s', '5 min', '47 h' or '2 days'."""
    seconds = max(round(span_ns / 1e9), 0)
    for unit, size in (('days', 86400), ('h', 3600), ('min', 60)):
        if seconds >= (2 if unit == 'days' else 1) * size:
            return f'{seconds // size} {unit}'
    return f'{seconds} s'
