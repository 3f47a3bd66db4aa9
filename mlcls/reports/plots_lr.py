"""The picture of a learning-rate range test: the loss over the rate, and the rates that it speaks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mlcls.reports.picture import BLUE, GRAY, GREEN, ORANGE, VERMILION, fonts, new_figure, save, text


@dataclass(frozen=True)
class LrPanel:
    """The test of one stage.

    title: the stage's name. rates, losses, smoothed: float64 [n], of each step; n may be 0.
    steepest, tenth: the suggested rates, None where there are none; now: the recipe's.
    """

    title: str
    rates: NDArray[np.float64]
    losses: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    steepest: float | None
    tenth: float | None
    now: float


def lr_range_picture(path: str | Path, panels: Sequence[LrPanel]) -> None:
    """Write a PNG with a panel a stage, side by side, at most three in a row.

    Raises:
        OutputError: the file cannot be written.
    """
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure = new_figure(6.5 * across, 4.8 * down)
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, panel)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    save(figure, path)


def _draw(axes: Axes, panel: LrPanel) -> None:
    axes.set_title(text(panel.title, longest=60), fontfamily=list(fonts()))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss after the step")
    known = np.isfinite(panel.losses)
    if not known.any():
        axes.text(
            0.5, 0.5, "no step has a loss", transform=axes.transAxes, ha="center", va="center", color=GRAY
        )
        axes.set_xticks([])
        axes.set_yticks([])
        return
    axes.set_xscale("log")
    axes.plot(panel.rates, panel.losses, color=BLUE, alpha=0.35, linewidth=0.9, label="step")
    if np.isfinite(panel.smoothed).any():
        axes.plot(panel.rates, panel.smoothed, color=BLUE, linewidth=1.8, label="smoothed")
    marks = (
        ("steepest", panel.steepest, GREEN, "-"),
        ("a tenth of the lowest", panel.tenth, ORANGE, "--"),
        ("the recipe's", panel.now, VERMILION, ":"),
    )
    for label, rate, colour, style in marks:
        if rate is not None:
            axes.axvline(rate, color=colour, linestyle=style, linewidth=1.4, label=f"{label}: {rate:.1e}")
    axes.set_ylim(*_view(panel.losses[known]))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)


def _view(losses: NDArray[np.float64]) -> tuple[float, float]:
    """From the lowest loss to half again above the first ones: what lies beyond has diverged."""
    start = float(np.median(losses[: max(1, len(losses) // 5)]))
    lowest = float(losses.min())
    highest = min(float(losses.max()), start + max(0.5 * abs(start), start - lowest))
    room = 0.05 * (highest - lowest) or 0.05 * abs(highest) or 1.0
    return lowest - room, highest + room
