"""Every figure of a finished bundle: on its saved predictions, or on the images of another table."""

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlcls.bundle.ensemble import check_same_attributes
from mlcls.bundle.files import METRICS, Bundle, load_bundle, read_verified
from mlcls.bundle.predictor import Models, check_places
from mlcls.bundle.saved import Common, common_predictions, has_predictions, saved_predictions
from mlcls.bundle.together import tuned_together
from mlcls.bundle.writing import write_whole
from mlcls.errors import RecipeError
from mlcls.recipe import Recipe
from mlcls.reports.console import notes, say
from mlcls.reports.console_chance import show_chance_verdict
from mlcls.reports.console_scores import show_evaluation
from mlcls.reports.record import Record, from_json
from mlcls.scoring.assessment import assess, with_cross_fitted
from mlcls.scoring.predictions import Predictions
from mlcls.scoring.tuned import TunedThreshold
from mlcls.workflows.judging import SUBSET_NAMES, Judged

__all__ = ["Evaluated", "evaluate_bundle", "saved_predictions", "show_evaluated", "write_report"]

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Evaluated:
    """A bundle's figures on one set of labelled images, and the record to report them with.

    `subset` is the evaluation's place in the record; `asked` the subset that was evaluated, None for all images of
    another table (`elsewhere`). `source` says which images, for people; `notes` what to keep in mind; `has_test`
    whether the run had a test subset. `record` is the run's own with this evaluation, and this data, in the place
    of its own.
    """

    record: Record
    subset: str
    asked: str | None
    elsewhere: bool
    source: str
    judged: Judged
    notes: tuple[str, ...]
    has_test: bool

    @property
    def entry(self) -> dict[str, Any]:
        """The `evaluation` entry of the subset."""
        return self.record.evaluation[self.subset] or {}


def evaluate_bundle(
    model: Models,
    *,
    table: Recipe | None = None,
    subset: str | None = None,
    resamples: int = 1000,
    device: str = "auto",
    engine: str = "auto",
    tta: str | None = None,
    progress_console: "Console",
    pictures: Path | None = None,
) -> Evaluated:
    """Score a bundle at the thresholds it has now, or the mean of several bundles of the same attributes.

    Several are scored on the images that the saved predictions of all have in common, at thresholds that
    `mlcls.bundle.together.tuned_together` gives; a note says which these are.

    Args:
        model: a bundle's folder, or several.
        table: the settings of another table, to predict its images; None takes the saved predictions.
        subset: `val` or `test`; by itself test, val where a run had no test. With a table: only its images that
            the run had in this subset, see `predict_table`; by itself all.
        resamples: of the bootstrap; 0 leaves intervals out.
        pictures: the folder of the saved predictions' images, for the report. Not the one that the bundle names: who
            made it could have any file of this machine read.
        device, engine, tta: of the prediction, see `mlcls.bundle.predictor.Predictor`.

    Raises:
        BundleError, TableError, ImageError: what is wrong with the bundle, the table or its images.
        RecipeError: views, and no table whose images could be looked at so.
    """
    if table is None and tta is not None:
        raise RecipeError(
            f"--tta {tta}: nothing is predicted without --labels; name a table, or leave this flag out"
        )
    bundles = tuple(map(load_bundle, check_places(model)))
    for other in bundles[1:]:
        check_same_attributes(bundles[0], other)
    thresholds, said = _thresholds(bundles)
    for sentence in said:
        say(progress_console, sentence)
    record, asked = _record_of(bundles), subset
    if table is None:
        asked = asked or _last_subset(bundles)
        predictions, groups, source = _saved(bundles, asked)
        images_dir = pictures
    else:
        from mlcls.workflows.prediction import predict_table  # for this alone

        found = predict_table(bundles, table, device, progress_console, asked, engine, tta)
        predictions, groups, images_dir = found.predictions, found.groups, found.images_dir
        source, said = f"the images of {table.labels}", (*said, *found.notes)
        if asked is not None:
            source += f" that were in the {SUBSET_NAMES[asked]} subset"
        record = dataclasses.replace(record, data=found.facts, calibration=None)
    place = asked or "test"
    entry = assess(
        predictions.labels,
        predictions.scores,
        np.array([threshold.threshold for threshold in thresholds], dtype=np.float64),
        attributes=bundles[0].attributes,
        groups=groups,
        resamples=resamples,
        seed=record.seed,
    )
    if table is None and asked == "val":
        entry = with_cross_fitted(entry, thresholds)
    record = dataclasses.replace(
        record,
        thresholds=tuple(dataclasses.asdict(threshold) for threshold in thresholds),
        evaluation={"val": None, "test": None, place: entry},
    )
    raw = predictions.scores
    if len(bundles) == 1:
        raw = bundles[0].calibration.invert(raw).astype(np.float32)
    judged, has_test = Judged(predictions, raw, images_dir), _last_subset(bundles) == "test"
    return Evaluated(record, place, asked, table is not None, source, judged, said, has_test)


