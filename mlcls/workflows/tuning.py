"""The thresholds of a finished bundle, chosen anew."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from mlcls.bundle.files import THRESHOLDS, Bundle, load_bundle, replace_thresholds
from mlcls.bundle.saved import saved_predictions
from mlcls.recipe import Recipe
from mlcls.reports.console import notes, say
from mlcls.reports.console_thresholds import ThresholdChange, measure_of, show_thresholds
from mlcls.scoring.estimators import estimator_named
from mlcls.scoring.predictions import Predictions
from mlcls.scoring.thresholds import TunedThreshold, parse_objective, tune_report

if TYPE_CHECKING:
    from rich.console import Console


def tune_bundle(
    model: str | Path,
    *,
    objective: str,
    estimator: str,
    table: Recipe | None,
    dry_run: bool,
    curves: Path | None,
    device: str,
    console: "Console",
    progress_console: "Console",
) -> tuple[TunedThreshold, ...]:
    """Choose thresholds for a bundle and, unless `dry_run`, replace its `thresholds.json`.

    Args:
        table: the table's settings, to tune on its images; None tunes on the saved validation predictions.
        curves: where to draw what every threshold gives, attribute by attribute.

    Raises:
        BundleError, TableError, RecipeError: what is wrong with the bundle, the table or the objective.
    """
    said: tuple[str, ...]
    parse_objective(objective)
    estimator_named(estimator)
    bundle = load_bundle(model)
    if table is None:
        predictions, groups = saved_predictions(bundle, "val")
        source, said = "the saved validation predictions", ()
    else:
        from mlcls.workflows.prediction import predict_table  # torch, for this alone

        predicted = predict_table(bundle, table, device, progress_console)
        predictions, groups = predicted.predictions, predicted.groups
        source, said = table.labels, predicted.notes
    tuned = tune_report(
        predictions.labels,
        predictions.scores,
        objective,
        bundle.attributes,
        estimator=estimator,
        groups=groups,
        seed=int(bundle.manifest.get("seed", 0)),
    )
    _show(console, bundle, predictions, tuned, objective, source)
    notes(console, said)
    if curves is not None:
        from mlcls.workflows.reporting import draw_threshold_curves  # matplotlib

        rows = [dataclasses.asdict(threshold) for threshold in tuned]
        draw_threshold_curves(curves, predictions.labels, predictions.scores, rows, source)
        say(console, f"drawn: {curves}")
    if dry_run:
        say(console, "nothing was written (--dry-run)")
    else:
        replace_thresholds(bundle, tuned)
        say(console, f"written: {bundle.folder / THRESHOLDS}")
        say(
            console,
            "metrics.json and report.html are of the former thresholds; the figures now: "
            f"python -m mlcls.evaluate --model {bundle.folder} --report FILE.html",
        )
    return tuned


def _show(
    console: "Console",
    bundle: Bundle,
    predictions: Predictions,
    tuned: tuple[TunedThreshold, ...],
    objective: str,
    source: str,
) -> None:
    """Thresholds before and after, and what the objective is worth on labels that were not tuned on."""
    changes = [
        ThresholdChange(
            name=new.name,
            before=old.threshold,
            after=new.threshold,
            known=new.known,
            positive=new.positive,
            naive=new.value,
            cross_fitted=new.cross_fitted,
            interval=new.interval,
            note=new.note,
        )
        for old, new in zip(bundle.thresholds, tuned, strict=True)
    ]
    about = f"{objective} on {source}, {len(predictions.labels)} images"
    show_thresholds(console, changes, measure=measure_of(objective), about=about)
