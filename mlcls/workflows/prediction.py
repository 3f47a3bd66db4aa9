"""Prediction of the images of a labelled table."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlcls.bundle.files import GROUPS, Bundle, read_verified
from mlcls.bundle.predictor import Predictor
from mlcls.errors import TableError
from mlcls.images.cache import ImageStore
from mlcls.images.load import load_image
from mlcls.images.preprocess import Preprocessing
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
# an image that one run had in its test subset, and another never met, is of no test subset that both had
MOST_LEARNED = ("train", "val", None, "test")
OUT_OF_FOLD = (
    ". The members of an ensemble are each trained on the others' validation images: what it says of them is in its "
    "saved predictions, out of fold; leave --labels out"
)

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class PredictedTable:
    """Calibrated predictions of the images of a table, in the order of the bundle's attributes.

    `groups` say which images belong together, None where all stand alone; `facts` what the table holds; `notes` are
    sentences on what a reader should know of these images.
    """

    predictions: Predictions
    groups: NDArray[np.int64] | None
    facts: DataFacts
    images_dir: Path
    notes: tuple[str, ...]


def predict_table(
    model: Bundle | Sequence[Bundle],
    recipe: Recipe,
    device: str,
    console: "Console",
    subset: str | None = None,
    engine: str = "auto",
    tta: str | None = None,
) -> PredictedTable:
    """A bundle's predictions of a labelled table, or the mean of several bundles'.

    Args:
        model: a bundle, or several of the same attributes; the first one's order is taken.
        recipe: the table's settings.
        console: for how far it is.
        subset: take only the images that the run had in this subset; of several runs, the one that any of them learned
            most from an image in: what one had in its test subset and another was trained on is of the training.
        engine, tta: see `mlcls.bundle.predictor.Predictor`.

    Raises:
        TableError: what is wrong with the table; it lacks an attribute of the bundle; it has none of the images.
    """
    bundles = (model,) if isinstance(model, Bundle) else tuple(model)
    bundle = bundles[0]
    # no threshold is asked of it here: those of several bundles would be tuned
    predictor = Predictor(
        [one.folder for one in bundles], device=device, engine=engine, tta=tta, threshold=0.5
    )
    if predictor.note:
        say(console, predictor.note)
    data = gather_unsplit(
        recipe,
        console,
        lambda table: check_attributes(table, bundle.attributes),
        preprocessing=predictor.preprocessings[0],
    )
    assert data.store is not None  # gathered with a preprocessing
    store = data.store
    table, groups = data.table, data.groups
    for one in bundles:
        groups = _with_groups_of_run(one, table, groups)
    labels = _columns(table, bundle.attributes)
    held = _subsets_of_all(bundles, table.images.tolist())
    notes = _notes(held if subset is None else [], data.facts)
    if subset is not None:
        rows = np.flatnonzero([one == subset for one in held])
        if not len(rows):
            raise TableError(
                f"{table.report.source}: has none of the images of the run's {SUBSET_NAMES[subset]} subset; "
                f"{bundle.folder / SPLIT} names them"
                + (" (of several runs, those are meant that all had in theirs)" if len(bundles) > 1 else "")
                + (OUT_OF_FOLD if bundle.members and subset == "val" else "")
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
    loads: list[Callable[[int], NDArray[np.uint8]]] = [
        store,
        *(partial(_decoded, store, form) for form in predictor.preprocessings[1:]),
    ]
    with progress(console, "predicting", len(labels)) as advance:
        for row, found in enumerate(predictor.stream_scores(len(labels), *loads)):
            advance(1)
            if isinstance(found, str):  # it was readable a moment ago
                kept[row] = False
                gone.append(str(table.images[row]))
            else:
                scores[row] = found
    facts = dataclasses.replace(data.facts, unreadable=(*data.facts.unreadable, *gone))
    predictions = Predictions(tuple(table.images[kept]), bundle.attributes, scores[kept], labels[kept])
    return PredictedTable(predictions, shared_groups(groups[kept]), facts, table.images_dir, notes)


def _decoded(store: ImageStore, preprocessing: Preprocessing, index: int) -> NDArray[np.uint8]:
    """An image in another form than the store's: of this one nothing is cached."""
    return load_image(store.paths[index], preprocessing, max_pixels=store.max_pixels)


def _with_groups_of_run(bundle: Bundle, table: LabelTable, groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """The table's groups, joined where the run knew that images of these names belong together."""
    if GROUPS not in bundle.manifest["files"]:
        return groups
    read_verified(bundle, GROUPS)
    return combine_groups(len(groups), groups, read_groups(bundle.folder / GROUPS, table.images.tolist()))


def _subsets_of_all(bundles: Sequence[Bundle], names: Sequence[str]) -> list[str | None]:
    """The subset of each of these images: of several runs, the one that any of them learned most from it in."""
    found = [_subsets_of(bundle, names) for bundle in bundles]
    if len(found) == 1:
        return found[0]
    return [min(subsets, key=MOST_LEARNED.index) for subsets in zip(*found, strict=True)]


def _subsets_of(bundle: Bundle, names: Sequence[str]) -> list[str | None]:
    """The subset of the run that each of these images was in; None where the run does not know the name.

    Names match whole, or without the first folder, which a run on several tables put before them, where one image of
    the run alone is called so.
    """
    read_verified(bundle, SPLIT)
    stated = read_subsets(bundle.folder / SPLIT)
    if bundle.members:  # each row is of the training of all members but one
        stated = {name: "train" if subset == "val" else subset for name, subset in stated.items()}
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
