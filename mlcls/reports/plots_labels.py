"""The picture of a label table's attributes that occur together."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mlcls.missing import split_missing
from mlcls.reports.heat import FURTHEST, blue, colour_legend, draw_cells, orange_to_purple, write_heads
from mlcls.reports.picture import fitted, limited, save, width_of
from mlcls.reports.plots_unknown import unknown_labels, unknown_labels_figure
from mlcls.reports.sheet import MARGIN, new_sheet, write
from mlcls.reports.squares import shares_of, square_sizes, tell_shares

__all__ = [
    "co_occurrence",
    "co_occurrence_figure",
    "pair_counts",
    "unknown_labels",
    "unknown_labels_figure",
]

IntArray = NDArray[np.int64]
_ANY = "any image"
_APART = 0.12  # inches between the row of any image and the others
_MOST_NAME = 1.9  # inches
_FEW = 5  # images on which a difference has half its colour


def co_occurrence(
    path: str | Path,
    names: Sequence[str],
    labels: ArrayLike,
    *,
    title: str = "Which attributes occur together",
) -> None:
    """Write `co_occurrence.png`: the picture that `co_occurrence_figure` draws."""
    save(co_occurrence_figure(names, labels, title=title), path)


def co_occurrence_figure(
    names: Sequence[str], labels: ArrayLike, *, title: str = "Which attributes occur together"
) -> Figure:
    """Draw the share of the images with a row's attribute that show the column's too, over known labels.

    A first row tells the share of any image. The other cells are coloured by how far they are from it, for
    else frequent attributes would outshine what belongs together; paler where few images tell. With many
    attributes the colours stand alone.

    Args:
        names: the attributes [A].
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        title: above the picture.
    """
    title, shown = limited(title, names)
    values = np.asarray(labels, dtype=np.float32)[:, : len(shown)]
    both, of = pair_counts(values)
    present, known = _totals(values)
    if len(shown) == 1:
        both, of = both[:0], of[:0]  # an attribute with itself says nothing
    hits, bases = np.vstack([present, both]), np.vstack([known, of])
    shares = shares_of(hits, bases)
    shares[1:][np.eye(len(shares) - 1, len(shown), dtype=bool)] = np.nan
    apart = (shares[1:] - shares[:1]) * of / (of + _FEW)
    colours = np.concatenate([blue(shares[:1]), orange_to_purple(apart)])
    side, size = square_sizes(len(shown))
    above = fitted(shown, _MOST_NAME, size)
    beside = fitted([_ANY, *shown][: len(shares)], _MOST_NAME, size, numbers=range(len(shown) + 1))
    left, head = (
        max((width_of(name, size) for name in some), default=0.0) + 0.15 for some in (beside, above)
    )
    width = max(6.6, left + len(shown) * side + 2 * MARGIN)
    sheet = new_sheet(
        width, head + len(shares) * side + _APART + MARGIN, title=title,
        legend=_legend(np.isnan(shares)) if len(shown) > 1 else (),
        notes=[
            "The share of the images with the row's attribute that show the column's too.",
            "Its colour: how much more or less than of any image, pale where few images tell.",
        ] if len(shown) > 1 else ["The share of the images that show it."],
    )  # fmt: skip
    order = np.arange(len(shares), dtype=np.float64)
    x = (width - left - len(shown) * side) / 2 + left + np.arange(len(shown), dtype=np.float64) * side
    y = sheet.top + head + order * side + np.minimum(order, 1) * _APART
    if shown:
        write_heads(sheet, x, y, side, beside, above, size)
    else:
        write(sheet, width / 2, sheet.top + 0.1, "no attributes", size=10, ha="center")
    columns, rows = np.meshgrid(x, y)
    draw_cells(sheet, columns, rows, (side, side), colours, tell_shares(shares, bases), size=min(size, 10))
    return sheet.figure


def pair_counts(labels: ArrayLike) -> tuple[IntArray, IntArray]:
    """Images that show both attributes, and images that show the row's and are known for the column's.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.

    Returns:
        int64 [A, A] each.
    """
    shows, known = _shows(labels)
    # products of float32 are fast, and exact up to 2**24 images
    present = shows.astype(np.float32)
    both, of = present.T @ present, present.T @ known.astype(np.float32)
    return np.rint(both).astype(np.int64), np.rint(of).astype(np.int64)


def _totals(labels: ArrayLike) -> tuple[IntArray, IntArray]:
    """How many images show each attribute, and how many are known for it: [A] each."""
    shows, known = _shows(labels)
    return shows.sum(axis=0), known.sum(axis=0)


def _shows(labels: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    values, known = split_missing(np.asarray(labels, dtype=np.float32))
    return (values > 0.5) & known, known


def _legend(undefined: NDArray[np.bool_]) -> list[Artist]:
    half, points = FURTHEST / 2, int(100 * FURTHEST)
    meanings = {
        f"{points} points less": -FURTHEST,
        f"{points // 2} less": -half,
        "as of any image": 0.0,
        f"{points // 2} more": half,
        f"{points} points more": FURTHEST,
    }
    rows = undefined[1:].sum() > undefined.shape[1]
    return colour_legend(orange_to_purple, meanings, "itself, or undefined" if rows else "itself")
