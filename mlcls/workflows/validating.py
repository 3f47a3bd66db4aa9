"""The validation of an epoch: its figures, and the scores that they come from."""

import time
from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from mlcls.learning.epochs import TrainedEpoch
from mlcls.learning.losses import masked_loss
from mlcls.learning.steps import Batch
from mlcls.models.forward import predict_logits, to_scores
from mlcls.reports.progress import EpochTable
from mlcls.reports.record import EpochFigures
from mlcls.scoring.metrics import evaluate
from mlcls.scoring.predictions import Predictions
from mlcls.workflows.frozen import Feed
from mlcls.workflows.setup import Setup


def running_feed(setup: Setup) -> Feed:
    """What the stage that runs now trains and validates on."""
    return next(feed for feed in setup.feeds if feed.rest is setup.model.rest)


def validate(
    setup: Setup, trained: TrainedEpoch, table: EpochTable, between: Callable[[], None]
) -> tuple[EpochFigures, NDArray[np.float32]]:
    """The epoch's figures on validation, at threshold 0.5, and the scores [n, A] they come from.

    Args:
        between: called after each batch; what it raises ends the validation.
    """
    started = time.monotonic()
    table.start_validation(len(setup.val.dataset))

    def on_batch(images: int) -> None:
        table.advance(images)
        between()

    logits, labels = predict(setup, running_feed(setup).val(), on_batch)
    total, known = masked_loss(
        setup.loss, torch.from_numpy(logits).to(setup.device), torch.from_numpy(labels).to(setup.device)
    )
    val_loss = float(total) / int(known)
    scores = to_scores(logits)
    entry = evaluate(labels, scores, np.full(labels.shape[1], 0.5))
    macro = entry["macro"]
    row = EpochFigures(
        epoch=trained.epoch,
        stage=trained.stage,
        lr=trained.lr,
        train_loss=trained.train_loss,
        val_loss=val_loss if np.isfinite(val_loss) else None,
        val_map=macro["average_precision"],
        val_f1=macro["f1"],
        val_precision=macro["precision"],
        val_recall=macro["recall"],
        val_hamming_loss=entry["hamming_loss"],
        val_exact_match=entry["exact_match"],
        seconds=trained.seconds + time.monotonic() - started,
        images_per_second=trained.images_per_second,
        skipped_steps=trained.skipped_steps,
    )
    return row, scores


def val_predictions(setup: Setup, scores: NDArray[np.float32]) -> Predictions:
    rows = setup.data.split.val
    return Predictions(
        setup.data.names(rows), setup.data.table.attributes, scores, setup.data.table.labels[rows]
    )


def predict(
    setup: Setup, batches: Iterable[Batch], on_batch: Callable[[int], None] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits and labels [N, A] of a subset, in its own order; in float32, as a bundle predicts."""
    logits, labels, indices = predict_logits(setup.model, batches, setup.device, "fp32", on_batch=on_batch)
    order = np.argsort(indices)
    return logits[order], labels[order]
