"""Fields of a hand-written JSON file with their place in it, for precise error messages."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from gsemsplat_ros.semantics.answer import MAX_TEXT

Read = TypeVar('Read')


@dataclass(frozen=True)
class Field:
    """A value of a JSON file and its place there, such as `pairs[2].objects[0].box`.

    Methods raise ValueError, with that place, if the value is not of the wanted kind.
    """

    path: Path
    where: str
    value: object

    @classmethod
    def read(cls, path: Path, wanted: str) -> Field:
        """The whole content of `path`; `wanted`: its description for errors. Raises ValueError."""
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
        except FileNotFoundError:
            raise ValueError(f'no file {path}: wanted {wanted}') from None
        except (OSError, ValueError, RecursionError) as error:  # ValueError: not text, or not JSON
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ValueError(f'{path} cannot be read as JSON ({reason}): wanted {wanted}') from None
        return cls(path, 'the content', content)

    def wrong(self, wanted: str) -> ValueError:
        """The error for this value: file, place, value and what was `wanted`."""
        got = json.dumps(self.value)
        if len(got) > 60:
            got = got[:57] + '...'
        return ValueError(f'{self.path}: {self.where} is {got}: wanted {wanted}')

    def has(self, name: str) -> bool:
        """Whether this object has the member `name`, not null."""
        return isinstance(self.value, dict) and self.value.get(name) is not None

    def get(self, name: str) -> Field:
        """The member `name` of this object."""
        if not isinstance(self.value, dict):
            raise self.wrong(f'an object with "{name}"')
        where = name if self.where == 'the content' else f'{self.where}.{name}'
        if name not in self.value:
            raise ValueError(f'{self.path}: {where} is missing')
        return Field(self.path, where, self.value[name])

    def others(self, known: Collection[str]) -> list[str]:
        """The members of this object that are not `known`."""
        return [name for name in self.value if name not in known] if isinstance(self.value, dict) else []

    def items(self) -> list[Field]:
        """The elements of this list."""
        if not isinstance(self.value, list):
            raise self.wrong('a list')
        return [Field(self.path, f'{self.where}[{i}]', value) for i, value in enumerate(self.value)]

    def number(self, positive: bool = False) -> float:
        """A finite number, above 0 if `positive`."""
        value = math.nan
        if isinstance(self.value, (int, float)) and not isinstance(self.value, bool):
            with suppress(OverflowError):  # JSON integers have no limit
                value = float(self.value)
        if not math.isfinite(value) or (positive and value <= 0):
            raise self.wrong('a positive number' if positive else 'a number')
        return value

    def size(self) -> int:
        """A whole number of pixels."""
        value = self.number(positive=True)
        if value != int(value):
            raise self.wrong('a whole number of pixels')
        return int(value)

    def matrix(self, rows: int, columns: int) -> np.ndarray:
        """A list of rows of numbers, (rows, columns) float64."""
        lines = [line.items() for line in self.items()]
        if len(lines) != rows or any(len(line) != columns for line in lines):
            raise self.wrong(f'{rows} rows of {columns} numbers')
        return np.array([[value.number() for value in line] for line in lines])

    def words(self) -> str:
        """Text of 1 to MAX_TEXT characters, stripped."""
        if not isinstance(self.value, str) or not 0 < len(self.value.strip()) <= MAX_TEXT:
            raise self.wrong(f'words, at most {MAX_TEXT} characters')
        return self.value.strip()

    def load(self, reader: Callable[[Path], Read]) -> Read:
        """The result of `reader` on the file that this field names, relative to the JSON file."""
        if not isinstance(self.value, str) or not self.value:
            raise self.wrong('the path of a file')
        try:
            return reader(self.path.parent / self.value)
        except ValueError as error:
            raise ValueError(f'{self.path}: {self.where}: {error}') from None
