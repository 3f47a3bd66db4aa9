"""The epochs of a run, from where they stand: each trained, validated, taken in, and kept; until they are over."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from mlcls.errors import BundleError, ImageError, MlclsError, NumericalError, is_out_of_memory
from mlcls.learning.averaging import Ingredient, keep_best
from mlcls.learning.epochs import StepInfo, TrainedEpoch, run_epochs
from mlcls.learning.mixing import Change, build_changes, changed, growing_size
from mlcls.learning.steps import Batch
from mlcls.learning.stopping import MONITORS
from mlcls.models.staged import StagedClassifier
from mlcls.models.stages import train_mode
from mlcls.reports.progress import EpochTable
from mlcls.reports.record import EpochFigures
from mlcls.scoring.predictions import Predictions
from mlcls.workflows.checkpoints import (
    Best,
    Progress,
    Saver,
    copy_weights,
    moved_from,
    new_progress,
)
from mlcls.workflows.finishing import FAILED
from mlcls.workflows.restoring import restore_averages, restore_chance
from mlcls.workflows.setup import Setup
from mlcls.workflows.signals import Asked, Stop
from mlcls.workflows.validating import running_feed, val_predictions, validate


@dataclass(frozen=True)
class Learned:
    """What the epochs left: every figure, and the best epoch's weights with their validation predictions."""

    epochs: tuple[EpochFigures, ...]
    iterations: tuple[tuple[int, float | None], ...]  # (epoch, loss) of each optimizer step; None: skipped
    best_epoch: int
    best_weights: dict[str, Tensor]
    val: Predictions
    stopped_because: str
    soup: tuple[
        int, ...
    ] = ()  # the epochs whose weights `best_weights` averages; none: it is the best epoch's


def learn(
    setup: Setup,
    console: Console,
    on_epoch: Callable[[EpochFigures], None] | None = None,
    *,
    saver: Saver | None = None,
    stop: Stop | None = None,
    finish: bool = False,
) -> Learned:
    """Run the epochs; keep the best one's weights; stop when patience runs out in the last stage.

    Args:
        on_epoch: called after each epoch's validation with its figures.
        saver: keeps checkpoints; its progress says where to go on.
        stop: asked after each step whether to end here.
        finish: end here, with the best epoch so far.

    Raises:
        NumericalError: the loss stayed not finite before one epoch was through.
        RuntimeError: a process that loads images was ended from outside, and a checkpoint stands (`is_loader_death`).
        BundleError: `finish`, and no epoch is through.
        KeyboardInterrupt: it was asked to stop, and has saved what it had come to.
    """
    stop = Stop() if stop is None else stop
    progress = new_progress(setup.recipe) if saver is None else saver.progress
    first = copy_weights(setup.classifier) if saver is None else saver.first
    if finish and progress.stopped is None:
        if progress.best is None:
            raise BundleError("--finish: no epoch has ended yet, so there is nothing to make a bundle of")
        progress.stopped = f"--finish, in epoch {progress.running.position.epoch}"
    if progress.stopped is None:
        with EpochTable(console) as table, stop.patiently():
            try:
                _run_epochs(setup, progress, first, saver, stop, table, on_epoch)
            except Asked:
                raise _interrupted(saver, progress) from None
            except (MlclsError, MemoryError, OSError, RuntimeError) as error:
                if stop.asked and is_loader_death(error):  # ended by the same signal, perhaps within a step
                    raise KeyboardInterrupt from None
                _end_with(error, setup, progress, saver)
    best = progress.best
    assert best is not None
    assert progress.stopped is not None
    return Learned(
        tuple(progress.figures),
        tuple(progress.iterations),
        best.epoch,
        {**first, **best.moved},
        val_predictions(setup, best.scores),
        progress.stopped,
    )


def _run_epochs(
    setup: Setup,
    progress: Progress,
    first: dict[str, Tensor],
    saver: Saver | None,
    stop: Stop,
    table: EpochTable,
    on_epoch: Callable[[EpochFigures], None] | None,
) -> None:
    """The epochs that are left; `progress.stopped` says in the end why there are no more."""
    recipe = setup.recipe

    def between() -> None:
        """Between two steps, or two batches of validation."""
        stop.check()
        if saver is not None and saver.due():
            saver.save()

    def after_step(step: StepInfo) -> None:
        if progress.ema is not None and step.loss is not None:
            progress.ema.update()
        between()

    position = progress.running.position
    epochs = run_epochs(
        setup.model,
        setup.stages,
        lambda epoch: _shown(setup, epoch, table, progress),
        setup.loss,
        device=setup.device,
        precision=recipe.precision,
        clip_norm=recipe.clip_norm or None,
        accumulate=recipe.accumulate,
        unknowns=setup.unknowns,
        train_mode=lambda _: _train_mode(setup.model),
        on_step=lambda step: after_step(step),
        feedback=progress.feedback,
        running=progress.running,
    )
    for trained in epochs:
        with nullcontext() if progress.ema is None else progress.ema.swapped_in():
            row, scores = validate(setup, trained, table, between)
            improved = _take_in(setup, progress, first, trained, row, scores)
        table.finish_epoch(row, improved)
        if on_epoch is not None:
            on_epoch(row)
        _go_on_or_stop(setup, progress, first)
        last = trained.stage == len(setup.stages) - 1
        last = last and trained.epoch + 1 == position.first + setup.stages[-1].epochs
        over = last or progress.stopped is not None
        if saver is not None and recipe.checkpoint_minutes > 0 and (over or saver.is_worth()):
            saver.save()
        stop.check()
        if progress.stopped is not None:
            return
    progress.stopped = "all epochs are done"


