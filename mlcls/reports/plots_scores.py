"""The picture of precision and recall, a pair of bars an attribute."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mlcls.reports.entry_figures import Entry, FloatArray, base_rates, intervals, like_chance
from mlcls.reports.picture import BLUE, GRAY, INK, ORANGE, VERMILION, floats, limited, pale, save
from mlcls.reports.plots_confusion import overall_confusion_matrix, per_class_confusion_matrices
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

__all__ = ["overall_confusion_matrix", "per_class_confusion_matrices", "precision_recall"]


def precision_recall(
    path: str | Path,
    names: Sequence[str],
    precision: Sequence[float | None],
    recall: Sequence[float | None],
    *,
    entries: Sequence[Entry] | None = None,
    title: str = "Precision and recall",
) -> None:
    """Write `precision_recall.png`: a pair of bars an attribute, in several blocks where there are many.

    Args:
        names: the attributes [A].
        precision: of each [A], 0 to 1; None or NaN is undefined and written so.
        recall: likewise.
        entries: the attributes of an `evaluation` entry [A]; what they hold of `intervals`, `baselines` and
            `chance` is drawn: whiskers, the precision of always answering "present", hatched bars.
    """
    title, names = limited(title, names)
    count = len(names)
    values = {"precision": floats(precision)[:count], "recall": floats(recall)[:count]}
    entries = list(entries or [])[:count] or [{"name": name} for name in names]
    blocks, in_block = blocks_of(count, 60, 140)
    row, size = (0.5, 10.0) if count <= 12 else (0.27, 8.5 if blocks == 1 else 7.5)
    sheet = new_sheet(
        (8.0, 12.4, 12.8)[blocks - 1], body_height(in_block, row), title=title, legend=_bar_legend(entries)
    )
    rows = place_rows(sheet, count, blocks, in_block, row, size)
    room = write_names(rows, names, (0.36 if blocks == 1 else 0.3) * rows.block_width)
    panels = [Panel(left + room, rows.block_width - room - 0.5) for left in rows.lefts]
    for block, panel in enumerate(panels):
        draw_scale(rows, panel, block, np.linspace(0, 1, 6))
    for figure, side, colour in (("precision", -0.2, BLUE), ("recall", 0.2, ORANGE)):
        _draw_bars(rows, panels, values[figure], side, colour, entries, figure)
    save(sheet.figure, path)


def _bar_legend(entries: Sequence[Entry]) -> list[Artist]:
    legend: list[Artist] = [Patch(color=BLUE, label="precision"), Patch(color=ORANGE, label="recall")]
    if np.isfinite(np.hstack([intervals(entries, "precision"), intervals(entries, "recall")])).any():
        legend.append(Line2D([], [], color=INK, linewidth=1.2, label="95% interval"))
    if _has_baselines(entries):
        legend.append(
            Line2D(
                [], [], color=VERMILION, marker="|", markersize=10, markeredgewidth=2, linestyle="",
                label='precision of always answering "present"',
            )
        )  # fmt: skip
    if like_chance(entries).any():
        legend.append(
            Patch(
                facecolor="white",
                edgecolor=GRAY,
                hatch="////",
                label="ranking not distinguishable from chance",
            )
        )
    return legend


def _has_baselines(entries: Sequence[Entry]) -> bool:
    return any("baselines" in entry for entry in entries)


def _draw_bars(
    rows: Rows,
    panels: Sequence[Panel],
    values: FloatArray,
    side: float,
    colour: str,
    entries: Sequence[Entry],
    figure: str,
) -> None:
    """Bars of one figure, `side` rows off the middle, with what is known about how sure it is."""
    chance, spans = like_chance(entries), intervals(entries, figure)
    y, half = rows.y + side * rows.row, 0.2 * rows.row
    bars: dict[bool, list[FloatArray]] = {False: [], True: []}
    base = (
        base_rates(entries) if figure == "precision" and _has_baselines(entries) else np.full(len(y), np.nan)
    )
    whiskers, marks = [], []
    for i, value in enumerate(values):
        panel = panels[rows.block[i]]
        end, rate, (low, high) = panel.at(np.nan_to_num(value)), panel.at(base[i]), panel.at(spans[i])
        far = np.nanmax((end, high, rate))
        if np.isfinite(value):
            box = np.array([(panel.left, -half), (end, -half), (end, half), (panel.left, half)])
            bars[bool(chance[i])].append(box + np.array((0, y[i])))
        if np.isfinite(low) and np.isfinite(high):
            whiskers += [[(low, y[i]), (high, y[i])]]
            whiskers += [[(x, y[i] - half / 2), (x, y[i] + half / 2)] for x in (low, high)]
        if np.isfinite(rate):
            marks.append([(rate, y[i] - half - 0.02), (rate, y[i] + half)])
        shown = f"{value:.2f}" if np.isfinite(value) else "undefined"
        write(rows.sheet, far + 0.06, y[i], shown, size=rows.size - (1 if rows.size > 8 else 0.5), color=GRAY)
    for like, boxes in bars.items():
        look: dict[str, Any] = {"facecolors": colour, "linewidths": 0}
        if like:
            look = {"facecolors": pale(colour), "edgecolors": colour, "linewidths": 0.5, "hatch": "//////"}
        rows.sheet.axes.add_collection(PolyCollection(boxes, zorder=2, **look), autolim=False)
    segments(rows.sheet, whiskers, color=INK, width=1.0, z=4)
    segments(rows.sheet, marks, color="white", width=3.6, z=4.5)
    segments(rows.sheet, marks, color=VERMILION, width=2.0, z=5)
