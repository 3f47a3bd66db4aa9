"""The evaluation preprocessing: geometry as timm's, no aliasing, every shape of image."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mlcls.errors import RecipeError
from mlcls.images.preprocess import FITS, INTERPOLATIONS, Preprocessing, prepare, resize


def waves(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth on the scale of the whole image, so that resampling filters agree and geometry alone can differ."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [np.sin(7 * x / width), np.cos(5 * y / height), np.sin(4 * (x / width + y / height))]
    return np.rint(127.5 + 127.5 * np.stack(channels, axis=-1)).astype(np.uint8)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    side=st.integers(1, 70),
    fit=st.sampled_from(sorted(FITS)),
    interpolation=st.sampled_from(sorted(INTERPOLATIONS)),
    crop_pct=st.sampled_from([0.5, 0.875, 0.95, 1.0]),
)
def test_any_image_becomes_the_square(
    height: int, width: int, side: int, fit: str, interpolation: str, crop_pct: float
) -> None:
    image = np.full((height, width, 3), (9, 120, 250), np.uint8)
    square = prepare(
        image, Preprocessing(side, fit, interpolation, crop_pct, mean=(9 / 255, 120 / 255, 250 / 255))
    )
    assert square.shape == (side, side, 3)
    assert square.dtype == np.uint8
    assert square.flags.c_contiguous
    assert (square == (9, 120, 250)).all()  # neither resampling nor padding with the mean changes one colour


@pytest.mark.parametrize("fit", sorted(FITS))
@pytest.mark.parametrize("shape", [(1, 30_000), (30_000, 1)])
def test_a_long_thin_image_becomes_the_square(fit: str, shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 7, np.uint8)
    tracemalloc.start()
    try:
        assert prepare(image, Preprocessing(224, fit)).shape == (224, 224, 3)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000  # bytes; OpenCV's results are NumPy's memory
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("fit", "mode"), [("crop", "center"), ("squash", "squash"), ("pad", "border")])
@pytest.mark.parametrize("shape", [(480, 640), (333, 200), (100, 150), (40, 30), (500, 90)])
@pytest.mark.parametrize("side", [96, 224])
def test_geometry_is_timms(fit: str, mode: str, shape: tuple[int, int], side: int) -> None:
    from timm.data import create_transform

    crop_pct = 0.875 if fit == "crop" else 1.0
    oracle = create_transform(
        input_size=(3, side, side),
        interpolation="bicubic",
        crop_pct=crop_pct,
        crop_mode=mode,
        normalize=False,
    )
    image = waves(*shape)
    expected = oracle(Image.fromarray(image)).numpy().transpose(1, 2, 0).astype(int)
    preprocessing = Preprocessing(side, fit, "bicubic", crop_pct)
    difference = np.abs(prepare(image, preprocessing) - expected)
    if (
        fit == "pad"
    ):  # where the picture meets the padding, half a pixel is seen; timm rounds its place otherwise
        assert np.median(difference) <= 1
        assert (difference > 12).mean() < 0.02
    else:
        assert difference.max() <= 8
        assert difference.mean() < 1


def test_crop_takes_the_centre_and_squash_the_whole() -> None:
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, 100:200] = 255
    assert (prepare(image, Preprocessing(50, "crop", crop_pct=1.0)) == 255).all()
    squashed = prepare(image, Preprocessing(60, "squash"))
    assert (squashed[:, :20] == 0).all()
    assert (squashed[:, 20:40] == 255).all()
    assert (squashed[:, 40:] == 0).all()


def test_a_centre_crop_of_a_panorama_is_that_of_its_centre() -> None:
    panorama = waves(60, 1200)
    preprocessing = Preprocessing(48, "crop")
    centre = prepare(panorama[:, 480:720], preprocessing)
    assert np.abs(prepare(panorama, preprocessing).astype(int) - centre).max() <= 2


def test_pad_keeps_proportions_on_the_mean_colour() -> None:
    square = prepare(np.full((20, 80, 3), 255, np.uint8), Preprocessing(40, "pad", mean=(0.5, 0.25, 0.0)))
    assert (square[15:25] == 255).all()
    assert (square[:15] == (128, 64, 0)).all()
    assert (square[25:] == (128, 64, 0)).all()


@pytest.mark.parametrize("interpolation", sorted(INTERPOLATIONS))
def test_shrinking_averages_instead_of_aliasing(interpolation: str) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (64, 900, 1)).repeat(3, axis=2).astype(np.uint8) * 255
    averages = noise[..., 0].reshape(64, 100, 9).mean(axis=2)
    assert np.abs(resize(noise, 100, 64, interpolation)[..., 0] - averages).max() <= 1
    # one side shrinks while the other grows: the shrinking side is averaged first
    grown = resize(noise, 100, 192, interpolation)[..., 0]
    assert abs(grown.std() / averages.std() - 1) < 0.4


def test_growing_uses_the_configured_interpolation() -> None:
    edge = np.zeros((4, 4, 3), np.uint8)
    edge[:, 2:] = 255
    grown = {name: resize(edge, 64, 64, name) for name in ("nearest", "bilinear", "bicubic", "lanczos")}
    assert set(np.unique(grown["nearest"])) == {0, 255}
    assert len({image.tobytes() for image in grown.values()}) == 4


def test_faults_name_the_flag() -> None:
    with pytest.raises(RecipeError, match="--fit: unknown name 'squish'; did you mean 'squash'"):
        Preprocessing(224, "squish")
    with pytest.raises(RecipeError, match="interpolation: unknown name 'bicubik'"):
        Preprocessing(224, interpolation="bicubik")
    with pytest.raises(RecipeError, match=r"--image-size: expected .* got 0"):
        Preprocessing(0)
    with pytest.raises(RecipeError, match="crop_pct"):
        Preprocessing(224, crop_pct=0.0)
    with pytest.raises(RecipeError, match="std"):
        Preprocessing(224, std=(0.0, 1.0, 1.0))


def test_a_crop_that_would_pad_takes_the_whole_shorter_side() -> None:
    """A few of timm's configurations have a crop_pct above 1."""
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    whole = prepare(image, Preprocessing(32, "crop", crop_pct=1.0))
    assert np.array_equal(prepare(image, Preprocessing(32, "crop", crop_pct=1.15)), whole)
