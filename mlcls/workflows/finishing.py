"""After the last epoch: thresholds, evaluation, pictures, and the bundle."""

import csv
import dataclasses
import platform
import time
from collections.abc import Sequence
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
from mlcls.bundle.files import THRESHOLDS, WEIGHTS, staged_bundle, write_thresholds
from mlcls.errors import ImageError
from mlcls.labels.split import write_split
from mlcls.models.forward import predict_logits, to_scores
from mlcls.recipe import recipe_toml
from mlcls.reports.console import say
from mlcls.reports.console_predictions import show_test_examples
from mlcls.reports.console_scores import show_evaluation
from mlcls.reports.plots_scores import (
    overall_confusion_matrix,
    per_class_confusion_matrices,
    precision_recall,
)
from mlcls.reports.plots_training import loss_curve, train_vs_val_loss, training_history
from mlcls.reports.record import Record, to_json
from mlcls.scoring.metrics import evaluate
from mlcls.scoring.predictions import Predictions, write_predictions
from mlcls.scoring.thresholds import TunedThreshold, tune_report
from mlcls.workflows.setup import Setup

if TYPE_CHECKING:
    from rich.console import Console

FAILED = "failed: "  # how `stopped_because` begins when the numbers, the machine or the images gave out
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
) -> Record:
    """Tune thresholds on validation, score validation and test with the best weights, save all, show all.

    Args:
        iterations: epoch and loss of each optimizer step.
        record: of the run so far.
        started: when the run began, by `time.monotonic`.
    """
    setup.classifier.load_state_dict(weights)
    try:
        test = _predict_test(setup)
    except (ImageError, OSError) as error:
        # an image that was there before is gone: what was learned is saved all the same
        test, why = None, f"{FAILED}the test subset could not be scored: {error}"
        record = dataclasses.replace(record, stopped_because=why)
    tuned = tune_report(val.labels, val.scores, setup.recipe.objective, val.attributes)
    values = np.array([t.threshold for t in tuned])
    entries = {
        "val": evaluate(val.labels, val.scores, values, attributes=val.attributes),
        "test": None
        if test is None
        else evaluate(test.labels, test.scores, values, attributes=test.attributes),
    }
    record = dataclasses.replace(
        record,
        thresholds=tuple(dataclasses.asdict(threshold) for threshold in tuned),
        evaluation=entries,
        seconds=round(time.monotonic() - started, 3),
    )
    with staged_bundle(out, _manifest(setup)) as folder:
        tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
        (folder / WEIGHTS).write_bytes(safetensors.torch.save(tensors))
        write_thresholds(folder / THRESHOLDS, tuned)
        (folder / "recipe.toml").write_text(recipe_toml(setup.recipe, _repeat(setup, out)), encoding="utf-8")
        (folder / "metrics.json").write_text(to_json(record), encoding="utf-8")
        _write_iterations(folder / "iterations.csv", iterations)
        write_split(folder / "split.csv", setup.data.table.images.tolist(), setup.data.split)
        write_predictions(folder / "predictions-val.csv", val)
        if test is not None:
            write_predictions(folder / "predictions-test.csv", test)
        _draw(folder, setup, record, iterations)
    _show(console, record, tuned, val, test, values, out)
    return record


def _predict_test(setup: Setup) -> Predictions | None:
    if setup.test is None:
        return None
    logits, labels, indices = predict_logits(setup.classifier, setup.test, setup.device, "fp32")
    order = np.argsort(indices)
    names = setup.data.names(setup.data.split.test)
    return Predictions(names, setup.data.table.attributes, to_scores(logits)[order], labels[order])


def _manifest(setup: Setup) -> dict[str, Any]:
    recipe = setup.recipe
    return {
        "mlcls": mlcls.__version__,
        "backbone": recipe.backbone,
        "backbone_args": dict(recipe.backbone_args),
        "head": recipe.head,
        "dropout": recipe.dropout,
        "attributes": list(setup.data.table.attributes),
        "preprocessing": dataclasses.asdict(setup.preprocessing),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "numpy": np.__version__,
            "opencv": cv2.__version__,
        },
    }


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


def _draw(folder: Path, setup: Setup, record: Record, iterations: Sequence[tuple[int, float | None]]) -> None:
    """The pictures of a run, in the bundle's folder."""
    epochs, best, title = record.epochs, record.best_epoch, setup.recipe.title
    numbers, losses = range(len(iterations)), [loss for _, loss in iterations]
    loss_curve(folder / "loss_curve.png", numbers, losses, epochs, best_epoch=best, title=title)
    training_history(folder / "training_history.png", epochs, best_epoch=best)
    train_vs_val_loss(folder / "train_vs_val_loss.png", epochs, best_epoch=best)
    subset = "test" if record.evaluation["test"] else "val"
    entries = (record.evaluation[subset] or {})["attributes"]
    names = [entry["name"] for entry in entries]
    confusion = [[entry["confusion"][cell] for cell in ("tn", "fp", "fn", "tp")] for entry in entries]
    on = f"{'test' if subset == 'test' else 'validation'} subset"
    precision, recall = ([entry[figure] for entry in entries] for figure in ("precision", "recall"))
    precision_recall(
        folder / "precision_recall.png", names, precision, recall, title=f"Precision and recall, {on}"
    )
    overall_confusion_matrix(
        folder / "overall_confusion_matrix.png", confusion, title=f"All attributes together, {on}"
    )
    per_class_confusion_matrices(
        folder / "per_class_confusion_matrices.png",
        names,
        confusion,
        title=f"Confusion of each attribute, {on}",
    )


def _show(
    console: "Console",
    record: Record,
    tuned: Sequence[TunedThreshold],
    val: Predictions,
    test: Predictions | None,
    thresholds: NDArray[np.float64],
    out: Path,
) -> None:
    """The end of the console's report."""
    say(console, f"stopped: {record.stopped_because}; the weights are those of epoch {record.best_epoch}")
    for threshold in tuned:
        if threshold.note:
            say(console, f"threshold of {threshold.name}: {threshold.note}")
    entry, title = record.evaluation["test"], "Test subset"
    if entry is None:
        entry, title = (
            record.evaluation["val"],
            "Validation subset (thresholds were tuned on it: these figures flatter)",
        )
    assert entry is not None
    show_evaluation(console, title, entry)
    if test is not None:
        show_test_examples(console, _examples(test, thresholds))
    say(
        console,
        f"saved in {out} after {record.seconds:.0f} s; now: python -m mlcls.predict --model {out} --image FILE",
    )


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
