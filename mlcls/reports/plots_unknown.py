"""The picture of where labels are unknown: by attribute and subset, by image, and which are unknown together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mlcls.missing import split_missing
from mlcls.reports.heat import colour_legend, draw_cells, orange, write_heads
from mlcls.reports.picture import BLUE, GRAY, ORANGE, fitted, limited, save, short_count, width_of
from mlcls.reports.row_panels import blocks_of, body_height, place_rows, write_names
from mlcls.reports.sheet import MARGIN, Sheet, new_sheet, segments, write
from mlcls.reports.squares import shares_of, square_sizes, tell_shares

_MOST_IN_PAIRS = 40  # attributes; a larger square is hardly read, and most of its cells say little
_HISTOGRAM = 2.7  # inches
_MOST_BARS = 20
_MOST_NAME = 1.9  # inches
_MEANINGS = {"0%": 0.0, "1%": 0.01, "5%": 0.05, "20%": 0.2, "50%": 0.5, "100%": 1.0}


def unknown_labels(
    path: str | Path,
    names: Sequence[str],
    labels: ArrayLike,
    subsets: Mapping[str, ArrayLike] | None = None,
    *,
    title: str = "Where labels are unknown",
) -> None:
    """Write `unknown_labels.png`: the picture that `unknown_labels_figure` draws."""
    save(unknown_labels_figure(names, labels, subsets, title=title), path)


def unknown_labels_figure(
    names: Sequence[str],
    labels: ArrayLike,
    subsets: Mapping[str, ArrayLike] | None = None,
    *,
    title: str = "Where labels are unknown",
) -> Figure:
    """Draw the share of unknown labels by attribute and subset, and how many labels an image lacks.

    Also how often two are unknown together, where few attributes have unknown labels. Where nothing is unknown
    the picture says so.

    Args:
        names: the attributes [A].
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        subsets: name -> the positions [n] of its images in `labels`; None: all images together alone.
        title: above the picture.
    """
    title, shown = limited(title, names)
    unknown = ~split_missing(np.asarray(labels, dtype=np.float32)[:, : len(shown)])[1]
    if not unknown.any():
        sheet = new_sheet(6.6, 1.2, title=title)
        told = f"Every label is known (images: {len(unknown):,}, attributes: {len(shown):,})."
        write(sheet, sheet.width / 2, sheet.top + 0.5, told, size=11, ha="center", color=BLUE)
        return sheet.figure
    parts = {"all": np.arange(len(unknown))}
    parts |= {name: np.asarray(rows, dtype=np.int64) for name, rows in (subsets or {}).items()}
    counts = np.array([unknown[rows].sum(axis=0) for rows in parts.values()]).T
    note = (
        f"{unknown.sum():,} of {unknown.size:,} labels ({unknown.mean():.1%}) are unknown, "
        f"in {unknown.any(axis=1).sum():,} of {len(unknown):,} images."
    )
    shares = shares_of(counts, np.broadcast_to([len(rows) for rows in parts.values()], counts.shape))
    return _draw(title, note, shown, list(parts), unknown, counts, shares)


def _draw(
    title: str, note: str, names: Sequence[str], subsets: Sequence[str], unknown: NDArray[np.bool_],
    counts: NDArray[np.int64], shares: NDArray[np.float64],
) -> Figure:  # fmt: skip
    """The table, below it the bars, below them the pairs where attributes are few."""
    blocks, in_block = blocks_of(len(names), 40, 80)
    row, size = (0.32, 10.0) if len(names) <= 12 else (0.22, 8.5)
    wide = 0.9 if blocks == 1 and len(subsets) <= 5 else 0.64
    room = min(_MOST_NAME, max(width_of(name, size) for name in fitted(names, _MOST_NAME, size)) + 0.1)
    block = room + len(subsets) * wide + 0.25
    paired = np.flatnonzero(unknown.any(axis=0))
    in_pairs = 2 <= len(paired) <= _MOST_IN_PAIRS
    square = _square_width(names, paired) if in_pairs else 0.0
    table = body_height(in_block, row, labelled=True)
    gray = "no image" if np.isnan(shares).any() else None
    sheet = new_sheet(
        max(6.6, blocks * block + 2 * MARGIN, square + 2 * MARGIN),
        table + _HISTOGRAM + (square + 0.6 if in_pairs else 0.0),
        title=title, notes=[note], legend=colour_legend(orange, _MEANINGS, gray),
    )  # fmt: skip
    rows = place_rows(sheet, len(names), blocks, in_block, row, size, labelled=True)
    rows = replace(rows, lefts=rows.lefts + (rows.block_width - block) / 2)
    room = write_names(rows, names, room)
    x = rows.lefts[rows.block][:, None] + room + wide * np.arange(len(subsets))
    y = np.repeat((rows.y - row / 2)[:, None], len(subsets), axis=1)
    told = [
        [_tell(share, n, with_count=wide > 0.8) for share, n in zip(*line, strict=True)]
        for line in zip(shares.tolist(), counts.tolist(), strict=True)
    ]
    draw_cells(sheet, x, y, (wide, row), orange(shares), told, size=8.0)
    for places in x[::in_block].tolist():
        for place, name in zip(places, fitted(subsets, wide, 8.5), strict=True):
            write(sheet, place + wide / 2, y[0, 0] - 0.1, name, size=8.5, ha="center", va="baseline")
    _draw_bars(sheet, sheet.top + table, unknown)
    if in_pairs:
        _draw_pairs(sheet, sheet.top + table + _HISTOGRAM, names, paired, unknown)
    return sheet.figure


def _tell(share: float, count: int, with_count: bool) -> str:
    if np.isnan(share):
        return "–"
    if not count:
        return "0"
    return f"{share:.1%} ({short_count(count)})" if with_count else "<1%" if share < 0.01 else f"{share:.0%}"


def _draw_bars(sheet: Sheet, top: float, unknown: NDArray[np.bool_]) -> None:
    """How many images lack no label, one label, two, ...; many numbers share a bar."""
    lacking = unknown.sum(axis=1)
    step = -(-(int(lacking.max()) + 1) // _MOST_BARS)
    counts = np.bincount(lacking // step)
    base, room = top + _HISTOGRAM - 0.62, sheet.width - 2 * MARGIN - 0.6
    pitch = min(0.6, room / len(counts))
    start = (sheet.width - pitch * len(counts)) / 2
    heights = (_HISTOGRAM - 1.35) * counts / counts.max()
    boxes = []
    for i, (count, height) in enumerate(zip(counts.tolist(), heights.tolist(), strict=True)):
        left, right = start + pitch * (i + 0.1), start + pitch * (i + 0.9)
        boxes.append([(left, base), (left, base - height), (right, base - height), (right, base)])
        last = i * step + step - 1
        lacks = str(last) if step == 1 else f"{i * step}–{last}"
        write(sheet, (left + right) / 2, base + 0.14, lacks, size=7.5 if step == 1 else 7, ha="center")
        if count:
            write(
                sheet,
                (left + right) / 2,
                base - height - 0.08,
                short_count(count),
                size=7.5,
                ha="center",
                color=GRAY,
            )
    sheet.axes.add_collection(PolyCollection(boxes, facecolors=ORANGE, linewidths=0, zorder=2), autolim=False)
    segments(sheet, [[(start, base), (start + pitch * len(counts), base)]], color=GRAY)
    write(sheet, sheet.width / 2, top + 0.25, "How many images lack how many labels", size=11, ha="center")
    write(sheet, sheet.width / 2, base + 0.36, "unknown labels of an image", size=9, ha="center", color=GRAY)


def _square_width(names: Sequence[str], paired: NDArray[np.int64]) -> float:
    side, size = square_sizes(len(paired))
    return max(width_of(name, size) for name in _fitted(names, paired, size)) + 0.15 + len(paired) * side


def _fitted(names: Sequence[str], paired: NDArray[np.int64], size: float) -> list[str]:
    numbers = (paired + 1).tolist()
    return fitted([names[i] for i in paired], _MOST_NAME, size, numbers=numbers)


def _draw_pairs(
    sheet: Sheet, top: float, names: Sequence[str], paired: NDArray[np.int64], unknown: NDArray[np.bool_]
) -> None:
    """Of the attributes `paired`: where the row's label is unknown, how often the column's is too."""
    lacks = unknown[:, paired].astype(np.float32)  # whose products are exact up to 2**24 images
    both = np.rint(lacks.T @ lacks).astype(np.int64)
    of = np.repeat(np.diag(both)[:, None], len(paired), axis=1)
    shares = shares_of(both, of)
    shares[np.eye(len(paired), dtype=bool)] = np.nan
    side, size = square_sizes(len(paired))
    shown, square = _fitted(names, paired, size), _square_width(names, paired)
    room = square - len(paired) * side
    title = "Where the row's label is unknown, how often the column's is too"
    write(sheet, sheet.width / 2, top + 0.15, title, size=11, ha="center")
    order = np.arange(len(paired), dtype=np.float64)
    x = (sheet.width - square) / 2 + room + order * side
    y = top + 0.35 + room + order * side
    write_heads(sheet, x, y, side, shown, shown, size)
    columns, rows = np.meshgrid(x, y)
    draw_cells(
        sheet, columns, rows, (side, side), orange(shares), tell_shares(shares, of), size=min(size, 10)
    )
