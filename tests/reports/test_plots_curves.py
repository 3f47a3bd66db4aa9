"""Pictures of curves: every attribute's line is where its points are, undefined ones are named."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mlcls.errors import OutputError
from mlcls.reports.picture import BLUE, GRAY, GREEN, INK, ORANGE, VERMILION
from mlcls.reports.plots_curves import (
    precision_recall_curves,
    precision_recall_figure,
    roc_curves,
    roc_figure,
    threshold_curves,
    threshold_figure,
)
from mlcls.reports.plots_reliability import reliability, reliability_figure

LINE = np.linspace(0, 1, 30)


def entry(name: str = "hat", **other: Any) -> dict[str, Any]:
    return {"name": name, "known": 100, "positive": 30, "average_precision": 0.8, "auroc": 0.9} | other


def entries(count: int) -> list[dict[str, Any]]:
    made = [entry(f"attribute_{i}", chance={"distinguishable": i % 3 > 0}) for i in range(count)]
    made[0] |= {"positive": 0, "average_precision": None, "auroc": None, "intervals": {"auroc": None}}
    return made


def shown(figure: Figure) -> list[str]:
    return [one.get_text() for one in figure.axes[0].texts]


def lines(figure: Figure, colour: str) -> list[NDArray[np.float64]]:
    """The lines of this colour, in coordinates of the tile that they lie in, each once."""
    found = []
    for group in figure.axes[0].collections:
        if isinstance(group, LineCollection):
            colours = list(group.get_colors())
            parts = [path.vertices for path in group.get_paths()]
            colours = colours * len(parts) if len(colours) == 1 else colours
            found += [
                in_tile(figure, p) for p, c in zip(parts, colours, strict=True) if tuple(c) == to_rgba(colour)
            ]
    return found


def in_tile(figure: Figure, places: Any) -> NDArray[np.float64]:
    """Places on the sheet as points of the unit square of the tile around them."""
    frames = next(group for group in figure.axes[0].collections if isinstance(group, PolyCollection))
    for frame in frames.get_paths():
        low, high = frame.vertices.min(axis=0), frame.vertices.max(axis=0)  # type: ignore[union-attr]
        if (places >= low - 1e-9).all() and (places <= high + 1e-9).all():
            unit = (places - low) / (high - low)
            return np.round(np.column_stack((unit[:, 0], 1 - unit[:, 1])), 9)
    raise AssertionError("outside of every tile")


@pytest.mark.parametrize("count", [1, 4, 17, 101])
def test_curves_of_any_number_of_attributes(tmp_path: Path, count: int) -> None:
    rows = entries(count)
    curves = [None, *[(LINE, 1 - LINE)] * (count - 1)]
    precision_recall_curves(tmp_path / "a.png", curves, rows)
    roc_curves(tmp_path / "b.png", curves, rows)
    thresholds = [{"name": row["name"], "threshold": 0.5, "interval": [0.4, 0.6]} for row in rows]
    threshold_curves(tmp_path / "c.png", [line and (LINE, *[LINE] * 3) for line in curves], thresholds)
    bins = [line and (LINE, LINE, LINE * 9 + 1) for line in curves]
    reliability(tmp_path / "d.png", [row["name"] for row in rows], bins, bins, pooled=(bins[-1], bins[-1]))
    for figure in "abcd":
        assert (tmp_path / f"{figure}.png").stat().st_size > 5000


@pytest.mark.parametrize("step", [1, -1])
def test_precision_holds_up_to_its_recall(step: int) -> None:
    recall, precision = [0.0, 0.5, 0.5, 1.0], [1.0, 0.8, 0.4, 0.3]
    figure = precision_recall_figure([(recall[::step], precision[::step])], [entry()])
    (steps,) = lines(figure, BLUE)
    area = (np.diff(steps[:, 0]) * steps[1:, 1]).sum()
    assert area == pytest.approx(0.5 * 0.8 + 0.5 * 0.3)  # the average precision of these points
    (base,) = lines(figure, VERMILION)
    assert base.tolist() == [[0, 0.3], [1, 0.3]]


def test_a_roc_curve_is_where_its_points_are() -> None:
    points = [[0, 0], [0.25, 0.75], [1, 1]]
    figure = roc_figure([np.array(points).T], [entry(intervals={"auroc": [0.85, 0.95]})])  # type: ignore[list-item]
    assert lines(figure, BLUE)[0].tolist() == points
    assert lines(figure, VERMILION)[0].tolist() == [[0, 0], [1, 1]]
    assert "AUROC 0.90 [0.85, 0.95]" in shown(figure)


@pytest.mark.parametrize(
    ("known", "positive", "why"), [(9, 0, "never present"), (9, 9, "never absent"), (0, 0, "nothing known")]
)
def test_an_undefined_attribute_is_named_and_has_no_curve(known: int, positive: int, why: str) -> None:
    undefined = entry(known=known, positive=positive, auroc=None, average_precision=None)
    empty: Sequence[Any] = ([], [])
    for curve in (None, empty, ([np.nan], [0.5])):
        for draw, short in ((roc_figure, "AUROC"), (precision_recall_figure, "AP")):
            figure = draw([curve], [undefined])
            assert {f"{short} undefined", f"undefined:\n{why}"} <= set(shown(figure))
            assert not lines(figure, BLUE)


def test_what_is_not_distinguishable_from_chance_is_gray() -> None:
    rows = [entry("a", chance={"distinguishable": False}), entry("b", chance={"distinguishable": None})]
    figure = roc_figure([(LINE, LINE), (LINE, LINE)], rows)
    assert len(lines(figure, GRAY)) == len(lines(figure, BLUE)) == 1
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert "not distinguishable from chance" in [one.get_text() for one in legend.get_texts()]


def test_a_threshold_stands_in_its_interval() -> None:
    curve = (LINE, LINE, 1 - LINE, np.full(30, 0.5))
    rows = [{"name": "hat", "threshold": 0.4, "interval": (0.25, 1.5)}, {"name": "hat", "threshold": 0.7}]
    figure = threshold_figure([curve, curve], rows)
    assert [line.tolist() for line in lines(figure, INK)] == [[[0.4, 0], [0.4, 1]], [[0.7, 0], [0.7, 1]]]
    assert {"threshold 0.40 [0.25, 1.50]", "threshold 0.70"} <= set(shown(figure))
    bands = [group for group in figure.axes[0].collections if isinstance(group, PolyCollection)][
        1
    ].get_paths()
    assert len(bands) == 1
    assert in_tile(figure, bands[0].vertices)[:, 0].min() == 0.25
    assert in_tile(figure, bands[0].vertices)[:, 0].max() == 1
    for colour, part in ((VERMILION, LINE), (GREEN, 1 - LINE), (BLUE, np.full(30, 0.5))):
        assert np.allclose(lines(figure, colour)[0][:, 1], np.repeat(part, 2))


def test_figures_hold_from_score_to_score() -> None:
    scores = np.array([0.1, 0.3, 0.35, 0.5])  # the highest two are present, so precision ends at 1
    thresholds = (np.append(0, scores) + np.append(scores, 1)) / 2
    precision = np.array([0.5, 2 / 3, 1, 1, 0])
    recall = np.array([1, 1, 1, 0.5, 0])
    figure = threshold_figure(
        [(thresholds, precision, recall, recall)], [{"name": "hat", "threshold": thresholds[3]}]
    )
    ends = np.array([0, 0.1, 0.1, 0.3, 0.3, 0.35, 0.35, 0.5, 0.5, 1])
    (drawn,) = lines(figure, GREEN)
    assert np.allclose(drawn, np.column_stack((ends, np.repeat(recall, 2))))
    (drawn,) = lines(figure, VERMILION)
    # nothing is predicted above 0.5, so there is no precision, and no fall to 0
    assert np.allclose(drawn, np.column_stack((ends[:-2], np.repeat(precision[:-1], 2))))


def test_of_thinned_thresholds_the_last_step_ends_at_the_highest_score() -> None:
    thresholds, recall = np.array([0.1, 0.4, 0.45, 0.75]), np.array([1, 0.9, 0.5, 0])
    curve = (thresholds, np.array([0.3, 0.5, 1, 0]), recall, recall)
    figure = threshold_figure([curve], [{"name": "hat", "threshold": 0.45}])
    (drawn,) = lines(figure, VERMILION)
    assert np.allclose(drawn[:, 0], [0, 0.25, 0.25, 0.425, 0.425, 0.5])
    assert drawn[-1].tolist() == [0.5, 1]


def test_a_bin_is_a_dot_as_large_as_it_counts() -> None:
    bins = ([0.2, 0.5, 0.9], [0.0, 1.0, 0.5], [10, 0, 30])
    figure = reliability_figure(["hat"], [bins], None)
    assert lines(figure, ORANGE)[0].tolist() == [[0.2, 0], [0.9, 0.5]]
    assert not lines(figure, BLUE)
    (dots,) = [group for group in figure.axes[0].collections if isinstance(group, PathCollection)]
    small, large = dots.get_sizes() - 4
    assert large == pytest.approx(3 * small)


def test_calibration_figures_stand_above_their_tiles() -> None:
    bins = ([0.2, 0.9], [0.0, 1.0], [10, 10])
    before = {"ece": 0.2, "brier": 0.25, "attributes": [{"name": "hat", "ece": 0.1, "brier": None}]}
    after = {"ece": 0.05, "brier": 0.2, "attributes": [{"name": "hat", "ece": 0.03, "brier": 0.2}]}
    figure = reliability_figure(
        ["hat"], [bins], [bins], pooled=(bins, bins), figures_before=before, figures_after=after
    )
    told = shown(figure)
    assert told.index("all attributes together") < told.index("hat")
    assert {"mean ECE .200 → .050 · mean Brier .250 → .200", "ECE .100 → .030 · Brier .200"} <= set(told)
    alone = reliability_figure(["hat", "cap"], [None, bins], None, figures_before=before)
    assert "ECE .100" in shown(alone)
    assert "undefined" in shown(alone)


@pytest.mark.parametrize("draw", [precision_recall_curves, roc_curves, threshold_curves])
def test_a_curve_that_cannot_be_written_is_told(tmp_path: Path, draw: Any) -> None:
    with pytest.raises(OutputError, match="absent"):
        draw(tmp_path / "absent" / "a.png", [None], [{"name": "hat", "threshold": 0.5}])
    with pytest.raises(OutputError, match="absent"):
        reliability(tmp_path / "absent" / "a.png", ["hat"], [None])
