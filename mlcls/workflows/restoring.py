"""What a checkpoint holds, put back: the progress of a run that goes on, and what keeps its further checkpoints."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlcls.learning.averaging import Ema, Ingredient
from mlcls.learning.epochs import Position
from mlcls.learning.plain_state import from_plain, restore_optimizer
from mlcls.learning.saved_rows import load_rows
from mlcls.learning.steps import Stepper
from mlcls.recipe import Recipe
from mlcls.reports.record import EpochFigures, facts_from_plain
from mlcls.workflows.checkpoints import (
    AVERAGE,
    CHANCE,
    DEVICE_CHANCE,
    INGREDIENT,
    Best,
    Progress,
    Saver,
    copy_weights,
    new_progress,
)
from mlcls.workflows.resuming import BEST, SCORES, STEP, Begun, Earlier, foreign
from mlcls.workflows.setup import Setup


def _as_losses(tensor: Tensor) -> list[float | None]:
    return [None if loss != loss else loss for loss in tensor.tolist()]


def restore_progress(earlier: Earlier, recipe: Recipe) -> Progress:
    """What the checkpoint holds of the epochs.

    Raises:
        BundleError: a file is damaged, or of another version.
    """
    progress = new_progress(recipe)
    checkpoint, state = earlier.checkpoint, earlier.checkpoint.state
    step = checkpoint.tensors(STEP)
    try:
        position = Position(**{**state["position"], "losses": _as_losses(step["losses"])})
        position.bad = [tuple(indices) for indices in position.bad]
        progress.running.position = position
        if state["stepper"] is not None:
            progress.running.restore = partial(_restore_stepper, state["stepper"], step)
        progress.feedback.val_loss = state["feedback"]["val_loss"]
        progress.feedback.next_stage = state["feedback"]["next_stage"]
        progress.stage = state["stage"]
        source = str(checkpoint.folder)
        progress.figures = [facts_from_plain(EpochFigures, row, source) for row in state["figures"]]
        losses = _as_losses(step["iteration_losses"])
        progress.iterations = list(zip(step["iteration_epochs"].tolist(), losses, strict=True))
        progress.stopping.best = state["stopping"]["best"]
        progress.stopping.loss = state["stopping"]["loss"]
        progress.stopping.waited = state["stopping"]["waited"]
        progress.stopped = state["stopped"]
        if state["best"] is not None:
            scores = checkpoint.tensors(SCORES)["scores"].numpy()
            progress.best = Best(state["best"], checkpoint.tensors(BEST), scores)
        if AVERAGE in checkpoint.kept:
            progress.averages = checkpoint.tensors(AVERAGE)
        progress.ingredients = [
            Ingredient(epoch, figure, checkpoint.tensors(f"{INGREDIENT}-{epoch}"))
            for epoch, figure in state["ingredients"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise foreign(checkpoint, error) from error
    progress.chance = {name: step[name] for name in (CHANCE, DEVICE_CHANCE) if name in step}
    return progress


def restore_chance(progress: Progress, device: torch.device) -> None:
    """Set the random number generators to where the epoch that goes on had left them; once."""
    if CHANCE in progress.chance:
        torch.set_rng_state(progress.chance[CHANCE])
    if DEVICE_CHANCE in progress.chance:
        torch.cuda.set_rng_state(progress.chance[DEVICE_CHANCE], device)
    progress.chance = {}


def restore_averages(progress: Progress) -> None:
    """Let the moving average follow the stage that runs: from its beginning, or from where a run goes on."""
    position = progress.running.position
    if progress.ema is None:
        return
    begins = position.epoch == position.first and not position.losses
    if begins or progress.averages:
        progress.ema.restart()
    if not begins and progress.averages:
        progress.ema.load_state(progress.averages)
    progress.averages = {}


def make_saver(
    out: Path,
    setup: Setup,
    begun: Begun,
    started: float,
    earlier: Earlier | None,
    tell: Callable[[str], object],
) -> Saver:
    """What keeps the checkpoints of a run, with the progress of the one that goes on, or with none.

    Args:
        started: when the run began, by `time.monotonic`, less what it had taken before.
        tell: told what keeps a checkpoint from the disk.

    Raises:
        BundleError: a file of the checkpoint is damaged, or of another version.
    """
    if earlier is None:
        first, progress = copy_weights(setup.classifier), new_progress(setup.recipe)
    else:
        first, progress = earlier.first, restore_progress(earlier, setup.recipe)
        if progress.stopped is None:
            _load_rows(earlier, setup, tell)
    if setup.recipe.ema:
        progress.ema = Ema(setup.classifier, setup.recipe.ema)
    return Saver(out, setup, progress, begun, first, started=started, tell=tell, earlier=earlier)


def _load_rows(earlier: Earlier, setup: Setup, tell: Callable[[str], object]) -> None:
    """Fill the stores with what the frozen part had computed."""
    stores = {name: store for feed in setup.feeds for name, store in feed.stores.items()}
    for name, facts in earlier.checkpoint.state.get("rows", {}).items():
        lost = load_rows(stores[name], earlier.checkpoint.folder, facts) if name in stores else []
        if lost:
            tell(f"{earlier.checkpoint.folder}: damaged, and computed again: {', '.join(lost)}")


def _restore_stepper(state: Mapping[str, Any], tensors: dict[str, Tensor], stepper: Stepper) -> None:
    restore_optimizer(stepper.optimizer, from_plain(state["optimizer"], tensors))
    for part, kept in zip(stepper.schedule.parts, from_plain(state["schedule"], tensors), strict=True):
        part.load_state_dict(kept)
    stepper.scaler.load_state_dict(from_plain(state["scaler"], tensors))
