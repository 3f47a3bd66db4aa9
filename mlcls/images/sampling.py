"""The order of samples: a function of (seed, epoch) alone, so that workers and restarts change nothing."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import RecipeError
from mlcls.missing import split_missing

Order = NDArray[np.int64]


class Sampler(Protocol):
    """labels [n, A] float32 with NaN -> int64 [n], the positions to be visited in this epoch, in order."""

    def __call__(self, labels: NDArray[np.float32], *, seed: int, epoch: int) -> Order: ...


def shuffle(labels: NDArray[np.float32], *, seed: int, epoch: int) -> Order:
    """Every image once, in a new order each epoch."""
    return np.random.default_rng((seed, epoch)).permutation(len(labels)).astype(np.int64)


def balanced(labels: NDArray[np.float32], *, seed: int, epoch: int) -> Order:
    """As many draws as images, with replacement, each with the probability of `balanced_weights`."""
    if len(labels) == 0:
        return np.zeros(0, dtype=np.int64)
    drawn = np.random.default_rng((seed, epoch)).choice(
        len(labels), size=len(labels), p=balanced_weights(labels)
    )
    return drawn.astype(np.int64)


def balanced_weights(labels: NDArray[np.float32]) -> NDArray[np.float64]:
    """The probability of each image, by the rarest attribute that it is known to have.

    With n_a the number of images known to have attribute a, an image weighs `1 / sqrt(n_a)` for the smallest
    n_a among its known positives; one without a known positive weighs `1 / sqrt(n_0)`, n_0 being how many of
    those there are. Unknown labels count neither way. The square root is that of repeat factor sampling
    (Gupta, Dollár and Girshick 2019, "LVIS"): with the plain inverse, the one image of a rare attribute would
    fill a good part of the epoch.

    Args:
        labels: [n, A], 0 absent, 1 present, NaN unknown.

    Returns:
        [n], above 0, summing to 1.
    """
    values, known = split_missing(labels)
    positive = known & (values > 0.5)
    per_attribute = positive.sum(axis=0)
    attribute_weight = np.maximum(per_attribute, 1) ** -0.5
    weights = np.where(positive, attribute_weight, 0.0).max(axis=1, initial=0.0)
    without = ~positive.any(axis=1)
    weights[without] = max(int(without.sum()), 1) ** -0.5
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def split_batches(order: Order, batch_size: int) -> list[Order]:
    """An order cut into batches; a last batch of one joins the one before it, since BatchNorm needs two.

    Args:
        order: int64 [n], positions in the order of their visit.
        batch_size: images a batch, from 1 on; with 1 nothing is joined.
    """
    if batch_size < 1:
        raise RecipeError(f"--batch-size: expected at least 1, got {batch_size}")
    starts = list(range(0, len(order), batch_size))
    if batch_size > 1 and len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    ends = [*starts[1:], len(order)]
    return [order[start:end] for start, end in zip(starts, ends, strict=False)]


SAMPLERS: dict[str, Sampler] = {"shuffle": shuffle, "balanced": balanced}
