"""The picture of a range test is drawn for any curve: usual, empty, diverged, of many stages, under any name."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mlcls.errors import OutputError
from mlcls.reports.plots_lr import LrPanel, lr_range_picture

RATES = np.geomspace(1e-6, 1.0, 60)


def panel(title: str = "head", *, points: int = 60, steepest: float | None = 1e-3) -> LrPanel:
    losses = 0.7 - 0.2 / (1 + np.exp(-5 * (np.log10(RATES) + 3)))
    losses[50:] = 1e9  # diverged
    return LrPanel(title, RATES[:points], losses[:points], losses[:points], steepest, steepest, 2e-3)


def drawn(path: Path) -> tuple[int, int]:
    picture = cv2.imread(str(path))
    assert picture.std() > 5
    return picture.shape[:2]


def test_one_panel_a_stage_three_in_a_row(tmp_path: Path) -> None:
    sizes = []
    for number in (1, 2, 3, 4):
        path = tmp_path / f"{number}.png"
        lr_range_picture(path, [panel(f"stage {i}") for i in range(number)])
        sizes.append(drawn(path))
    (high, wide), second, third, fourth = sizes
    assert [second, third, fourth] == [(high, 2 * wide), (high, 3 * wide), (2 * high, 3 * wide)]


def test_a_suggestion_changes_the_picture(tmp_path: Path) -> None:
    for name, steepest in (("with", 1e-3), ("without", None)):
        lr_range_picture(tmp_path / f"{name}.png", [panel(steepest=steepest)])
    green = np.array([0x73, 0x9E, 0x00])  # as OpenCV orders it
    found = [
        (cv2.imread(str(tmp_path / f"{name}.png")) == green).all(axis=2).sum() for name in ("with", "without")
    ]
    assert found[0] > 100
    assert found[1] == 0


@pytest.mark.parametrize("points", [0, 1, 2])
def test_few_points_and_odd_names(tmp_path: Path, points: int) -> None:
    lr_range_picture(
        tmp_path / "a.png", [panel("head + $a_b$ 漢字 " + 80 * "x", points=points, steepest=None)]
    )
    drawn(tmp_path / "a.png")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        lr_range_picture(tmp_path / "nowhere" / "a.png", [panel()])
