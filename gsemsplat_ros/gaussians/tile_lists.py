"""Which Gaussians each tile of a picture has to draw, nearest first, on any device and with one read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gsemsplat_ros.gaussians.projection import MIN_ALPHA, Projected
from gsemsplat_ros.gaussians.render_plain import MAX_ALPHA, STOP

SIDES = 4, 16  # [px] of tiles: small ones compute few pixels in vain, large ones make short lists
ENTRIES = 2**24  # with more of them (60 bytes each) in the lists of small tiles, large ones are taken
LONG = 512  # Gaussians in the mean list of a picture, where it pays to find out how many are lit
GROUP = 2**22  # pixels times Gaussians of a group: 16 MB a tensor, which the cache of a large GPU holds


@dataclass(frozen=True)
class Group:
    """B tiles whose lists are about as long: tiles (B,); index (B, K): rows of their Gaussians, nearest
    first; used (B, K): which of these are on the tile's list; the others only fill up."""

    tiles: Tensor
    index: Tensor
    used: Tensor


@dataclass(frozen=True)
class TileLists:
    """The T tiles of V pictures, numbered on row by row: side [px]; pixels (T, side, 2): x of a tile's
    columns and y of its rows; groups: of all tiles on which there are Gaussians."""

    side: int
    pixels: Tensor
    groups: list[Group]


@dataclass(frozen=True)
class _Tiling:
    """The tiles of N Gaussians in each of V pictures, for one side of tiles.

    side [px]; columns: tiles in a row; first (V, N): number of a Gaussian's first tile; across, down (V, N):
    how many it has, 0 if none; lengths (T,): Gaussians of each tile.
    """

    side: int
    columns: int
    first: Tensor
    across: Tensor
    down: Tensor
    lengths: Tensor


