"""The pictures: PNGs of a sensible size that show the data they are given, at one and at a hundred attributes."""

import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image

from mlcls.errors import OutputError
from mlcls.reports.contact_sheet import contact_sheet
from mlcls.reports.picture import BLUE, MOST_ATTRIBUTES, ORANGE, VERMILION, limited, short_count, text
from mlcls.reports.plots_scores import (
    overall_confusion_matrix,
    per_class_confusion_matrices,
    precision_recall,
)
from mlcls.reports.plots_training import (
    loss_curve,
    loss_figure,
    running_mean,
    train_vs_val_loss,
    training_history,
)
from mlcls.reports.record import EpochFigures

Epoch = Callable[..., EpochFigures]
NAMES = [
    "cost in $ of $x_1",
    "日本語",
    "an_attribute_name_that_is_very_long_indeed_sixty_characters_xx",
    "[bold]\n\t",
]


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def amount(path: Path, colour: str) -> int:
    """How many pixels have exactly this colour."""
    wanted = np.round(np.array(to_rgb(colour)) * 255)
    return int((pixels(path) == wanted).all(axis=2).sum())


def names(count: int) -> list[str]:
    return (NAMES + [f"attribute_{i}" for i in range(count)])[:count]


@pytest.mark.parametrize("epochs", [0, 1, 5, 70])
def test_training_pictures_at_any_length(tmp_path: Path, epoch: Epoch, epochs: int) -> None:
    rows = [epoch(i, val_map=None if i % 2 else 0.5, val_exact_match=math.nan) for i in range(epochs)]
    best = epochs - 1 if epochs else None
    losses = [None if i % 7 == 0 else 1 / (1 + i) for i in range(epochs * 50)]
    loss_curve(tmp_path / "a.png", range(len(losses)), losses, rows, best_epoch=best, title="$a_b$ 日本語")
    training_history(tmp_path / "b.png", rows, best_epoch=best, title="[x]")
    train_vs_val_loss(tmp_path / "c.png", rows, best_epoch=best)
    for name in "abc":
        height, width, _ = pixels(tmp_path / f"{name}.png").shape
        assert 500 <= height < width <= 1600


def test_axes_are_named_as_published(epoch: Epoch) -> None:
    figure = loss_figure([1, 2, 3], [0.9, 0.8, 0.7], [epoch(0)], title="My title")
    left, right = figure.axes
    assert (left.get_xlabel(), left.get_ylabel()) == ("iteration_number", "training_loss")
    assert right.get_xlabel() == "epoch"
    assert figure.get_suptitle() == "My title"
    assert left.get_lines()[0].get_xydata().tolist() == [[1, 0.9], [2, 0.8], [3, 0.7]]  # type: ignore[union-attr]


def test_stage_change_and_best_epoch_are_marked(epoch: Epoch) -> None:
    rows = [epoch(i) for i in range(6)]
    right = loss_figure([1], [1.0], rows, best_epoch=4).axes[1]
    legend = right.get_legend()
    assert legend is not None
    labels = [entry.get_text() for entry in legend.get_texts()]
    assert labels == ["training", "validation", "stage 1 begins", "best epoch: 4"]
    places = [list(line.get_xdata()) for line in right.get_lines()[2:]]
    assert places == [[2.5, 2.5], [4, 4]]


def test_a_curve_without_figures_is_not_drawn(tmp_path: Path, epoch: Epoch) -> None:
    train_vs_val_loss(tmp_path / "a.png", [epoch(i) for i in range(4)])
    assert amount(tmp_path / "a.png", VERMILION) > 100
    train_vs_val_loss(tmp_path / "a.png", [epoch(i, val_loss=None) for i in range(4)])
    assert amount(tmp_path / "a.png", VERMILION) == 0
    assert amount(tmp_path / "a.png", BLUE) > 100


def test_many_iterations_are_drawn_as_their_range(epoch: Epoch) -> None:
    losses: list[float | None] = [1.0 + (i % 2) for i in range(100_001)]
    losses[50_000] = 9.0
    left = loss_figure(range(len(losses)), losses, [epoch(0)]).axes[0]
    vertices = np.concatenate([path.vertices for path in left.collections[0].get_paths()])
    assert vertices[:, 1].max() == 9.0  # a peak of one step is not lost
    assert len(vertices) < 10_000


@given(
    st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), max_size=40),
    st.integers(1, 15),
)
@settings(deadline=None)
def test_running_mean_is_the_mean_of_what_is_known_nearby(values: list[float], reach: int) -> None:
    array = np.array(values, dtype=np.float64)
    half = reach // 2
    for i, mean in enumerate(running_mean(array, reach)):
        near = array[max(0, i - half) : i + half + 1]
        near = near[~np.isnan(near)]
        if near.size == 0:
            assert math.isnan(mean)
        else:
            assert mean == pytest.approx(near.mean(), rel=1e-6, abs=1e-4)


