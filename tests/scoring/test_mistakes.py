"""The most confident mistakes: only known, only wrong, the surest first, shared among attributes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlcls.scoring.mistakes import confident_mistakes

NAN = float("nan")


def test_wrong_and_known_cells_alone_the_surest_first() -> None:
    labels = np.array([[1, 0], [0, 1], [NAN, 1], [1, 0]], dtype=np.float32)
    scores = np.array([[0.9, 0.95], [0.8, 0.9], [0.99, 0.4], [0.2, 0.1]], dtype=np.float32)
    assert confident_mistakes(labels, scores, 0.5).tolist() == [[0, 1], [1, 0], [3, 0], [2, 1]]


def test_one_attribute_does_not_crowd_out_the_others() -> None:
    labels = np.zeros((10, 2), dtype=np.float32)
    scores = np.stack([np.linspace(0.9, 0.99, 10), np.linspace(0.6, 0.7, 10)], axis=1)
    columns = confident_mistakes(labels, scores, 0.5, most=6)[:, 1]
    assert columns.tolist() == [0, 0, 0, 1, 1, 1]


def test_what_others_leave_free_is_used() -> None:
    labels = np.zeros((10, 2), dtype=np.float32)
    scores = np.stack([np.linspace(0.9, 0.99, 10), np.full(10, 0.1)], axis=1)
    scores[4, 1] = 0.6
    assert len(confident_mistakes(labels, scores, 0.5, most=6)) == 6


@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(1, 4), st.integers(0, 9))
def test_never_more_than_asked_and_never_one_that_is_right(seed: int, n: int, a: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0.0, 1.0, NAN], (n, a)).astype(np.float32)
    scores = rng.random((n, a)).astype(np.float32)
    found = confident_mistakes(labels, scores, 0.5, most=most)
    wrong = {(i, j) for i in range(n) for j in range(a) if labels[i, j] == 1 - (scores[i, j] >= 0.5)}
    assert len(found) == min(most, len(wrong))
    assert {(int(i), int(j)) for i, j in found} <= wrong
