"""The picture of calibration: how often a predicted probability is right, before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from mlcls.reports.entry_figures import number
from mlcls.reports.picture import BLUE, GRAY, ORANGE, limited, save
from mlcls.reports.tiles import Points, Tiles, draw_curves, new_tiles, say_in

Reliability = tuple[ArrayLike, ArrayLike, ArrayLike]  # mean predicted [K], observed share [K], counts [K]
FloatArray = NDArray[np.float64]
_POOLED = "all attributes together"
_IDEAL = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))


def reliability(
    path: str | Path,
    names: Sequence[str],
    before: Sequence[Reliability | None],
    after: Sequence[Reliability | None] | None = None,
    *,
    pooled: tuple[Reliability | None, Reliability | None] | None = None,
    figures_before: Mapping[str, Any] | None = None,
    figures_after: Mapping[str, Any] | None = None,
    title: str = "Do the probabilities mean what they say?",
) -> None:
    """Write `reliability.png`: the picture that `reliability_figure` draws."""
    figure = reliability_figure(
        names, before, after, pooled=pooled, figures_before=figures_before, figures_after=figures_after, title=title
    )  # fmt: skip
    save(figure, path)


def reliability_figure(
    names: Sequence[str],
    before: Sequence[Reliability | None],
    after: Sequence[Reliability | None] | None = None,
    *,
    pooled: tuple[Reliability | None, Reliability | None] | None = None,
    figures_before: Mapping[str, Any] | None = None,
    figures_after: Mapping[str, Any] | None = None,
    title: str = "Do the probabilities mean what they say?",
) -> Figure:
    """Draw the observed share against the mean predicted probability, a tile an attribute.

    Args:
        names: the attributes [A].
        before: (mean predicted, observed share, counts), [K] each, of each attribute [A]; None or empty is
            undefined and written so. A bin's dot is the larger the more of the attribute's labels it holds.
        after: likewise, of the calibrated probabilities; None where there is no calibration.
        pooled: the same of all known cells (before, after): a tile of its own, the first.
        figures_before: {`ece`, `brier`, `attributes`: [{`name`, `ece`, `brier`}]} for the lines above the tiles.
        figures_after: likewise.
        title: above the picture.
    """
    title, shown = limited(title, names)
    count = len(shown)
    two = after is not None
    first, second = list(before)[:count], list(after or [None] * count)[:count]
    numbers = list(range(1, count + 1))
    told = [_told_of(i, figures_before, figures_after) for i in range(count)]
    if pooled is not None:
        shown, first, second = [_POOLED, *shown], [pooled[0], *first], [pooled[1], *second]
        told = [_told(figures_before, figures_after, "mean "), *told]
        numbers = [0, *numbers]
    tiles = new_tiles(
        shown, title=title, axis_names=("predicted probability", "share of the images that show it"),
        below_names=told if any(told) else (), legend=_legend(two), numbers=numbers,
        notes=["ECE: expected calibration error, the mean distance from the diagonal. It and Brier: less is better."],
    )  # fmt: skip
    kept = [[_arrays(one) for one in bins] for bins in (first, second)]
    drawn = [any(one is not None for one in pair) for pair in zip(*kept, strict=True)]
    draw_curves(
        tiles, [_IDEAL if is_drawn else None for is_drawn in drawn], color=GRAY, width=0.9, linestyle="--"
    )
    for bins, colour, z in zip(kept, (ORANGE, BLUE), (4.0, 5.0), strict=True):
        _draw_bins(tiles, bins, colour, z)
    for i, is_drawn in enumerate(drawn):
        if not is_drawn:
            say_in(tiles, i, "undefined")
    return tiles.sheet.figure


def _legend(two: bool) -> list[Artist]:
    legend: list[Artist] = [
        Line2D(
            [],
            [],
            color=ORANGE,
            marker="o",
            markersize=4,
            label="before calibration" if two else "as trained",
        )
    ]
    if two:
        legend.append(Line2D([], [], color=BLUE, marker="o", markersize=4, label="after calibration"))
    return [*legend, Line2D([], [], color=GRAY, linestyle="--", linewidth=1, label="as it should be")]


def _draw_bins(tiles: Tiles, bins: Sequence[tuple[FloatArray, ...] | None], colour: str, z: float) -> None:
    lines: list[Points | None] = [None if one is None else (one[0], one[1]) for one in bins]
    draw_curves(tiles, lines, color=colour, width=1.2, z=z)
    known = [(i, one) for i, one in enumerate(bins) if one is not None]
    if not known:
        return
    places = np.concatenate([tiles.at(i, one[0], one[1]) for i, one in known])
    shares = np.concatenate([one[2] / max(one[2].sum(), 1) for _, one in known])
    largest = 90 * min(1.0, tiles.side / 2.3)  # square points
    tiles.sheet.axes.scatter(
        places[:, 0], places[:, 1], s=4 + largest * shares, c=colour, linewidths=0, zorder=z
    )


def _arrays(bins: Reliability | None) -> tuple[FloatArray, ...] | None:
    """The bins that hold something; None where none does."""
    if bins is None:
        return None
    parts = [np.asarray(part, dtype=np.float64) for part in bins]
    kept = np.isfinite(parts[0]) & np.isfinite(parts[1]) & (parts[2] > 0)
    return tuple(part[kept] for part in parts) if kept.any() else None


def _told_of(i: int, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    first, second = ((one or {}).get("attributes") or [] for one in (before, after))
    return _told(first[i] if i < len(first) else None, second[i] if i < len(second) else None)


def _told(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, what: str = "") -> str:
    """`ECE .120 → .030 · Brier .210 → .180`, as far as it is known."""
    parts = []
    for key, label in (("ece", "ECE"), ("brier", "Brier")):
        values = [number(one.get(key)) for one in (before, after) if one is not None]
        shown = [f"{value:.3f}".removeprefix("0") for value in values if np.isfinite(value)]
        if shown:
            parts.append(f"{what}{label} {' → '.join(shown)}")
    return " · ".join(parts)
