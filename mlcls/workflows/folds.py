"""A run of folds: a member for each, trained on all but its rows, one after the other; what is done is kept."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import torch

import mlcls
from mlcls import durable
from mlcls.bundle.unfinished import (
    CHECKPOINT,
    MANIFEST,
    MEMBER,
    RUNS,
    how_to_go_on,
    is_unfinished,
    remove_checkpoint,
)
from mlcls.errors import BundleError, Interrupted, MlclsError, OutputError, RecipeError
from mlcls.labels.folds import LEAST, fold_rows
from mlcls.learning.checkpoint import Checkpoint, write_checkpoint
from mlcls.recipe import Recipe
from mlcls.reports.console import count, heading, say
from mlcls.reports.console_data import show_data
from mlcls.reports.record import Record
from mlcls.workflows.checks import check_names
from mlcls.workflows.data import gather, subset_counts
from mlcls.workflows.ensembling import make_ensemble
from mlcls.workflows.folded import Folded
from mlcls.workflows.identity import check_recipe, check_unchanged, identity_of
from mlcls.workflows.resuming import (
    FOLDS,
    RUN,
    Begun,
    begun_by,
    foreign,
    identity_before,
    read_begun,
    working_folder,
)
from mlcls.workflows.setup import preprocessing_for
from mlcls.workflows.subsets import can_be_ranked
from mlcls.workflows.training import Given, Part, Run, fit


def fit_folds(run: Run, given: Given, checkpoint: Checkpoint | None) -> Record:
    """Train a member for each fold and make one bundle that averages them; `fit` where `recipe.folds` asks for it.

    Each member is an ordinary run in `checkpoint/members/` of `--out`, so that what ends this one ends it between two
    steps of a member: the members before it are bundles already, and that one goes on from its own checkpoint.

    Args:
        checkpoint: of the run of folds that goes on; None: one begins.

    Raises:
        MlclsError, Interrupted: as `fit`.
    """
    begun, recipe = _begun(run, given, checkpoint)
    folded = _divide(run, given, recipe, checkpoint)
    _check_members(run, recipe, folded)
    show_data(
        run.console,
        folded.data.facts,
        subset_counts(folded.data),
        source=f"{folded.data.table.report.source}: {folded.data.table.report.layout}",
    )
    if checkpoint is None:
        _write_begun(run.out, begun, folded)
    records: list[Record] = []
    before = 0.0  # seconds that members took when this run was another process
    for number in range(recipe.folds):
        started = time.monotonic()
        records.append(_train(run, given, recipe, begun, folded, number, records))
        before += max(0.0, records[-1].seconds - (time.monotonic() - started))
    return make_ensemble(
        recipe,
        folded,
        records,
        [_folder(run.out, name) for name in folded.names],
        run.out,
        command=begun.command,
        started=run.started - before,
        console=run.console,
        stop=run.stop,
    )


def member_seed(seed: int, number: int) -> int:
    """The seed of a member: another for each, and for each seed of the run."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _folder(out: Path, name: str) -> Path:
    """Where a member is trained."""
    return out / CHECKPOINT / RUNS / name


def _begun(run: Run, given: Given, checkpoint: Checkpoint | None) -> tuple[Begun, Recipe]:
    """How the run was begun, and its recipe."""
    if checkpoint is None:
        recipe = given.over(given.recipe or Recipe())
        begun = begun_by(run.command, recipe, run.out)
    else:
        begun = read_begun(checkpoint)
        try:
            recipe = given.over(given.recipe or Recipe(**begun.recipe))
        except TypeError as error:
            raise foreign(checkpoint, error) from error
        check_recipe(begun.recipe, recipe)
        if begun.folder != working_folder():
            say(
                run.console,
                f"the run was begun in {begun.folder}: where the names of its table and images are relative, go on "
                "from there, unless all of it has moved here",
            )
        torch.set_num_threads(begun.threads)  # on which the last bits of sums depend
    if recipe.folds < LEAST:
        raise RecipeError(f"--folds: expected {LEAST} or more (or 0: one network), got {recipe.folds}")
    check_names(recipe)
    return begun, recipe


