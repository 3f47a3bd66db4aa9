"""A training from beginning to end: `fit` reads from top to bottom what the command `train` does."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

import mlcls
from mlcls.bundle.files import METRICS, load_bundle, read_verified
from mlcls.bundle.lock import hold_folder
from mlcls.bundle.staging import prepare_folder
from mlcls.bundle.unfinished import MANIFEST, how_to_go_on, is_unfinished, remove_checkpoint
from mlcls.errors import BundleError, ImageError, Interrupted, MlclsError, NumericalError, RecipeError
from mlcls.images.preprocess import Preprocessing
from mlcls.learning.allocation import kept_memory
from mlcls.learning.checkpoint import Checkpoint
from mlcls.learning.shelf import Shelf
from mlcls.recipe import Recipe, recipe_values
from mlcls.reports.console import notes, say
from mlcls.reports.console_data import show_data, show_model
from mlcls.reports.record import EpochFigures, Record, from_json
from mlcls.workflows import finishing
from mlcls.workflows.checkpoints import Progress, Saver
from mlcls.workflows.checks import check_names
from mlcls.workflows.data import LabelledImages, gather, subset_counts
from mlcls.workflows.epochs import Learned, is_loader_death, learn, loader_death
from mlcls.workflows.identity import check_recipe, check_unchanged, identity_of
from mlcls.workflows.logs import RunLog
from mlcls.workflows.refining import refine
from mlcls.workflows.restoring import make_saver
from mlcls.workflows.resuming import (
    begun_by,
    bundle_digest,
    foreign,
    has_folds,
    identity_before,
    read_begun,
    read_earlier,
    recipe_of,
    unfinished,
    working_folder,
)
from mlcls.workflows.setup import Setup, preprocessing_for, set_up
from mlcls.workflows.signals import Stop, heed_signals

if TYPE_CHECKING:
    from pandas import DataFrame


def fit(
    recipe: Recipe | None = None,
    *,
    labels: "str | Path | DataFrame | None" = None,
    images: str | Path | None = None,
    out: str | Path = "outputs",
    overwrite: bool = False,
    resume: bool = False,
    finish: bool = False,
    console: Console | None = None,
    command: str = "mlcls.fit",
    on_epoch: Callable[[EpochFigures], None] | None = None,
    score_test: bool = True,
    part: "Part | None" = None,
    shelf: Shelf | None = None,
) -> Record:
    """Train, tune and save a classifier: what `python -m mlcls.train` runs.

    Args:
        recipe: every setting; `Recipe()` when not given, or with `resume` that of the unfinished run.
        labels: the label table (a path, or a DataFrame), in the place of `recipe.labels`.
        images: the images' folder, in the place of `recipe.images`.
        out: the folder of the bundle.
        overwrite: replace a bundle, or give up an unfinished run, that stands there.
        resume: go on with an unfinished run that stands there, to the same bytes as if it had never ended; begin one
            where there is none. A finished one is left as it is.
        finish: with `resume`: train no further, and make the bundle of the best epoch so far.
        console: a rich console to show tables and progress on; silent when not given.
        command: what the record says it was run by.
        on_epoch: called after each epoch with its figures; what it raises ends the run, its checkpoint left.
        score_test: with False the test subset is kept from training as ever, and not looked at.
        part: of a run that is one of several on the same images.
        shelf: where runs share what the frozen part makes of the images (`mlcls.workflows.shelf.open_shelf`); not a bit
            of what comes out changes.

    Returns:
        The record of the run, as in `metrics.json`.

    Raises:
        MlclsError: a mistake in the recipe, the table, the images or the weights; a loss that stays not finite
            before the first epoch has ended; with `resume`, a table, images or a recipe that have changed.
        Interrupted: Ctrl-C or SIGTERM; the message says how to go on.
    """
    started = time.monotonic()
    console = console or Console(quiet=True)
    aside = console if part is None else Console(quiet=True)
    out = Path(out)
    if resume and overwrite:
        raise RecipeError(
            "--resume --overwrite: the one goes on with a run, the other begins anew; give one of them"
        )
    if finish and not resume:
        raise RecipeError("--finish: ends an unfinished run; say --resume --finish")
    given = Given(recipe, labels, images)
    if recipe is not None:
        check_names(given.over(recipe))
    prepare_folder(out, overwrite=True)  # its name, before the lock; what stands there, under the lock
    stood = bundle_digest(out)
    with heed_signals() as stop:
        try:
            with hold_folder(out) as note:
                notes(console, [note] if note else [])
                prepare_folder(out, overwrite=overwrite, resume=resume)
                checkpoint = unfinished(out) if resume else None
                if resume and checkpoint is None and (out / MANIFEST).is_file():
                    return _finished_before(out, aside)
                if resume and checkpoint is None:
                    _say_that_none_stands(out, aside, finish)
                run = Run(
                    out, console, aside, stop, command, started, finish, on_epoch, score_test, part, shelf
                )
                if has_folds(given.recipe, checkpoint):
                    from mlcls.workflows.folds import fit_folds  # which calls `fit` for each of its members

                    return fit_folds(run, given, checkpoint)
                with kept_memory():
                    return _run(run, given, checkpoint)
        except KeyboardInterrupt as error:
            stop.leaving = True
            raise Interrupted(_how_to_go_on(out, str(error), stood)) from error
        except Exception as error:
            if is_loader_death(error) and not stop.asked and is_unfinished(out):
                raise NumericalError(  # PyTorch raises it anywhere, within a step too
                    f"{loader_death(error)}; go on with: {how_to_go_on(out)} (and fewer --workers, where memory gave "
                    "out)"
                ) from error
            if not stop.asked or isinstance(error, MlclsError | OSError):
                raise
            # KeyboardInterrupt in the middle of compiled code, as when it is imported, can come out as another error
            raise Interrupted(_how_to_go_on(out, "", stood)) from error


def recipe_to_resume(out: Path, recipe: Recipe, given: Mapping[str, Any]) -> Recipe:
    """The recipe of the unfinished run in `out`, where there is one, with those of the given settings that may differ.

    Args:
        recipe: what the settings make on top of the defaults.
        given: the settings that were named.

    Raises:
        BundleError: one of them is not what the run was begun with, or the checkpoint is damaged.
    """
    checkpoint = unfinished(out)
    if checkpoint is None:
        return recipe
    begun = read_begun(checkpoint)
    check_recipe(begun.recipe, recipe, list(given))
    try:
        return Recipe(**{**begun.recipe, **{name: getattr(recipe, name) for name in given}})
    except TypeError as error:
        raise foreign(checkpoint, error) from error


@dataclass(frozen=True)
class Part:
    """A run that is one of several on the same images; it tells of its epochs alone, the first also of its model.

    `data` are its images, read before, with its own split: that of its recipe is not looked at.
    """

    data: LabelledImages
    first: bool


@dataclass(frozen=True)
class Run:
    """What `fit` was told beside the recipe and the table; `aside` is where a part of several says the rest."""

    out: Path
    console: Console
    aside: Console
    stop: Stop
    command: str
    started: float
    finish: bool
    on_epoch: Callable[[EpochFigures], None] | None
    score_test: bool
    part: Part | None
    shelf: Shelf | None


@dataclass(frozen=True)
class Given:
    """The recipe that `fit` was given, and what stands in the place of two of its settings."""

    recipe: Recipe | None
    labels: Any
    images: str | Path | None

    @property
    def table(self) -> Any:
        """The labels where they are a DataFrame."""
        return None if self.labels is None or isinstance(self.labels, str | Path) else self.labels

    def over(self, recipe: Recipe) -> Recipe:
        """A recipe with these labels and images."""
        changes: dict[str, Any] = {}
        if self.labels is not None:
            changes["labels"] = str(self.labels) if self.table is None else "DataFrame"
        if self.images is not None:
            changes["images"] = str(self.images)
        return dataclasses.replace(recipe, **changes)


def _run(run: Run, given: Given, checkpoint: Checkpoint | None) -> Record:
    """The run itself, in a folder that no other run writes to."""
    console, started = run.console, run.started
    earlier = None if checkpoint is None else read_earlier(checkpoint)
    if earlier is None:
        recipe = given.over(given.recipe or Recipe())
        begun = begun_by(run.command, recipe, run.out)
    else:
        begun = earlier.begun
        recipe = given.over(given.recipe or recipe_of(earlier))
        check_recipe(begun.recipe, recipe)
        if begun.folder != working_folder():
            say(
                console,
                f"the run was begun in {begun.folder}: where the names of its table and images are relative, go on "
                "from there, unless all of it has moved here",
            )
        started -= earlier.seconds
        torch.set_num_threads(begun.threads)  # on which the last bits of sums depend
    check_names(recipe)
    log = RunLog(recipe, run.out, lambda problem: notes(console, [problem]))
    preprocessing = preprocessing_for(recipe)
    data = _gathered(run, recipe, given, preprocessing)
    if earlier is not None:
        check_unchanged(identity_before(earlier.checkpoint), identity_of(data), data.table.report.source)
    show_data(
        run.aside,
        data.facts,
        subset_counts(data),
        source=f"{data.table.report.source}: {data.table.report.layout}",
    )
    setup = set_up(recipe, data, preprocessing, earlier, run.shelf)
    if not run.score_test:
        setup = dataclasses.replace(setup, test=None)
    show_model(console if run.part is not None and run.part.first else run.aside, setup.facts)
    if earlier is None:
        remove_checkpoint(run.out)  # of a run that --overwrite gives up, or that had not begun to train
    saver = make_saver(run.out, setup, begun, started, earlier, lambda problem: notes(console, [problem]))
    if earlier is not None:
        check_recipe(earlier.checkpoint.state["resolved"], setup.recipe)
        say(console, _where(saver.progress))
    record = Record(
        mlcls=mlcls.__version__,
        seed=recipe.seed,
        command=begun.command,
        data=data.facts,
        model=setup.facts,
        recipe=recipe_values(setup.recipe),
        epochs=tuple(saver.progress.figures),
    )
    log.begin(record)
    on_epoch = log.after_epochs(record, saver.progress, run.on_epoch)
    try:
        learned = learn(setup, console, on_epoch, saver=saver, stop=run.stop, finish=run.finish)
    finally:
        saver.wait()  # nothing writes to the folder any more when another run may
    learned = _refined(run, setup, saver, learned)
    record = dataclasses.replace(
        record,
        epochs=learned.epochs,
        best_epoch=learned.best_epoch,
        soup=learned.soup or None,
        stopped_because=learned.stopped_because,
    )
    best = learned.best_weights
    record = finishing.finish(
        setup, best, learned.val, learned.iterations, record, run.out, started, run.aside, run.stop
    )
    log.write(record)
    return record


def _refined(run: Run, setup: Setup, saver: Saver, learned: Learned) -> Learned:
    """What `refine` makes of it; where an image is gone that was there before, the last checkpoint stands."""
    try:
        return refine(setup, saver.first, saver.progress.ingredients, learned)
    except (ImageError, OSError) as error:
        if run.part is not None or not is_unfinished(run.out):
            raise
        raise ImageError(f"{error}; once it is there again, go on with: {how_to_go_on(run.out)}") from error


def _gathered(run: Run, recipe: Recipe, given: Given, preprocessing: Preprocessing) -> LabelledImages:
    """The images of the run, read now if they were not before."""
    if run.part is not None:
        return run.part.data
    return gather(recipe, run.console, given.table, preprocessing=preprocessing)


def _say_that_none_stands(out: Path, console: Console, finish: bool) -> None:
    """Tell who resumes a run that there is none. Raises BundleError: it was to be finished."""
    if finish:
        raise BundleError(
            f"--finish: no unfinished run stands in {out}, of which to make a bundle; name its folder with --out"
        )
    say(console, f"no unfinished run stands in {out}: one begins")


def _finished_before(out: Path, console: Console) -> Record:
    """The record of a run whose bundle stands: nothing is left to do."""
    remove_checkpoint(out)  # the run was ended after its last file
    say(console, f"{out} holds a finished bundle: nothing is left to do (--overwrite trains anew)")
    bundle = load_bundle(out)
    return from_json(read_verified(bundle, METRICS), str(out / METRICS))


def _how_to_go_on(out: Path, said: str, stood: str | None) -> str:
    """What to tell a person who has ended a run.

    Args:
        stood: the digest of the bundle that stood there before; None where none did.
    """
    what = said or "interrupted"
    if not is_unfinished(out):
        if bundle_digest(out) not in (None, stood):
            return f"{what}, after the last step: {out} holds the finished bundle"
        return f"{what}; nothing is kept, since no checkpoint stood yet"
    return f"{what}; go on with: {how_to_go_on(out)} (add --finish for the bundle of the best epoch so far)"


def _where(progress: Progress) -> str:
    """Where a run goes on."""
    position = progress.running.position
    if progress.stopped is not None:
        return "resumed after the last epoch"
    epoch, step = position.epoch, len(position.losses)
    if position.ended:
        epoch, step = epoch + 1, 0
    return f"resumed at epoch {epoch}, step {step}"
