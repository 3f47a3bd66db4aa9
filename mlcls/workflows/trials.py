"""A search from beginning to end: `search` reads from top to bottom what the command `trials` does."""

import contextlib
import dataclasses
import gc
import hashlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState
from rich.console import Console

from mlcls import durable
from mlcls.bundle.lock import hold_folder
from mlcls.bundle.unfinished import MANIFEST, remove_checkpoint
from mlcls.errors import (
    BundleError,
    Interrupted,
    NumericalError,
    RecipeError,
    is_out_of_memory,
)
from mlcls.labels.split import write_split
from mlcls.naming import suggest
from mlcls.recipe import Recipe, flag_of, recipe_values
from mlcls.reports.console import figure, plural, say
from mlcls.reports.console_data import show_data
from mlcls.reports.console_trials import TrialTable, show_seeds, show_trials
from mlcls.reports.record import EpochFigures, Record
from mlcls.reports.trial_rows import SeedRow, TrialRow
from mlcls.workflows.asking import Ended, count_over, give_back, next_trial, pulse, same_before, tell
from mlcls.workflows.best_again import BEST_FOLDER, record_in, train_again
from mlcls.workflows.checks import check_names
from mlcls.workflows.data import LabelledImages, gather, subset_counts
from mlcls.workflows.finishing import FAILED
from mlcls.workflows.identity import FREE, identity_of
from mlcls.workflows.search_space import (
    BUILT_IN,
    PUBLISHED,
    Planned,
    Space,
    baseline_trial,
    built_in_space,
    check_metric,
    published_trials,
    read_space,
    space_values,
)
from mlcls.workflows.setup import preprocessing_for
from mlcls.workflows.shelf import open_shelf
from mlcls.workflows.signals import heed_signals
from mlcls.workflows.study import MAXIMIZED, Shared, agree, open_study
from mlcls.workflows.study import plan as plan_trials
from mlcls.workflows.training import Part, fit
from mlcls.workflows.trial_outputs import (
    BEST,
    CSV,
    REPORT,
    best_trial,
    recipe_of_trial,
    trial_folder,
    write_report,
    write_tables,
)

JOURNAL, SPLIT = "trials.journal", "split.csv"
IN_A_ROW = 5  # trials that fail one after the other before the search gives up
POLL = 1.0  # seconds between two looks at what other processes' last trials have come to
_OWN = (*FREE, "labels", "images", "val_labels", "test_labels", "device", "title")
"""Settings that may differ from process to process, beside what the images are, which is compared itself."""


class _Dropped(BaseException):
    """The trial lags behind the others; raised between two epochs, through `fit`.

    No Exception: nothing on its way is to take it for a fault.
    """


@dataclass(frozen=True)
class _Search:
    """What `search` was told, made sense of."""

    base: Recipe
    out: Path
    metric: str
    most: int
    until: float | None
    console: Console
    command: str
    fit: Callable[..., Record]


def search(
    recipe: Recipe | None = None,
    *,
    out: str | Path = "trials",
    storage: str | None = None,
    study: str = "trials",
    trials: int = 20,
    minutes: float | None = None,
    space: str = BUILT_IN,
    metric: str = "val_map",
    seeds: int = 3,
    given: Collection[str] = (),
    console: Console | None = None,
    command: str = "mlcls.search",
) -> list[TrialRow]:
    """Run trials of a recipe with other settings, and the best one again: what `python -m mlcls.trials` runs.

    Args:
        recipe: what all trials share; the space varies fields of it.
        out: the folder of the trials' bundles, the tables and the report.
        storage: a journal file, or the address of a database; `trials.journal` in `out` when not given.
        study: its name in the storage.
        trials: how many there are to be in the whole study, those of other processes and of earlier calls among them.
        minutes: no trial is begun later than so long after the first.
        space: `default`, `published`, or a TOML file.
        metric: the validation figure that trials are compared by.
        seeds: how many seeds the best one is trained with again, each tested once (0: none).
        given: fields of the recipe that a person has named, which the built-in space leaves alone.

    Returns:
        The trials, in the order they were begun.

    Raises:
        MlclsError: a mistake in what was given; a disk that is full; trials that fail one after the other.
        Interrupted: Ctrl-C or SIGTERM; the running trial will be run again.
    """
    console = console or Console(quiet=True)
    recipe, out = recipe or Recipe(), Path(out)
    varied, planned = _check(recipe, out, space, metric, given)
    with heed_signals() as stop:
        try:
            base, data = _images(recipe, out, console)
            until = None if minutes is None else time.monotonic() + 60 * minutes
            runs = _runs(data, base, out, command)
            told = _Search(base, out, metric, trials, until, console, command, runs)
            facts = _facts(recipe, varied, metric, data)
            storage = storage or str(out / JOURNAL)
            with open_study(
                storage, study, out, varied, metric=metric, seed=recipe.seed, warmup=_warmup(recipe)
            ) as shared:
                agree(shared, facts)
                plan_trials(shared, planned)
                _run_all(told, shared)
                return _close(told, shared, seeds)
        except KeyboardInterrupt as error:
            stop.leaving = True
            said = str(error) or "interrupted"
            raise Interrupted(f"{said}; the same command goes on with the study: {command}") from error


