"""The order of samples: from (seed, epoch) alone, balanced as documented, batches that BatchNorm can take."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcls.errors import RecipeError
from mlcls.images.sampling import SAMPLERS, balanced_weights, split_batches

NAN = np.nan


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_order_is_a_function_of_seed_and_epoch(name: str) -> None:
    labels = np.random.default_rng(0).choice([0.0, 1.0, NAN], size=(200, 5)).astype(np.float32)
    sample = SAMPLERS[name]
    orders = {(s, e): tuple(sample(labels, seed=s, epoch=e)) for s in range(3) for e in range(3)}
    assert len(set(orders.values())) == 9
    np.random.seed(1)
    for (seed, epoch), order in orders.items():
        again = sample(labels, seed=seed, epoch=epoch)
        assert again.dtype == np.int64
        assert tuple(again) == order
        assert len(again) == 200
        assert 0 <= again.min() <= again.max() < 200


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_no_images_and_one_image(name: str) -> None:
    assert SAMPLERS[name](np.zeros((0, 3), np.float32), seed=0, epoch=0).tolist() == []
    assert SAMPLERS[name](np.full((1, 3), NAN, np.float32), seed=0, epoch=0).tolist() == [0]
    assert len(SAMPLERS[name](np.zeros((4, 0), np.float32), seed=0, epoch=0)) == 4


def test_shuffle_visits_every_image_once() -> None:
    order = SAMPLERS["shuffle"](np.zeros((57, 1), np.float32), seed=3, epoch=4)
    assert sorted(order) == list(range(57))


def test_balanced_weights_follow_the_formula() -> None:
    labels = np.array(
        [
            [1, 0, NAN],  # attribute 0 has 4 positives
            [1, NAN, 0],
            [1, 1, 0],  # attribute 1 has 1: the rarest decides
            [1, 0, NAN],
            [0, 0, NAN],  # without a known positive: 2 images
            [NAN, NAN, NAN],
        ],
        dtype=np.float32,
    )
    expected = np.array([4**-0.5] * 2 + [1] + [4**-0.5] + [2**-0.5] * 2)
    np.testing.assert_allclose(balanced_weights(labels), expected / expected.sum())


def test_balanced_draws_rare_attributes_more_often_and_leaves_no_image_out() -> None:
    labels = np.zeros((1000, 2), np.float32)
    labels[:500, 0] = 1
    labels[:10, 1] = 1
    draws = np.concatenate([SAMPLERS["balanced"](labels, seed=0, epoch=epoch) for epoch in range(200)])
    counts = np.bincount(draws, minlength=1000) / 200
    weights = balanced_weights(labels) * 1000
    assert abs(counts[:10].mean() / weights[:10].mean() - 1) < 0.05
    assert counts[:10].mean() > 5 * counts[500:].mean()
    assert counts.min() > 0


@settings(deadline=None, max_examples=100)
@given(n=st.integers(0, 60), batch_size=st.integers(1, 20))
def test_batches_keep_the_order_and_none_is_of_one(n: int, batch_size: int) -> None:
    order = np.arange(n, dtype=np.int64)[::-1]
    batches = split_batches(order, batch_size)
    assert [int(i) for batch in batches for i in batch] == order.tolist()
    sizes = [len(batch) for batch in batches]
    if batch_size > 1 and n > 1:
        assert min(sizes) > 1
        assert max(sizes) <= batch_size + 1
        assert set(sizes[:-1]) <= {batch_size}


def test_a_batch_size_below_one_names_the_flag() -> None:
    with pytest.raises(RecipeError, match="--batch-size"):
        split_batches(np.arange(3), 0)
