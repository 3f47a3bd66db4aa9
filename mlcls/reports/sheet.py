"""A sheet of paper measured in inches: title, legend and notes on top, below them room for a picture.

One axes covers the sheet, its coordinates are inches from the upper left corner. So a picture of hundreds of
parts needs no layout engine (which would measure each of them, for seconds) and its type has a known size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from mlcls.reports.picture import GRAY, INK, LIGHT, fonts, new_figure, text, width_of

MARGIN = 0.2  # inches
_TITLE, _LEGEND, _NOTE = 13.0, 9.0, 9.0  # points
_LINE = 1.35 / 72  # inches of a line for each point of its type


@dataclass(frozen=True, slots=True)
class Sheet:
    """The figure, its axes in inches (y points down), its size, and `top`, where the room below the head begins."""

    figure: Figure
    axes: Axes
    width: float
    height: float
    top: float


def new_sheet(
    width: float, body: float, *, title: str, legend: Sequence[Artist] = (), notes: Sequence[str] = ()
) -> Sheet:
    """A sheet `width` inches wide with `body` inches below its head.

    Args:
        title: any text; folded where it is wider than the sheet.
        legend: artists with labels.
        notes: our own sentences, in gray below the legend.
    """
    inner = width - 2 * MARGIN
    titles = _fold(title, inner, _TITLE)
    lines = [line for note in notes for line in _fold(note, inner, _NOTE)]
    columns = _legend_columns(legend, inner)
    heads = [len(titles) * _TITLE * _LINE + 0.06 if title else 0.0]
    heads.append((-(-len(legend) // columns) * (_LEGEND * _LINE + 0.05) + 0.06) if legend else 0.0)
    heads.append(len(lines) * _NOTE * _LINE + 0.06 if lines else 0.0)
    top = MARGIN / 2 + sum(heads) + 0.02
    height = top + body
    figure = new_figure(width, height, layout=None)
    axes: Axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    sheet = Sheet(figure, axes, width, height, top)
    y = MARGIN / 2
    for line in titles if title else ():
        write(sheet, width / 2, y + _TITLE * _LINE / 2, text(line), size=_TITLE, ha="center")
        y += _TITLE * _LINE
    y = MARGIN / 2 + heads[0]
    if legend:
        axes.legend(
            handles=list(legend), loc="upper center", bbox_to_anchor=(width / 2, y),
            bbox_transform=axes.transData, ncols=columns, frameon=False, borderaxespad=0, borderpad=0,
            fontsize=_LEGEND, columnspacing=1.4, handletextpad=0.5,
        )  # fmt: skip
    y += heads[1]
    for line in lines:
        write(sheet, width / 2, y + _NOTE * _LINE / 2, text(line), size=_NOTE, ha="center", color=GRAY)
        y += _NOTE * _LINE
    return sheet


def write(
    sheet: Sheet, x: float, y: float, shown: str, *, size: float, ha: str = "left", va: str = "center_baseline",
    color: str = INK, **other: Any,
) -> None:  # fmt: skip
    """Text at a place of the sheet. `shown` has gone through `text` or `fitted`, or is our own."""
    sheet.axes.text(x, y, shown, fontsize=size, ha=ha, va=va, color=color, fontfamily=list(fonts()), **other)


def segments(
    sheet: Sheet, lines: Any, *, color: Any = LIGHT, width: Any = 0.7, z: float = 1, **other: Any
) -> None:
    """Lines, each an array [K, 2] of places; one collection, drawn at once."""
    sheet.axes.add_collection(
        LineCollection(lines, colors=color, linewidths=width, zorder=z, **other), autolim=False
    )


def _fold(shown: str, inches: float, size: float) -> list[str]:
    """Break text at spaces, and within a word that is wider than a line."""
    lines, line = [], ""
    for word in shown.split(" "):
        joined = f"{line} {word}" if line else word
        if line and width_of(joined, size) > inches:
            lines.append(line)
            joined = word
        while width_of(joined, size) > inches and len(joined) > 1:
            fits = next(
                k for k in range(len(joined) - 1, 0, -1) if k == 1 or width_of(joined[:k], size) <= inches
            )
            lines.append(joined[:fits])
            joined = joined[fits:]
        line = joined
    return [*lines, line]


def _legend_columns(legend: Sequence[Artist], inches: float) -> int:
    widths = [width_of(str(artist.get_label()), _LEGEND) + 0.6 for artist in legend]
    if sum(widths) <= inches:
        return max(1, len(legend))
    return max(1, int(inches / max(widths)))