@pytest.mark.parametrize("count", [1, 4, 12, 100])
def test_score_pictures_at_any_number_of_attributes(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    confusion = rng.integers(0, 3000, (count, 4))
    confusion[0] = [5, 2, 0, 0]
    scores = [None, *rng.random(count - 1).tolist()]
    precision_recall(tmp_path / "a.png", names(count), scores, scores)
    per_class_confusion_matrices(tmp_path / "b.png", names(count), confusion)
    overall_confusion_matrix(tmp_path / "c.png", confusion)
    for name in "abc":
        height, width, _ = pixels(tmp_path / f"{name}.png").shape
        assert 180 <= height <= 4500
        assert 600 <= width <= 4500


def test_more_attributes_than_fit_are_cut_short_and_the_title_says_so(tmp_path: Path) -> None:
    count = MOST_ATTRIBUTES + 5
    assert limited("Title", names(count)) == (
        f"Title (the first {MOST_ATTRIBUTES} of {count} attributes)",
        names(count)[:MOST_ATTRIBUTES],
    )
    precision_recall(tmp_path / "a.png", names(count), [0.5] * count, [0.5] * count)
    assert pixels(tmp_path / "a.png").shape[0] < 2800


def test_bars_are_as_long_as_the_figures(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    precision_recall(path, ["x"], [0.9], [0.3])
    long, short = amount(path, BLUE), amount(path, ORANGE)
    precision_recall(path, ["x"], [None], [math.nan])
    legend = amount(path, BLUE)  # its patch alone: an undefined figure has no bar
    assert legend < 800
    assert long - legend == pytest.approx(3 * (short - legend), rel=0.02)


def test_bars_tell_how_sure_they_are(tmp_path: Path) -> None:
    path, entry = tmp_path / "a.png", {"name": "x", "known": 10, "positive": 4}
    precision_recall(path, ["x"], [0.9], [0.3], entries=[entry])
    blue, dark = amount(path, BLUE), (pixels(path) < 90).all(axis=2).sum()
    assert amount(path, VERMILION) == 0
    spans = {"precision": [0.7, 0.97], "recall": [0.1, 0.5]}
    precision_recall(path, ["x"], [0.9], [0.3], entries=[entry | {"intervals": spans}])
    assert (pixels(path) < 90).all(axis=2).sum() > dark + 100
    precision_recall(path, ["x"], [0.9], [0.3], entries=[entry | {"baselines": {"base_rate": 0.4}}])
    assert amount(path, VERMILION) > 20
    precision_recall(path, ["x"], [0.9], [0.3], entries=[entry | {"chance": {"distinguishable": False}}])
    assert amount(path, BLUE) < blue / 3  # pale and hatched


def test_a_hundred_attributes_are_drawn_soon(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    start = time.process_time()
    per_class_confusion_matrices(tmp_path / "a.png", names(100), rng.integers(0, 3000, (100, 4)))
    precision_recall(tmp_path / "b.png", names(100), rng.random(100).tolist(), rng.random(100).tolist())
    assert (
        time.process_time() - start < 6
    )  # 1.8 s of one core as measured; a layout engine takes many times that


def test_empty_rows_of_a_confusion_matrix_are_not_coloured(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    overall_confusion_matrix(path, [10, 0, 0, 0])
    gray, dark = amount(path, "#f0f0f0"), pixels(path)
    overall_confusion_matrix(path, [10, 0, 5, 5])
    assert gray > 50_000
    assert amount(path, "#f0f0f0") < 100
    assert (dark != pixels(path)).any()


def test_contact_sheet_shows_each_pixel(tmp_path: Path) -> None:
    red = np.full((200, 200, 3), (200, 10, 20), dtype=np.uint8)
    small = np.full((64, 32, 3), (10, 20, 200), dtype=np.uint8)
    captions = ["a[1].jpg: $x$, 日本語", "word " * 60, ""]
    contact_sheet(tmp_path / "a.png", [red, small, red], captions, columns=2)
    image = pixels(tmp_path / "a.png")
    assert (image == (200, 10, 20)).all(axis=2).sum() == 2 * 200 * 200
    assert (image == (10, 20, 200)).all(axis=2).sum() == 64 * 32
    contact_sheet(tmp_path / "a.png", [small], ["x"])
    assert (pixels(tmp_path / "a.png") == (10, 20, 200)).all(axis=2).sum() == 9 * 64 * 32


def test_contact_sheet_wants_a_caption_an_image(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 images, but 0 captions"):
        contact_sheet(tmp_path / "a.png", [np.zeros((4, 4, 3), np.uint8)], [])


def test_names_are_text_never_formulas() -> None:
    assert text("$x$") == r"\$x\$"
    assert text("a\nb\x1b") == "a\u25a1b\u25a1"
    assert text("Straße – é") == "Straße – é"
    assert text("abcdefghij", 5) == "ab…ij"
    assert len(text("a" * 60, 24)) == 24
    assert [short_count(n) for n in (0, 9999, 12_345, 999_499, 4_500_000)] == [
        "0", "9,999", "12.3k", "999k", "4.5M",
    ]  # fmt: skip


@given(st.text(max_size=30))
@settings(deadline=None, max_examples=12)
def test_any_name_can_be_drawn(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any_name.png"
    overall_confusion_matrix(path, [1, 2, 3, 4], title=name)
    assert path.stat().st_size > 1000


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="absent"):
        overall_confusion_matrix(tmp_path / "absent" / "a.png", [1, 2, 3, 4])


def test_reports_are_light() -> None:
    code = (
        "import sys, mlcls.reports.record, mlcls.reports.console_predictions, mlcls.reports.console_scores\n"
        "assert not {'matplotlib', 'numpy'} & set(sys.modules)\n"
        "import mlcls.reports.plots_training, mlcls.reports.plots_scores, mlcls.reports.contact_sheet\n"
        "import mlcls.reports.plots_curves, mlcls.reports.plots_forest, mlcls.reports.plots_labels\n"
        "import mlcls.reports.plots_reliability\n"
        "assert not {'torch', 'pandas', 'sklearn', 'matplotlib.pyplot'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
