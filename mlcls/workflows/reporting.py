"""The pictures of a run, and the page that shows them with everything else: drawn from the record and the scores.

What draws is imported where it draws: matplotlib takes longer to import than a small table to read, and no training
waits for it before its first epoch.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import ImageError
from mlcls.images.read import read_image
from mlcls.labels.locate import ImageFolder
from mlcls.reports.html import ConfidentError, Picture, report_html
from mlcls.reports.record import AttributeCount, Record
from mlcls.reports.thumbnails import thumbnail
from mlcls.scoring import curves
from mlcls.scoring.mistakes import confident_mistakes
from mlcls.workflows.judging import SUBSET_NAMES, Judged

Labels = Mapping[str, NDArray[np.float32]]
Drawer = Callable[[Path], None]


def draw_training(
    folder: Path, record: Record, iterations: Sequence[tuple[int, float | None]] | None, title: str | None
) -> tuple[Picture, ...]:
    """Pictures of the epochs; the loss of every iteration only where it is given."""
    from mlcls.reports.plots_training import loss_curve, train_vs_val_loss, training_history

    epochs, best = record.epochs, record.best_epoch
    drawn: list[tuple[str, str, str, Drawer]] = [
        (
            "training_history.png",
            "Training, epoch by epoch",
            "Validation figures are at threshold 0.5; the line marks the epoch whose weights were kept.",
            lambda path: training_history(path, epochs, best_epoch=best),
        ),
        (
            "train_vs_val_loss.png",
            "Loss on training and on validation images",
            "A validation loss that rises while the training loss falls is overfitting.",
            lambda path: train_vs_val_loss(path, epochs, best_epoch=best),
        ),
    ]
    if iterations is not None:
        numbers, losses = range(len(iterations)), [loss for _, loss in iterations]
        drawn.append(
            (
                "loss_curve.png",
                "Loss of every step",
                "Each optimizer step's loss on its own batch.",
                lambda path: loss_curve(path, numbers, losses, epochs, best_epoch=best, title=title),
            )
        )
    return _draw(folder, drawn)


def draw_scores(folder: Path, record: Record, judged: Judged, subset: str, on: str) -> tuple[Picture, ...]:
    """Pictures of one subset's figures.

    Args:
        on: what was evaluated, for the titles, e.g. `test subset`.
    """
    from mlcls.reports.plots_confusion import overall_confusion_matrix, per_class_confusion_matrices
    from mlcls.reports.plots_curves import precision_recall_curves, roc_curves
    from mlcls.reports.plots_forest import attribute_figures
    from mlcls.reports.plots_scores import precision_recall

    entry = record.evaluation[subset] or {}
    entries: list[Any] = entry["attributes"]
    names = [row["name"] for row in entries]
    confusion = [[row["confusion"][cell] for cell in ("tn", "fp", "fn", "tp")] for row in entries]
    precision, recall = ([row[figure] for row in entries] for figure in ("precision", "recall"))
    labels, scores = judged.predictions.labels, judged.predictions.scores
    columns = range(len(names))
    pr = [curves.precision_recall_curve(labels[:, i], scores[:, i]) for i in columns]
    roc = [curves.roc_curve(labels[:, i], scores[:, i]) for i in columns]
    return _draw(
        folder,
        [
            (
                "attribute_figures.png",
                "How well each attribute is ranked",
                "Average precision and AUROC with 95% intervals, beside what no skill would give.",
                lambda path: attribute_figures(path, entry, title=f"How well each attribute is ranked, {on}"),
            ),
            (
                "precision_recall.png",
                "Precision and recall at the thresholds",
                "Hatched: not distinguishable from chance.",
                lambda path: precision_recall(
                    path, names, precision, recall, entries=entries, title=f"Precision and recall, {on}"
                ),
            ),
            (
                "precision_recall_curves.png",
                "Precision against recall",
                "Every threshold's precision and recall; dashed: the base rate, which a constant answer reaches.",
                lambda path: precision_recall_curves(
                    path,
                    [None if c is None else (c.recall, c.precision) for c in pr],
                    entries,
                    title=f"Precision against recall, {on}",
                ),
            ),
            (
                "roc_curves.png",
                "ROC curves",
                "Dashed: chance.",
                lambda path: roc_curves(
                    path,
                    [None if c is None else (c.false_positive_rate, c.true_positive_rate) for c in roc],
                    entries,
                    title=f"ROC curves, {on}",
                ),
            ),
            (
                "overall_confusion_matrix.png",
                "All attributes together",
                "The known labels of all attributes against the decisions at the thresholds.",
                lambda path: overall_confusion_matrix(
                    path, confusion, title=f"All attributes together, {on}"
                ),
            ),
            (
                "per_class_confusion_matrices.png",
                "Confusion of each attribute",
                "Rows: labelled absent, present; columns: decided absent, present.",
                lambda path: per_class_confusion_matrices(
                    path, names, confusion, title=f"Confusion of each attribute, {on}"
                ),
            ),
            (
                "reliability.png",
                "Do the probabilities mean what they say?",
                "The observed share against the predicted probability: on the diagonal, they do.",
                lambda path: _reliability(path, record, judged, subset, on),
            ),
        ],
    )


def draw_threshold_curves(
    path: Path,
    labels: NDArray[np.float32],
    scores: NDArray[np.float32],
    thresholds: Sequence[Mapping[str, Any]],
    on: str,
) -> None:
    """Precision, recall and F1 of each attribute over all thresholds, with the one that was chosen."""
    from mlcls.reports.plots_curves import threshold_curves

    found = [curves.threshold_curve(labels[:, i], scores[:, i]) for i in range(labels.shape[1])]
    lines = [None if c is None else (c.thresholds, c.precision, c.recall, c.f1) for c in found]
    threshold_curves(path, lines, thresholds, title=f"What each threshold gives, {on}")


def draw_thresholds(folder: Path, record: Record, val: Judged) -> tuple[Picture, ...]:
    """The picture of the thresholds, on the images that they were tuned on."""
    labels, scores = val.predictions.labels, val.predictions.scores
    return _draw(
        folder,
        [
            (
                "threshold_curves.png",
                "What each threshold gives",
                "On the validation images, which they were chosen on; the band is the threshold's 95% interval.",
                lambda path: draw_threshold_curves(
                    path, labels, scores, record.thresholds, "validation subset"
                ),
            )
        ],
    )


def draw_labels(folder: Path, names: Sequence[str], labels: Labels) -> tuple[Picture, ...]:
    """Pictures of the labels alone.

    Args:
        labels: [n, A] of each subset.
    """
    from mlcls.reports.plots_labels import co_occurrence, unknown_labels

    together = np.concatenate(list(labels.values()))
    ends = np.cumsum([len(values) for values in labels.values()])
    rows = {
        SUBSET_NAMES[subset]: np.arange(end - len(values), end)
        for (subset, values), end in zip(labels.items(), ends.tolist(), strict=True)
    }
    return _draw(
        folder,
        [
            (
                "co_occurrence.png",
                "Which attributes occur together",
                "The share of the row's images that also show the column, among those where both are known.",
                lambda path: co_occurrence(path, names, together),
            ),
            (
                "unknown_labels.png",
                "Where labels are unknown",
                "The share of unknown labels by attribute and subset.",
                lambda path: unknown_labels(path, names, together, rows if len(rows) > 1 else None),
            ),
        ],
    )


def report_page(
    record: Record,
    judged: Judged,
    pictures: Sequence[Picture],
    *,
    subset: str,
    source: str = "",
    counts: Mapping[str, Sequence[AttributeCount]] | None = None,
    what: str | None = None,
    has_test: bool | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The text of `report.html`, with the most confident mistakes of the subset beside their images."""
    return report_html(
        record,
        subset=subset,
        pictures=pictures,
        errors=_mistakes(record, judged),
        source=source,
        subsets=counts,
        what=what,
        has_test=has_test,
        notes=notes,
    )


