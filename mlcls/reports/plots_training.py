"""Pictures of a training: loss by iteration and by epoch, and every figure of the epochs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mlcls.reports.picture import (
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    PURPLE,
    VERMILION,
    floats,
    fonts,
    new_figure,
    save,
    stages_start,
    text,
)
from mlcls.reports.record import EpochFigures

_MOST_POINTS = 2000  # more iterations than this are drawn as the range that they cover

# panels of validation figures: title -> label -> (field of an epoch, colour, line style)
_VALIDATION = {
    "mean average precision": {"mAP": ("val_map", BLUE, "-")},
    "scores at threshold 0.5": {
        "F1": ("val_f1", BLUE, "-"),
        "precision": ("val_precision", VERMILION, "--"),
        "recall": ("val_recall", GREEN, ":"),
    },
    "errors at 0.5": {
        "Hamming loss (less is better)": ("val_hamming_loss", PURPLE, "-"),
        "exact match": ("val_exact_match", ORANGE, "--"),
    },
}


def loss_curve(
    path: str | Path,
    iteration_numbers: Sequence[int],
    iteration_losses: Sequence[float | None],
    epochs: Sequence[EpochFigures],
    *,
    best_epoch: int | None = None,
    title: str | None = None,
) -> None:
    """Write `loss_curve.png`: the picture that `loss_figure` draws from the same arguments."""
    save(loss_figure(iteration_numbers, iteration_losses, epochs, best_epoch=best_epoch, title=title), path)


def loss_figure(
    iteration_numbers: Sequence[int],
    iteration_losses: Sequence[float | None],
    epochs: Sequence[EpochFigures],
    *,
    best_epoch: int | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the loss of every iteration on the left, that of every epoch on the right.

    Args:
        iteration_numbers: one a training step, as in `iterations.csv`.
        iteration_losses: the loss of each; None or NaN where a step had none, which leaves a gap.
        epochs: for the losses of training and validation; where the stage changes is marked.
        best_epoch: the epoch to mark as the one whose weights were kept.
        title: above the picture.
    """
    figure = new_figure(13, 5)
    left, right = figure.subplots(1, 2)
    if title:
        figure.suptitle(text(title), fontfamily=list(fonts()), fontsize=14)
    _draw_iterations(left, np.asarray(iteration_numbers, dtype=np.float64), floats(iteration_losses))
    _draw_losses(right, epochs, best_epoch)
    right.set_title("each epoch")
    return figure


def train_vs_val_loss(
    path: str | Path,
    epochs: Sequence[EpochFigures],
    *,
    best_epoch: int | None = None,
    title: str | None = None,
) -> None:
    """Write `train_vs_val_loss.png`: the loss on training and on validation images, epoch by epoch."""
    figure = new_figure(8, 5)
    axes = figure.subplots()
    _draw_losses(axes, epochs, best_epoch)
    axes.set_title(text(title or "Training and validation loss"), fontfamily=list(fonts()))
    save(figure, path)


def training_history(
    path: str | Path,
    epochs: Sequence[EpochFigures],
    *,
    best_epoch: int | None = None,
    title: str | None = None,
) -> None:
    """Write `training_history.png`: losses, scores, errors, learning rate and speed over the epochs."""
    figure = new_figure(14, 7.5)
    panels = figure.subplots(2, 3)
    if title:
        figure.suptitle(text(title), fontfamily=list(fonts()), fontsize=14)
    (losses, ranking, scores), (cells, rates, speed) = panels
    _draw_losses(losses, epochs, best_epoch)
    losses.set_title("loss")
    for axes, (name, curves) in zip((ranking, scores, cells), _VALIDATION.items(), strict=True):
        _draw(axes, epochs, best_epoch, curves)
        axes.set_title(f"validation: {name}")
        axes.set_ylim(-0.03, 1.03)
    _draw(rates, epochs, best_epoch, {"learning rate": ("lr", BLUE, "-")})
    rates.set_title("learning rate")
    rates.set_ylim(0, 1.15 * max([1e-12, *(row.lr for row in epochs)]))
    _log_if_wide(rates, floats(row.lr for row in epochs))
    _draw(speed, epochs, best_epoch, {"images a second": ("images_per_second", BLUE, "-")})
    speed.set_title("training images a second")
    speed.set_ylim(0, 1.15 * max([1.0, *(row.images_per_second or 0.0 for row in epochs)]))
    save(figure, path)


