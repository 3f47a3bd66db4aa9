"""The steps of `rich`: each draws what its settings say, measured in the pixels it gives."""

import colorsys
import math
from random import Random

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mlcls.images.distort import Blur, Erase, Mirror, Recolour, View

SIDE = 256
DRAWS = 400


@pytest.fixture
def rng() -> Random:
    return Random("of these tests")


@pytest.fixture(scope="module")
def places() -> NDArray[np.uint8]:
    """Each pixel holds its column and its row: what comes out says where it came from."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    return np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)


def view(**changes: object) -> View:
    still = {
        "scale": (1.0, 1.0),
        "ratio": (1.0, 1.0),
        "hflip_p": 0.0,
        "perspective_p": 0.0,
        "perspective_scale": (0.05, 0.05),
        "interpolation": cv2.INTER_NEAREST,
    }
    return View(**{**still, **changes})  # type: ignore[arg-type]


def boxes(step: View, places: NDArray[np.uint8], rng: Random, draws: int = DRAWS) -> NDArray[np.float64]:
    """Left, top, right and bottom of the part that the square shows, a row a draw."""
    found = []
    for _ in range(draws):
        result = step(places, rng)
        assert result.shape == (SIDE, SIDE, 3)
        (left, top), (right, bottom) = result[0, 0, :2], result[-1, -1, :2]
        found.append((left, top, right + 1.0, bottom + 1.0))
    return np.array(found)


# -- the view -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "ratio"),
    [
        ((0.5, 1.0), (0.75, 4 / 3)),
        ((0.08, 1.0), (0.75, 4 / 3)),
        ((0.3, 0.3), (0.5, 2.0)),
        ((0.2, 0.4), (1.5, 3.0)),
    ],
)
def test_the_part_is_drawn_as_torchvision_draws_it(
    scale: tuple[float, float], ratio: tuple[float, float], places: NDArray[np.uint8], rng: Random
) -> None:
    import torch
    from scipy.stats import ks_2samp
    from torchvision.transforms import RandomResizedCrop

    left, top, right, bottom = boxes(view(scale=scale, ratio=ratio), places, rng, 1500).T
    width, height = right - left, bottom - top
    assert (width * height / SIDE**2).min() >= scale[0] - 0.01
    assert (width * height / SIDE**2).max() <= scale[1] + 0.01
    assert (width / height).min() >= ratio[0] * 0.96
    assert (width / height).max() <= ratio[1] * 1.04

    torch.manual_seed(0)
    image = torch.empty(1, SIDE, SIDE)
    drawn = [RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(1500)]
    their_top, their_left, their_height, their_width = np.array(drawn, dtype=float).T
    for ours, theirs in (
        (width * height, their_width * their_height),
        (width / height, their_width / their_height),
        (left, their_left),
        (top, their_top),
    ):
        jitter = np.random.default_rng(0).normal(0, 1e-9, (2, 1500))  # the test wants no ties
        assert ks_2samp(ours + jitter[0], theirs + jitter[1]).statistic < 0.07  # p of 0.001


def test_a_shape_that_never_fits_is_the_largest_about_the_centre(
    places: NDArray[np.uint8], rng: Random
) -> None:
    assert (boxes(view(ratio=(4.0, 4.0)), places, rng, 3) == (0, 96, 256, 160)).all()
    assert (boxes(view(ratio=(0.25, 0.25)), places, rng, 3) == (96, 0, 160, 256)).all()


def test_half_are_mirrored_plain_and_askew(places: NDArray[np.uint8], rng: Random) -> None:
    for askew in (0.0, 1.0):
        step = view(hflip_p=0.5, scale=(0.6, 0.9), perspective_p=askew)
        mirrored = 0
        for _ in range(DRAWS):
            columns = step(places, rng)[:, :, 0].astype(int)
            rows = step(places, rng)[:, :, 1].astype(int)
            mirrored += int(columns[SIDE // 2, 0] > columns[SIDE // 2, -1])
            assert rows[0, SIDE // 2] < rows[-1, SIDE // 2]  # never upside down
        assert 150 < mirrored < 250


def test_a_mirrored_view_is_the_mirror_image_of_the_view(places: NDArray[np.uint8]) -> None:
    for askew in (0.0, 1.0):
        changes = {"scale": (0.5, 0.8), "perspective_p": askew, "interpolation": cv2.INTER_CUBIC}
        plain = view(**changes)(places, Random(7)).astype(int)
        mirrored = view(**changes, hflip_p=1.0)(places, Random(7)).astype(int)
        assert np.abs(plain - mirrored[:, ::-1]).max() <= 1


def test_corners_move_inwards_by_a_half_normal_way(places: NDArray[np.uint8], rng: Random) -> None:
    deviation = 0.06
    step = view(perspective_p=1.0, perspective_scale=(deviation, deviation))
    ways = []
    for _ in range(DRAWS):
        result = step(places, rng)[..., :2].astype(float)
        corners = np.array([result[0, 0], result[0, -1], result[-1, -1], result[-1, 0]])
        sides = np.array([(0, 0), (SIDE - 1, 0), (SIDE - 1, SIDE - 1), (0, SIDE - 1)])
        ways.append(np.abs(corners - sides) / SIDE)
    found = np.array(ways)
    assert found.max() < 0.33
    # the mean of a half-normal distribution is its deviation times the root of 2 / pi, at each corner, either way
    assert np.abs(found.mean(axis=0) - deviation * math.sqrt(2 / math.pi)).max() < 0.008
    assert abs(math.sqrt((found**2).mean()) - deviation) < 0.004


def test_the_perspective_is_of_the_part_and_keeps_straight_lines(
    places: NDArray[np.uint8], rng: Random
) -> None:
    step = view(scale=(0.25, 0.25), perspective_p=1.0, perspective_scale=(0.02, 0.05))
    for _ in range(50):
        result = step(places, rng)[..., :2].astype(float)
        assert np.ptp(result[..., 0]) < SIDE / 2 + 1
        assert np.ptp(result[..., 0]) > SIDE / 5
        for line in (result[40], result[:, 200], result[np.arange(SIDE), np.arange(SIDE)]):
            (x0, y0), (x1, y1) = line[0], line[-1]
            off = (line[:, 0] - x0) * (y1 - y0) - (line[:, 1] - y0) * (x1 - x0)
            assert (
                np.abs(off).max() / math.hypot(x1 - x0, y1 - y0) < 1.5
            )  # pixels, of values rounded to whole ones


def test_a_part_askew_by_nothing_is_the_part(places: NDArray[np.uint8]) -> None:
    part = {"scale": (0.05, 0.1), "interpolation": cv2.INTER_LINEAR}
    plain = view(**part)(places, Random(3)).astype(int)
    askew = view(**part, perspective_p=1.0, perspective_scale=(0.0, 0.0))(places, Random(3))
    inside = slice(8, -8)  # at the edges the one stops at the part's last pixels and the other does not
    assert np.abs(plain - askew)[inside, inside].max() <= 1
    assert abs((plain - askew)[inside, inside].mean()) < 0.05


def test_the_whole_picture_askew_by_nothing_is_itself(places: NDArray[np.uint8], rng: Random) -> None:
    step = view(perspective_p=1.0, perspective_scale=(0.0, 0.0))
    assert (step(places, rng) == places).all()


def test_parts_grow_by_the_interpolation_that_is_configured(rng: Random) -> None:
    edge = np.zeros((SIDE, SIDE, 3), np.uint8)
    edge[:, SIDE // 2 :] = 255
    kinds = {}
    for interpolation in (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC):
        step = view(scale=(0.5, 0.5), interpolation=interpolation)
        kinds[interpolation] = step(edge, Random(1))
    assert len({result.tobytes() for result in kinds.values()}) == 3
    assert set(np.unique(kinds[cv2.INTER_NEAREST])) == {0, 255}


# -- colours --------------------------------------------------------------------------------------------------


def recolour(**changes: float) -> Recolour:
    return Recolour(
        **{"p": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, **changes}
    )


@pytest.fixture(scope="module")
def muted() -> NDArray[np.uint8]:
    """Colours that no usual change brings to 0 or 255."""
    return np.random.default_rng(0).integers(90, 150, (48, 48, 3), dtype=np.uint8)


def luma(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = pixels @ np.array([0.299, 0.587, 0.114])
    return found


def brightness_of(result: NDArray[np.uint8], muted: NDArray[np.uint8]) -> float:
    return float(result.mean() / muted.mean())


def contrast_of(result: NDArray[np.uint8], muted: NDArray[np.uint8]) -> float:
    return float(np.std(result) / np.std(muted))


def saturation_of(result: NDArray[np.uint8], muted: NDArray[np.uint8]) -> float:
    chroma = [pixels - luma(pixels)[..., np.newaxis] for pixels in (result, muted)]
    return float(np.linalg.norm(chroma[0]) / np.linalg.norm(chroma[1]))


@pytest.mark.parametrize(
    ("name", "measure", "oracle"),
    [
        ("brightness", brightness_of, "adjust_brightness"),
        ("contrast", contrast_of, "adjust_contrast"),
        ("saturation", saturation_of, "adjust_saturation"),
    ],
)
def test_each_factor_is_uniform_around_1_and_does_what_torchvision_does(
    name: str, measure: object, oracle: str, muted: NDArray[np.uint8], rng: Random
) -> None:
    import torch
    from torchvision.transforms import functional

    step = recolour(**{name: 0.4})
    factors = []
    for _ in range(DRAWS):
        result = step(muted, rng)
        factor = measure(result, muted)  # type: ignore[operator]
        factors.append(factor)
        expected = getattr(functional, oracle)(torch.from_numpy(muted).permute(2, 0, 1), factor)
        difference = np.abs(result.astype(int) - expected.permute(1, 2, 0).numpy())
        assert difference.max() <= 2
        assert difference.mean() < 1
    assert 0.59 < min(factors) < 0.63
    assert 1.37 < max(factors) < 1.41
    assert abs(np.mean(factors) - 1) < 0.04
    assert abs(np.std(factors) - 0.8 / math.sqrt(12)) < 0.02


def test_a_factor_is_never_below_0(muted: NDArray[np.uint8], rng: Random) -> None:
    for _ in range(100):
        result = recolour(contrast=3.0)(muted, rng)
        assert np.corrcoef(result.ravel(), muted.ravel())[0, 1] > -0.1


def test_hue_is_shifted_by_a_part_of_the_colour_circle_and_the_luma_stays(rng: Random) -> None:
    shifts = []
    for _ in range(100):
        hue = rng.random()
        colour = np.rint(255 * np.array(colorsys.hsv_to_rgb(hue, 0.5, 0.6)))
        image = np.tile(colour, (4, 4, 1)).astype(np.uint8)
        result = recolour(hue=0.1)(image, rng)
        assert abs(luma(result)[0, 0] - luma(image)[0, 0]) < 1
        before, after = (colorsys.rgb_to_hsv(*(pixels[0, 0] / 255))[0] for pixels in (image, result))
        shifts.append((after - before + 0.5) % 1 - 0.5)
    # the circle of the turn and HSV's hexagon are up to 1.2 degrees apart, and colours are whole numbers
    assert np.abs(shifts).max() < 0.1 + 0.012
    assert abs(np.mean(shifts)) < 0.02
    assert abs(np.std(shifts) - 0.2 / math.sqrt(12)) < 0.012


def test_a_third_of_the_circle_is_the_next_primary() -> None:
    red = np.tile(np.uint8([180, 60, 60]), (4, 4, 1))

    class Third(Random):
        def uniform(self, a: float, b: float) -> float:
            return 1 / 3 if a < 0 else 1.0

    result = recolour(hue=0.4)(red, Third())[0, 0].astype(int)
    assert result[0] == result[2] < result[1]


def test_gray_keeps_its_colour(rng: Random) -> None:
    gray = np.tile(np.arange(60, 190, 2, dtype=np.uint8)[:, np.newaxis, np.newaxis], (1, 65, 3))
    for _ in range(50):
        assert np.abs(recolour(saturation=1.0, hue=0.5)(gray, rng).astype(int) - gray).max() <= 1
        changed = recolour(brightness=0.3, contrast=0.3, saturation=1.0, hue=0.5)(gray, rng).astype(int)
        assert np.ptp(changed, axis=2).max() <= 1


def test_the_four_are_drawn_independently(muted: NDArray[np.uint8], rng: Random) -> None:
    step = recolour(brightness=0.3, contrast=0.3, saturation=0.3)
    drawn = []
    for _ in range(DRAWS):
        result = step(muted, rng)
        bright = brightness_of(result, muted)
        spread = float(np.std(luma(result)) / np.std(luma(muted))) / bright
        drawn.append((bright, spread, saturation_of(result, muted) / bright / spread))
    off_diagonal = np.corrcoef(np.array(drawn).T)[np.triu_indices(3, 1)]
    assert np.abs(off_diagonal).max() < 0.2


# -- blur and erasing -----------------------------------------------------------------------------------------


def test_blur_has_the_deviation_that_was_drawn(rng: Random) -> None:
    step = np.zeros((64, 64, 3), np.uint8)
    step[:, 32:] = 255
    deviations = []
    for _ in range(200):
        blurred = Blur(1.0, (0.5, 1.5))(step, rng)
        assert (blurred == blurred[:1]).all()  # along the edge nothing changes
        slope = np.diff(blurred[0, :, 0].astype(float)) / 255
        centre = (slope * np.arange(63)).sum()
        deviations.append(math.sqrt((slope * (np.arange(63) - centre) ** 2).sum()))
        assert abs(centre - 31) < 0.02
    assert 0.45 < min(deviations) < 0.6
    assert 1.4 < max(deviations) < 1.52
    assert abs(np.mean(deviations) - 1.0) < 0.08


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.5, 4.0])
def test_blur_is_opencvs_gaussian(sigma: float, rng: Random) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    expected = cv2.GaussianBlur(noise, (0, 0), sigma)
    assert np.abs(Blur(1.0, (sigma, sigma))(noise, rng).astype(int) - expected).max() <= 2


def test_erasing_fills_one_rectangle_of_the_area_and_shape_asked_for(rng: Random) -> None:
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    step = Erase(1.0, (0.02, 0.15), (0.4, 2.5), (10, 20, 30))
    areas, shapes, middles = [], [], []
    for _ in range(DRAWS):
        result = step(black, rng)
        rows, columns = np.nonzero((result == (10, 20, 30)).all(axis=2))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert width * height == len(rows) == (result.any(axis=2)).sum()
        areas.append(len(rows) / SIDE**2)
        shapes.append(math.log(width / height))
        middles.append(((rows[0] + rows[-1] + 1) / 2 / SIDE, (columns.min() + columns.max() + 1) / 2 / SIDE))
    assert 0.019 < min(areas) < 0.03
    assert 0.14 < max(areas) < 0.152
    assert abs(np.mean(areas) - 0.085) < 0.01
    assert math.log(0.4) - 0.05 < min(shapes)
    assert max(shapes) < math.log(2.5) + 0.05
    assert abs(np.mean(shapes)) < 0.1
    assert np.abs(np.mean(middles, axis=0) - 0.5).max() < 0.05


def test_erasing_everything(rng: Random) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    assert (Erase(1.0, (1.0, 1.0), (1.0, 1.0), (1, 2, 3))(noise, rng) == (1, 2, 3)).all()


def test_a_probability_of_0_gives_the_very_pixels(places: NDArray[np.uint8], rng: Random) -> None:
    for step in (
        Mirror(0.0),
        view(),
        Recolour(0.0, 1, 1, 1, 0.5),
        Blur(0.0, (1, 1)),
        Erase(0.0, (0.1, 0.1), (1, 1), (0, 0, 0)),
    ):
        assert step(places, rng) is places
