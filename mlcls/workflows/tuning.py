"""The thresholds of a finished bundle, chosen anew."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlcls.bundle.files import THRESHOLDS, Bundle, load_bundle, read_verified, write_thresholds
from mlcls.errors import TableError
from mlcls.labels.table import LabelTable
from mlcls.recipe import Recipe
from mlcls.reports.console import say
from mlcls.reports.console_scores import ThresholdChange, show_thresholds
from mlcls.reports.progress import progress
from mlcls.scoring.metrics import evaluate
from mlcls.scoring.predictions import Predictions, read_predictions
from mlcls.scoring.thresholds import TunedThreshold, parse_objective, tune_report
from mlcls.workflows.data import leave_out_unreadable, read_recipe_table

if TYPE_CHECKING:
    from rich.console import Console

VAL_PREDICTIONS = "predictions-val.csv"


def tune_bundle(
    model: str | Path,
    *,
    objective: str,
    table: Recipe | None,
    dry_run: bool,
    device: str,
    console: "Console",
    progress_console: "Console",
) -> tuple[TunedThreshold, ...]:
    """Choose thresholds for a bundle and, unless `dry_run`, replace its `thresholds.json`.

    Args:
        table: the table's settings, to tune on its images; None tunes on the saved validation predictions.

    Raises:
        BundleError, TableError, RecipeError: what is wrong with the bundle, the table or the objective.
    """
    parse_objective(objective)
    bundle = load_bundle(model)
    if table is None:
        read_verified(bundle, VAL_PREDICTIONS)
        predictions, source = (
            read_predictions(bundle.folder / VAL_PREDICTIONS),
            "the saved validation predictions",
        )
    else:
        predictions, source = _predict_table(bundle, table, device, progress_console), table.labels
    tuned = tune_report(predictions.labels, predictions.scores, objective, bundle.attributes)
    _show(console, bundle, predictions, tuned, objective, source)
    if dry_run:
        say(console, "nothing was written (--dry-run)")
    else:
        write_thresholds(bundle.folder / THRESHOLDS, tuned)
        say(console, f"written: {bundle.folder / THRESHOLDS}")
    return tuned


def _predict_table(bundle: Bundle, recipe: Recipe, device: str, console: "Console") -> Predictions:
    """The bundle's scores of a labelled table, its columns in the order of the bundle's attributes."""
    from mlcls.bundle.predictor import Predictor

    table, _ = leave_out_unreadable(read_recipe_table(recipe), console)
    labels = _columns(table, bundle.attributes)
    predictor = Predictor(bundle.folder, device=device)
    paths = [table.images_dir / name for name in table.images]
    with progress(console, "predicting", len(paths)) as advance:
        scores = []
        for row in predictor.stream(paths):
            scores.append([attribute["probability"] for attribute in row["attributes"]])
            advance(1)
    return Predictions(tuple(table.images), bundle.attributes, np.array(scores, dtype=np.float32), labels)


def _columns(
    table: LabelTable, attributes: tuple[str, ...]
) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
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


def _show(
    console: "Console",
    bundle: Bundle,
    predictions: Predictions,
    tuned: tuple[TunedThreshold, ...],
    objective: str,
    source: str,
) -> None:
    """Thresholds and F1 before and after."""
    after = np.array([t.threshold for t in tuned])
    figures = [
        [entry["f1"] for entry in evaluate(predictions.labels, predictions.scores, values)["attributes"]]
        for values in (bundle.threshold_values(), after)
    ]
    changes = [
        ThresholdChange(
            name=new.name,
            before=old.threshold,
            after=new.threshold,
            known=new.known,
            positive=new.positive,
            figure_before=f1_before,
            figure_after=f1_after,
            note=new.note,
        )
        for old, new, f1_before, f1_after in zip(bundle.thresholds, tuned, *figures, strict=True)
    ]
    images = len(predictions.labels)
    about = f"{objective} on {source}, {images} images; chosen on these labels, so these figures flatter"
    show_thresholds(console, changes, about=about)