def _take_in(
    setup: Setup,
    progress: Progress,
    first: dict[str, Tensor],
    trained: TrainedEpoch,
    row: EpochFigures,
    scores: NDArray[np.float32],
) -> bool:
    """An epoch's figures taken in; whether it is the best so far."""
    stopping, recipe = progress.stopping, setup.recipe
    if trained.stage != progress.stage:
        progress.stage = trained.stage
        stopping.restart()
    progress.figures.append(row)
    progress.iterations += [(trained.epoch, loss) for loss in trained.iteration_losses]
    figure = getattr(row, recipe.monitor)
    improved = stopping.update(figure, row.val_loss)
    best = improved or progress.best is None
    moved = moved_from(first, setup.classifier) if best or recipe.soup else {}
    if best:
        progress.best = Best(trained.epoch, moved, scores)
    if recipe.soup and figure is not None:
        progress.ingredients = keep_best(
            progress.ingredients,
            Ingredient(trained.epoch, figure, moved),
            recipe.soup,
            higher_is_better=MONITORS[recipe.monitor] == "max",
        )
    return improved


def _go_on_or_stop(setup: Setup, progress: Progress, first: dict[str, Tensor]) -> None:
    """What follows from an epoch's figures: the next epoch, the next stage, or the end."""
    stopping, feedback = progress.stopping, progress.feedback
    feedback.val_loss = progress.figures[-1].val_loss
    if stopping.should_stop:
        if progress.stage == len(setup.stages) - 1:
            monitor, patience = setup.recipe.monitor, setup.recipe.patience
            progress.stopped = f"{monitor} has not been better for {patience} epochs"
        else:
            assert progress.best is not None
            feedback.next_stage = True  # the head has learned what it can: on with its best weights
            setup.classifier.load_state_dict({**first, **progress.best.moved})
    progress.running.position.ended = True


def _interrupted(saver: Saver | None, progress: Progress) -> BaseException:
    """What to raise once a person has ended the training; what it has come to is on the disk then."""
    position = progress.running.position
    where = f"interrupted in epoch {position.epoch}, after step {len(position.losses)}"
    if saver is None:
        return KeyboardInterrupt(where)
    problem = saver.save(wait=True)
    if problem is not None:
        return KeyboardInterrupt(f"{where}, which could not be saved ({problem})")
    return KeyboardInterrupt(f"{where}, which is saved")


def _end_with(error: Exception, setup: Setup, progress: Progress, saver: Saver | None) -> None:
    """End the training with its best epoch so far, since it cannot go on; else raise what ended it."""
    what = _gave_out(setup, error)
    if what is None:
        raise error
    if is_loader_death(error) and saver is not None:
        saver.wait()
        if saver.has_saved:
            raise error  # the run can go on from its checkpoint
    if progress.best is None:
        raise NumericalError(what) if isinstance(error, NumericalError) else error
    progress.stopped = FAILED + what  # what was learned is not lost with it


def _shown(setup: Setup, epoch: int, table: EpochTable, progress: Progress) -> Iterator[Batch]:
    """An epoch's batches with the bar moving; chance (dropout) begins anew, as a function of seed and epoch."""
    torch.manual_seed(int(np.random.SeedSequence([setup.recipe.seed, epoch]).generate_state(1)[0]))
    table.start_epoch(epoch, len(setup.train.dataset))
    restore_averages(progress)
    start = len(progress.running.position.losses) * setup.recipe.accumulate
    if start:  # an epoch that goes on
        table.advance(progress.running.position.images)
        restore_chance(progress, setup.device)
        if start >= setup.train.count(epoch):
            return
    for batch in changed(running_feed(setup).train(epoch, start), _changes(setup, progress), epoch, start):
        yield batch
        table.advance(len(batch[2]))


def _changes(setup: Setup, progress: Progress) -> tuple[Change, ...]:
    """What the batches of the stage that runs go through."""
    recipe, position = setup.recipe, progress.running.position
    first, full, epochs = recipe.first_image_size, recipe.image_size, setup.stages[position.stage].epochs
    grows = first is not None and full is not None and setup.model.rest is None
    began = position.first
    return build_changes(
        seed=recipe.seed,
        mixup=recipe.mixup,
        cutmix=recipe.cutmix,
        label_smoothing=recipe.label_smoothing,
        size=(lambda epoch: growing_size(epoch - began, epochs=epochs, first=first or 0, full=full or 0))
        if grows
        else None,
    )


def _train_mode(model: StagedClassifier) -> None:
    """Training mode where the classifier trains; what is above the frontier follows the stage, not its modules."""
    if model.rest is not None:
        model.rest.train()
    train_mode(model.classifier)


def _gave_out(setup: Setup, error: Exception) -> str | None:
    """What to say when numbers, memory, a disk or a loader gave out in the middle; None for a fault of the program."""
    if isinstance(error, NumericalError):
        return _with_images(setup, error)
    if isinstance(error, ImageError | OSError):
        return str(error)
    if isinstance(error, MemoryError) or is_out_of_memory(error):
        return "out of memory: try a smaller --batch-size or --image-size"
    if is_loader_death(error):
        return loader_death(error)
    return None


def is_loader_death(error: BaseException) -> bool:
    """Whether PyTorch says that a process that loads images was ended from outside."""
    return isinstance(error, RuntimeError) and "DataLoader worker" in str(error)


def loader_death(error: BaseException) -> str:
    """What to say of it."""
    return f"a process that loads images was ended from outside ({str(error).strip()})"


def _with_images(setup: Setup, error: NumericalError) -> str:
    """The error's sentence with the names of the images that were at hand, where there are any."""
    names = setup.data.names(setup.data.split.train[list(error.indices)])
    if not names:
        return str(error)
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"{error}\nimages in these steps: {shown}"
