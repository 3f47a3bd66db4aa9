"""Augmentation: a pure function of (seed, epoch, index) and the image, whose settings do what they say."""

import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from mlcls.errors import RecipeError
from mlcls.images.augment import AUGMENTATIONS, Augment, AugmentSettings, build_augmentation
from mlcls.images.preprocess import FITS, Preprocessing, prepare

SIDE = 32
STILL = AugmentSettings(
    hflip_p=0, crop_scale=(1, 1), crop_ratio=(1, 1), jitter_p=0, perspective_p=0, blur_p=0, erasing_p=0
)


@pytest.fixture(scope="module")
def photos() -> list[NDArray[np.uint8]]:
    generator = np.random.default_rng(0)
    shapes = [(40, 60), (33, 32), (64, 64), (90, 20)]
    return [generator.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


def augmented(augment: Augment, photos: list[NDArray[np.uint8]], epoch: int = 0) -> list[bytes]:
    results = [augment(photo, epoch, index) for index, photo in enumerate(photos)]
    assert all(result.shape == (SIDE, SIDE, 3) and result.dtype == np.uint8 for result in results)
    return [result.tobytes() for result in results]


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_the_same_key_gives_the_same_bytes_whatever_came_before(
    name: str, photos: list[NDArray[np.uint8]]
) -> None:
    augment = build_augmentation(name, Preprocessing(SIDE), seed=5)
    first = augmented(augment, photos, epoch=3)
    augmented(augment, photos, epoch=4)
    backwards = [augment(photo, 3, index).tobytes() for index, photo in reversed(list(enumerate(photos)))]
    assert backwards[::-1] == first
    assert augmented(pickle.loads(pickle.dumps(augment)), photos, epoch=3) == first
    assert augmented(build_augmentation(name, Preprocessing(SIDE), seed=5), photos, epoch=3) == first


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_the_image_itself_is_left_alone(name: str, photos: list[NDArray[np.uint8]]) -> None:
    augment = build_augmentation(name, Preprocessing(SIDE, "squash"))
    for photo in [*photos, photos[0][:SIDE, :SIDE].copy()]:
        before = photo.copy()
        for epoch in range(10):
            augment(photo, epoch, 0)
        assert (photo == before).all()


def test_seed_epoch_and_index_each_change_the_picture(photos: list[NDArray[np.uint8]]) -> None:
    pictures = {
        build_augmentation("rich", Preprocessing(SIDE), seed=seed)(photos[2], epoch, index).tobytes()
        for seed in range(3)
        for epoch in range(3)
        for index in range(3)
    }
    assert len(pictures) == 27


@pytest.mark.parametrize("fit", sorted(FITS))
def test_none_is_the_evaluation_preprocessing_and_light_mirrors_half(
    fit: str, photos: list[NDArray[np.uint8]]
) -> None:
    preprocessing = Preprocessing(SIDE, fit)
    none, light = (build_augmentation(name, preprocessing) for name in ("none", "light"))
    mirrored = 0
    for index in range(200):
        photo = photos[index % len(photos)]
        plain = prepare(photo, preprocessing)
        assert (none(photo, 0, index) == plain).all()
        result = light(photo, 0, index)
        assert (result == plain).all() or (result == plain[:, ::-1]).all()
        mirrored += int((result == plain[:, ::-1]).all())
    assert 70 <= mirrored <= 130


def test_rich_with_every_probability_at_zero_is_a_resize(photos: list[NDArray[np.uint8]]) -> None:
    augment = build_augmentation("rich", Preprocessing(SIDE), STILL)
    assert (augment(photos[2], 0, 0) == prepare(photos[2], Preprocessing(SIDE))).all()


@pytest.mark.parametrize("change", ["hflip_p", "jitter_p", "perspective_p", "blur_p", "erasing_p"])
def test_each_probability_switches_its_own_transform(change: str, photos: list[NDArray[np.uint8]]) -> None:
    photo, plain = photos[2], prepare(photos[2], Preprocessing(SIDE))
    settings = replace(STILL, **{change: 0.25})
    augment = build_augmentation("rich", Preprocessing(SIDE), settings)
    changed = sum(not np.array_equal(augment(photo, 0, index), plain) for index in range(400))
    assert 60 <= changed <= 140


def test_transforms_are_drawn_independently_of_each_other(photos: list[NDArray[np.uint8]]) -> None:
    """With one seed for every transform, as `Compose(seed=...)` has it, erasing would imply mirroring."""
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


def test_rich_works_on_thin_and_tiny_images() -> None:
    augment = build_augmentation(
        "rich", Preprocessing(SIDE), AugmentSettings(perspective_p=1, erasing_p=1, blur_p=1)
    )
    for shape in ((1, 30_000), (30_000, 1), (1, 1), (2, 3), (400, 31)):
        for epoch in range(5):
            result = augment(np.full((*shape, 3), 9, np.uint8), epoch, 0)
            assert result.shape == (SIDE, SIDE, 3)


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


def test_every_allowed_extreme_runs(photos: list[NDArray[np.uint8]]) -> None:
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
        augmented(build_augmentation("rich", Preprocessing(SIDE), extreme), photos)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match="--augment: unknown name 'ritch'; did you mean 'rich'"):
        build_augmentation("ritch", Preprocessing(SIDE))