def _draw_iterations(axes: Axes, numbers: NDArray[np.float64], losses: NDArray[np.float64]) -> None:
    axes.set_xlabel("iteration_number")
    axes.set_ylabel("training_loss")
    axes.set_title("each iteration")
    known = np.isfinite(losses)
    if not known.any():
        _nothing(axes, "no iteration has a loss")
        return
    losses = np.where(known, losses, np.nan)
    smoothed = len(losses) >= 80
    smooth = running_mean(losses, max(1, len(losses) // 20))
    if len(losses) > _MOST_POINTS:
        size = -(-len(losses) // _MOST_POINTS)
        starts = np.arange(0, len(losses), size)
        low = np.fmin.reduceat(losses, starts)
        high = np.fmax.reduceat(losses, starts)
        axes.fill_between(numbers[starts], low, high, color=BLUE, alpha=0.25, linewidth=0, label="range")
        axes.plot(numbers[starts], smooth[starts], color=BLUE, linewidth=1.8, label="running mean")
    else:
        marker, faint = "o" if len(losses) < 30 else None, 0.3 if smoothed else 1.0
        axes.plot(
            numbers, losses, color=BLUE, alpha=faint, linewidth=0.9, marker=marker, markersize=4, label="step"
        )
        if smoothed:
            axes.plot(numbers, smooth, color=BLUE, linewidth=1.8, label="running mean")
    _log_if_wide(axes, losses)
    _finish(axes, legend=smoothed)


def running_mean(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """The mean of the known values [N] at most `reach` / 2 places away; NaN where there is none."""
    known = np.isfinite(values)
    half = reach // 2
    sums = np.concatenate(([0.0], np.cumsum(np.where(known, values, 0.0))))
    counts = np.concatenate(([0], np.cumsum(known)))
    places = np.arange(len(values))
    start, stop = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    number = counts[stop] - counts[start]
    mean = (sums[stop] - sums[start]) / np.maximum(number, 1)
    return np.where(number > 0, mean, np.nan)


def _draw_losses(axes: Axes, epochs: Sequence[EpochFigures], best_epoch: int | None) -> None:
    curves = {"training": ("train_loss", BLUE, "-"), "validation": ("val_loss", VERMILION, "--")}
    _draw(axes, epochs, best_epoch, curves, explained=True)
    axes.set_ylabel("loss")
    _log_if_wide(
        axes, np.concatenate([floats(getattr(row, key) for row in epochs) for key, *_ in curves.values()])
    )


def _draw(
    axes: Axes,
    epochs: Sequence[EpochFigures],
    best_epoch: int | None,
    curves: dict[str, tuple[str, str, str]],
    explained: bool = False,
) -> None:
    """Draw fields of the epochs as lines; curves: label -> (field, colour, line style).

    `explained` puts the marks of stages and of the best epoch into the legend: once in a picture is enough.
    """
    numbers = [row.epoch for row in epochs]
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    drawn = False
    for label, (key, colour, style) in curves.items():
        values = floats(getattr(row, key) for row in epochs)
        values = np.where(np.isfinite(values), values, np.nan)
        if np.isnan(values).all():
            continue
        drawn = True
        marker = "o" if len(numbers) <= 60 else None
        axes.plot(numbers, values, style, color=colour, marker=marker, markersize=4, label=label)
    if not drawn:
        _nothing(axes, "nothing was measured")
        return
    for i in stages_start([row.stage for row in epochs]):
        stage = f"stage {epochs[i].stage} begins" if explained else None
        axes.axvline(numbers[i] - 0.5, color=GRAY, linestyle="--", linewidth=1, label=stage)
    if best_epoch is not None:
        best = f"best epoch: {best_epoch}" if explained else None
        axes.axvline(best_epoch, color=GRAY, linestyle=":", linewidth=1.6, label=best)
    axes.set_xlim(numbers[0] - 0.6, numbers[-1] + 0.6)
    _finish(axes, legend=explained or len(curves) > 1)


def _finish(axes: Axes, legend: bool) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False, fontsize=9)


def _log_if_wide(axes: Axes, values: NDArray[np.float64]) -> None:
    """A logarithmic axis where values differ by more than a hundredfold, so that the small ones are seen."""
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 100 * values.min():
        axes.set_yscale("log")
        axes.set_ylim(values.min() / 1.5, values.max() * 1.5)


def _nothing(axes: Axes, why: str) -> None:
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=GRAY)
    axes.set_xticks([])
    axes.set_yticks([])
