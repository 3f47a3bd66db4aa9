"""The built-in scenes: an ordinary folder, true labels, no scan in two subsets, written whole or not at all."""

import csv
import inspect
import os
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from mlcls.errors import OutputError
from mlcls.labels.demo import ATTRIBUTES, DEMOS, NEAREST, SCENES, SIDE, arrange, divide_scans, write_digits

FEW = {"train": 120, "val": 40, "test": 40}
Rows = list[dict[str, str]]


def read_rows(table: Path) -> Rows:
    with open(table, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("demo") / "digits", scenes=FEW)


def contents(table: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(table.parent)): file.read_bytes()
        for file in table.parent.rglob("*")
        if file.is_file()
    }


def test_it_is_an_ordinary_folder_and_table(table: Path) -> None:
    rows = read_rows(table)
    assert list(rows[0]) == ["image", *ATTRIBUTES, "subset"]
    assert len(ATTRIBUTES) == 12
    assert Counter(row["subset"] for row in rows) == FEW
    assert sorted(row["image"] for row in rows) == sorted(
        path.name for path in (table.parent / "images").iterdir()
    )
    cells = Counter(row[name] for row in rows for name in ATTRIBUTES)
    assert set(cells) == {"0", "1", "NA"}
    assert cells["NA"] / cells.total() == pytest.approx(0.1, abs=0.02)
    for name in ATTRIBUTES:
        present = Counter(row[name] for row in rows)
        assert present["1"] / (present["0"] + present["1"]) == pytest.approx(0.25, abs=0.2)


def test_images_are_colour_png_of_the_scene_size_and_no_two_are_equal(table: Path) -> None:
    seen = set()
    for row in read_rows(table):
        data = (table.parent / "images" / row["image"]).read_bytes()
        assert data.startswith(b"\x89PNG")
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert pixels.shape == (SIDE, SIDE, 3)
        assert pixels.dtype == np.uint8
        assert pixels.std() > 3
        seen.add(data)
    assert len(seen) == sum(FEW.values())


def test_no_digit_is_cut_by_the_edge(table: Path) -> None:
    """Along the edge there is background alone, a straight ramp: its second difference is rounding."""
    for path in (table.parent / "images").iterdir():
        pixels = cv2.imread(str(path)).astype(int)
        for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
            assert np.abs(np.diff(edge, n=2, axis=0)).max() <= 2


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_no_digit_lies_upon_another(count: int) -> None:
    for seed in range(30):
        x, y, sides, _ = arrange(count, np.random.default_rng(seed)).T
        assert len(sides) == count
        for one, other in combinations(range(count), 2):
            distance = max(abs(x[one] - x[other]), abs(y[one] - y[other]))
            assert distance >= NEAREST * (sides[one] + sides[other]) / 2
        assert sides.min() >= 10


def test_labels_of_the_whole_scene_agree_with_the_digits_shown(table: Path) -> None:
    checked = 0
    for row in read_rows(table):
        if "NA" in row.values():
            continue
        kinds = [digit for digit in range(10) if row[f"has_{digit}"] == "1"]
        assert 1 <= len(kinds) <= 4
        if row["two_or_more_equal"] == "0":
            assert row["sum_over_15"] == str(int(sum(kinds) > 15))
            checked += 1
        elif sum(kinds) > 15:
            assert row["sum_over_15"] == "1"
    assert checked >= 20


def test_each_scan_belongs_to_one_subset() -> None:
    parts = divide_scans(np.random.default_rng(0))
    ours = Counter(scan.tobytes() for part in parts.values() for digit in part.of_digit for scan in digit)
    assert ours == Counter((image / 16).astype(np.float32).tobytes() for image in load_digits().images)
    counts = {subset: sum(len(digit) for digit in part.of_digit) for subset, part in parts.items()}
    assert counts["train"] == pytest.approx(0.7 * 1797, abs=10)
    assert all(len(digit) >= 20 for part in parts.values() for digit in part.of_digit)


def test_a_seed_gives_the_same_bytes_and_another_gives_others(table: Path, tmp_path: Path) -> None:
    assert contents(write_digits(tmp_path / "again", scenes=FEW)) == contents(table)
    other = contents(write_digits(tmp_path / "other", seed=1, scenes=FEW))
    assert other["images/00000.png"] != contents(table)["images/00000.png"]


def test_it_is_written_once_below_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLCLS_CACHE", str(tmp_path / "deep" / "cache"))
    few = {"train": 2, "val": 1, "test": 1}
    table = write_digits(scenes=few)
    assert table.is_relative_to(tmp_path / "deep" / "cache")
    table.write_text("as it was left", encoding="utf-8")
    assert write_digits(scenes=few) == table
    assert table.read_text(encoding="utf-8") == "as it was left"
    assert write_digits(seed=1, scenes=few) != table
    assert [path.name for path in table.parent.parent.iterdir() if path.name.startswith(".")] == []


def test_nothing_is_left_of_a_writing_that_fails(tmp_path: Path) -> None:
    target = tmp_path / "digits"
    with pytest.raises(TypeError):  # after the scenes of train and val are written
        write_digits(target, scenes={"train": 3, "val": 1, "test": None})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"has files but no labels\.csv"):
        write_digits(tmp_path, scenes=FEW)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    file = tmp_path / "notes.txt"
    with pytest.raises(OutputError, match=r"cannot write the built-in data .*MLCLS_CACHE"):
        write_digits(file / "digits", scenes=FEW)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert len(read_rows(write_digits(tmp_path / "empty", scenes={"train": 1, "val": 1, "test": 1}))) == 3


def test_two_at_once_end_with_one_whole_folder(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from mlcls.labels.demo import write_digits; sys.stdin.read(1); "
        "print(write_digits(pathlib.Path(sys.argv[1]), scenes={'train': 40, 'val': 5, 'test': 5}))"
    )
    target = tmp_path / "digits"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [run.communicate("g")[0].strip() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert outputs == [str(target / "labels.csv")] * 2
    assert os.listdir(tmp_path) == ["digits"]
    assert len(read_rows(target / "labels.csv")) == 50


def test_each_demo_is_called_without_arguments() -> None:
    assert DEMOS["digits"] is write_digits
    for write in DEMOS.values():
        inspect.signature(write).bind()
    assert set(SCENES) == {"train", "val", "test"}
