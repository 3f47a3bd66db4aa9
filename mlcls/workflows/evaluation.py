"""Every figure of a finished bundle: on its saved predictions, or on the images of another table."""

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlcls.bundle.files import GROUPS, METRICS, Bundle, load_bundle, read_verified
from mlcls.bundle.writing import write_whole
from mlcls.errors import BundleError
from mlcls.recipe import Recipe
from mlcls.reports.console import notes
from mlcls.reports.console_chance import show_chance_verdict
from mlcls.reports.console_scores import show_evaluation
from mlcls.reports.record import Record, from_json
from mlcls.scoring.assessment import assess, with_cross_fitted
from mlcls.scoring.groups import read_groups, shared_groups
from mlcls.scoring.predictions import Predictions, read_predictions
from mlcls.workflows.judging import SUBSET_NAMES, Judged

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
    model: str | Path,
    *,
    table: Recipe | None = None,
    subset: str | None = None,
    resamples: int = 1000,
    device: str = "auto",
    engine: str = "auto",
    progress_console: "Console",
    pictures: Path | None = None,
) -> Evaluated:
    """Score a bundle at the thresholds it has now.

    Args:
        table: the settings of another table, to predict its images; None takes the saved predictions.
        subset: `val` or `test`; by itself test, val where the run had no test. With a table: only its images that
            the run had in this subset; by itself all.
        resamples: of the bootstrap; 0 leaves intervals out.
        pictures: the folder of the saved predictions' images, for the report. Not the one that the bundle names: who
            made it could have any file of this machine read.
        device, engine: of the prediction, see `mlcls.bundle.predictor.Predictor`.

    Raises:
        BundleError, TableError, ImageError: what is wrong with the bundle, the table or its images.
    """
    bundle = load_bundle(model)
    record = from_json(read_verified(bundle, METRICS), str(bundle.folder / METRICS))
    asked = subset
    said: tuple[str, ...] = ()
    if table is None:
        asked = asked or _last_subset(bundle)
        predictions, groups = saved_predictions(bundle, asked)
        source, images_dir = f"the {SUBSET_NAMES[asked]} subset", pictures
    else:
        from mlcls.workflows.prediction import predict_table  # for this alone

        found = predict_table(bundle, table, device, progress_console, asked, engine)
        predictions, groups, images_dir = found.predictions, found.groups, found.images_dir
        source, said = f"the images of {table.labels}", found.notes
        if asked is not None:
            source += f" that were in the {SUBSET_NAMES[asked]} subset"
        record = dataclasses.replace(record, data=found.facts, calibration=None)
    place = asked or "test"
    thresholds = bundle.threshold_values()
    entry = assess(
        predictions.labels,
        predictions.scores,
        thresholds,
        attributes=bundle.attributes,
        groups=groups,
        resamples=resamples,
        seed=record.seed,
    )
    if table is None and asked == "val":
        entry = with_cross_fitted(entry, bundle.thresholds)
    record = dataclasses.replace(
        record,
        thresholds=tuple(dataclasses.asdict(threshold) for threshold in bundle.thresholds),
        evaluation={"val": None, "test": None, place: entry},
    )
    raw = bundle.calibration.invert(predictions.scores).astype(np.float32)
    judged, has_test = Judged(predictions, raw, images_dir), _last_subset(bundle) == "test"
    return Evaluated(record, place, asked, table is not None, source, judged, said, has_test)


def show_evaluated(console: "Console", evaluated: Evaluated) -> None:
    """The console's report, as after training."""
    title = f"{evaluated.record.model.backbone} on {evaluated.source}"
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
            *draw_training(folder, record, None, None),
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


def saved_predictions(bundle: Bundle, subset: str) -> tuple[Predictions, NDArray[np.int64] | None]:
    """The predictions that training saved for a subset, and the groups of their images (None: each its own).

    Raises:
        BundleError: the run had no such subset, or a file is damaged.
    """
    name = f"predictions-{subset}.csv"
    if name not in bundle.manifest["files"]:
        raise BundleError(
            f"--model {bundle.folder}: this run had no {SUBSET_NAMES[subset]} subset; name a table with --labels"
            + (", or take --subset val" if subset == "test" else "")
        )
    read_verified(bundle, name)
    predictions = read_predictions(bundle.folder / name)
    if predictions.attributes != bundle.attributes:
        raise BundleError(f"{bundle.folder / name}: its attributes are not those of the bundle")
    if GROUPS not in bundle.manifest["files"]:
        return predictions, None
    read_verified(bundle, GROUPS)
    return predictions, shared_groups(read_groups(bundle.folder / GROUPS, predictions.images))


def _last_subset(bundle: Bundle) -> str:
    return "test" if "predictions-test.csv" in bundle.manifest["files"] else "val"