def _thresholds(bundles: Sequence[Bundle]) -> tuple[tuple[TunedThreshold, ...], tuple[str, ...]]:
    """The thresholds to score at, and what to tell of them: nothing where they are the bundle's own."""
    if len(bundles) == 1:
        return bundles[0].thresholds, ()
    tuned, said = tuned_together(bundles)
    return tuned, (said,)


def _saved(bundles: Sequence[Bundle], subset: str) -> tuple[Predictions, NDArray[np.int64] | None, str]:
    """The saved predictions of a subset, the groups of their images, and which images these are, in words."""
    words = f"the {SUBSET_NAMES[subset]} subset"
    if len(bundles) == 1:
        return *saved_predictions(bundles[0], subset), words
    common: Common = common_predictions(bundles, subset)
    counts = ", ".join(map(str, common.counts[:-1])) + f" and {common.counts[-1]}"
    return (
        common.predictions,
        common.groups,
        f"{len(common.predictions.images)} images, those of {words} that all have (of {counts})",
    )


def _record_of(bundles: Sequence[Bundle]) -> Record:
    """The record to report with: the bundle's own; of several, the first one's without its training."""
    records = [from_json(read_verified(bundle, METRICS), str(bundle.folder / METRICS)) for bundle in bundles]
    first = records[0]
    if len(bundles) == 1:
        return first
    backbones = ", ".join(record.model.backbone for record in records)
    return dataclasses.replace(
        first,
        command="\n".join(record.command for record in records),
        model=dataclasses.replace(
            first.model,
            backbone=f"the mean of {len(bundles)} models ({backbones})",
            backbone_args={},
            stages=(),
            notes=(),
        ),
        recipe={},
        epochs=(),
        best_epoch=None,
        soup=None,
        stopped_because="each of the models has a report of its own on its training",
        seconds=sum(record.seconds for record in records),
        calibration=None,
        members=None,
        ensemble=None,
    )


def show_evaluated(console: "Console", evaluated: Evaluated) -> None:
    """The console's report, as after training."""
    members = evaluated.record.members
    what = evaluated.record.model.backbone + (f", the mean of {len(members)}," if members else "")
    title = f"{what} on {evaluated.source}"
    show_evaluation(console, title, evaluated.entry, complete="--format json")
    notes(console, evaluated.notes)
    if evaluated.asked == "val":
        notes(console, ["the epoch and the thresholds were chosen on these images: the figures flatter"])
    words = evaluated.source if evaluated.elsewhere else evaluated.subset
    show_chance_verdict(console, evaluated.entry, words, has_test=evaluated.has_test)


def write_report(path: Path, evaluated: Evaluated) -> None:
    """The report of the evaluation as one file for a browser.

    Raises:
        OutputError: it cannot be written.
    """
    from mlcls.workflows.reporting import draw_labels, draw_scores, draw_training, report_page  # matplotlib

    record, judged, subset = evaluated.record, evaluated.judged, evaluated.subset
    labels = {subset: judged.predictions.labels}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = (
            *draw_scores(folder, record, judged, subset, evaluated.source),
            *draw_labels(folder, judged.predictions.attributes, labels),
            *(draw_training(folder, record, None, None) if record.epochs else ()),
        )
    page = report_page(
        record,
        judged,
        pictures,
        subset=subset,
        source=evaluated.source if evaluated.elsewhere else "",
        what=evaluated.source if evaluated.elsewhere else None,
        has_test=evaluated.has_test,
        notes=evaluated.notes,
    )
    write_whole(path, page.encode("utf-8"))


def _last_subset(bundles: Sequence[Bundle]) -> str:
    return "test" if all(has_predictions(bundle, "test") for bundle in bundles) else "val"
