"""Views of an image: what each does to the pixels, and which a name stands for."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcls.errors import RecipeError
from mlcls.images.tta import VIEWS, as_it_is, tta_views


def image_of(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_none_is_the_image_alone() -> None:
    assert tta_views("none") == (as_it_is,)
    image = image_of(5)
    assert tta_views("none")[0](image) is image


@pytest.mark.parametrize(
    ("names", "count"),
    [("flip", 2), ("zoom", 2), ("rot90", 4), ("flip,rot90", 8), (" zoom , flip", 4), ("flip,zoom,rot90", 16)],
)
def test_every_combination_once_the_image_itself_first(names: str, count: int) -> None:
    image, views = image_of(32), tta_views(names)
    assert len(views) == count
    assert views[0] is as_it_is
    seen = {view(image).tobytes() for view in views}
    assert len(seen) == count


@settings(max_examples=30, deadline=None)
@given(side=st.integers(1, 40), names=st.sampled_from(["flip", "zoom", "rot90", "flip,zoom,rot90"]))
def test_a_view_has_the_form_of_the_image_and_leaves_it_alone(side: int, names: str) -> None:
    image = image_of(side)
    before = image.copy()
    for view in tta_views(names):
        found = view(image)
        assert found.shape == image.shape
        assert found.dtype == np.uint8
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(view))(image), found)
    np.testing.assert_array_equal(image, before)


def test_what_each_view_shows() -> None:
    image = image_of(8)
    np.testing.assert_array_equal(VIEWS["flip"][0](image), np.fliplr(image))
    for turns, view in enumerate(VIEWS["rot90"], start=1):
        np.testing.assert_array_equal(view(image), np.rot90(image, turns))
    square = np.zeros((64, 64, 3), np.uint8)
    square[24:40, 24:40] = 255  # 16 px of 64 in the middle: 16 / 0.875 of them nearer
    found = VIEWS["zoom"][0](square)
    assert found[32, 32].tolist() == [255, 255, 255]
    width = found[32, :, 0].astype(float).sum() / 255
    assert width == pytest.approx(16 / 0.875, abs=0.5)
    assert found[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("flop", "--tta: unknown view 'flop'; did you mean 'flip'?"),
        ("", "--tta: unknown view ''"),
        ("flip,", "--tta: unknown view ''"),
        ("none,flip", "--tta none,flip: 'none' stands alone"),
        ("os:system", "expected one of: none, flip, zoom, rot90"),
        ("flip,zoom,flip", "'flip' stands there twice"),
    ],
)
def test_other_names_are_refused(names: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        tta_views(names)
    assert said in str(caught.value)
