"""Augmentation: a pure function of (seed, epoch, index) and the square, whose settings do what they say."""

import multiprocessing
import pickle
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mlcls.errors import RecipeError
from mlcls.images.augment import (
    AUGMENTATIONS,
    Augment,
    AugmentSettings,
    build_augmentation,
    mirrored,
    mirrors_alone,
)
from mlcls.images.preprocess import Preprocessing

SIDE = 32
STILL = AugmentSettings(
    hflip_p=0, crop_scale=(1, 1), crop_ratio=(1, 1), jitter_p=0, perspective_p=0, blur_p=0, erasing_p=0
)


@pytest.fixture(scope="module")
def squares() -> list[NDArray[np.uint8]]:
    """Read-only, as rows of a memory-mapped cache are."""
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(4)]
    for picture in pictures:
        picture.flags.writeable = False
    return pictures


def augmented(augment: Augment, squares: list[NDArray[np.uint8]], epoch: int = 0) -> list[bytes]:
    results = [augment(square, epoch, index) for index, square in enumerate(squares)]
    assert all(result.shape == (SIDE, SIDE, 3) and result.dtype == np.uint8 for result in results)
    assert all(result.flags.c_contiguous for result in results)
    return [result.tobytes() for result in results]


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_the_same_key_gives_the_same_bytes_whatever_came_before(
    name: str, squares: list[NDArray[np.uint8]]
) -> None:
    augment = build_augmentation(name, Preprocessing(SIDE), seed=5)
    first = augmented(augment, squares, epoch=3)
    augmented(augment, squares, epoch=4)
    backwards = [augment(square, 3, index).tobytes() for index, square in reversed(list(enumerate(squares)))]
    assert backwards[::-1] == first
    assert augmented(pickle.loads(pickle.dumps(augment)), squares, epoch=3) == first
    assert augmented(build_augmentation(name, Preprocessing(SIDE), seed=5), squares, epoch=3) == first


@pytest.mark.parametrize(
    "method", [m for m in ("fork", "spawn") if m in multiprocessing.get_all_start_methods()]
)
def test_another_process_gives_the_same_bytes(method: str, squares: list[NDArray[np.uint8]]) -> None:
    augment = build_augmentation("rich", Preprocessing(SIDE), seed=5)
    with multiprocessing.get_context(method).Pool(1) as pool:
        results = pool.starmap(augment, [(square, 3, index) for index, square in enumerate(squares)])
    assert [result.tobytes() for result in results] == augmented(augment, squares, epoch=3)


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_the_image_itself_is_left_alone(name: str, squares: list[NDArray[np.uint8]]) -> None:
    augment = build_augmentation(name, Preprocessing(SIDE))
    for square in squares:
        writeable = square.copy()
        for epoch in range(20):
            augment(writeable, epoch, 0)
        assert (writeable == square).all()


def test_what_is_mirrored_is_told_without_the_image(squares: list[NDArray[np.uint8]]) -> None:
    augment = build_augmentation("light", Preprocessing(SIDE), AugmentSettings(hflip_p=0.3), seed=5)
    assert mirrors_alone(augment)
    for epoch in range(8):
        told = mirrored(augment, epoch, len(squares))
        for index, square in enumerate(squares):
            as_told = square[:, ::-1] if told[index] else square
            assert (augment(square, epoch, index) == as_told).all()
    assert 0.2 < np.mean([mirrored(augment, epoch, 100) for epoch in range(8)]) < 0.4
    for name in sorted(set(AUGMENTATIONS) - {"light"}):
        assert not mirrors_alone(build_augmentation(name, Preprocessing(SIDE)))


def test_seed_epoch_and_index_each_change_the_picture(squares: list[NDArray[np.uint8]]) -> None:
    pictures = {
        build_augmentation("rich", Preprocessing(SIDE), seed=seed)(squares[2], epoch, index).tobytes()
        for seed in range(3)
        for epoch in range(3)
        for index in range(3)
    }
    assert len(pictures) == 27


def test_keys_whose_digits_run_together_differ(squares: list[NDArray[np.uint8]]) -> None:
    augment = build_augmentation("rich", Preprocessing(SIDE), seed=1)
    assert augment(squares[0], 1, 11).tobytes() != augment(squares[0], 11, 1).tobytes()


def test_none_is_the_pixels_and_light_mirrors_half(squares: list[NDArray[np.uint8]]) -> None:
    none, light = (build_augmentation(name, Preprocessing(SIDE)) for name in ("none", "light"))
    mirrored = 0
    for index in range(200):
        plain = squares[index % len(squares)]
        assert none(plain, 0, index) is plain
        result = light(plain, 0, index)
        assert (result == plain).all() or (result == plain[:, ::-1]).all()
        mirrored += int((result == plain[:, ::-1]).all())
    assert 70 <= mirrored <= 130


