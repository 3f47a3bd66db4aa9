"""Names and tiles on a sheet: as wide as asked, told apart, in their places."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.textpath import TextPath

from mlcls.reports.picture import fitted, pale, width_of
from mlcls.reports.sheet import new_sheet
from mlcls.reports.tiles import new_tiles

NAMES = st.lists(st.text(max_size=40), max_size=8)


def test_a_width_is_that_of_the_drawn_text() -> None:
    drawn = TextPath((0, 0), "wearing_hat", size=72).get_extents()
    assert width_of("wearing_hat", 72) == pytest.approx(drawn.x1 / 72, rel=0.05)
    assert width_of("mmm", 10) > 2 * width_of("iii", 10)
    assert width_of("x", 20) == pytest.approx(2 * width_of("x", 10))


@given(NAMES, st.floats(0.6, 3), st.sampled_from([6.0, 8.5, 10.0]))
@settings(deadline=None, max_examples=60)
def test_fitted_names_are_narrow_and_never_alike(names: list[str], inches: float, size: float) -> None:
    shown = fitted(names, inches, size)
    assert len(shown) == len(names)
    assert len(set(shown)) == len(names)
    for name in shown:
        assert width_of(name.replace(r"\$", "$"), size) <= inches + 1e-6


def test_the_middle_of_a_name_gives_way() -> None:
    short, long = fitted(["hat", "a_very_long_name_indeed_that_ends_so"], 1.2, 9)
    assert short == "hat"
    start, end = long.split("…")
    assert "a_very_long_name_indeed_that_ends_so".startswith(start)
    assert "a_very_long_name_indeed_that_ends_so".endswith(end)
    assert abs(len(start) - len(end)) <= 2


def test_names_that_look_alike_have_their_number() -> None:
    one, two = "x" * 60 + "a" + "y" * 60, "x" * 60 + "b" + "y" * 60
    shown = fitted([one, "hat", two], 1.5, 9)
    assert shown[0].startswith("1: x")
    assert shown[1] == "hat"
    assert shown[2].startswith("3: x")
    assert fitted([one, two], 1.5, 9, numbers=[7, 20])[1].startswith("20: x")
    assert fitted(["\x00\x01", "a$b"], 2, 9) == ["1: □□", r"a\$b"]


def test_pale_is_between_the_colour_and_white() -> None:
    assert pale("#000000") == "#aaaaaa"
    assert pale("#ffffff") == "#ffffff"


def test_a_wide_title_is_folded_and_the_sheet_grows() -> None:
    low = new_sheet(5, 2, title="a title")
    long = " ".join(["a title"] * 20)
    high = new_sheet(5, 2, title=long, notes=["a note " * 30])
    assert low.height == pytest.approx(low.top + 2)
    assert high.top > 2 * low.top
    lines = [one.get_text() for one in high.axes.texts]
    assert " ".join(line for line in lines if "title" in line) == long
    one_word = [part.get_text() for part in new_sheet(5, 2, title="w" * 200).axes.texts]
    assert "".join(one_word) == "w" * 200


@pytest.mark.parametrize("count", [0, 1, 5, 30, 121])
def test_tiles_lie_on_the_sheet_and_apart(count: int) -> None:
    tiles = new_tiles([f"name_{i}" for i in range(count)], title="t", axis_names=("x", "y"))
    assert len(tiles.corners) == count
    for left, top in tiles.corners:
        assert left > 0.3
        assert left + tiles.side < tiles.sheet.width
        assert tiles.sheet.top < top
        assert top + tiles.side < tiles.sheet.height - 0.3
    for i, corner in enumerate(tiles.corners):
        apart = np.abs(np.delete(tiles.corners, i, axis=0) - corner).max(axis=1)
        assert (apart > tiles.side).all()
        assert tiles.at(i, [0, 1], [1, 0]).tolist() == [corner.tolist(), (corner + tiles.side).tolist()]


def test_lines_below_names_are_broken_when_too_wide() -> None:
    names = [f"name_{i}" for i in range(130)]
    tiles = new_tiles(
        names, title="t", axis_names=("x", "y"), below_names=["threshold 0.50 [0.40, 0.60]"] * 130
    )
    shown = [one.get_text() for one in tiles.sheet.axes.texts]
    assert shown.count("threshold 0.50") == 130
    assert shown.count("[0.40, 0.60]") == 130
