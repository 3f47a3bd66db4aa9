"""Pictures of a search: its figures trial by trial, what they depend on, and over each setting."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from mlcls.reports.picture import (
    BLUE,
    GRAY,
    LIGHT,
    VERMILION,
    floats,
    fonts,
    new_figure,
    save,
    text,
)
from mlcls.reports.trial_rows import TrialRow, best_so_far

NAMES = {"val_loss": "validation loss", "val_map": "validation mAP", "val_f1": "validation F1"}
_MOST_SETTINGS = 12  # of more the first are drawn


def trials_history(path: str | Path, rows: Sequence[TrialRow], *, metric: str, maximize: bool) -> None:
    """Write `trials_history.png`: the picture that `history_figure` draws."""
    save(history_figure(rows, metric=metric, maximize=maximize), path)


def trials_importance(path: str | Path, importance: Mapping[str, float]) -> None:
    """Write `trials_importance.png`: the picture that `importance_figure` draws."""
    save(importance_figure(importance), path)


def trials_settings(
    path: str | Path, rows: Sequence[TrialRow], varied: Mapping[str, bool], *, metric: str, maximize: bool
) -> None:
    """Write `trials_settings.png`: the picture that `settings_figure` draws."""
    save(settings_figure(rows, varied, metric=metric, maximize=maximize), path)


def history_figure(rows: Sequence[TrialRow], *, metric: str, maximize: bool) -> Figure:
    """Draw each trial's figure in their order, and the best so far; on the right the epochs of each.

    Args:
        rows: in their order; those that are not over are left out.
        metric: the figure that they are compared by.
        maximize: whether more of it is better.
    """
    rows = [row for row in rows if row.state in ("complete", "pruned", "failed")]
    figure = new_figure(13, 5)
    left, right = figure.subplots(1, 2)
    _draw_history(left, rows, maximize)
    left.set_ylabel(NAMES.get(metric, metric))
    _draw_curves(right, rows, maximize)
    right.set_ylabel(NAMES.get(metric, metric))
    return figure


def _draw_history(axes: Axes, rows: Sequence[TrialRow], maximize: bool) -> None:
    axes.set_title("each trial")
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if not any(row.value is not None for row in rows):
        axes.text(0.5, 0.5, "no trial has a figure", ha="center", va="center", transform=axes.transAxes)
        return
    numbers = np.array([row.number for row in rows])
    values = floats(row.value for row in rows)
    best = floats(best_so_far(rows, maximize))
    axes.step(numbers, best, where="post", color=BLUE, linewidth=1.4, label="best so far")
    for state, style in (
        ("complete", {"color": BLUE, "marker": "o"}),
        ("pruned", {"facecolors": "none", "edgecolors": GRAY, "marker": "o"}),
    ):
        chosen = np.array([row.state == state for row in rows])
        if chosen.any():
            label = "complete" if state == "complete" else "pruned (its last epoch)"
            axes.scatter(numbers[chosen], values[chosen], s=28, label=label, zorder=3, **style)  # type: ignore[arg-type]
    failed = [row.number for row in rows if row.state == "failed"]
    if failed:
        bottom = [0.02] * len(failed)
        axes.scatter(
            failed, bottom, marker="x", color=VERMILION, label="failed", transform=axes.get_xaxis_transform()
        )
    for row in rows:
        if row.name is not None and row.value is not None:
            axes.annotate(
                text(row.name, 16), (row.number, row.value), xytext=(4, 5), textcoords="offset points",
                fontsize=8, color=GRAY, fontfamily=list(fonts()),
            )  # fmt: skip
    _finish(axes)


def _draw_curves(axes: Axes, rows: Sequence[TrialRow], maximize: bool) -> None:
    """The figure of each epoch, a line a trial; the best one's stands out."""
    axes.set_title("each epoch")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    complete = [row for row in rows if row.state == "complete" and row.value is not None]
    best = None
    if complete:
        best = (max if maximize else min)(complete, key=lambda row: float(row.value or 0.0))
    seen: set[str] = set()
    for row in rows:
        if not row.curve:
            continue
        epochs, values = zip(*row.curve, strict=True)
        kind = "best" if row is best else row.state
        colour, width, z = {"best": (BLUE, 2.2, 4), "complete": ("#8fbcdb", 1.0, 2)}.get(kind, (GRAY, 0.8, 1))
        label = f"trial {row.number}, the best" if row is best else kind
        marker = "o" if len(epochs) == 1 or row is best else None
        axes.plot(
            epochs, values, color=colour, linewidth=width, zorder=z, marker=marker, markersize=4,
            linestyle="-" if kind in ("best", "complete") else ":", label=None if label in seen else label,
        )  # fmt: skip
        seen.add(label)
    _finish(axes)


