"""After the last epoch: thresholds, evaluation, pictures, and the bundle."""

import contextlib
import csv
import dataclasses
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import safetensors.torch
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor

import mlcls
from mlcls.bundle.files import GROUPS, MODEL, THRESHOLDS, WEIGHTS, write_thresholds
from mlcls.bundle.onnx import export_onnx
from mlcls.bundle.staging import staged_bundle
from mlcls.bundle.unfinished import is_unfinished, remove_checkpoint
from mlcls.bundle.writing import is_of_the_disk
from mlcls.errors import ImageError
from mlcls.labels.split import write_split
from mlcls.recipe import recipe_toml
from mlcls.reports.console import say
from mlcls.reports.console_calibration import show_calibration
from mlcls.reports.console_chance import show_chance_verdict
from mlcls.reports.console_predictions import show_test_examples
from mlcls.reports.console_scores import show_evaluation
from mlcls.reports.console_thresholds import ThresholdChange, measure_of, show_threshold_summary
from mlcls.reports.html import Picture
from mlcls.reports.progress import progress
from mlcls.reports.record import Record, to_json
from mlcls.scoring.calibration import known_shift
from mlcls.scoring.groups import shared_groups, write_groups
from mlcls.scoring.predictions import Predictions, write_predictions
from mlcls.workflows.data import subset_counts
from mlcls.workflows.judging import (
    SUBSET_NAMES,
    Judged,
    Judgement,
    Scored,
    judge,
    judging_steps,
)
from mlcls.workflows.reporting import (
    draw_labels,
    draw_scores,
    draw_thresholds,
    draw_training,
    report_page,
)
from mlcls.workflows.setup import Setup
from mlcls.workflows.signals import Stop
from mlcls.workflows.views import predictions_of

if TYPE_CHECKING:
    from rich.console import Console

FAILED = "failed: "  # how `stopped_because` begins when the numbers, the machine or the images gave out
REPORT = "report.html"
PROBE = 16  # validation images that model.onnx is held against PyTorch on
EXAMPLES = 3  # images of the test subset shown at the end


def finish(
    setup: Setup,
    weights: dict[str, Tensor],
    val: Predictions,
    iterations: Sequence[tuple[int, float | None]],
    record: Record,
    out: Path,
    started: float,
    console: "Console",
    stop: Stop,
) -> Record:
    """Tune thresholds on validation, score validation and test with the best weights, save all, show all.

    Args:
        iterations: epoch and loss of each optimizer step.
        record: of the run so far.
        started: when the run began, by `time.monotonic`.
        stop: whether a person has ended the run meanwhile.
    """
    setup.classifier.load_state_dict(weights)
    try:
        test = _predict_test(setup)
    except (ImageError, OSError) as error:
        # an image that was there before is gone: what was learned is saved all the same
        test, why = None, f"{FAILED}the test subset could not be scored: {error}"
        record = dataclasses.replace(record, stopped_because=why)
    groups = setup.data.groups
    scored_val = Scored(val, shared_groups(groups[setup.data.split.val]))
    scored_test = None if test is None else Scored(test, shared_groups(groups[setup.data.split.test]))
    with progress(
        console, "thresholds, intervals, calibration", judging_steps(scored_test), "steps"
    ) as advance:
        judgement = judge(setup.recipe, scored_val, scored_test, _shift(setup), advance)
    record = dataclasses.replace(
        record,
        thresholds=tuple(dataclasses.asdict(threshold) for threshold in judgement.thresholds),
        evaluation=judgement.evaluation,
        calibration=judgement.calibration_facts,
        seconds=round(time.monotonic() - started, 3),
    )
    undrawn: Exception | None = None
    manifest = _manifest(setup, judgement)
    with staged_bundle(out, manifest) as folder:
        tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
        (folder / WEIGHTS).write_bytes(safetensors.torch.save(tensors))
        write_thresholds(folder / THRESHOLDS, judgement.thresholds)
        (folder / "recipe.toml").write_text(recipe_toml(setup.recipe, _repeat(setup, out)), encoding="utf-8")
        (folder / "metrics.json").write_text(to_json(record), encoding="utf-8")
        _write_iterations(folder / "iterations.csv", iterations)
        write_split(folder / "split.csv", setup.data.table.images.tolist(), setup.data.split)
        if shared_groups(groups) is not None:
            write_groups(folder / GROUPS, setup.data.table.images.tolist(), groups)
        for subset, predictions in judgement.predictions.items():
            write_predictions(folder / f"predictions-{subset}.csv", predictions)
        try:
            manifest["onnx"] = _export(folder, setup, judgement, console)
            page = _draw(folder, setup, record, judgement, iterations, console)
            (folder / REPORT).write_text(page, encoding="utf-8")
        except Exception as error:
            if is_unfinished(out) and (stop.asked or is_of_the_disk(error, folder)):
                raise  # the training is kept, and goes on to a whole bundle once there is room
            undrawn = error  # raised again when the bundle stands: a picture does not cost the training
            if manifest["onnx"] is None:
                (folder / MODEL).unlink(missing_ok=True)
    remove_checkpoint(out)
    if undrawn is not None:
        raise undrawn
    _show(console, record, judgement)  # the bundle stands by now, whatever becomes of the console
    elapsed = time.monotonic() - started
    say(
        console,
        f"saved in {out} after {elapsed:.0f} s (open {out / REPORT} in a browser); now: "
        f"python -m mlcls.predict --model {out} --image FILE",
    )
    subset = judged_subset(judgement)
    show_chance_verdict(console, record.evaluation[subset] or {}, subset, has_test=subset == "test")
    return record


