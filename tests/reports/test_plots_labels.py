"""Pictures of labels: what occurs together, and where labels are unknown."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mlcls.errors import OutputError
from mlcls.reports.heat import blue, orange_to_purple
from mlcls.reports.plots_labels import (
    co_occurrence,
    co_occurrence_figure,
    pair_counts,
    unknown_labels,
    unknown_labels_figure,
)

NAN = np.nan


def texts(figure: Figure) -> list[str]:
    return [one.get_text() for one in figure.axes[0].texts]


def cells(figure: Figure, place: int = 0) -> Any:
    """The colours of a heat map's cells, row by row."""
    groups = [group for group in figure.axes[0].collections if isinstance(group, PolyCollection)]
    return np.asarray(groups[place].get_facecolor())


def table(images: int, attributes: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    labels = (rng.random((images, attributes)) < 0.4).astype(np.float32)
    labels[rng.random(labels.shape) < 0.1] = NAN
    return labels


@given(
    arrays(
        np.float32, st.tuples(st.integers(0, 12), st.integers(1, 5)), elements=st.sampled_from([0, 1, NAN])
    )
)
@settings(deadline=None, max_examples=60)
def test_pairs_are_counted_over_known_labels(labels: NDArray[np.float32]) -> None:
    both, of = pair_counts(labels)
    for i in range(labels.shape[1]):
        for j in range(labels.shape[1]):
            shows = labels[:, i] == 1
            assert both[i, j] == (shows & (labels[:, j] == 1)).sum()
            assert of[i, j] == (shows & ~np.isnan(labels[:, j])).sum()


def test_the_share_of_a_row_that_shows_the_column() -> None:
    labels = np.array([[1, 1], [1, 0], [1, NAN], [0, 1], [0, 0]])
    told = texts(co_occurrence_figure(["hat", "cap"], labels))
    assert "50%\nof 4" not in told  # each line is a text of its own
    for line in ("60%", "50%", "of 5", "of 4", "of 2"):
        assert line in told


def test_an_attribute_that_no_image_shows_is_gray_not_zero() -> None:
    labels = np.array([[0, 1.0]] * 50 + [[0, 0.0]] * 50)
    figure = co_occurrence_figure(["never", "half"], labels)
    _, _, itself, undefined, with_half, itself_too = cells(figure)
    assert (itself == undefined).all()
    assert (itself == itself_too).all()
    assert (with_half == orange_to_purple(np.array([0.0]))[0]).all()
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert "itself, or undefined" in [one.get_text() for one in legend.get_texts()]


def test_copies_and_complements_have_the_strongest_colours() -> None:
    one = (np.arange(400) % 2).astype(np.float32)
    figure = co_occurrence_figure(["a", "copy", "complement"], np.column_stack((one, one, 1 - one)))
    of_any, of_a = cells(figure)[:3], cells(figure)[3:6]
    assert np.allclose(of_any, blue(np.array([0.5, 0.5, 0.5])))
    assert np.allclose(of_a[1:], orange_to_purple(np.array([0.5, -0.5])), atol=0.05)


@pytest.mark.parametrize("count", [1, 5, 20, 101])
def test_label_pictures_of_any_number_of_attributes(tmp_path: Path, count: int) -> None:
    names, labels = [f"attribute_{i}" for i in range(count)], table(300, count)
    co_occurrence(tmp_path / "a.png", names, labels)
    unknown_labels(tmp_path / "b.png", names, labels, {"train": np.arange(250), "val": np.arange(250, 300)})
    assert (tmp_path / "a.png").stat().st_size > 5000
    assert (tmp_path / "b.png").stat().st_size > 5000


def test_unknown_labels_by_attribute_and_subset() -> None:
    labels = np.zeros((10, 3))
    labels[:2, 0] = labels[:5, 1] = NAN
    figure = unknown_labels_figure(
        ["hat", "cap", "scarf"], labels, {"train": range(4), "val": [], "test": [9]}
    )
    told = texts(figure)
    assert "7 of 30 labels (23.3%) are unknown, in 5 of 10 images." in told
    assert {"all", "train", "val", "test"} <= set(told)
    assert {"20.0% (2)", "50.0% (2)", "50.0% (5)", "100.0% (4)"} <= set(told)
    assert told.count("–") == 3  # no image in val: no share
    assert told.count("0") == 6  # the rest of the table, and the axis of the bars
    assert told.count("scarf") == 1  # it has no unknown label: not in the square below
    assert {"100%", "of 2", "40%", "of 5"} <= set(told)


def test_how_many_images_lack_how_many_labels() -> None:
    labels = np.zeros((100, 60))
    labels[:7, :45] = NAN
    labels[7:9, 0] = NAN
    told = texts(unknown_labels_figure([f"n{i}" for i in range(60)], labels))
    assert {"0–2", "45–47", "93", "7"} <= set(told)
    assert "train" not in told


def test_a_table_without_unknown_labels_says_so() -> None:
    figure = unknown_labels_figure(["hat", "cap"], np.zeros((1200, 2)))
    assert texts(figure) == [
        "Where labels are unknown",
        "Every label is known (images: 1,200, attributes: 2).",
    ]
    assert figure.get_figheight() < 3


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    for draw in (co_occurrence, unknown_labels):
        with pytest.raises(OutputError, match="absent"):
            draw(tmp_path / "absent" / "a.png", ["hat"], np.zeros((3, 1)))
