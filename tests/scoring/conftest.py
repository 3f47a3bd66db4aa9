"""Owns the random cases that the scoring tests share: unknowns, ties, one class, one attribute, one image."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

Case = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]


@pytest.fixture(scope="session")
def random_case() -> Callable[[int], Case]:
    """`seed -> (labels with NaN, scores, thresholds)`."""
    return make_case


def make_case(seed: int) -> Case:
    random = np.random.default_rng(seed)
    N = 1 if seed % 25 == 0 else int(random.integers(2, 60))
    A = 1 if seed % 10 == 1 else int(random.integers(1, 6))
    labels = (random.random((N, A)) < random.uniform(0.1, 0.9, A)).astype(np.float32)
    labels[random.random((N, A)) < random.choice([0.0, 0.2, 0.7])] = np.nan
    scores = random.random((N, A)).astype(np.float32)
    if seed % 2:
        scores = np.round(scores, 1)  # ties
    if seed % 7 == 0:
        labels[:, 0] = np.where(np.isnan(labels[:, 0]), np.nan, seed % 2)  # one class
    if seed % 11 == 0:
        labels[:, -1] = np.nan
    thresholds = np.round(random.uniform(0, 1, A), 1)  # lies on scores of the tied cases
    return labels, scores, thresholds