def _check(
    recipe: Recipe, out: Path, space: str, metric: str, given: Collection[str]
) -> tuple[Space, tuple[Planned, ...]]:
    """The space, and trials to begin with; everything refused that can be before any work is done."""
    check_names(recipe)
    if recipe.folds:
        raise RecipeError("--folds: a trial is one network; give it to train, with --recipe trials/best.toml")
    if metric not in MAXIMIZED:
        raise RecipeError(f"--metric: unknown name '{metric}'; {suggest(metric, MAXIMIZED)}")
    if (out / MANIFEST).exists():
        raise BundleError(f"--out {out}: a finished bundle stands there; name another folder")
    if out.exists() and not out.is_dir():
        raise BundleError(f"--out {out}: a file stands there; name a folder")
    built_in = space in (BUILT_IN, PUBLISHED)
    varied = built_in_space(recipe, given) if built_in else read_space(Path(space), recipe, given)
    check_metric(metric, varied)
    planned = published_trials(recipe, varied, given) if space == PUBLISHED else ()
    baseline = baseline_trial(recipe, varied)
    return varied, planned if baseline is None else (*planned, baseline)


def _images(recipe: Recipe, out: Path, console: Console) -> tuple[Recipe, LabelledImages]:
    """The images that all trials share, and the recipe with the one split of them, which is written once."""
    import filelock

    out.mkdir(parents=True, exist_ok=True)
    path, tables = out / SPLIT, recipe.val_labels or recipe.test_labels
    with filelock.FileLock(out / ".split"):
        base = recipe if tables else dataclasses.replace(recipe, split=f"file:{path}")
        first = recipe if tables or not path.exists() else base
        data = gather(first, console, preprocessing=preprocessing_for(first))
        show_data(
            console,
            data.facts,
            subset_counts(data),
            source=f"{data.table.report.source}: {data.table.report.layout}",
        )
        if not tables and not path.exists():
            part = path.with_name(f".{path.name}{durable.PART}")
            write_split(part, data.table.images.tolist(), data.split)
            durable.rename(part, path)
    return base, data


def _facts(recipe: Recipe, space: Space, metric: str, data: LabelledImages) -> dict[str, Any]:
    """What all trials of a study have in common, in JSON values."""
    identity = identity_of(data)
    digest = hashlib.sha256("\0".join(identity.attributes).encode())
    for tensor in identity.tensors().values():
        digest.update(tensor.numpy().tobytes())
    own = {flag_of(name): value for name, value in recipe_values(recipe).items() if name not in _OWN}
    return {
        **own,
        "--metric": metric,
        "--space": space_values(space),
        "the table, its images and their split (a digest)": digest.hexdigest()[:16],
    }


def _warmup(recipe: Recipe) -> int:
    """Epochs in which no trial is cut off: those of the head alone, and one or two after them."""
    head = 0 if recipe.unfreeze == "none" else recipe.unfreeze_epoch
    return min(head + 2, recipe.epochs)


def _run_all(told: _Search, shared: Shared) -> None:
    """Trials until there are enough of them, or the time is over."""
    failed = 0
    with TrialTable(
        told.console, metric=told.metric, maximize=MAXIMIZED[told.metric], most=told.most
    ) as table:
        while count_over(shared) < told.most:
            if told.until is not None and time.monotonic() >= told.until:
                say(told.console, "the time is over: no more trials are begun")
                return
            trial = next_trial(shared, told.most, lambda folder: _left_in(folder, told.metric))
            if trial is None:
                time.sleep(POLL)  # others run the last ones: should one die, it is run here
                continue
            reason = _run_one(told, shared, trial, table)
            failed = failed + 1 if reason else 0
            with shared.turn:
                table.show(write_tables(told.out, shared, told.base, told.metric), trial.number + 1)
            if failed == IN_A_ROW:
                raise NumericalError(f"{failed} trials failed one after the other, the last: {reason}")


