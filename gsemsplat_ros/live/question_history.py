"""Earlier queries of one visitor, as buttons."""

from __future__ import annotations

from dataclasses import dataclass

HISTORY = 8  # queries kept
GROWS_WITHIN_S = 5.0  # a text extended within this time was not complete: the longer one replaces it


@dataclass(frozen=True)
class QuestionHistory:
    """texts: newest first. typed_at: when the newest was typed [s, time.monotonic], None if chosen."""

    texts: tuple[str, ...] = ()
    typed_at: float | None = None

    def with_question(self, text: str, typed: bool, now: float) -> QuestionHistory:
        """The history after the query `text` at `now` [s, time.monotonic]."""
        begun = None
        if typed and self.typed_at is not None and now - self.typed_at < GROWS_WITHIN_S:
            begun = self.texts[0] if text.startswith(self.texts[0]) else None
        texts = (text, *(earlier for earlier in self.texts if earlier not in (text, begun)))
        return QuestionHistory(texts[:HISTORY], now if typed else None)
