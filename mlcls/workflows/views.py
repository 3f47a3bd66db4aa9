"""The predictions of a subset, averaged over the views of the recipe's `tta`."""

import numpy as np
from numpy.typing import NDArray

from mlcls.images.dataset import Batches, ImageDataset, evaluation_batches
from mlcls.images.tta import View, as_it_is, tta_views
from mlcls.models.forward import predict_logits, to_scores
from mlcls.scoring.predictions import Predictions
from mlcls.workflows.setup import Setup


def predict_views(setup: Setup, batches: Batches) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores and labels [N, A] of a subset in its own order: the mean over the views of the recipe's `tta`.

    In float32 from pixels, as a bundle predicts.
    """
    views = tta_views(setup.recipe.tta)
    total: NDArray[np.float64] | None = None
    for view in views:
        logits, labels = logits_of(setup, batches if view is as_it_is else _seen(batches, view, setup))
        scores = to_scores(logits)
        if len(views) == 1:
            return scores, labels
        total = scores.astype(np.float64) if total is None else total + scores
    assert total is not None
    return (total / len(views)).astype(np.float32), labels


def predictions_of(setup: Setup, batches: Batches, rows: NDArray[np.intp]) -> Predictions:
    """The predictions of a subset whose table rows are given."""
    scores, labels = predict_views(setup, batches)
    return Predictions(setup.data.names(rows), setup.data.table.attributes, scores, labels)


def _seen(batches: Batches, view: View, setup: Setup) -> Batches:
    """The same images, each in that view."""
    dataset = ImageDataset(
        batches.dataset.load, batches.dataset.labels, lambda pixels, epoch, index: view(pixels)
    )
    return evaluation_batches(
        dataset, batch_size=2 * setup.recipe.batch_size, pin_memory=setup.device.type == "cuda"
    )


def logits_of(setup: Setup, batches: Batches) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits and labels [N, A] of the images as they are, in their own order, from pixels in float32."""
    logits, labels, indices = predict_logits(setup.classifier, batches, setup.device, "fp32")
    order = np.argsort(indices)
    return logits[order], labels[order]
