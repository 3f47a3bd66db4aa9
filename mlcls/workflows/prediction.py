"""Prediction of the images of a labelled table."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlcls.bundle.files import GROUPS, Bundle, read_verified
from mlcls.bundle.predictor import Predictor
from mlcls.errors import TableError
from mlcls.labels.split import combine_groups, read_subsets
from mlcls.labels.table import LabelTable
from mlcls.naming import suggest
from mlcls.recipe import Recipe
from mlcls.reports.console import say
from mlcls.reports.progress import progress
from mlcls.reports.record import DataFacts
from mlcls.scoring.groups import read_groups, shared_groups
from mlcls.scoring.predictions import Predictions
from mlcls.workflows.data import gather_unsplit
from mlcls.workflows.judging import SUBSET_NAMES
from mlcls.workflows.splitting import select_rows

SPLIT = "split.csv"

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class PredictedTable:
    """A bundle's calibrated predictions of the images of a table, in the order of the bundle's attributes.

    `groups` say which images belong together, None where all stand alone; `facts` what the table holds; `notes` are
    sentences on what a reader should know of these images.
    """

    predictions: Predictions
    groups: NDArray[np.int64] | None
    facts: DataFacts
    images_dir: Path
    notes: tuple[str, ...]


def predict_table(
    bundle: Bundle,
    recipe: Recipe,
    device: str,
    console: "Console",
    subset: str | None = None,
    engine: str = "auto",
) -> PredictedTable:
    """The bundle's predictions of a labelled table.

    Args:
        recipe: the table's settings.
        console: for how far it is.
        subset: take only the images that the run had in this subset.
        engine: see `mlcls.bundle.predictor.Predictor`.

    Raises:
        TableError: what is wrong with the table; it lacks an attribute of the bundle; it has none of the images.
    """
    predictor = Predictor(bundle.folder, device=device, engine=engine)
    if predictor.note:
        say(console, predictor.note)
    data = gather_unsplit(
        recipe,
        console,
        lambda table: check_attributes(table, bundle.attributes),
        preprocessing=bundle.preprocessing,
    )
    assert data.store is not None  # gathered with a preprocessing
    store = data.store
    table, groups = data.table, _with_groups_of_run(bundle, data.table, data.groups)
    labels = _columns(table, bundle.attributes)
    held = _subsets_of(bundle, table.images.tolist())
    notes = _notes(held if subset is None else [], data.facts)
    if subset is not None:
        rows = np.flatnonzero([one == subset for one in held])
        if not len(rows):
            raise TableError(
                f"{table.report.source}: has none of the images of the run's {SUBSET_NAMES[subset]} subset; "
                f"{bundle.folder / SPLIT} names them"
            )
        table, labels, groups, store = (
            select_rows(table, rows),
            labels[rows],
            groups[rows],
            store.select(rows),
        )
    if np.isnan(labels).all():
        raise TableError(f"{table.report.source}: no label of the bundle's attributes is known in it")
    scores, kept = np.zeros(labels.shape, dtype=np.float32), np.ones(len(labels), dtype=bool)
    gone = []
    with progress(console, "predicting", len(labels)) as advance:
        for row, found in enumerate(predictor.stream_scores(len(labels), store)):
            advance(1)
            if isinstance(found, str):  # it was readable a moment ago
                kept[row] = False
                gone.append(str(table.images[row]))
            else:
                scores[row] = found
    facts = dataclasses.replace(data.facts, unreadable=(*data.facts.unreadable, *gone))
    predictions = Predictions(tuple(table.images[kept]), bundle.attributes, scores[kept], labels[kept])
    return PredictedTable(predictions, shared_groups(groups[kept]), facts, table.images_dir, notes)


def _with_groups_of_run(bundle: Bundle, table: LabelTable, groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """The table's groups, joined where the run knew that images of these names belong together."""
    if GROUPS not in bundle.manifest["files"]:
        return groups
    read_verified(bundle, GROUPS)
    return combine_groups(len(groups), groups, read_groups(bundle.folder / GROUPS, table.images.tolist()))


def _subsets_of(bundle: Bundle, names: Sequence[str]) -> list[str | None]:
    """The subset of the run that each of these images was in; None where the run does not know the name.

    Names match whole, or without the first folder, which a run on several tables put before them, where one image of
    the run alone is called so.
    """
    read_verified(bundle, SPLIT)
    stated = read_subsets(bundle.folder / SPLIT)
    tails = [name.partition("/")[2] for name in stated]
    once = {tail for tail, count in Counter(tails).items() if tail and count == 1}
    short = {tail: subset for tail, subset in zip(tails, stated.values(), strict=True) if tail in once}
    return [stated.get(name) or short.get(name) for name in names]


def _notes(held: Sequence[str | None], facts: DataFacts) -> tuple[str, ...]:
    """What to know of a table: images that the run learned from or chose by, those left out, contradictions."""
    notes = []
    for subset, did in (("train", "learned from"), ("val", "chose epoch and thresholds by")):
        if seen := sum(one == subset for one in held):
            notes.append(
                f"{seen} of these {len(held)} images bear names of {SUBSET_NAMES[subset]} images: where they are the "
                f"same, the run {did} them, and the figures flatter"
            )
    for names, what in ((facts.missing, "missing"), (facts.unreadable, "unreadable")):
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            notes.append(f"{len(names)} {what} and left out: {shown}")
    if conflicts := len(facts.conflicts) + len(facts.near_conflicts):
        groups = (
            "group of images contradicts itself"
            if conflicts == 1
            else "groups of images contradict themselves"
        )
        notes.append(f"{conflicts} {groups} in the labels (inspect names them)")
    return tuple(notes)


def check_attributes(table: LabelTable, attributes: Sequence[str]) -> None:
    """Make sure that a table has the bundle's attributes.

    Raises:
        TableError: it lacks some; says what to do.
    """
    absent = [name for name in attributes if name not in (*table.attributes, *table.report.unknown)]
    if not absent:
        return
    if len(table.attributes) == len(attributes) and table.attributes[0] == "Attr1":
        hint = f"a table without header? then name its columns: --names {' '.join(attributes)}"
    else:
        hint = f"{suggest(absent[0], list(table.attributes))}; where it is not labelled, add a column of NA"
    raise TableError(f"{table.report.source}: lacks the bundle's attributes {', '.join(absent)}; {hint}")


def _columns(table: LabelTable, attributes: tuple[str, ...]) -> NDArray[np.float32]:
    """The table's labels [N, A] in the bundle's order of attributes."""
    labels = np.full((len(table.images), len(attributes)), np.nan, dtype=np.float32)
    for column, name in enumerate(attributes):
        if name in table.attributes:  # else the table has the column, and not one known label in it
            labels[:, column] = table.labels[:, table.attributes.index(name)]
    return labels
