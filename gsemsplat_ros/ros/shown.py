"""The answers shown as markers: to the standing queries, and the newest ones to services."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Generic, TypeVar

from gsemsplat_ros.ros.parameters import MAX_QUERIES

Answer = TypeVar('Answer')


class Shown(Generic[Answer]):
    """One answer for each text. Of services the newest MAX_QUERIES are kept: a robot that stands makes no new
    scene, and may be asked all the same."""

    def __init__(self) -> None:
        self._standing: dict[str, Answer] = {}
        self._asked: OrderedDict[str, Answer] = OrderedDict()

    @property
    def all(self) -> list[Answer]:
        """To the standing queries first, then to services, oldest first."""
        return [*self._standing.values(), *self._asked.values()]

    def stand(self, answers: Mapping[str, Answer]) -> None:
        """Replace the answers to the standing queries, by text."""
        self._standing = dict(answers)
        for text in answers:
            self._asked.pop(text, None)

    def ask(self, text: str, answer: Answer) -> None:
        """Add the answer to a service."""
        if text in self._standing:
            self._standing[text] = answer
            return
        self._asked.pop(text, None)
        self._asked[text] = answer
        if len(self._asked) > MAX_QUERIES:
            self._asked.popitem(last=False)

    def clear(self) -> None:
        """There is a new scene: the answers were about another one."""
        self._standing.clear()
        self._asked.clear()
