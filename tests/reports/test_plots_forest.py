"""Figures with their intervals: dots in their order, undefined ones named, differences coloured by what they show."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mlcls.errors import OutputError
from mlcls.reports.picture import BLUE, GRAY, VERMILION
from mlcls.reports.plots_forest import (
    attribute_figures,
    attribute_figures_figure,
    comparison,
    comparison_figure,
)


def evaluation(aurocs: list[float | None], **of_each: Any) -> dict[str, Any]:
    rows = [
        {"name": f"attribute_{i}", "auroc": value, "average_precision": value, "known": 10, "positive": 4}
        | of_each
        for i, value in enumerate(aurocs)
    ]
    return {"attributes": rows, "macro": {"auroc": 0.7, "average_precision": 0.6}}


def texts(figure: Figure) -> list[str]:
    return [one.get_text() for one in figure.axes[0].texts]


def dots(figure: Figure) -> list[PathCollection]:
    return [group for group in figure.axes[0].collections if isinstance(group, PathCollection)]


def places(group: PathCollection) -> Any:
    return np.asarray(group.get_offsets())


def test_the_best_stands_on_top_and_the_undefined_last() -> None:
    figure = attribute_figures_figure(evaluation([0.6, None, 0.9, 0.5]))
    named = [one for one in figure.axes[0].texts if "attribute" in one.get_text() and one.get_ha() == "right"]
    by_height = [one.get_text() for one in sorted(named, key=lambda one: float(one.get_position()[1]))]
    assert by_height == ["attribute_2", "attribute_0", "attribute_3", "attribute_1", "mean over attributes"]
    assert texts(figure).count("undefined") == 2
    _, auroc = dots(figure)
    assert len(places(auroc)) == 4
    x = places(auroc)[:, 0]
    assert (x[0] - x[1]) / (x[1] - x[2]) == pytest.approx(3)


def test_one_attribute_needs_no_mean() -> None:
    assert "mean over attributes" not in texts(attribute_figures_figure(evaluation([0.6])))


def test_intervals_are_written_and_drawn() -> None:
    entry = evaluation([0.6, 0.8], intervals={"auroc": [0.4, 0.7], "average_precision": None})
    entry["intervals"] = {"macro": {"auroc": [0.65, 0.75]}}
    told = texts(attribute_figures_figure(entry))
    assert {"0.60 [0.40, 0.70]", "0.80", "0.70 [0.65, 0.75]"} <= set(told)


def test_attributes_like_chance_are_hollow() -> None:
    entry = evaluation([0.6, 0.8], chance={"distinguishable": True})
    entry["attributes"][0]["chance"] = {"distinguishable": False}
    figure = attribute_figures_figure(entry)
    faces = [to_hex(colour) for colour in np.asarray(dots(figure)[1].get_facecolor())]
    assert faces == [BLUE.lower(), "#ffffff", BLUE.lower()]


@pytest.mark.parametrize("count", [2, 40, 200])
def test_any_number_of_attributes(tmp_path: Path, count: int) -> None:
    attribute_figures(tmp_path / "a.png", evaluation([None, *np.linspace(0.4, 1, count - 1).tolist()]))
    rows = [{"name": f"n{i}", "difference": i / 999, "interval": None, "changed": None} for i in range(count)]
    comparison(tmp_path / "b.png", rows, title="日本語 " * 30)
    assert (tmp_path / "a.png").stat().st_size > 5000
    assert (tmp_path / "b.png").stat().st_size > 5000


def test_differences_are_coloured_by_what_they_show() -> None:
    figure = comparison_figure(
        [
            {"name": "F1", "difference": 0.05, "interval": [0.02, 0.08], "changed": True},
            {"name": "AP", "difference": -0.05, "interval": [-0.07, -0.02], "changed": True},
            {"name": "AUROC", "difference": 0.01, "interval": [-0.01, 0.03], "changed": False},
            {"name": "recall", "difference": None, "interval": None, "changed": None},
        ]
    )
    better, worse, chance = dots(figure)
    for group, colour in ((better, BLUE), (worse, VERMILION), (chance, GRAY)):
        assert len(places(group)) == 1
        assert to_hex(np.asarray(group.get_edgecolor())[0]) == colour.lower()
    assert to_hex(np.asarray(chance.get_facecolor())[0]) == "#ffffff"
    middle = (places(better)[0, 0] + places(worse)[0, 0]) / 2  # no difference
    assert places(chance)[0, 0] - middle == pytest.approx((places(better)[0, 0] - middle) / 5)
    assert {"+0.050 [+0.020, +0.080]", "-0.050 [-0.070, -0.020]", "undefined", "0"} <= set(texts(figure))


def test_no_differences_at_all() -> None:
    undefined = {"name": "F1", "difference": None, "interval": None, "changed": None}
    assert "undefined" in texts(comparison_figure([undefined]))
    same = {"name": "F1", "difference": 0.0, "interval": [0.0, 0.0], "changed": False}
    assert "+0.000 [+0.000, +0.000]" in texts(comparison_figure([same]))


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="absent"):
        attribute_figures(tmp_path / "absent" / "a.png", evaluation([0.5]))
    with pytest.raises(OutputError, match="absent"):
        comparison(tmp_path / "absent" / "a.png", [])
