"""Rows with a name each beside one or several panels with a scale, in blocks side by side where there are many."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.reports.picture import GRAY, fitted, width_of
from mlcls.reports.sheet import MARGIN, Sheet, segments, write

FloatArray = NDArray[np.float64]
_BELOW = 0.42  # inches for the scale's numbers below the rows
_TALL = 15  # rows from which on the scale has its numbers above too
_GAP = 0.08  # inches between a name and the panel


@dataclass(frozen=True, slots=True)
class Panel:
    """A scale from `low` to `high` over `width` inches from `left`, all on the sheet."""

    left: float
    width: float
    low: float = 0.0
    high: float = 1.0

    def at(self, values: Any) -> FloatArray:
        """Values as places on the sheet, in inches from the left; outside of the scale they stop at its ends."""
        inside = np.clip(np.asarray(values, dtype=np.float64), self.low, self.high)
        return np.asarray(self.left + self.width * (inside - self.low) / (self.high - self.low))


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows [A] in blocks: the middle of each row [A], its block [A], and each block's left side, in inches."""

    sheet: Sheet
    y: FloatArray
    block: NDArray[np.int64]
    lefts: FloatArray
    block_width: float
    row: float
    size: float

    def of_block(self, block: int) -> NDArray[np.int64]:
        """Which rows stand in a block."""
        return np.flatnonzero(self.block == block)


def blocks_of(count: int, most_in_one: int, most_in_two: int) -> tuple[int, int]:
    """How many blocks, and how many rows in each."""
    blocks = 1 if count <= most_in_one else 2 if count <= most_in_two else 3
    return blocks, max(1, -(-count // blocks))


def body_height(rows: int, row: float, *, labelled: bool = False) -> float:
    """The inches that rows and the scales above and below them take; `labelled` where panels have a name."""
    return rows * row + _above(rows, labelled) + _BELOW


def place_rows(
    sheet: Sheet, count: int, blocks: int, in_block: int, row: float, size: float, *, labelled: bool = False
) -> Rows:
    """Where `count` rows stand on a sheet that was made with `body_height(in_block, row)`."""
    places, order = np.arange(count), np.arange(blocks, dtype=np.float64)
    width = (sheet.width - 2 * MARGIN) / blocks
    top = sheet.top + _above(in_block, labelled)
    return Rows(
        sheet, top + (places % in_block + np.float64(0.5)) * row, places // in_block,
        MARGIN + width * order, width, row, size,
    )  # fmt: skip


def _above(rows: int, labelled: bool) -> float:
    return 0.1 + (0.18 if rows > _TALL else 0.0) + (0.24 if labelled else 0.0)


def write_names(rows: Rows, names: Sequence[str], most: float, numbers: Sequence[int] | None = None) -> float:
    """Write the names right-aligned on the left of each block; returns the inches they take, at most `most`.

    `numbers`: as in `fitted`.
    """
    shown = fitted(names, most, rows.size, numbers=numbers)
    room = min(most, max((width_of(name, rows.size) for name in shown), default=0.0) + 0.02)
    for i, name in enumerate(shown):
        write(rows.sheet, rows.lefts[rows.block[i]] + room, rows.y[i], name, size=rows.size, ha="right")
    return room + _GAP


def draw_scale(
    rows: Rows, panel: Panel, block: int, ticks: ArrayLike, label: str = "", shown: str = "{:g}"
) -> None:
    """Grid lines behind a block's rows with their numbers below, and above where the block is tall."""
    mine = rows.of_block(block)
    if not mine.size:
        return
    top, bottom = rows.y[mine[0]] - rows.row / 2, rows.y[mine[-1]] + rows.row / 2
    x = panel.at(ticks)
    numbers = [shown.format(tick) if tick else "0" for tick in np.asarray(ticks, dtype=np.float64)]
    segments(rows.sheet, [[(at, top), (at, bottom)] for at in x], width=0.6, z=0.5)
    size = min(rows.size, 8.5)
    for at, number in zip(x, numbers, strict=True):
        write(rows.sheet, at, bottom + 0.06, number, size=size, ha="center", va="top", color=GRAY)
        if len(mine) > _TALL:
            write(rows.sheet, at, top - 0.05, number, size=size, ha="center", va="bottom", color=GRAY)
    if label:
        above = top - (0.22 if len(mine) > _TALL else 0.07)
        write(
            rows.sheet,
            panel.left + panel.width / 2,
            above,
            label,
            size=rows.size + 1,
            ha="center",
            va="bottom",
        )