def _draw(folder: Path, drawn: Sequence[tuple[str, str, str, Drawer]]) -> tuple[Picture, ...]:
    pictures = []
    for name, title, caption, draw in drawn:
        draw(folder / name)
        pictures.append(Picture(title=title, caption=caption, png=(folder / name).read_bytes()))
    return tuple(pictures)


def _reliability(path: Path, record: Record, judged: Judged, subset: str, on: str) -> None:
    from mlcls.reports.plots_reliability import reliability

    labels, names = judged.predictions.labels, judged.predictions.attributes
    after, before = _bins(labels, judged.predictions.scores), _bins(labels, judged.raw)
    pooled = tuple(
        _bins(labels.reshape(-1, 1), s.reshape(-1, 1))[0] for s in (judged.raw, judged.predictions.scores)
    )
    facts = (record.calibration or {}).get(subset)
    title = f"Do the probabilities mean what they say? {on}"
    if (
        subset == "val"
    ):  # the figures beside are out of fold, but these points are of the calibration as it is saved
        title += " (calibrated on it)"
    if record.calibration is None:
        reliability(path, names, after, pooled=(pooled[1], None), title=title)
        return
    reliability(
        path,
        names,
        before,
        after,
        pooled=(pooled[0], pooled[1]),
        figures_before=facts and facts["before"],
        figures_after=facts and facts["after"],
        title=title,
    )


def _bins(labels: NDArray[np.float32], scores: NDArray[np.float32]) -> list[Any]:
    found = [curves.reliability(labels[:, i], scores[:, i]) for i in range(labels.shape[1])]
    return [None if bins is None else (bins.predicted, bins.observed, bins.counts) for bins in found]


def _mistakes(record: Record, judged: Judged) -> list[ConfidentError]:
    """The most confident mistakes; the thumbnail is left out where the image is not there any more."""
    found, predictions = [], judged.predictions
    thresholds = np.array([row["threshold"] for row in record.thresholds])
    for row, column in confident_mistakes(predictions.labels, predictions.scores, thresholds).tolist():
        found.append(
            ConfidentError(
                image=predictions.images[row],
                attribute=predictions.attributes[column],
                label=int(predictions.labels[row, column]),
                probability=float(predictions.scores[row, column]),
                threshold=float(thresholds[column]),
                thumbnail=_thumbnail(judged.images_dir, predictions.images[row]),
            )
        )
    return found


def _thumbnail(images_dir: Path | None, name: str) -> bytes | None:
    if images_dir is None:
        return None
    found = ImageFolder(images_dir).find_quietly(name)  # a name from a file may lead anywhere
    if found is None:
        return None
    try:
        return thumbnail(read_image(images_dir / found))
    except ImageError:
        return None
