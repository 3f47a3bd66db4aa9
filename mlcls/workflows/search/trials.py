"""A search from beginning to end: `search` reads from top to bottom what the command `trials` does."""

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from mlcls import durable
from mlcls.bundle.lock import hold_folder
from mlcls.bundle.unfinished import MANIFEST
from mlcls.errors import (
    BundleError,
    Interrupted,
    NumericalError,
    RecipeError,
)
from mlcls.labels.split import write_split
from mlcls.naming import suggest
from mlcls.recipe import Recipe, flag_of, recipe_values
from mlcls.reports.console import figure, plural, say
from mlcls.reports.console_data import show_data
from mlcls.reports.console_trials import TrialTable, show_seeds, show_trials
from mlcls.reports.record import Record
from mlcls.reports.trial_rows import SeedRow, TrialRow
from mlcls.workflows.checks import check_names
from mlcls.workflows.data import LabelledImages, gather, subset_counts
from mlcls.workflows.identity import FREE, identity_of
from mlcls.workflows.search.asking import count_over, let_go, next_trial
from mlcls.workflows.search.best_again import BEST_FOLDER, train_again
from mlcls.workflows.search.one_trial import Plan, left_in, run_trial
from mlcls.workflows.search.search_space import (
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
from mlcls.workflows.search.study import MAXIMIZED, Shared, agree, check_storage, open_study
from mlcls.workflows.search.study import plan as plan_trials
from mlcls.workflows.search.trial_outputs import (
    BEST,
    CSV,
    REPORT,
    best_trial,
    recipe_of_trial,
    rows_of,
    write_report,
    write_tables,
)
from mlcls.workflows.setup import preprocessing_for
from mlcls.workflows.shelf import open_shelf
from mlcls.workflows.signals import heed_signals
from mlcls.workflows.training import Part, fit

JOURNAL, SPLIT, MADE = "trials.journal", "split.csv", "split.json"
_OF_SPLIT = ("split", "seed", "group_column", "near_duplicates")  # settings that the division follows from
IN_A_ROW = 5  # trials that fail one after the other before the search gives up
POLL = 1.0  # seconds between two looks at what other processes' last trials have come to
_OWN = (*FREE, "labels", "images", "val_labels", "test_labels", "device", "title")
"""Settings that may differ from process to process, beside what the images are, which is compared itself."""


@dataclass(frozen=True)
class _Search:
    """What `search` was told, made sense of."""

    plan: Plan
    most: int
    until: float | None
    console: Console
    command: str


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
        minutes: no trial is begun later than so long after the start.
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
    until = None if minutes is None else time.monotonic() + 60 * minutes
    varied, planned = _check(recipe, out, space, metric, given)
    storage = storage or str(out / JOURNAL)
    check_storage(storage, out)
    with heed_signals() as stop:
        try:
            base, data = _images(recipe, out, console)
            runs = _runs(data, base, out, command)
            told = _Search(Plan(base, out, metric, runs), trials, until, console, command)
            facts = _facts(recipe, varied, metric, data)
            with open_study(
                storage, study, out, varied, metric=metric, seed=recipe.seed, warmup=_warmup(recipe)
            ) as shared:
                agree(shared, facts)
                _keep_split(recipe, out, data)
                plan_trials(shared, planned)
                try:
                    _run_all(told, shared)
                    return _close(told, shared, seeds)
                finally:
                    stop.leaving = True  # a second Ctrl-C on the way out costs no trial
                    let_go(shared, lambda folder: left_in(folder, metric))
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
    """The images that all trials share, and the recipe with the one split of them; nothing is written.

    Raises:
        MlclsError: as `gather` raises; a split stands there that other settings made.
    """
    base, first = recipe, recipe
    if not _has_tables(recipe):
        base = dataclasses.replace(recipe, split=f"file:{out / SPLIT}")
        first = base if (out / SPLIT).exists() else recipe
        _check_made(recipe, out)
    data = gather(first, console, preprocessing=preprocessing_for(first))
    show_data(
        console,
        data.facts,
        subset_counts(data),
        source=f"{data.table.report.source}: {data.table.report.layout}",
    )
    return base, data


def _keep_split(recipe: Recipe, out: Path, data: LabelledImages) -> None:
    """Write the split that all trials share, once, and what made it.

    Raises:
        RecipeError: another search has written one in the meantime, by other settings.
        OSError: it cannot be written.
    """
    import filelock

    if _has_tables(recipe):
        return
    out.mkdir(parents=True, exist_ok=True)
    path = out / SPLIT
    with filelock.FileLock(out / ".split"):
        _check_made(recipe, out)
        if not path.exists():
            durable.write_whole(out / MADE, json.dumps(_made_by(recipe), indent=1).encode())
            part = path.with_name(f".{path.name}{durable.PART}")
            write_split(part, data.table.images.tolist(), data.split)
            durable.rename(part, path)


def _has_tables(recipe: Recipe) -> bool:
    """Whether the subsets have tables of their own, so that there is nothing to divide."""
    return bool(recipe.val_labels or recipe.test_labels)


def _made_by(recipe: Recipe) -> dict[str, Any]:
    values = recipe_values(recipe)
    return {flag_of(name): values[name] for name in _OF_SPLIT}


def _check_made(recipe: Recipe, out: Path) -> None:
    """Refuse a split that other settings have made: they would be passed over in silence."""
    try:
        made = json.loads((out / MADE).read_text(encoding="utf-8")) if (out / SPLIT).exists() else {}
    except FileNotFoundError:
        return  # of an earlier version, which did not keep it
    except ValueError as error:
        raise BundleError(f"{out / MADE}: damaged ({error}); name another folder (--out)") from error
    if not isinstance(made, dict):
        raise BundleError(f"{out / MADE}: damaged (no object of JSON); name another folder (--out)")
    now = _made_by(recipe)
    differ = [
        f"{name}: {made[name]} then, {now[name]} now"
        for name in now
        if made.get(name, now[name]) != now[name]
    ]
    if differ:
        raise RecipeError(
            f"{out / SPLIT}, which the trials there share, was made otherwise:\n"
            + "\n".join(differ)
            + "\ngive the same flags, or begin in another folder (--out DIR)"
        )


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
    failed, waits, plan = 0, False, told.plan
    maximize = MAXIMIZED[plan.metric]
    with TrialTable(told.console, metric=plan.metric, maximize=maximize, most=told.most) as table:
        while count_over(shared) < told.most:
            if told.until is not None and time.monotonic() >= told.until:
                say(told.console, "the time is over: no more trials are begun")
                return
            trial = next_trial(shared, told.most, lambda folder: left_in(folder, plan.metric))
            if trial is None:
                if not waits:
                    say(told.console, "the last trials run elsewhere: waiting for them")
                waits = True
                table.show(rows_of(shared, plan.base, plan.metric), 0)
                time.sleep(POLL)  # others run the last ones: should one die, it is run here
                continue
            reason = run_trial(plan, shared, trial, table)
            failed = failed + 1 if reason else 0
            with shared.turn:
                table.show(write_tables(plan.out, shared, plan.base, plan.metric), trial.number + 1)
            if failed == IN_A_ROW:
                raise NumericalError(f"{failed} trials failed one after the other, the last: {reason}")


def _close(told: _Search, shared: Shared, seeds: int) -> list[TrialRow]:
    """Once the last trial of all processes is over: the table, the best one again, the report; by one of them."""
    console, plan, metric = told.console, told.plan, told.plan.metric
    with shared.turn:
        rows = write_tables(plan.out, shared, plan.base, metric)
    show_trials(console, rows, metric=metric, maximize=MAXIMIZED[metric])
    running = sum(row.state == "running" for row in rows)
    if running:
        say(console, f"{running} running elsewhere: the last process to end trains the best one again")
        return rows
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(hold_folder(plan.out / BEST_FOLDER))
        except BundleError as error:
            say(console, f"another process of the study does the rest ({error})")
            return rows
        best, again = best_trial(shared), []
        if best is not None and seeds:
            recipe = recipe_of_trial(plan.base, best)
            say(console, f"training trial {best.number + 1} again, over {plural(seeds, 'seed')}")
            again = train_again(plan.fit, recipe, plan.out, seeds, lambda row: _say_seed(console, row))
        write_report(plan.out, shared, plan.base, metric, again, told.command)
    if again:
        show_seeds(console, again)
    say(console, f"written: {plan.out / REPORT} (open it in a browser), {plan.out / CSV}")
    if best is not None:
        say(console, f"now: python -m mlcls.train --recipe {plan.out / BEST} --out outputs")
    return rows


def _say_seed(console: Console, row: SeedRow) -> None:
    test = "" if row.test_map is None else f", test mAP {figure(row.test_map)}"
    took = f"{figure(row.seconds, 1)} s"
    say(console, f"seed {row.seed}: val mAP {figure(row.val_map)}{test}, {took}, in {row.folder}")


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