def _predict_test(setup: Setup) -> Predictions | None:
    return None if setup.test is None else predictions_of(setup, setup.test, setup.data.split.test)


def _manifest(setup: Setup, judgement: Judgement) -> dict[str, Any]:
    recipe = setup.recipe
    return {
        "mlcls": mlcls.__version__,
        "backbone": recipe.backbone,
        "backbone_args": dict(recipe.backbone_args),
        "head": recipe.head,
        "dropout": recipe.dropout,
        "attributes": list(setup.data.table.attributes),
        "seed": recipe.seed,
        "preprocessing": dataclasses.asdict(setup.preprocessing),
        "calibration": {
            "slope": judgement.calibration.slope.tolist(),
            "intercept": judgement.calibration.intercept.tolist(),
        },
        "tta": recipe.tta,
        "onnx": None,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "numpy": np.__version__,
            "opencv": cv2.__version__,
        },
    }


def _export(folder: Path, setup: Setup, judgement: Judgement, console: "Console") -> dict[str, Any] | None:
    """Write `model.onnx`; what the manifest says of it, None where there is none, and then the console says why."""
    assert setup.data.store is not None
    probe = []
    for row in setup.data.split.val[:PROBE]:
        with contextlib.suppress(ImageError):  # gone since it was scored: the others do
            probe.append(setup.data.store(int(row)))
    pixels = np.stack(probe) if probe else None
    found = export_onnx(setup.classifier, setup.preprocessing, folder / MODEL, pixels, judgement.calibration)
    if isinstance(found, str):
        say(console, f"no {MODEL}, since {found}: predict will need PyTorch")
        return None
    return dataclasses.asdict(found)


def _repeat(setup: Setup, out: Path) -> str:
    if setup.data.table.report.source == "DataFrame":
        return "of a run on a DataFrame: mlcls.fit(build_recipe(this file), labels=the same DataFrame) repeats it"
    return f"repeats this run: python -m mlcls.train --recipe {out / 'recipe.toml'} --out ANOTHER_FOLDER"


