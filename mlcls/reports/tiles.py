"""Small multiples: a little plot of the unit square for each attribute, hundreds of them on one sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import PolyCollection
from numpy.typing import NDArray

from mlcls.reports.picture import GRAY, LIGHT, fitted, width_of
from mlcls.reports.sheet import MARGIN, Sheet, new_sheet, segments, write

FloatArray = NDArray[np.float64]
Points = tuple[FloatArray, FloatArray]

# up to so many tiles: how many stand in a row, their side in inches, the type's size in points
_SIZES = ((1, 1, 4.6, 10.0), (4, 2, 3.3, 9.5), (9, 3, 2.7, 9.0), (16, 4, 2.3, 8.5), (48, 6, 1.75, 8.0))
_MANY, _MOST = (8, 1.3, 7.5), (10, 1.1, 7.0)
_LEFT = 0.62  # inches, for the numbers and the name of the first column's y axis
_GAP = 0.17
_NARROWEST = 6.6


@dataclass(frozen=True, slots=True)
class Tiles:
    """The sheet, the upper left corner of each tile [A, 2], the tiles' side (all in inches), the type's size."""

    sheet: Sheet
    corners: FloatArray
    side: float
    size: float

    def at(self, i: int, x: Any, y: Any) -> FloatArray:
        """Points of tile i's unit square as places on the sheet [K, 2]."""
        left, top = self.corners[i]
        right, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        return np.column_stack((left + self.side * right, top + self.side * (1 - up)))


def new_tiles(
    names: Sequence[str],
    *,
    title: str,
    axis_names: tuple[str, str],
    below_names: Sequence[str] = (),
    tinted: Sequence[bool] | NDArray[np.bool_] = (),
    legend: Sequence[Artist] = (),
    notes: Sequence[str] = (),
    numbers: Sequence[int] | None = None,
) -> Tiles:
    """Empty tiles with their frames, grid and names.

    Args:
        names: one a tile [A].
        axis_names: of x and of y, written once.
        below_names: a line of our own below each name, as `AP 0.83 [0.71, 0.92]` [A]; where one is wider than its
            tile they are broken, at ` · ` or before the bracket.
        tinted: which tiles have a gray ground [A].
        numbers: of the names, as in `fitted`.
    """
    count = max(1, len(names))
    columns, side, size = _layout(count)
    columns = min(columns, count)
    rows = -(-count // columns)
    line = size * 1.32 / 72
    small = min(size, 8.5) - 0.5
    below, deepest = _broken(below_names or [""] * len(names), side + 0.1, small)
    head = (1 + deepest) * line + 0.13
    width = max(_NARROWEST, _LEFT + columns * (side + _GAP) + MARGIN)
    sheet = new_sheet(width, rows * (head + side) + 0.62, title=title, legend=legend, notes=notes)
    start = (width - (_LEFT + columns * (side + _GAP))) / 2 + _LEFT
    places = np.arange(len(names))
    corners = np.column_stack(
        (start + (places % columns) * (side + _GAP), sheet.top + (places // columns) * (head + side) + head)
    )
    tiles = Tiles(sheet, corners, side, size)
    _frames(tiles, tinted)
    for (left, top), name, lines in zip(
        corners, fitted(names, side + 0.02, size, numbers=numbers), below, strict=True
    ):
        base = top - 0.07 - deepest * line
        write(sheet, left, base, name, size=size, va="baseline")
        for k, told in enumerate(lines, start=1):
            write(sheet, left, base + k * line, told, size=small, va="baseline", color=GRAY)
    _numbers(tiles, columns, axis_names)
    return tiles


def draw_curves(
    tiles: Tiles,
    lines: Sequence[Points | None],
    *,
    color: Any,
    width: float = 1.4,
    z: float = 3,
    **other: Any,
) -> None:
    """One line in each tile [A]; None draws nothing. `color`: one, or a sequence of one a tile."""
    drawn = [(i, tiles.at(i, *line)) for i, line in enumerate(lines) if line is not None]
    colours = color if isinstance(color, str) else [color[i] for i, _ in drawn]
    segments(tiles.sheet, [line for _, line in drawn], color=colours, width=width, z=z, **other)


def say_in(tiles: Tiles, i: int, shown: str) -> None:
    """A word in the middle of a tile, for one that has no curve."""
    (x, y) = tiles.at(i, [0.5], [0.5])[0]
    write(tiles.sheet, x, y, shown, size=tiles.size, ha="center", color=GRAY)


def _broken(told: Sequence[str], inches: float, size: float) -> tuple[list[list[str]], int]:
    """The lines of each text, and how many the longest has; all are broken when one is too wide."""
    lines = [[one] if one else [] for one in told]
    if max((width_of(one, size) for one in told), default=0.0) > inches:
        lines = [(one.split(" · ") if " · " in one else one.replace(" [", "\n[").split("\n")) for one in told]
    return lines, max(map(len, lines), default=0)


def _layout(count: int) -> tuple[int, float, float]:
    for most, columns, side, size in _SIZES:
        if count <= most:
            return columns, side, size
    return _MANY if count <= 120 else _MOST


def _frames(tiles: Tiles, tinted: Sequence[bool] | NDArray[np.bool_]) -> None:
    square = [tiles.at(i, [0, 1, 1, 0], [0, 0, 1, 1]) for i in range(len(tiles.corners))]
    ground = [LIGHT if i < len(tinted) and tinted[i] else "white" for i in range(len(square))]
    tiles.sheet.axes.add_collection(
        PolyCollection(square, facecolors=ground, edgecolors="#999999", linewidths=0.6, zorder=0),
        autolim=False,
    )
    grid = [
        tiles.at(i, *ends)
        for i in range(len(square))
        for part in ((0.25, 0.5, 0.75) if tiles.side > 1.5 else (0.5,))
        for ends in (([part, part], [0, 1]), ([0, 1], [part, part]))
    ]
    segments(tiles.sheet, grid, color="#d4d4d4", width=0.5, z=0.5)


def _numbers(tiles: Tiles, columns: int, axis_names: tuple[str, str]) -> None:
    """Numbers on the outer axes alone, and once the names of the axes."""
    sheet, corners = tiles.sheet, tiles.corners
    parts = (0, 0.25, 0.5, 0.75, 1) if tiles.side > 2.5 else (0, 0.5, 1) if tiles.side > 1.2 else (0, 1)
    size = min(8.0, tiles.size)
    for i in range(len(corners)):
        for part in parts:
            if i % columns == 0:
                x, y = tiles.at(i, [0], [part])[0]
                write(sheet, x - 0.05, y, f"{part:g}", size=size, ha="right", color=GRAY)
            if i + columns >= len(corners):
                x, y = tiles.at(i, [part], [0])[0]
                ends = "left" if part == 0 else "right" if part == 1 and columns > 1 else "center"
                write(sheet, x, y + 0.05, f"{part:g}", size=size, ha=ends, va="top", color=GRAY)
    if len(corners):
        low, high = corners.min(axis=0), corners.max(axis=0) + tiles.side
        write(sheet, (low[0] + high[0]) / 2, sheet.height - 0.22, axis_names[0], size=10, ha="center")
        seen = (
            corners[min(len(corners) - 1, 3 * columns - 1), 1] + tiles.side
        )  # the first rows, not far below
        x, y = low[0] - _LEFT + 0.16, (low[1] + seen) / 2
        write(sheet, x, y, axis_names[1], size=10, ha="center", va="center", rotation=90)
