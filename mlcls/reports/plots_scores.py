"""Pictures of what a classifier scored: precision and recall an attribute, confusion matrices."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from mlcls.reports.picture import (
    BLUE,
    GRAY,
    ORANGE,
    floats,
    fonts,
    new_figure,
    save,
    short_count,
    text,
)

MOST_ATTRIBUTES = 200  # of more than these the first are drawn, and the title says so
_IN_A_COLUMN = 40
_LONGEST_NAME = 36


def precision_recall(
    path: str | Path,
    names: Sequence[str],
    precision: Sequence[float | None],
    recall: Sequence[float | None],
    *,
    title: str = "Precision and recall",
) -> None:
    """Write `precision_recall.png`: a pair of bars an attribute, in several columns where there are many.

    Args:
        names: the attributes [A].
        precision: of each [A], 0 to 1; None or NaN is undefined and written so.
        recall: likewise.
    """
    title, names = _limited(title, names)
    columns = min(3, max(1, -(-len(names) // _IN_A_COLUMN)))
    rows = max(1, -(-len(names) // columns))
    figure = new_figure(max(8, 5.5 * columns), 1.6 + max(1.4, rows * (0.5 if rows <= 12 else 0.24)))
    panels = np.atleast_1d(np.asarray(figure.subplots(1, columns), dtype=object))
    figure.suptitle(text(title), fontfamily=list(fonts()), fontsize=13)
    values = floats(precision)[: len(names)], floats(recall)[: len(names)]
    for i, axes in enumerate(panels):
        part = slice(i * rows, (i + 1) * rows)
        _draw_bars(axes, names[part], values[0][part], values[1][part], rows)
    bars, labels = panels[0].get_legend_handles_labels()
    figure.legend(bars, labels, loc="outside lower center", ncols=2, frameon=False)
    save(figure, path)


def _draw_bars(
    axes: Axes, names: Sequence[str], precision: NDArray[np.float64], recall: NDArray[np.float64], rows: int
) -> None:
    places = np.arange(len(names))
    size = 10 if rows <= 12 else 7
    for values, offset, colour, label in (
        (precision, -0.2, BLUE, "precision"),
        (recall, 0.2, ORANGE, "recall"),
    ):
        axes.barh(places + offset, np.nan_to_num(values), height=0.4, color=colour, label=label)
        for place, value in zip(places + offset, values, strict=True):
            shown = "undefined" if np.isnan(value) else f"{value:.2f}"
            x = np.nan_to_num(value) + 0.01
            axes.text(x, place, shown, va="center", fontsize=size - 1, color=GRAY).set_in_layout(False)
    axes.set_yticks(
        places, [text(name, _LONGEST_NAME) for name in names], fontfamily=list(fonts()), fontsize=size
    )
    axes.set_ylim(rows - 0.4, -0.6)  # the first attribute on top; columns of one height
    axes.set_xlim(0, 1.12)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def overall_confusion_matrix(
    path: str | Path, confusion: ArrayLike, *, title: str = "All attributes together"
) -> None:
    """Write `overall_confusion_matrix.png`: the cells of all attributes in one 2 x 2 matrix.

    Args:
        confusion: counts of known labels [4], in the order tn, fp, fn, tp; or [A, 4], which is summed.
    """
    counts = np.asarray(confusion, dtype=np.int64).reshape(-1, 4).sum(axis=0)
    figure = new_figure(6, 5.4)
    axes = figure.subplots()
    _draw_matrix(axes, counts, 0.0, 0.0, sizes=(15, 11), exact=True)
    axes.set_xlim(0, 2)
    axes.set_ylim(2, 0)
    axes.set_aspect("equal")
    axes.set_xticks([0.5, 1.5], ["predicted absent", "predicted present"])
    axes.set_yticks([0.5, 1.5], ["labelled absent", "labelled present"], rotation=90, va="center")
    axes.tick_params(length=0)
    axes.set_title(text(title), fontfamily=list(fonts()))
    axes.set_xlabel(f"{counts.sum():,} known labels; shares are of the row", color=GRAY)
    save(figure, path)


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
    counts = np.asarray(confusion, dtype=np.int64).reshape(-1, 4)
    title, names = _limited(title, names)
    columns = min(len(names), max(4, int(np.ceil(np.sqrt(len(names)))))) or 1
    rows = max(1, -(-len(names) // columns))
    inch = 1.75
    figure = new_figure(max(6.5, columns * inch + 0.4), rows * inch * 1.12 + 1.1)
    axes = figure.subplots()  # one for all: a hundred axes would take seconds to lay out
    for i, name in enumerate(names):
        x, y = 2.35 * (i % columns), 2.65 * (i // columns)
        _draw_matrix(axes, counts[i], x, y, sizes=(9, 7), exact=False)
        axes.text(
            x + 1, y - 0.12, text(name, 24), ha="center", va="bottom", fontsize=8, fontfamily=list(fonts())
        )
    axes.set_xlim(-0.1, 2.35 * columns - 0.25)
    axes.set_ylim(2.65 * rows - 0.5, -0.6)
    axes.set_aspect("equal")
    axes.set_axis_off()
    figure.suptitle(text(title), fontfamily=list(fonts()), fontsize=13)
    legend = "rows: labelled absent, present · columns: predicted absent, present · shares are of the row"
    figure.supxlabel(legend, fontsize=9, color=GRAY)
    save(figure, path)


def _draw_matrix(
    axes: Axes, counts: NDArray[np.int64], x: float, y: float, sizes: tuple[int, int], exact: bool
) -> None:
    """Draw tn, fp, fn, tp as four cells of side 1; the upper left corner is (x, y), y points down."""
    table = counts.reshape(2, 2)
    for row, column in np.ndindex(2, 2):
        value, total = int(table[row, column]), int(table[row].sum())
        share = value / total if total else 0.0
        colour: Any = colormaps["Blues"](0.9 * share) if total else "#f0f0f0"
        left, top = x + column, y + row
        axes.add_patch(Rectangle((left, top), 1, 1, facecolor=colour, edgecolor=GRAY, linewidth=0.6))
        ink = "white" if share > 0.6 else "black"
        number = f"{value:,}" if exact else short_count(value)
        percent = "–" if not total else f"{share:.1%}" if exact else f"{share:.0%}"
        for down, shown, size in ((0.4, number, sizes[0]), (0.72, percent, sizes[1])):
            inside = axes.text(
                left + 0.5, top + down, shown, ha="center", va="center", fontsize=size, color=ink
            )
            inside.set_in_layout(False)  # it lies in its cell: measuring hundreds of them takes seconds


def _limited(title: str, names: Sequence[str]) -> tuple[str, Sequence[str]]:
    if len(names) <= MOST_ATTRIBUTES:
        return title, names
    return f"{title} (the first {MOST_ATTRIBUTES} of {len(names)} attributes)", names[:MOST_ATTRIBUTES]
