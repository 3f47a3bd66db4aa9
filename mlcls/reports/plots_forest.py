"""Figures with their intervals, a row each: of the attributes, and of the differences between bundles."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from mlcls.reports.entry_figures import (
    Entry,
    FloatArray,
    base_rates,
    figures,
    intervals,
    like_chance,
    pair,
    with_interval,
)
from mlcls.reports.picture import BLUE, GRAY, INK, VERMILION, limited, save
from mlcls.reports.row_panels import (
    Panel,
    Rows,
    blocks_of,
    body_height,
    draw_scale,
    place_rows,
    write_names,
)
from mlcls.reports.sheet import new_sheet, segments, write

_MACRO = "mean over attributes"
_FIGURES = (("average_precision", "average precision"), ("auroc", "AUROC"))


def attribute_figures(
    path: str | Path, evaluation: Mapping[str, Any], *, title: str = "How well each attribute is ranked"
) -> None:
    """Write `attribute_figures.png`: the picture that `attribute_figures_figure` draws."""
    save(attribute_figures_figure(evaluation, title=title), path)


def attribute_figures_figure(
    evaluation: Mapping[str, Any], *, title: str = "How well each attribute is ranked"
) -> Figure:
    """Draw average precision and AUROC of each attribute with their intervals, the best AUROC on top.

    Undefined attributes stand last, and the mean over the attributes below them.

    Args:
        evaluation: an `evaluation` entry; what it holds of `intervals`, `baselines` and `chance` is drawn.
        title: above the picture.
    """
    title, names = limited(title, [str(entry["name"]) for entry in evaluation["attributes"]])
    entries = list(evaluation["attributes"])[: len(names)]
    order = np.argsort(-figures(entries, "auroc"), kind="stable")  # NaN last
    shown: list[Entry] = [entries[i] for i in order]
    macro = _macro(evaluation) if len(entries) > 1 else None
    shown += [macro] if macro else []
    chance, base = like_chance(shown), base_rates(shown)
    blocks, in_block = blocks_of(len(shown), 130, 600)
    row, size = (0.34, 10.0) if in_block <= 12 else (0.22, 8.5 if blocks == 1 else 7.5)
    sheet = new_sheet(
        9.6 if blocks == 1 else 13.0, body_height(in_block, row, labelled=True), title=title,
        legend=_legend(chance, base), notes=["Sorted by AUROC, in brackets the 95% interval."],
    )  # fmt: skip
    rows = place_rows(sheet, len(shown), blocks, in_block, row, size, labelled=True)
    told = [str(entry["name"]) for entry in shown]
    room = write_names(rows, told, 0.25 * rows.block_width, numbers=[*(order + 1), len(shown)])
    values_room = size * 11.2 / 72
    width = (rows.block_width - room - 0.12) / 2 - values_room
    for part, (figure, label) in enumerate(_FIGURES):
        panels = [Panel(left + room + part * (width + values_room), width) for left in rows.lefts]
        for block, panel in enumerate(panels):
            draw_scale(rows, panel, block, (0, 0.25, 0.5, 0.75, 1), label)
        marks = (
            base if figure == "average_precision" else np.where(np.isnan(figures(shown, figure)), np.nan, 0.5)
        )
        _draw_ticks(rows, panels, marks, VERMILION)
        _draw_spans(rows, panels, figures(shown, figure), intervals(shown, figure), ~chance, BLUE)
        for i, (value, span) in enumerate(zip(figures(shown, figure), intervals(shown, figure), strict=True)):
            x = panels[rows.block[i]].left + width + 0.09
            write(sheet, x, rows.y[i], with_interval(value, *span), size=size - 0.5, color=GRAY)
    if macro:
        y, left = rows.y[-1] - row / 2, rows.lefts[rows.block[-1]]
        segments(sheet, [[(left, y), (left + rows.block_width - 0.1, y)]], color=GRAY, width=0.8)
    return sheet.figure


def comparison(
    path: str | Path,
    differences: Sequence[Mapping[str, Any]],
    *,
    title: str = "Differences between the bundles",
) -> None:
    """Write `comparison.png`: the picture that `comparison_figure` draws."""
    save(comparison_figure(differences, title=title), path)


def comparison_figure(
    differences: Sequence[Mapping[str, Any]], *, title: str = "Differences between the bundles"
) -> Figure:
    """Draw paired differences with their intervals around a line at no difference, in the order given.

    Args:
        differences: {`name`, `difference`, `interval`: [low, high] or None, `changed`: bool or None}; a
            difference of None is undefined and written so.
        title: above the picture.
    """
    title, names = limited(title, [str(row["name"]) for row in differences])
    values = figures(differences, "difference")[: len(names)]
    spans = np.array([pair(row.get("interval")) for row in differences]).reshape(-1, 2)[: len(names)]
    changed = np.array([bool(row.get("changed")) for row in differences], dtype=bool)[: len(names)]
    row, size = (0.34, 10.0) if len(names) <= 12 else (0.22, 8.5)
    legend = [
        Line2D([], [], color=BLUE, marker="o", label="better"),
        Line2D([], [], color=VERMILION, marker="o", label="worse"),
        Line2D([], [], color=GRAY, marker="o", markerfacecolor="white", label="could be chance"),
    ]
    notes = ["In brackets the 95% interval. Better, worse: by more than chance explains."]
    sheet = new_sheet(8.6, body_height(len(names), row), title=title, legend=legend, notes=notes)
    rows = place_rows(sheet, len(names), 1, max(1, len(names)), row, size)
    room = write_names(rows, names, 0.34 * rows.block_width)
    reach = _reach(values, spans)
    panel = Panel(rows.lefts[0] + room, rows.block_width - room - size * 14.5 / 72, -reach, reach)
    draw_scale(rows, panel, 0, np.linspace(-reach, reach, 5), shown="{:+.3g}")
    _draw_ticks(rows, [panel], np.zeros(len(names)), INK)
    for better, colour in ((True, BLUE), (False, VERMILION)):
        _draw_spans(
            rows,
            [panel],
            np.where(changed & ((values > 0) == better), values, np.nan),
            spans,
            changed,
            colour,
        )
    _draw_spans(rows, [panel], np.where(changed, np.nan, values), spans, changed, GRAY)
    for i, (value, (low, high)) in enumerate(zip(values, spans, strict=True)):
        told = "undefined" if np.isnan(value) else _signed(value)
        told += "" if np.isnan(value) or np.isnan(low) else f" [{_signed(low)}, {_signed(high)}]"
        write(sheet, panel.left + panel.width + 0.1, rows.y[i], told, size=size - 0.5, color=GRAY)
    return sheet.figure


def _macro(evaluation: Mapping[str, Any]) -> Entry | None:
    """The mean over the attributes in the form of an attribute."""
    if not evaluation.get("macro"):
        return None
    present = (evaluation.get("baselines") or {}).get("always_present") or {}
    spans = (evaluation.get("intervals") or {}).get("macro") or {}
    base = {
        "base_rate": present.get("average_precision")
    }  # a constant score's average precision is the base rate
    return {**evaluation["macro"], "name": _MACRO, "intervals": spans, "baselines": base}


def _legend(chance: NDArray[np.bool_], base: FloatArray) -> list[Artist]:
    legend: list[Artist] = [Line2D([], [], color=BLUE, marker="o", markersize=5, label="the classifier")]
    tick: dict[str, Any] = {"marker": "|", "markersize": 9, "markeredgewidth": 1.8, "linestyle": ""}
    legend.append(Line2D([], [], color=VERMILION, label="without skill: base rate, AUROC 0.5", **tick))
    if chance.any():
        label = "not distinguishable from chance"
        legend.append(
            Line2D([], [], color=GRAY, marker="o", markersize=5, markerfacecolor="white", label=label)
        )
    return legend


def _draw_ticks(rows: Rows, panels: Sequence[Panel], places: FloatArray, colour: str) -> None:
    marks = [
        [(x, rows.y[i] - 0.5 * rows.row), (x, rows.y[i] + 0.5 * rows.row)]
        for i in np.flatnonzero(np.isfinite(places))
        for x in [panels[rows.block[i]].at(places[i])]
    ]
    segments(rows.sheet, marks, color=colour, width=1.4, z=1.5)


def _draw_spans(
    rows: Rows, panels: Sequence[Panel], values: FloatArray, spans: FloatArray, filled: NDArray[np.bool_], colour: str
) -> None:  # fmt: skip
    """A dot for each value that is finite, its interval as a line through it; a hollow gray one if not `filled`."""
    known = np.flatnonzero(np.isfinite(values))
    ink = [colour if filled[i] else GRAY for i in known]
    x = np.array([panels[rows.block[i]].at(values[i]) for i in known])
    ends = [panels[rows.block[i]].at(spans[i]) for i in known]
    lines = [[(low, rows.y[i]), (high, rows.y[i])] for i, (low, high) in zip(known, ends, strict=True)]
    segments(rows.sheet, lines, color=ink, width=1.6, z=2)
    inner = [colour if filled[i] else "white" for i in known]
    rows.sheet.axes.scatter(
        x, rows.y[known], s=26 if rows.row > 0.3 else 16, c=inner, edgecolors=ink, linewidths=1.2, zorder=3
    )


def _signed(difference: float) -> str:
    return f"{round(difference, 3) + 0.0:+.3f}"  # nothing added: -0.0 has become 0.0


def _reach(values: FloatArray, spans: FloatArray) -> float:
    """A round number that every difference and interval lies within."""
    furthest = np.nanmax(np.abs([*values, *spans.ravel(), 0.004]))
    for step in (0.01, 0.02, 0.04, 0.1, 0.2, 0.4, 0.6, 1.0):
        if furthest <= step:
            return step
    return float(max(1.0, furthest))
