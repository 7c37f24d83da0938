"""The list `vertex` of a PLY file of whatever maker (Turk 1994): binary in either byte order, or as text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path

import numpy as np

NUMBERS = {
    'char': 'i1',
    'uchar': 'u1',
    'short': 'i2',
    'ushort': 'u2',
    'int': 'i4',
    'uint': 'u4',
    'int8': 'i1',
    'uint8': 'u1',
    'int16': 'i2',
    'uint16': 'u2',
    'int32': 'i4',
    'uint32': 'u4',
    'float': 'f4',
    'float32': 'f4',
    'double': 'f8',
    'float64': 'f8',
}
FORMATS = {'binary_little_endian': '<', 'binary_big_endian': '>', 'ascii': ''}  # -> byte order of NumPy
MAX_HEADER = 1 << 16  # bytes
MAX_DIGITS = 15  # of a number of items


@dataclass(frozen=True)
class Element:
    """A list of `count` items. properties: name and NumPy type code of each number of an item; varies:
    whether an item has lists in it, so that its size is not known."""

    name: str
    count: int
    properties: tuple[tuple[str, str], ...]
    varies: bool

    def record(self, order: str) -> np.dtype:
        """The NumPy type of an item; order: '<' or '>'. Raises ValueError for names that repeat."""
        return np.dtype([(name, order + code) for name, code in self.properties])


def read_vertices(path: Path) -> np.ndarray:
    """(N,) records with a field for each property of a vertex. Lists that follow the vertices (camera, colour
    space, faces) are left out, those before them are skipped.

    Raises ValueError for a missing, foreign, damaged or truncated file.
    """
    if not path.is_file():
        raise ValueError(f'no PLY file at {path}')
    try:
        with open(path, 'rb') as file:
            order, elements, offset = _parse_header(file.read(MAX_HEADER))
            place = next((i for i, element in enumerate(elements) if element.name == 'vertex'), None)
            if place is None:
                raise ValueError('has no vertices')
            vertex, before = elements[place], elements[:place]
            if vertex.varies or not vertex.properties:
                raise ValueError('has vertices that are no plain numbers')
            file.seek(offset)
            if not order:
                return _read_text(TextIOWrapper(file, 'ascii', 'replace'), vertex, before)
            for element in before:
                if element.varies and element.count:
                    raise ValueError(f'has a list of unknown size before the vertices ({element.name[:40]})')
                offset += element.count * element.record(order).itemsize
            _check_size(os.fstat(file.fileno()).st_size, offset, elements[place:], order)
            file.seek(offset)
            return np.fromfile(file, dtype=vertex.record(order), count=vertex.count)
    except ValueError as error:
        raise ValueError(f'{path} {error}: wanted the PLY of 3D Gaussian splatting') from None


def _check_size(size: int, offset: int, elements: list[Element], order: str) -> None:
    """Whether a file of `size` bytes holds `elements` from `offset` on."""
    known = [element for element in elements if not element.varies]
    wanted = offset + sum(element.count * element.record(order).itemsize for element in known)
    open_end = any(element.varies and element.count for element in elements)
    if size < wanted or (size > wanted and not open_end):
        raise ValueError(f'has {size} bytes, its header announces {wanted}, so it is damaged')


def _read_text(lines: Iterable[str], vertex: Element, before: list[Element]) -> np.ndarray:
    """The vertices of the lines after the header, an item a line; all numbers as float32."""
    record = np.dtype([(name, '<f4') for name, _ in vertex.properties])
    start = sum(element.count for element in before)
    rows = islice((line for line in lines if line.strip()), start, start + vertex.count)
    first = next(rows, None)  # NumPy warns where there is none
    try:
        vertices = (
            np.zeros(0, record)
            if first is None
            else np.loadtxt(chain([first], rows), dtype=record, comments=None, ndmin=1)
        )
    except ValueError:
        raise ValueError(f'has vertices that are no {len(vertex.properties)} numbers') from None
    if len(vertices) < vertex.count:
        raise ValueError(f'has {len(vertices)} lines of vertices, its header announces {vertex.count}')
    return vertices


def _parse_header(head: bytes) -> tuple[str, list[Element], int]:
    """(byte order, '' for text; the lists in their order; offset of the first [bytes])."""
    match = re.match(rb'ply\r?\n(.*?)end_header\r?\n', head, flags=re.DOTALL)
    if not match:
        raise ValueError('has no PLY header')
    lines = [line.split() for line in match[1].decode('ascii', 'replace').splitlines()]
    lines = [line for line in lines if line and line[0] not in ('comment', 'obj_info')]
    said = lines[0] if lines else []
    if len(said) != 3 or said[0] != 'format' or said[1] not in FORMATS or said[2] != '1.0':
        raise ValueError(f'is PLY in {_short(said) or "no format"}')
    elements: list[Element] = []
    for line in lines[1:]:
        match line:
            case ['element', name, count] if re.fullmatch(rf'\d{{1,{MAX_DIGITS}}}', count):
                elements.append(Element(name, int(count), (), False))
            case ['property', 'list', length, item, _] if {length, item} <= set(NUMBERS) and elements:
                last = elements[-1]
                elements[-1] = Element(last.name, last.count, last.properties, True)
            case ['property', kind, name] if kind in NUMBERS and elements:
                last = elements[-1]
                properties = (*last.properties, (name, NUMBERS[kind]))
                elements[-1] = Element(last.name, last.count, properties, last.varies)
            case _:
                raise ValueError(f'has a header line that is no PLY ({_short(line)})')
    return FORMATS[said[1]], elements, match.end()


def _short(words: list[str]) -> str:
    text = ''.join(c if c.isprintable() else '?' for c in ' '.join(words))
    return text if len(text) <= 60 else f'{text[:60]} ...'
