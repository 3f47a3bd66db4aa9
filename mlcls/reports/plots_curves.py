"""Pictures of curves, a tile an attribute: precision against recall, ROC, and what a threshold would give."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from mlcls.reports.entry_figures import (
    Entry,
    base_rates,
    figures,
    intervals,
    like_chance,
    pair,
    why_undefined,
    with_interval,
)
from mlcls.reports.picture import BLUE, GRAY, GREEN, INK, LIGHT, VERMILION, limited, save
from mlcls.reports.sheet import segments
from mlcls.reports.tiles import Points, Tiles, draw_curves, new_tiles, say_in

Curve = tuple[ArrayLike, ...]  # arrays of one length [K]
FloatArray = NDArray[np.float64]
_BAND = "#cccccc"


def precision_recall_curves(
    path: str | Path,
    curves: Sequence[Curve | None],
    entries: Sequence[Entry],
    *,
    title: str = "Precision against recall",
) -> None:
    """Write `precision_recall_curves.png`: the picture that `precision_recall_figure` draws."""
    save(precision_recall_figure(curves, entries, title=title), path)


def precision_recall_figure(
    curves: Sequence[Curve | None], entries: Sequence[Entry], *, title: str = "Precision against recall"
) -> Figure:
    """Draw precision against recall, a tile an attribute.

    Args:
        curves: (recall [K], precision [K]) of each attribute [A], in order of the threshold, rising or falling;
            None or empty is undefined and written so. Between two points recall has the later one's precision.
        entries: the attributes of an `evaluation` entry [A]: `name`, and where they are there
            `average_precision` with its interval, the base rate and the test against chance.
        title: above the picture.
    """
    base = base_rates(entries)
    return _ranking(
        [None if line is None else _steps(line) for line in map(_line, curves)], entries, title=title,
        figure="average_precision", short="AP", axes=("recall", "precision"),
        reference=[(np.array([0.0, 1.0]), np.array([rate, rate])) for rate in base],
        known=~np.isnan(base), said="base rate: the precision of answering at random",
    )  # fmt: skip


def roc_curves(
    path: str | Path, curves: Sequence[Curve | None], entries: Sequence[Entry], *, title: str = "ROC curves"
) -> None:
    """Write `roc_curves.png`: the picture that `roc_figure` draws."""
    save(roc_figure(curves, entries, title=title), path)


def roc_figure(
    curves: Sequence[Curve | None], entries: Sequence[Entry], *, title: str = "ROC curves"
) -> Figure:
    """Draw the true positive rate against the false positive rate, a tile an attribute.

    Args:
        curves: (false positive rate [K], true positive rate [K]) of each attribute [A]; None or empty is
            undefined and written so.
        entries: as in `precision_recall_figure`, with `auroc`.
        title: above the picture.
    """
    diagonal = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    return _ranking(
        [_line(curve) for curve in curves], entries, title=title, figure="auroc", short="AUROC",
        axes=("false positive rate: absent, called present", "true positive rate: present, called present"),
        reference=[diagonal] * len(entries), known=~np.isnan(figures(entries, "auroc")), said="chance",
    )  # fmt: skip


def threshold_curves(
    path: str | Path,
    curves: Sequence[Curve | None],
    thresholds: Sequence[Mapping[str, Any]],
    *,
    title: str = "What each threshold gives",
) -> None:
    """Write `threshold_curves.png`: the picture that `threshold_figure` draws."""
    save(threshold_figure(curves, thresholds, title=title), path)


def threshold_figure(
    curves: Sequence[Curve | None],
    thresholds: Sequence[Mapping[str, Any]],
    *,
    title: str = "What each threshold gives",
) -> Figure:
    """Draw precision, recall and F1 against the threshold, a tile an attribute.

    The lines are steps: nothing changes between two neighbouring scores. Above the highest score nothing is
    predicted present, so there precision is left out.

    Args:
        curves: (thresholds, precision, recall, F1), [K] each, of each attribute [A]; None or empty is undefined.
            Thresholds as in `threshold_curve`, ascending: midway between neighbouring scores, all or some of them,
            the last above every score.
        thresholds: the rows of `thresholds.json` [A]: `name`, `threshold`, perhaps `interval` [low, high].
        title: above the picture.
    """
    title, names = limited(title, [str(row["name"]) for row in thresholds])
    chosen = figures(thresholds, "threshold")[: len(names)]
    spans = np.array([pair(row.get("interval")) for row in thresholds]).reshape(-1, 2)[: len(names)]
    styles: tuple[tuple[str, str, Any], ...] = (
        ("precision", VERMILION, (0, (4, 1.5))),
        ("recall", GREEN, (0, (1.2, 1))),
        ("F1", BLUE, "-"),
    )
    legend: list[Any] = [Line2D([], [], color=c, linestyle=s, label=label) for label, c, s in styles]
    legend.append(Line2D([], [], color=INK, linewidth=1.2, label="threshold chosen"))
    if np.isfinite(spans).all(axis=1).any():
        legend.append(Patch(color=_BAND, label="its 95% interval"))
    tiles = new_tiles(
        names, title=title, axis_names=("threshold", "precision, recall, F1"), legend=legend,
        below_names=[f"threshold {with_interval(t, *span)}" for t, span in zip(chosen, spans, strict=True)],
    )  # fmt: skip
    lines = [_arrays(curve) for curve in curves[: len(names)]]
    _bands(tiles, np.clip(spans, 0, 1))
    for part, (_, colour, style) in enumerate(styles, start=1):
        parts = [None if line is None else _held(line, part) for line in lines]
        draw_curves(tiles, parts, color=colour, linestyle=style)
    marks = [i for i, value in enumerate(chosen) if np.isfinite(value)]
    segments(
        tiles.sheet, [tiles.at(i, [min(chosen[i], 1)] * 2, [0, 1]) for i in marks], color=INK, width=1.2, z=4
    )
    for i, line in enumerate(lines):
        if line is None:
            say_in(tiles, i, "undefined")
    return tiles.sheet.figure


def _ranking(
    lines: Sequence[Points | None], entries: Sequence[Entry], *, title: str, figure: str, short: str,
    axes: tuple[str, str], reference: Sequence[Points], known: NDArray[np.bool_], said: str,
) -> Figure:  # fmt: skip
    """Curves with their area written above, and the line that no skill would have."""
    title, names = limited(title, [str(entry["name"]) for entry in entries])
    entries, lines = entries[: len(names)], lines[: len(names)]
    chance = like_chance(entries)
    below = [
        f"{short} {with_interval(value, *interval)}"
        for value, interval in zip(figures(entries, figure), intervals(entries, figure), strict=True)
    ]
    legend: list[Any] = [
        Line2D([], [], color=BLUE, label="the classifier"),
        Line2D([], [], color=VERMILION, linestyle="--", linewidth=1, label=said),
    ]
    if chance.any():
        legend.append(Patch(facecolor=LIGHT, edgecolor=GRAY, label="not distinguishable from chance"))
    tiles = new_tiles(names, title=title, axis_names=axes, below_names=below, tinted=chance, legend=legend)
    drawn = [line if known[i] else None for i, line in enumerate(reference[: len(names)])]
    draw_curves(tiles, drawn, color=VERMILION, width=1.0, z=2, linestyle="--")
    draw_curves(tiles, lines, color=[GRAY if like else BLUE for like in chance])
    for i, (line, entry) in enumerate(zip(lines, entries, strict=True)):
        if line is None:
            say_in(tiles, i, f"undefined:\n{why_undefined(entry)}")
    return tiles.sheet.figure


def _arrays(curve: Curve | None) -> tuple[FloatArray, ...] | None:
    """The curve's arrays without the points that are not finite; None where nothing is left."""
    if curve is None:
        return None
    parts = [np.asarray(part, dtype=np.float64) for part in curve]
    finite = np.all([np.isfinite(part) for part in parts], axis=0)
    return tuple(part[finite] for part in parts) if finite.any() else None


