"""Which images to predict, and the predictor that does."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlcls.bundle.files import GROUPS, Bundle, read_verified
from mlcls.bundle.predictor import Predictor
from mlcls.errors import ImageError, TableError
from mlcls.images.read import IMAGE_SUFFIXES
from mlcls.labels.split import combine_groups
from mlcls.labels.table import LabelTable
from mlcls.recipe import Recipe
from mlcls.reports.progress import progress
from mlcls.reports.record import DataFacts
from mlcls.scoring.groups import read_groups, shared_groups
from mlcls.scoring.predictions import Predictions
from mlcls.workflows.data import gather_unsplit
from mlcls.workflows.splitting import select_rows

if TYPE_CHECKING:
    from collections.abc import Collection

    from rich.console import Console


@dataclass(frozen=True)
class PredictedTable:
    """A bundle's calibrated predictions of the images of a table, in the order of the bundle's attributes.

    `groups` say which images belong together, None where all stand alone; `facts` what the table holds.
    """

    predictions: Predictions
    groups: NDArray[np.int64] | None
    facts: DataFacts
    images_dir: Path


def open_predictor(
    model: str | Path, device: str = "auto", threshold: float | None = None, *, raw: bool = False
) -> Predictor:
    """The predictor of a bundle; see `mlcls.bundle.predictor.Predictor`."""
    return Predictor(model, device=device, threshold=threshold, raw=raw)


def paths_to_predict(images: Sequence[str], folder: str | None) -> list[str]:
    """The images asked for by name, in that order, then those of the folder and its subfolders, by name.

    Raises:
        ImageError: there is no such folder, or no image in it.
    """
    paths = list(images)
    if folder is not None:
        root = Path(folder)
        if not root.is_dir():
            raise ImageError(f"--images {folder}: there is no such folder")
        found = sorted(str(p) for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        if not found:
            endings = ", ".join(sorted(IMAGE_SUFFIXES))
            raise ImageError(f"--images {folder}: no image in it (looked for {endings})")
        paths += found
    return paths


def predict_table(
    bundle: Bundle,
    recipe: Recipe,
    device: str,
    console: "Console",
    only: "Collection[str] | None" = None,
) -> PredictedTable:
    """The bundle's predictions of a labelled table.

    Args:
        recipe: the table's settings.
        console: for how far it is.
        only: names of images; the table's others are left out.

    Raises:
        TableError: what is wrong with the table; it lacks an attribute of the bundle; it has none of the images.
    """
    data = gather_unsplit(recipe, console)
    table = data.table
    groups = _with_groups_of_run(bundle, table, data.groups)
    labels = _columns(table, bundle.attributes)
    if only is not None:
        rows = np.flatnonzero([name in only for name in table.images])
        if not len(rows):
            raise TableError(f"{table.report.source}: has none of the {len(only)} images that are asked for")
        table, labels, groups = select_rows(table, rows), labels[rows], groups[rows]
    if np.isnan(labels).all():
        raise TableError(f"{table.report.source}: no label of the bundle's attributes is known in it")
    predictor = Predictor(bundle.folder, device=device)
    paths = [table.images_dir / name for name in table.images]
    scores, kept = np.zeros(labels.shape, dtype=np.float32), np.ones(len(paths), dtype=bool)
    gone = []
    with progress(console, "predicting", len(paths)) as advance:
        for row, found in enumerate(predictor.stream(paths)):
            advance(1)
            if "error" in found:  # it was readable a moment ago
                kept[row] = False
                gone.append(str(table.images[row]))
            else:
                scores[row] = [attribute["probability"] for attribute in found["attributes"]]
    facts = dataclasses.replace(data.facts, unreadable=(*data.facts.unreadable, *gone))
    predictions = Predictions(tuple(table.images[kept]), bundle.attributes, scores[kept], labels[kept])
    return PredictedTable(predictions, shared_groups(groups[kept]), facts, table.images_dir)


def _with_groups_of_run(bundle: Bundle, table: LabelTable, groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """The table's groups, joined where the run knew that images of these names belong together."""
    if GROUPS not in bundle.manifest["files"]:
        return groups
    read_verified(bundle, GROUPS)
    return combine_groups(len(groups), groups, read_groups(bundle.folder / GROUPS, table.images.tolist()))


def _columns(table: LabelTable, attributes: tuple[str, ...]) -> NDArray[np.float32]:
    """The table's labels [N, A] in the bundle's order of attributes."""
    absent = [name for name in attributes if name not in (*table.attributes, *table.report.unknown)]
    if absent:
        raise TableError(
            f"{table.report.source}: lacks the bundle's attributes {', '.join(absent)}; it has "
            f"{', '.join(table.attributes)}"
        )
    labels = np.full((len(table.images), len(attributes)), np.nan, dtype=np.float32)
    for column, name in enumerate(attributes):
        if name in table.attributes:  # else the table has the column, and not one known label in it
            labels[:, column] = table.labels[:, table.attributes.index(name)]
    return labels