def test_rich_with_every_probability_at_zero_is_the_pixels(squares: list[NDArray[np.uint8]]) -> None:
    augment = build_augmentation("rich", Preprocessing(SIDE), STILL)
    assert (augment(squares[2], 0, 0) == squares[2]).all()


@pytest.mark.parametrize("change", ["hflip_p", "jitter_p", "perspective_p", "blur_p", "erasing_p"])
def test_each_probability_switches_its_own_step(change: str, squares: list[NDArray[np.uint8]]) -> None:
    settings = replace(STILL, **{change: 0.25})
    augment = build_augmentation("rich", Preprocessing(SIDE), settings)
    changed = sum(not np.array_equal(augment(squares[2], 0, index), squares[2]) for index in range(400))
    assert 60 <= changed <= 140


def test_steps_are_drawn_independently_of_each_other() -> None:
    """With the same numbers for every step, erasing would imply mirroring."""
    plain = np.zeros((SIDE, SIDE, 3), np.uint8)
    plain[:, : SIDE // 2, 0] = 255
    settings = replace(STILL, hflip_p=0.5, erasing_p=0.5, erasing_scale=(0.02, 0.05))
    augment = build_augmentation("rich", Preprocessing(SIDE, mean=(0.0, 0.0, 1.0)), settings)
    table = np.zeros((2, 2), int)
    for index in range(400):
        result = augment(plain, 0, index)
        erased = bool((result[..., 2] == 255).any())
        mirrored = bool(result[:, SIDE // 2 :, 0].sum() > result[:, : SIDE // 2, 0].sum())
        table[int(mirrored), int(erased)] += 1
    assert table.min() > 60, table


def test_rich_works_on_tiny_squares() -> None:
    certain = AugmentSettings(perspective_p=1, erasing_p=1, blur_p=1, jitter_p=1)
    for side in (1, 2, 3, 7):
        augment = build_augmentation("rich", Preprocessing(side), certain)
        for epoch in range(20):
            assert augment(np.full((side, side, 3), 9, np.uint8), epoch, 0).shape == (side, side, 3)


OF_ONES_OWN = """
def listed(preprocessing, settings):
    import albumentations as A
    return [A.HorizontalFlip(p=settings.hflip_p), A.GaussNoise(p=0.5), A.Rotate(p=0.5)]
"""


def test_an_augmentation_of_ones_own_starts_from_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, squares: list[NDArray[np.uint8]]
) -> None:
    (tmp_path / "of_ones_own.py").write_text(OF_ONES_OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    listed = build_augmentation("of_ones_own:listed", Preprocessing(SIDE), seed=3)
    first = augmented(listed, squares)
    augmented(listed, squares, epoch=1)
    assert augmented(pickle.loads(pickle.dumps(listed)), squares) == first
    assert len({listed(squares[0], epoch, 0).tobytes() for epoch in range(30)}) > 15


def test_settings_are_checked_all_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        AugmentSettings(
            hflip_p=1.5, hue=0.7, crop_scale=(0.9, 0.1), crop_ratio=(0, 1), blur_sigma=2.0, jitter_p="often"
        )  # type: ignore[arg-type]
    lines = str(caught.value).splitlines()
    assert [line.split()[1] for line in lines] == [
        "hflip_p:",
        "crop_scale:",
        "crop_ratio:",
        "jitter_p:",
        "hue:",
        "blur_sigma:",
    ]
    assert all(line.startswith("--augment-args ") for line in lines)
    with pytest.raises(RecipeError, match="erasing_scale"):
        AugmentSettings(erasing_scale=(0.6, 0.7))
    from_toml = AugmentSettings(crop_scale=[0.2, 0.4])  # type: ignore[arg-type]
    assert from_toml.crop_scale == (0.2, 0.4)
    assert hash(from_toml) is not None


def test_every_allowed_extreme_runs(squares: list[NDArray[np.uint8]]) -> None:
    certain = {field.name: 1.0 for field in fields(AugmentSettings) if field.name.endswith("_p")}
    for extreme in (
        AugmentSettings(**certain, brightness=10.0, contrast=10.0, saturation=10.0, hue=0.5),
        AugmentSettings(
            **certain, crop_scale=(1e-6, 1e-6), blur_sigma=(20.0, 20.0), perspective_scale=(0.5, 1.0)
        ),
        AugmentSettings(
            **certain, erasing_scale=(1.0, 1.0), erasing_ratio=(1.0, 1.0), crop_ratio=(0.001, 1000.0)
        ),
    ):
        augmented(build_augmentation("rich", Preprocessing(SIDE), extreme), squares)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match="--augment: unknown name 'ritch'; did you mean 'rich'"):
        build_augmentation("ritch", Preprocessing(SIDE))