def _close(told: _Search, shared: Shared, seeds: int) -> list[TrialRow]:
    """Once the last trial of all processes is over: the table, the best one again, the report; by one of them."""
    console, metric = told.console, told.metric
    with shared.turn:
        rows = write_tables(told.out, shared, told.base, metric)
    show_trials(console, rows, metric=metric, maximize=MAXIMIZED[metric])
    running = sum(row.state == "running" for row in rows)
    if running:
        say(console, f"{running} running elsewhere: the last process to end trains the best one again")
        return rows
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(hold_folder(told.out / BEST_FOLDER))
        except BundleError as error:
            say(console, f"another process of the study does the rest ({error})")
            return rows
        best, again = best_trial(shared), []
        if best is not None and seeds:
            recipe = recipe_of_trial(told.base, best)
            say(console, f"training trial {best.number + 1} again, over {plural(seeds, 'seed')}")
            again = train_again(told.fit, recipe, told.out, seeds, lambda row: _say_seed(console, row))
        write_report(told.out, shared, told.base, metric, again, told.command)
    if again:
        show_seeds(console, again)
    say(console, f"written: {told.out / REPORT} (open it in a browser), {told.out / CSV}")
    if best is not None:
        say(console, f"now: python -m mlcls.train --recipe {told.out / BEST} --out outputs")
    return rows


def _say_seed(console: Console, row: SeedRow) -> None:
    test = "" if row.test_map is None else f", test mAP {figure(row.test_map)}"
    took = f"{figure(row.seconds, 1)} s"
    say(console, f"seed {row.seed}: val mAP {figure(row.val_map)}{test}, {took}, in {row.folder}")


def _run_one(told: _Search, shared: Shared, trial: Trial, table: TrialTable) -> str | None:
    """Run a trial and keep what came of it; why it failed, None where it did not."""
    if (ended := same_before(shared, trial)) is not None:
        tell(shared, trial, ended)
        return None
    folder = trial_folder(told.out, trial.number)
    trial.set_user_attr("folder", str(folder.absolute()))
    epochs: list[EpochFigures] = []
    started = time.monotonic()

    def on_epoch(row: EpochFigures) -> None:
        epochs.append(row)
        value = getattr(row, told.metric)
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
        recipe = recipe_of_trial(told.base, frozen)
        table.begin(trial.number + 1, frozen.user_attrs.get("name"), recipe.epochs)
        with pulse(shared, trial):
            record = told.fit(recipe, out=folder, overwrite=True, on_epoch=on_epoch, score_test=False)
        state, value, reason = _outcome(record, told.metric)
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


def _runs(data: LabelledImages, recipe: Recipe, folder: Path, command: str) -> Callable[..., Record]:
    """`fit` for runs that share their images, what the frozen part makes of them, and the command that made them."""
    form = preprocessing_for(recipe)
    shelf = open_shelf(gigabytes=recipe.image_cache_gb) if recipe.image_cache_gb > 0 else None

    def run(one: Recipe, *, out: Path, **how: Any) -> Record:
        part = Part(data, first=False) if preprocessing_for(one) == form else None
        if one.log:  # a folder a run, as --log has it by itself
            logs = Path(recipe.log_dir) if recipe.log_dir else Path("logs", folder.name)
            one = dataclasses.replace(one, log_dir=str(logs / out.name))
        return fit(one, out=out, command=command, part=part, shelf=shelf, **how)

    return run


def _left_in(folder: Path, metric: str) -> Ended | None:
    """How a run ended whose process died before it could tell; None where it had come to no bundle."""
    record = record_in(folder)
    if record is None:
        return None
    state, value, reason = _outcome(record, metric)
    return state, value, _figures(list(record.epochs), record, record.seconds, reason)


def _outcome(record: Record, metric: str) -> tuple[TrialState, float | None, str | None]:
    """How a run that has come to its end counts: its figure is that of the epoch whose weights were kept."""
    stopped = record.stopped_because or ""
    if stopped.startswith(FAILED):
        return TrialState.FAIL, None, stopped.removeprefix(FAILED)
    kept = next(row for row in record.epochs if row.epoch == record.best_epoch)
    value = getattr(kept, metric)
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
