"""Images with a rare attribute are augmented otherwise than the others: which they are, and nothing else changes."""

import pickle
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from mlcls.images.augment import AugmentSettings, Choose, build_augmentation, rare_images
from mlcls.images.dataset import ImageDataset, training_batches
from mlcls.images.preprocess import Preprocessing

SIDE = 16
NAN = np.nan
STILL = AugmentSettings(
    hflip_p=0,
    crop_scale=(1, 1),
    crop_ratio=(1, 1),
    jitter_p=0,
    perspective_p=0,
    blur_p=0,
    erasing_p=0,
    turn_p=0,
    gray_p=0,
    noise_p=0,
)


@pytest.fixture(scope="module")
def squares() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (12, SIDE, SIDE, 3), dtype=np.uint8)


def choose(is_rare: NDArray[np.bool_], common: str = "light", rare: str = "strong") -> Choose:
    prep = Preprocessing(SIDE)
    return Choose(build_augmentation(common, prep, seed=3), build_augmentation(rare, prep, seed=3), is_rare)


def test_an_attribute_is_rare_by_its_known_labels_and_an_unknown_one_marks_nobody() -> None:
    labels = np.array(
        [
            [1, 1, NAN, 0],
            [0, 1, NAN, 0],
            [0, NAN, NAN, 0],
            [0, NAN, 1, 0],
            [NAN, NAN, 1, 0],
        ],
        np.float32,
    )
    # 1 of 4, 2 of 2, 2 of 2, none of 5
    assert rare_images(labels, 0.25).tolist() == [True, False, False, False, False]
    assert not rare_images(labels, 0.24).any()
    assert not rare_images(labels, 0.0).any()
    assert rare_images(labels, 1.0).tolist() == [True, True, False, True, True]
    assert rare_images(np.full((3, 2), NAN, np.float32), 1.0).tolist() == [False] * 3
    assert rare_images(np.zeros((0, 2), np.float32), 0.5).shape == (0,)


@settings(deadline=None, max_examples=100)
@given(
    arrays.arrays(
        np.float32, st.tuples(st.integers(1, 20), st.integers(1, 5)), elements=st.sampled_from([0, 1, NAN])
    ),
    st.floats(0, 1),
)
def test_rare_images_are_those_of_a_plain_loop(labels: NDArray[np.float32], share: float) -> None:
    expected = [False] * len(labels)
    for column in labels.T:
        known = [value for value in column if not np.isnan(value)]
        for row, value in enumerate(column):
            expected[row] |= bool(value == 1 and sum(known) <= share * len(known))
    assert rare_images(labels, share).tolist() == expected


def test_each_image_gets_its_own_augmentation(squares: NDArray[np.uint8]) -> None:
    is_rare = np.arange(len(squares)) % 3 == 0
    both = choose(is_rare)
    for epoch in range(3):
        for index, square in enumerate(squares):
            expected = (both.rare if is_rare[index] else both.common)(square, epoch, index)
            assert both(square, epoch, index).tobytes() == expected.tobytes()
    mirrored = [both(squares[1], epoch, 1).tobytes() for epoch in range(20)]
    assert set(mirrored) == {squares[1].tobytes(), squares[1][:, ::-1].tobytes()}
    assert len({both(squares[0], epoch, 0).tobytes() for epoch in range(20)}) > 15


def test_the_same_key_gives_the_same_bytes_after_a_pickle(squares: NDArray[np.uint8]) -> None:
    both = choose(np.arange(len(squares)) % 2 == 0)
    first = [both(square, 4, index).tobytes() for index, square in enumerate(squares)]
    again = pickle.loads(pickle.dumps(both))
    assert [again(square, 4, i).tobytes() for i, square in reversed(list(enumerate(squares)))] == first[::-1]


def test_batches_hold_what_the_choice_makes(squares: NDArray[np.uint8]) -> None:
    labels = np.zeros((len(squares), 2), np.float32)
    labels[2, 1] = 1
    both = choose(rare_images(labels, 0.1), common="none")
    dataset = ImageDataset(squares.__getitem__, labels, both)
    batches = training_batches(dataset, batch_size=5, seed=0, sampler="shuffle", workers=0, pin_memory=False)
    changed = {
        int(index)
        for epoch in range(4)
        for batch in batches.epoch(epoch)
        for pixels, index in zip(batch.pixels, batch.indices, strict=True)
        if (pixels.permute(1, 2, 0).numpy() != squares[index]).any()
    }
    assert changed == {2}


def test_strong_with_every_probability_at_zero_is_the_pixels(squares: NDArray[np.uint8]) -> None:
    assert (build_augmentation("strong", Preprocessing(SIDE), STILL)(squares[2], 0, 0) == squares[2]).all()


def test_strong_moves_pixels_farther_than_rich() -> None:
    # smooth, so that a small shift of pixels is a small change
    ramp = np.broadcast_to(np.linspace(40, 200, 64)[:, None, None], (64, 64, 3)).astype(np.uint8)
    still = AugmentSettings(hflip_p=0, crop_scale=(1, 1), crop_ratio=(1, 1), erasing_p=0)

    def moved(name: str) -> float:
        augment = build_augmentation(name, Preprocessing(64), still)
        return float(np.mean([np.abs(augment(ramp, 0, i).astype(float) - ramp).mean() for i in range(100)]))

    assert moved("strong") > 1.5 * moved("rich") > 0


def test_strong_runs_at_every_extreme() -> None:
    certain = {field.name: 1.0 for field in fields(AugmentSettings) if field.name.endswith("_p")}
    extreme = AugmentSettings(
        **certain,
        brightness=10.0,
        contrast=10.0,
        hue=0.5,
        turn=180.0,
        noise=(0.0, 1.0),
        perspective_scale=(0.5, 1.0),
    )
    for side in (8, SIDE):
        augment = build_augmentation("strong", Preprocessing(side), extreme)
        for epoch in range(10):
            assert augment(np.full((side, side, 3), 9, np.uint8), epoch, 0).shape == (side, side, 3)