def importance_figure(importance: Mapping[str, float]) -> Figure:
    """Draw how much of the figure each setting decides, the largest share on top.

    Args:
        importance: shares that sum to 1, by the settings' names.
    """
    ranked = sorted(importance.items(), key=lambda item: item[1])
    figure = new_figure(8, 1.4 + 0.36 * max(1, len(ranked)))
    axes = figure.subplots()
    shares = np.array([share for _, share in ranked])
    places = np.arange(len(ranked))
    axes.barh(places, shares, color=BLUE, height=0.62)
    for place, (_, share) in enumerate(ranked):
        axes.text(share + 0.01, place, f"{share:.0%}", va="center", color=GRAY, fontsize=9)
    axes.set_yticks(places, [text(name, 40) for name, _ in ranked], fontfamily=list(fonts()))
    axes.set_xlim(0, max(0.1, 1.12 * float(shares.max(initial=0))))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_title("What decides the figure")
    axes.set_xlabel("share (PED-ANOVA of the complete trials)")
    axes.grid(axis="x", color=LIGHT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def settings_figure(
    rows: Sequence[TrialRow], varied: Mapping[str, bool], *, metric: str, maximize: bool
) -> Figure:
    """Draw the figure over each setting, a panel a setting, a dot a complete trial; early ones are pale.

    Args:
        varied: the settings, by the recipe's names, and whether each is drawn by its logarithm; of more than twelve the
            first.
        metric: the figure that trials are compared by.
        maximize: whether more of it is better.
    """
    complete = [row for row in rows if row.state == "complete" and row.value is not None]
    names = list(varied)[:_MOST_SETTINGS]
    across = min(4, max(1, len(names)))
    down = -(-max(1, len(names)) // across)
    figure = new_figure(3.4 * across, 0.3 + 2.7 * down)
    panels = np.atleast_1d(np.asarray(figure.subplots(down, across, sharey=True))).ravel()
    values = floats(row.value for row in complete)
    for i, axes in enumerate(panels):
        if i >= len(names):
            axes.set_axis_off()
            continue
        if varied[names[i]]:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=5))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        _draw_setting(axes, [row.settings.get(names[i]) for row in complete], values, maximize)
        axes.set_xlabel(text(names[i], 30), fontfamily=list(fonts()))
        if i % across == 0:
            axes.set_ylabel(NAMES.get(metric, metric))
    return figure


def _draw_setting(axes: Axes, settings: Sequence[Any], values: NDArray[np.float64], maximize: bool) -> None:
    if all(isinstance(one, int | float) and not isinstance(one, bool) for one in settings):
        places = floats(settings)
    else:
        names = sorted({str(one) for one in settings})
        places = np.array([float(names.index(str(one))) for one in settings])
        axes.set_xticks(range(len(names)), [text(name, 12) for name in names], fontfamily=list(fonts()))
        axes.set_xlim(-0.5, len(names) - 0.5)
    pale: Any = np.linspace(0.35, 1.0, len(values))  # an alpha a dot, which the types do not know
    axes.scatter(places, values, color=BLUE, s=22, alpha=pale, linewidths=0)
    if len(values):
        best = int(np.argmax(values) if maximize else np.argmin(values))
        axes.scatter(
            places[best], values[best], s=70, facecolors="none", edgecolors=VERMILION, linewidths=1.6
        )
    axes.grid(color=LIGHT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _finish(axes: Axes) -> None:
    axes.grid(color=LIGHT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9)
