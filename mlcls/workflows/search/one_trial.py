"""One trial of a study: an ordinary run, ended where it lags behind, and what is kept of how it ended."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from mlcls.bundle.lock import hold_folder
from mlcls.bundle.unfinished import remove_checkpoint
from mlcls.errors import NumericalError, RecipeError, is_out_of_memory
from mlcls.recipe import Recipe
from mlcls.reports.console_trials import TrialTable
from mlcls.reports.record import EpochFigures, Record
from mlcls.workflows.finishing import FAILED
from mlcls.workflows.search.asking import Ended, give_back, pulse, same_before, tell
from mlcls.workflows.search.best_again import record_in
from mlcls.workflows.search.study import Shared
from mlcls.workflows.search.trial_outputs import recipe_of_trial, trial_folder


class _Dropped(BaseException):
    """The trial lags behind the others; raised between two epochs, through `fit`.

    No Exception: nothing on its way is to take it for a fault.
    """


@dataclass(frozen=True)
class Plan:
    """What all trials of a search share.

    base: the recipe that they vary; out: the folder of theirs; metric: the figure that they are compared by.
    fit: `mlcls.workflows.training.fit`, or what calls it.
    """

    base: Recipe
    out: Path
    metric: str
    fit: Callable[..., Record]


def run_trial(plan: Plan, shared: Shared, trial: Trial, table: TrialTable) -> str | None:
    """Run a trial and keep what came of it; why it failed, None where it did not."""
    if (ended := same_before(shared, trial)) is not None:
        tell(shared, trial, ended)
        return None
    folder = trial_folder(plan.out, trial.number)
    trial.set_user_attr("folder", str(folder.absolute()))
    epochs: list[EpochFigures] = []
    started = time.monotonic()

    def on_epoch(row: EpochFigures) -> None:
        epochs.append(row)
        value = getattr(row, plan.metric)
        table.epoch(row, value)
        if value is None:
            return
        try:
            trial.report(value, row.epoch)
        except UpdateFinishedTrialError:  # given up as lost, and run by another process
            raise _Dropped from None
        if trial.should_prune():
            raise _Dropped

    state, value, reason, record = TrialState.FAIL, None, None, None
    try:
        frozen = shared.study.get_trials(deepcopy=False)[trial.number]
        recipe = recipe_of_trial(plan.base, frozen)
        table.begin(trial.number + 1, frozen.user_attrs.get("name"), recipe.epochs)
        with pulse(shared, trial):
            record = plan.fit(recipe, out=folder, overwrite=True, on_epoch=on_epoch, score_test=False)
        state, value, reason = _outcome(record, plan.metric)
    except _Dropped:
        state = TrialState.PRUNED
        _leave_nothing(folder)
    except (NumericalError, RecipeError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            give_back(shared, trial, "it was ended by a fault of the program")
            raise
        reason = str(error) or "out of memory: try a smaller --batch-size or --image-size"
        _leave_nothing(folder)
    except KeyboardInterrupt as error:
        give_back(shared, trial, "it was interrupted")
        _leave_nothing(folder)
        raise KeyboardInterrupt(
            f"interrupted in trial {trial.number + 1}, which will be run again"
        ) from error
    except BaseException:
        give_back(shared, trial, "its process ended with an error")
        raise
    finally:
        _free_memory()
    tell(shared, trial, (state, value, _figures(epochs, record, time.monotonic() - started, reason)))
    return reason


def left_in(folder: Path, metric: str) -> Ended | None:
    """How a run ended whose process died before it could tell; None where it had come to no bundle."""
    record = record_in(folder)
    if record is None:
        return None
    state, value, reason = _outcome(record, metric)
    return state, value, _figures(list(record.epochs), record, record.seconds, reason)


def _outcome(record: Record, metric: str) -> tuple[TrialState, float | None, str | None]:
    """How a run that has come to its end counts: its figure is that of the weights, and views, that were kept."""
    stopped = record.stopped_because or ""
    if stopped.startswith(FAILED):
        return TrialState.FAIL, None, stopped.removeprefix(FAILED)
    kept = next(row for row in record.epochs if row.epoch == record.best_epoch)
    value = getattr(kept, metric)
    if metric == "val_map" and (record.soup or record.recipe.get("tta", "none") != "none"):
        value = (record.evaluation["val"] or {})["macro"][
            "average_precision"
        ]  # of what the bundle predicts with
    if value is None:
        return TrialState.FAIL, None, f"{metric} is undefined in its best epoch"
    return TrialState.COMPLETE, value, None


def _figures(
    epochs: list[EpochFigures], record: Record | None, seconds: float, reason: str | None
) -> dict[str, Any]:
    """What the table says of a trial. Of one that was cut off, the figures of its last epoch."""
    losses = [row.val_loss for row in epochs if row.val_loss is not None]
    facts: dict[str, Any] = {"epochs": len(epochs), "seconds": round(seconds, 2), "reason": reason}
    if reason:
        facts["reason"] = reason.splitlines()[0]
    facts["val_loss"] = min(losses) if losses else None
    kept = epochs[-1:] if record is None else [row for row in epochs if row.epoch == record.best_epoch]
    for row in kept:
        facts |= {"val_map": row.val_map, "val_f1": row.val_f1, "best_epoch": row.epoch}
    return facts


def _leave_nothing(folder: Path) -> None:
    """Remove what a run that came to no bundle has left."""
    if not folder.is_dir():
        return
    with hold_folder(folder):
        remove_checkpoint(folder)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