def _write_iterations(path: Path, iterations: Sequence[tuple[int, float | None]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["iteration_number", "epoch", "training_loss"])
        for number, (epoch, loss) in enumerate(iterations):
            writer.writerow([number, epoch, "" if loss is None else repr(loss)])


def _shift(setup: Setup) -> NDArray[np.float64] | None:
    """What the way of training is known to have done to the logits, with its sign turned."""
    recipe, labels = setup.recipe, setup.data.table.labels[setup.data.split.train]
    weights = None if recipe.pos_weight == "none" else [float(part) for part in recipe.pos_weight.split(",")]
    if recipe.na != "negative":
        return known_shift(weights, loss=recipe.loss)
    negative, unknown = (labels == 0).sum(axis=0), np.isnan(labels).sum(axis=0)
    return known_shift(weights, loss=recipe.loss, negative=negative, unknown=unknown)


def _draw(
    folder: Path,
    setup: Setup,
    record: Record,
    judgement: Judgement,
    iterations: Sequence[tuple[int, float | None]],
    console: "Console",
) -> str:
    """The pictures of a run, in the bundle's folder, and the text of the page that shows them."""
    data, subset = setup.data, judged_subset(judgement)
    judged = {
        name: Judged(predictions, judgement.raw[name], data.table.images_dir)
        for name, predictions in judgement.predictions.items()
    }
    rows = {"train": data.split.train, "val": data.split.val, "test": data.split.test}
    labels = {name: data.table.labels[indices] for name, indices in rows.items() if len(indices)}
    on = f"{SUBSET_NAMES[subset]} subset"
    parts: list[Callable[[], tuple[Picture, ...]]] = [
        partial(draw_scores, folder, record, judged[subset], subset, on),
        partial(draw_thresholds, folder, record, judged["val"]),
        partial(draw_labels, folder, data.table.attributes, labels),
        partial(draw_training, folder, record, iterations, setup.recipe.title),
    ]
    pictures = draw_all(console, parts)
    return report_page(record, judged[subset], pictures, subset=subset, counts=subset_counts(data))


def draw_all(console: "Console", parts: Sequence[Callable[[], tuple[Picture, ...]]]) -> list[Picture]:
    """Draw with a bar."""
    pictures: list[Picture] = []
    with progress(console, "drawing", unit="pictures") as advance:
        for part in parts:
            drawn = part()
            pictures += drawn
            advance(len(drawn))
    return pictures


def judged_subset(judgement: Judgement) -> str:
    """The subset that the last word is said on: test, or validation where there is none."""
    return "test" if "test" in judgement.predictions else "val"


def _show(console: "Console", record: Record, judgement: Judgement) -> None:
    """What the run has come to, on the console."""
    whose = f"those of epoch {record.best_epoch}"
    if record.soup:
        whose = f"the mean of those of epochs {', '.join(map(str, record.soup))}"
    say(console, f"stopped: {record.stopped_because}; the weights are {whose}")
    objective, estimator = str(record.recipe["objective"]), record.recipe["estimator"]
    show_threshold_summary(
        console,
        _changes(judgement),
        measure=measure_of(objective),
        objective=f"{objective} ({estimator}), tuned on validation",
    )
    show_calibration(console, record.calibration)
    subset = judged_subset(judgement)
    entry = record.evaluation[subset]
    title = (
        "Test subset"
        if subset == "test"
        else "Validation subset (the epoch and the thresholds were chosen on it)"
    )
    assert entry is not None
    show_evaluation(console, title, entry)
    if subset == "test":
        show_test_examples(console, _examples(judgement.predictions["test"], judgement.threshold_values()))


def _changes(judgement: Judgement) -> list[ThresholdChange]:
    return [
        ThresholdChange(
            name=one.name,
            known=one.known,
            positive=one.positive,
            before=None,
            after=one.threshold,
            note=one.note,
            naive=one.value,
            cross_fitted=one.cross_fitted,
            interval=one.interval,
        )
        for one in judgement.thresholds
    ]


def _examples(predictions: Predictions, thresholds: NDArray[np.float64]) -> list[dict[str, Any]]:
    rows = []
    for image, scores, labels in list(
        zip(predictions.images, predictions.scores, predictions.labels, strict=True)
    )[:EXAMPLES]:
        attributes = [
            {
                "name": name,
                "label": float(label),
                "probability": float(score),
                "present": bool(score >= threshold),
            }
            for name, label, score, threshold in zip(
                predictions.attributes, labels, scores, thresholds, strict=True
            )
        ]
        rows.append({"image": str(image), "attributes": attributes})
    return rows
