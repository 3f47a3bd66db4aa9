"""A heat map on a sheet: the colours of its values and what they mean, cells, what is written in them, names."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch
from numpy.typing import NDArray

from mlcls.reports.picture import GRAY, INK
from mlcls.reports.sheet import Sheet, write

FloatArray = NDArray[np.float64]
Paint = Callable[[FloatArray], FloatArray]  # values [K] -> colours [K, 4]; NaN is gray
_UNDEFINED = "#d9d9d9"
_DARKEST = 0.9  # of a colour map; its last tenth is nearly black
_BLUES, _ORANGES, _BOTH = colormaps["Blues"], colormaps["Oranges"], colormaps["PuOr"]
FURTHEST = 0.5  # a difference of shares that has the full colour


def blue(shares: FloatArray) -> FloatArray:
    """From white for 0 to blue for 1."""
    return _painted(_BLUES(_DARKEST * np.nan_to_num(shares)), shares)


def orange(shares: FloatArray) -> FloatArray:
    """From white for 0 to orange for 1, by the square root: 1% and 5% are told apart."""
    return _painted(_ORANGES(_DARKEST * np.sqrt(np.nan_to_num(shares))), shares)


def orange_to_purple(differences: FloatArray) -> FloatArray:
    """Orange below 0, white at 0, purple above."""
    inside = np.clip(np.nan_to_num(differences) / FURTHEST, -1, 1)
    return _painted(_BOTH(0.5 + 0.45 * inside), differences)


def _painted(colours: FloatArray, values: FloatArray) -> FloatArray:
    return np.where(np.isnan(values)[..., None], to_rgba(_UNDEFINED), colours)


def colour_legend(paint: Paint, meanings: Mapping[str, float], gray: str | None = None) -> list[Artist]:
    """A patch for each meaning -> value, and one for what gray means."""
    colours = paint(np.array(list(meanings.values()), dtype=np.float64))
    shown = [*zip(colours, meanings, strict=True), *([(to_rgba(_UNDEFINED), gray)] if gray else [])]
    return [Patch(facecolor=tuple(c), edgecolor=GRAY, linewidth=0.5, label=label) for c, label in shown]


def draw_cells(
    sheet: Sheet,
    x: FloatArray,
    y: FloatArray,
    cell: tuple[float, float],
    colours: FloatArray,
    texts: Sequence[Sequence[str]] | None = None,
    size: float = 8.0,
) -> None:
    """Cells in rows and columns.

    Args:
        x: left sides [R, C], in inches.
        y: upper sides [R, C].
        cell: width and height of a cell.
        colours: of the cells [R, C, 4].
        texts: what stands in each cell [R][C]; lines are parted by a newline, the later ones are smaller.
        size: of the text, in points.
    """
    wide, high = cell
    corners = np.array([(0, 0), (wide, 0), (wide, high), (0, high)])
    places = np.stack((x.ravel(), y.ravel()), axis=1)[:, None, :] + corners
    line = 0.35 if min(cell) > 0.1 else 0.0
    paint = colours.reshape(-1, 4)
    boxes = PolyCollection(list(places), facecolors=paint, edgecolors="white", linewidths=line, zorder=0.6)
    sheet.axes.add_collection(boxes, autolim=False)
    if texts is None:
        return
    dark = colours[..., :3] @ np.array([0.299, 0.587, 0.114]) < 0.55  # Rec. 601 luma
    for row, column in np.ndindex(x.shape):
        lines = [one for one in texts[row][column].split("\n") if one]
        middle, down = float(x[row, column]) + wide / 2, float(y[row, column]) + high / 2
        for k, told in enumerate(lines):
            write(
                sheet, middle, down + (k - (len(lines) - 1) / 2) * size * 1.3 / 72, told,
                size=size if k == 0 else max(7.0, size - 1.5), ha="center",
                color="white" if dark[row, column] else INK,
            )  # fmt: skip


def write_heads(
    sheet: Sheet, x: FloatArray, y: FloatArray, side: float, beside: Sequence[str], above: Sequence[str], size: float
) -> None:  # fmt: skip
    """Names on the left of square cells, whose upper sides are y, and above them, whose left sides are x."""
    for at, name in zip(y.tolist(), beside, strict=True):
        write(sheet, float(x[0]) - 0.06, at + side / 2, name, size=size, ha="right")
    for at, name in zip(x.tolist(), above, strict=True):
        write(
            sheet, at + side / 2, float(y[0]) - 0.05, name, size=size, ha="center", va="bottom", rotation=90
        )