def _line(curve: Curve | None) -> Points | None:
    arrays = _arrays(curve)
    return None if arrays is None else (arrays[0], arrays[1])


def _steps(line: Points) -> Points:
    """The steps whose area the average precision is: between two points holds the precision of the later.

    Points of no recall, as the one of no prediction at all, have no part in it.
    """
    recall, precision = line if line[0][0] <= line[0][-1] else (line[0][::-1], line[1][::-1])
    found = recall > 0
    recall, precision = np.append(0.0, recall[found]), precision[found]
    return np.repeat(recall, 2)[1:-1], np.repeat(precision, 2)


def _held(line: tuple[FloatArray, ...], part: int) -> Points | None:
    """A figure of a threshold curve as steps over all thresholds from 0 to 1; 1 is precision, 2 recall, 3 F1."""
    thresholds, values = line[0], line[part]
    edges = np.concatenate([[0.0], np.clip(_changes(thresholds), 0, 1), [1.0]])
    if part == 1 and line[1][-1] == 0 and line[2][-1] == 0:  # nothing is predicted: 0 is but a convention
        values, edges = values[:-1], edges[:-1]
    return (np.repeat(edges, 2)[1:-1], np.repeat(values, 2)) if len(values) else None


def _changes(thresholds: FloatArray) -> FloatArray:
    """The scores that part the thresholds, [K - 1]: where the figures change.

    Thresholds that are the midpoints of all neighbouring scores, the first of 0 and the lowest, give the scores
    away: each is twice a threshold less the score before. Where some are left out, the middle of two neighbours
    stands for the scores between them; the highest score follows from the last threshold, midway to 1.
    """
    if len(thresholds) < 2:
        return np.empty(0)
    low, high = thresholds[:-1], thresholds[1:]
    signs = np.where(np.arange(len(low)) % 2, -1.0, 1.0)
    scores: FloatArray = 2 * signs * np.cumsum(signs * low)
    highest = 2 * thresholds[-1] - 1
    if np.all((scores >= low - 1e-6) & (scores <= high + 1e-6)) and abs(scores[-1] - highest) < 1e-6:
        return scores
    changes: FloatArray = (low + high) / 2
    changes[-1] = np.clip(highest, low[-1], high[-1])
    return changes


def _bands(tiles: Tiles, spans: FloatArray) -> None:
    known = np.flatnonzero(np.isfinite(spans).all(axis=1))
    bands = [tiles.at(i, spans[i][[0, 1, 1, 0]], [0, 0, 1, 1]) for i in known.tolist()]
    tiles.sheet.axes.add_collection(
        PolyCollection(bands, facecolors=_BAND, linewidths=0, zorder=0.4), autolim=False
    )
