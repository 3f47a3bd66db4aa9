"""Pictures of confusion matrices: all attributes in one, and one an attribute."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import PolyCollection
from numpy.typing import ArrayLike, NDArray

from mlcls.reports.picture import GRAY, INK, fitted, limited, save, short_count
from mlcls.reports.sheet import MARGIN, Sheet, new_sheet, write

# up to so many matrices: how many stand in a row, their side in inches, the type's size in points
_MATRICES = ((1, 1, 3.4, 12.0), (2, 2, 2.4, 10.0), (4, 4, 2.0, 10.0), (16, 4, 1.7, 9.0), (60, 6, 1.55, 9.0))
_MANY = (8, 1.3, 8.0)
_BLUES = colormaps["Blues"]  # a look-up makes a copy: once is enough
_UNKNOWN = "#f0f0f0"
_WORDS = ("absent", "present")


def overall_confusion_matrix(
    path: str | Path, confusion: ArrayLike, *, title: str = "All attributes together"
) -> None:
    """Write `overall_confusion_matrix.png`: the cells of all attributes in one 2 x 2 matrix.

    Args:
        confusion: counts of known labels [4], in the order tn, fp, fn, tp; or [A, 4], which is summed.
    """
    counts = np.asarray(confusion, dtype=np.int64).reshape(-1, 4).sum(axis=0)
    side, note = 4.4, f"{counts.sum():,} known labels. Shares are of the row."
    sheet = new_sheet(6.6, side + 0.6, title=title, notes=[note])
    left = (sheet.width - side) / 2 + 0.1
    _draw_matrices(sheet, counts[None], np.array([[left, sheet.top]]), side, sizes=(15, 11), exact=True)
    for i, word in enumerate(_WORDS):
        middle = side * (i + 0.5) / 2
        write(sheet, left + middle, sheet.top + side + 0.2, f"predicted {word}", size=10, ha="center")
        write(
            sheet,
            left - 0.18,
            sheet.top + middle,
            f"labelled {word}",
            size=10,
            ha="center",
            va="center",
            rotation=90,
        )
    save(sheet.figure, path)


def per_class_confusion_matrices(
    path: str | Path,
    names: Sequence[str],
    confusion: ArrayLike,
    *,
    title: str = "Confusion of each attribute",
) -> None:
    """Write `per_class_confusion_matrices.png`: a 2 x 2 matrix an attribute, in a grid.

    Args:
        names: the attributes [A].
        confusion: counts of known labels [A, 4], in the order tn, fp, fn, tp.
    """
    title, names = limited(title, names)
    counts = np.asarray(confusion, dtype=np.int64).reshape(-1, 4)[: len(names)]
    columns, side, size = next((tuple(look) for most, *look in _MATRICES if len(names) <= most), _MANY)
    columns = int(min(columns, len(names) or 1))
    rows = max(1, -(-len(names) // columns))
    gap, head = 0.17, size * 1.4 / 72 + 0.1
    width = max(6.6, columns * (side + gap) + 2 * MARGIN + 0.3)
    notes: tuple[str, ...] = (
        "Rows: labelled absent, labelled present. Columns: predicted absent, predicted present.",
        "Shares are of the row.",
    )
    if width > 10:
        notes = (" ".join(notes),)
    sheet = new_sheet(width, rows * (side + head) + 0.4, title=title, notes=notes)
    start = (width - columns * (side + gap) + gap) / 2 + 0.1
    places = np.arange(len(names))
    corners = np.column_stack(
        (start + places % columns * (side + gap), sheet.top + places // columns * (side + head) + head)
    )
    for (x, y), name in zip(corners, fitted(names, side, size), strict=True):
        write(sheet, x + side / 2, y - 0.06, name, size=size, ha="center", va="baseline")
    _draw_matrices(sheet, counts, corners, side, sizes=(size, max(7.0, size - 1.5)), exact=len(names) == 1)
    _write_words(sheet, corners, columns, side)
    save(sheet.figure, path)


def _write_words(sheet: Sheet, corners: NDArray[np.float64], columns: int, side: float) -> None:
    """`absent` and `present` at the outer sides of the grid."""
    for i, (x, y) in enumerate(corners):
        for part, word in enumerate(_WORDS):
            middle = side * (part + 0.5) / 2
            if i % columns == 0:
                write(
                    sheet,
                    x - 0.12,
                    y + middle,
                    word,
                    size=8,
                    ha="center",
                    va="center",
                    rotation=90,
                    color=GRAY,
                )
            if i + columns >= len(corners):
                write(sheet, x + middle, y + side + 0.06, word, size=8, ha="center", va="top", color=GRAY)


def _draw_matrices(
    sheet: Sheet,
    counts: NDArray[np.int64],
    corners: NDArray[np.float64],
    side: float,
    sizes: tuple[float, float],
    exact: bool,
) -> None:
    """Draw tn, fp, fn, tp [A, 4] as four cells each, with the upper left corners [A, 2], in inches."""
    half, number_size, share_size = side / 2, *sizes
    apart = (number_size + share_size) * 0.62 / 72
    totals = counts.reshape(-1, 2, 2).sum(axis=2).repeat(2, axis=1)  # of the row that each cell stands in
    shares = counts / np.maximum(totals, 1)
    cells = np.array([(0, 0), (1, 0), (0, 1), (1, 1)]) * half
    boxes, colours = [], []
    for (i, k), value in np.ndenumerate(counts):
        left, top = corners[i] + cells[k]
        known, share = totals[i, k] > 0, float(shares[i, k])
        boxes.append([(left, top), (left + half, top), (left + half, top + half), (left, top + half)])
        colours.append(_BLUES(0.9 * share) if known else _UNKNOWN)
        ink = "white" if share > 0.6 else INK
        number = f"{value:,}" if exact else short_count(int(value))
        percent = "–" if not known else f"{share:.1%}" if exact else f"{share:.0%}"
        x, y = left + half / 2, top + half / 2
        write(sheet, x, y - apart / 2, number, size=number_size, ha="center", color=ink)
        write(sheet, x, y + apart / 2, percent, size=share_size, ha="center", color=ink)
    sheet.axes.add_collection(
        PolyCollection(boxes, facecolors=colours, edgecolors=GRAY, linewidths=0.6, zorder=0), autolim=False
    )
