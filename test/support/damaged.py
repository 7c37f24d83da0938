"""Bytes that were damaged on their way: seeded changes for tests that throw thousands of them at a reader."""

import numpy as np

WORDS = b'\xff\xff\xff\xff', b'\0\0\0\0', b'\xff\xff\xff\x7f'  # the extremes of a length or number


def damaged(rng: np.random.Generator, data: bytes, least: int = 0, most: int = 4, head: int = 0) -> bytes:
    """`data` after `least` to `most` changes: another byte, four others, a cut, or more at the end. With
    `head`, seven of ten begin in the first `head` bytes, which parsers believe.
    """
    data = bytearray(data)
    for _ in range(rng.integers(least, most + 1)):
        if not data:
            break
        at = int(rng.integers(min(len(data), head) if head and rng.random() < 0.7 else len(data)))
        match rng.integers(4):
            case 0:
                data[at] = rng.integers(256)
            case 1:
                at -= at % 4  # as numbers lie
                data[at : at + 4] = (*WORDS, rng.bytes(4))[rng.integers(4)]
            case 2:
                del data[at:]
            case 3:
                data += rng.bytes(int(rng.integers(50)))
    return bytes(data)