def _divide(run: Run, given: Given, recipe: Recipe, checkpoint: Checkpoint | None) -> Folded:
    """Read the images, and divide those outside of the test subset, or find how they were divided."""
    data = gather(recipe, run.console, given.table, preprocessing=preprocessing_for(recipe))
    rows = np.sort(np.concatenate([data.split.train, data.split.val]))
    if checkpoint is None:
        found = fold_rows(
            data.table.labels[rows],
            recipe.folds,
            groups=data.groups[rows],
            seed=recipe.seed,
            attributes=data.table.attributes,
        )
        of_row, said = found.of_row, found.notes
    else:
        check_unchanged(identity_before(checkpoint), identity_of(data), data.table.report.source)
        try:
            of_row = checkpoint.tensors(FOLDS)["of_row"].numpy()
            said = tuple(map(str, checkpoint.state[FOLDS]))
        except (KeyError, TypeError) as error:
            raise foreign(checkpoint, error) from error
    sizes = np.bincount(of_row, minlength=recipe.folds)
    least, most = count(int(sizes.min())), count(int(sizes.max()))
    divided = (
        f"training and validation together, {count(len(rows))} images, are divided into {recipe.folds} folds of "
        f"{least if least == most else f'{least} to {most}'}"
    )
    facts = dataclasses.replace(data.facts, notes=(*data.facts.notes, divided, *said))
    names = tuple(f"{MEMBER}{number}" for number in range(recipe.folds))
    return Folded(dataclasses.replace(data, facts=facts), rows, of_row, names, said)


def _check_members(run: Run, recipe: Recipe, folded: Folded) -> None:
    """Refuse now what would else be found hours later, at a later member.

    Raises:
        RecipeError: a figure to watch that is undefined in some fold.
        BundleError: `--finish`, and a member has not begun.
    """
    for number, name in enumerate(folded.names):
        ranked = can_be_ranked(folded.data.table.labels[folded.fold(number)])
        if recipe.monitor not in ("auto", "val_loss") and not ranked:
            raise RecipeError(
                f"--monitor {recipe.monitor}: undefined in {name}, where no attribute has both a known positive and a "
                "known negative; use val_loss, or fewer folds"
            )
        place = _folder(run.out, name)
        if run.finish and not (is_unfinished(place) or (place / MANIFEST).is_file()):
            raise BundleError(
                f"--finish: {name} of {len(folded.names)} members has not begun, so there is no ensemble to make; go "
                f"on with: {how_to_go_on(run.out)}"
            )


def _write_begun(out: Path, begun: Begun, folded: Folded) -> None:
    """The checkpoint of the run of folds: what it was begun with, from which `--resume` goes on with its members.

    Raises:
        OutputError: it cannot be written.
    """
    remove_checkpoint(out)  # of a run that --overwrite gives up
    state = {
        "mlcls": mlcls.__version__,
        "begun": dataclasses.asdict(begun),
        "attributes": list(folded.data.table.attributes),
        FOLDS: list(folded.notes),
    }
    files = {
        RUN: identity_of(folded.data).tensors(),
        FOLDS: {"of_row": torch.from_numpy(folded.of_row)},
    }
    place = out / CHECKPOINT
    try:
        place.mkdir(parents=True, exist_ok=True)
        write_checkpoint(place, 1, state, files)
        durable.flush_folder(out)
    except OSError as error:
        raise OutputError(f"{place}: cannot be written ({error.strerror or error})") from error


def _train(
    run: Run,
    given: Given,
    recipe: Recipe,
    begun: Begun,
    folded: Folded,
    number: int,
    before: list[Record],
) -> Record:
    """Train a member, or go on with it, or find that it is done."""
    name, data = folded.names[number], folded.member(number)
    place = _folder(run.out, name)
    heading(run.console, f"{name}: member {number + 1} of {recipe.folds}")
    sizes = data.facts.split
    assert sizes is not None
    done = (place / MANIFEST).is_file()
    state = (
        "trained before"
        if done
        else f"trains on {count(sizes.train)} images, validated on {count(sizes.val)}"
    )
    say(run.console, state)
    own = dataclasses.replace(recipe, folds=0, seed=member_seed(recipe.seed, number))
    if before:  # all members calculate alike, whatever is measured to be quicker meanwhile
        own = dataclasses.replace(own, precision=str(before[0].recipe["precision"]))
    if recipe.log:
        own = dataclasses.replace(
            own, log_dir=str(Path(recipe.log_dir or Path("logs") / run.out.name) / name)
        )
    try:
        return fit(
            own,
            labels=given.table,
            out=place,
            resume=True,
            finish=run.finish,
            console=run.console,
            command=begun.command,
            on_epoch=run.on_epoch,
            score_test=run.score_test,
            part=Part(data, first=not before),
            shelf=run.shelf,
        )
    except Interrupted as error:
        raise KeyboardInterrupt(f"{name}: {error.__cause__ or 'interrupted'}") from error
    except MlclsError as error:
        error.args = (str(error).replace(how_to_go_on(place), how_to_go_on(run.out)), *error.args[1:])
        raise