def list_tiles(seen: Projected, width: int, height: int) -> TileLists:
    """The lists for V pictures of N Gaussians each, `seen` (V, N, ...); row i of picture v is v N + i.

    The host reads one tensor: the lengths of all lists, for small tiles and for large ones. Where lists are
    long, it reads how long they are up to where all light has run out.
    """
    low, high = _boxes(seen, width, height)
    tilings = [_tile(low, high, side, width, height) for side in SIDES]
    longest_first = [tiling.lengths.sort(descending=True) for tiling in tilings]
    read = torch.cat([lengths for lengths, _ in longest_first]).cpu()
    small, large = (part.tolist() for part in read.split([len(tiles) for _, tiles in longest_first]))
    which = 0 if sum(small) <= ENTRIES else 1
    tiling, (lengths, tiles), on_host = tilings[which], longest_first[which], (small, large)[which]

    entries, tile = _entries(tiling, seen.z, sum(on_host))
    starts = tiling.lengths.cumsum(0) - tiling.lengths  # of the lists in `entries`
    pixels = _pixels(tiling, height)
    if len(entries) > LONG * len(tiles):
        lit = _lit(seen.geometry.flatten(0, 1), entries, tile, starts, pixels)
        lengths, tiles = lit.sort(descending=True)
        on_host = lengths.tolist()
    starts, groups = starts[tiles], []
    for start, stop in _cuts(on_host, GROUP // tiling.side**2):
        place = torch.arange(on_host[start], device=entries.device)
        index = (starts[start:stop, None] + place).clamp(max=len(entries) - 1)
        groups.append(Group(tiles[start:stop], entries[index], place < lengths[start:stop, None]))
    return TileLists(tiling.side, pixels, groups)


def _cuts(lengths: list[int], most: int) -> Iterator[tuple[int, int]]:
    """Ranges of lengths, which fall, that are alike and above 0: padded to their longest they hold `most`."""
    start = 0
    while start < len(lengths) and lengths[start] > 0:
        stop, bound = start + 1, min(len(lengths), start + most // lengths[start])
        while stop < bound and lengths[stop] > lengths[start] // 2:
            stop += 1
        yield start, stop
        start = stop


def _boxes(seen: Projected, width: int, height: int) -> tuple[Tensor, Tensor]:
    """First and last pixel (x, y) of each Gaussian, both (V, N, 2) int32; 0 and -1 of those without."""
    low = (seen.geometry[..., :2] - seen.extents).ceil().clamp(min=0)
    high_x, high_y = (seen.geometry[..., :2] + seen.extents).floor().unbind(-1)
    high = torch.stack([high_x.clamp(max=width - 1), high_y.clamp(max=height - 1)], -1)
    touched = (seen.visible & (low <= high).all(-1))[..., None]  # some lie between pixels, or outside
    return torch.where(touched, low, 0).int(), torch.where(touched, high, -1).int()


def _tile(low: Tensor, high: Tensor, side: int, width: int, height: int) -> _Tiling:
    columns, rows = -(-width // side), -(-height // side)
    left, top = (low // side).unbind(-1)  # (V, N)
    right, bottom = (high // side + 1).unbind(-1)  # the first without it
    # a box adds 1 to each of its tiles: sums over rows and columns of what it adds at its corners
    pictures = len(left)
    picture = torch.arange(pictures, dtype=torch.int32, device=left.device)[:, None]
    ones = torch.ones_like(left).flatten()
    added = ones.new_zeros(pictures * (rows + 1) * (columns + 1))
    for y, x, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        corner = (picture * (rows + 1) + y) * (columns + 1) + x
        added.index_add_(0, corner.flatten(), ones, alpha=sign)
    lengths = added.view(pictures, rows + 1, columns + 1).cumsum(1).cumsum(2)[:, :-1, :-1].flatten()
    first = (picture * rows + top) * columns + left
    return _Tiling(side, columns, first, right - left, bottom - top, lengths)


def _pixels(tiling: _Tiling, height: int) -> Tensor:
    """(T, side, 2): x of a tile's columns and y of its rows."""
    number = torch.arange(len(tiling.lengths), device=tiling.lengths.device)
    row = number // tiling.columns % -(-height // tiling.side)
    corners = tiling.side * torch.stack([number % tiling.columns, row], -1)
    return corners[:, None] + torch.arange(tiling.side, device=number.device)[:, None]


def _entries(tiling: _Tiling, z: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Gaussians by depth, each as often as it has tiles, then sorted by tile: rows (E,) and tiles (E,)."""
    pictures, n = z.shape
    picture = torch.arange(pictures, device=z.device)[:, None]
    nearest = (z.argsort(stable=True) + n * picture).flatten()
    first, across, down = (values.flatten()[nearest] for values in (tiling.first, tiling.across, tiling.down))
    times = across * down
    turn = torch.repeat_interleave(times, output_size=total)  # known: nothing is read
    place = torch.arange(total, dtype=torch.int32, device=z.device)
    place -= (times.cumsum(0, dtype=torch.int32) - times).index_select(0, turn)
    wide = across.index_select(0, turn)
    tile = first.index_select(0, turn) + place // wide * tiling.columns + place % wide
    tile, order = tile.sort(stable=True)
    return nearest.index_select(0, turn[order]), tile


def _lit(geometry: Tensor, entries: Tensor, tile: Tensor, starts: Tensor, pixels: Tensor) -> Tensor:
    """How many Gaussians of each list (T,) are lit: behind them every pixel of the tile has ended."""
    ends = pixels[:, :: pixels.shape[1] - 1].to(geometry.dtype)  # (T, 2, 2): first and last
    parts = zip(entries.split(GROUP), tile.split(GROUP))
    least = torch.cat([_least_alphas(geometry[rows], ends.index_select(0, tiles)) for rows, tiles in parts])
    least = (0.999 * least).clamp(max=MAX_ALPHA)  # safely below what is drawn, as that is rounded
    log_pass = torch.where(least >= MIN_ALPHA, torch.log1p(-least), 0.0).double()
    log_light = log_pass.cumsum(0) - log_pass
    at_start = log_light[starts.clamp(max=len(entries) - 1)].index_select(0, tile)
    lit = log_light - at_start >= math.log(STOP)
    return torch.zeros_like(starts).index_add_(0, tile, lit.long())


def _least_alphas(geometry: Tensor, ends: Tensor) -> Tensor:
    """Of Gaussians (E, 6) on tiles from the first to the last pixel (E, 2, 2) the alphas (E,) where they are
    least: at a corner."""
    u, v, precision, slope, inverse_y, opacities = geometry.unbind(-1)
    farthest = torch.zeros_like(u)
    for column in (0, 1):
        for row in (0, 1):
            dx, dy = ends[:, column, 0] - u, ends[:, row, 1] - v
            distance = precision * (dx - slope * dy).square() + inverse_y * dy.square()
            farthest = torch.maximum(farthest, distance)
    return opacities * (-0.5 * farthest).exp()
