"""From a folder with copies in it: one photo stays in one subset, leaks of a given split are named, all is recorded."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from toy_data import TINY, write_toy

from mlcls.errors import RecipeError
from mlcls.recipe import Recipe
from mlcls.workflows.data import LabelledImages, gather, gather_unsplit

CELLS = "1 0 1"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """The toy data, and of one photo three files: 900.png, its JPEG 901.jpg, and 902.png, which is byte-identical."""
    table = write_toy(tmp_path / "t", 30)
    rng = np.random.default_rng(0)
    pixels = cv2.resize(rng.random((6, 8, 3)) * 255, (320, 240), interpolation=cv2.INTER_CUBIC)
    photo = np.clip(pixels, 0, 255).astype(np.uint8)
    for name in ("900.png", "901.jpg", "902.png"):
        cv2.imwrite(str(tmp_path / "t/images" / name), photo)
    rows = "".join(
        f"{name} {cells}\n"
        for name, cells in zip(("900.png", "901.jpg", "902.png"), (CELLS, "0 0 NA", CELLS), strict=True)
    )
    table.write_text(table.read_text() + rows)
    return table


def gathered(table: Path, **settings: object) -> LabelledImages:
    return gather(Recipe(labels=str(table), **settings), Console(quiet=True), preprocessing=None)  # type: ignore[arg-type]


def names_by_group(data: LabelledImages) -> list[list[str]]:
    ids = data.groups
    groups = [[str(name) for name in data.table.images[ids == number]] for number in np.unique(ids)]
    return [group for group in groups if len(group) > 1]


@pytest.mark.parametrize("seed", range(4))
def test_one_photo_stays_in_one_subset_and_its_labels_are_compared(table: Path, seed: int) -> None:
    data = gathered(table, seed=seed)
    facts = data.facts
    assert facts.duplicates == (("900.png", "902.png"),)
    assert facts.near_duplicates == (("900.png", "901.jpg", "902.png"),)
    assert facts.conflicts == ()
    assert facts.near_conflicts == facts.near_duplicates
    (found,) = facts.contradictions
    assert (found.attribute, found.near) == ("red", True)
    assert (found.present, found.absent) == (("900.png", "902.png"), ("901.jpg",))
    assert facts.leaks == ()
    assert names_by_group(data) == [["900.png", "901.jpg", "902.png"]]
    subset = {name: s for s in ("train", "val", "test") for name in data.names(getattr(data.split, s))}
    assert len({subset[name] for name in facts.near_duplicates[0]}) == 1


def test_a_given_split_that_parts_them_leaks(table: Path, tmp_path: Path) -> None:
    lines = [line.split()[0] for line in table.read_text().splitlines()[1:]]
    place = {"900.png": "train", "901.jpg": "test", "902.png": "train"}
    rows = [f"{name},{place.get(name, ('train', 'val', 'test')[i % 3])}" for i, name in enumerate(lines)]
    (tmp_path / "split.csv").write_text("image,subset\n" + "\n".join(rows) + "\n")
    data = gathered(table, split=f"file:{tmp_path / 'split.csv'}")
    assert data.facts.leaks == (("900.png", "901.jpg", "902.png"),)
    assert any("in more than one subset of the given split" in note for note in data.facts.notes)
    assert gathered(table, split=f"file:{tmp_path / 'split.csv'}", near_duplicates="ignore").facts.leaks == ()


def test_a_film_stays_in_one_subset_though_its_ends_are_not_alike(table: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    wide = cv2.resize(rng.random((8, 20, 3)) * 255, (800, 240), interpolation=cv2.INTER_CUBIC)
    frames = [f"film_{step:02d}.png" for step in range(30)]
    for step, name in enumerate(frames):
        frame = np.clip(wide[:, 3 * step : 3 * step + 320], 0, 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "t/images" / name), frame)
    # the label turns in the middle: there two frames that are copies contradict each other
    cells = [f"{name} {int(step < 15)} 0 1" for step, name in enumerate(frames)]
    table.write_text(table.read_text() + "\n".join(cells) + "\n")
    data = gathered(table)
    assert len([group for group in data.facts.near_duplicates if group[0].startswith("film")]) > 1
    assert frames in names_by_group(data)
    conflicts = [set(group) for group in data.facts.near_conflicts]
    assert any({frames[14], frames[15]} <= group for group in conflicts)
    (tmp_path / "split.csv").write_text(
        "image,subset\n"
        + "".join(
            f"{name},{'test' if name in frames[15:] else 'val' if index % 3 else 'train'}\n"
            for index, name in enumerate(data.table.images)
            if not name.startswith("90")
        )
    )
    table.write_text("".join(line + "\n" for line in table.read_text().splitlines() if line[:2] != "90"))
    leaks = gathered(table, split=f"file:{tmp_path / 'split.csv'}").facts.leaks
    assert leaks == (tuple(frames),)


def test_near_identical_images_can_be_ignored(table: Path) -> None:
    data = gathered(table, near_duplicates="ignore")
    assert data.facts.near_duplicates == data.facts.near_conflicts == data.facts.contradictions == ()
    assert data.facts.duplicates == (("900.png", "902.png"),)
    assert names_by_group(data) == [["900.png", "902.png"]]
    with pytest.raises(RecipeError, match="--near-duplicates: expected together or ignore"):
        Recipe(near_duplicates="both")


def test_rows_of_one_group_column_value_and_of_one_photo_are_one_group(table: Path) -> None:
    lines = table.read_text().splitlines()
    who = {"img_003.png": "p", "901.jpg": "p"}
    rows = [f"{line} {who.get(line.split()[0], f'q{i}')}" for i, line in enumerate(lines[1:])]
    table.write_text("\n".join([lines[0] + " who", *rows]) + "\n")
    data = gathered(table, group_column="who")
    assert names_by_group(data) == [["img_003.png", "900.png", "901.jpg", "902.png"]]


def test_images_of_few_persons_are_no_evidence_of_a_copy(table: Path) -> None:
    lines = table.read_text().splitlines()
    rows = [f"{line} {line.split()[1]} p{i % 4 if i < 30 else 0}" for i, line in enumerate(lines[1:])]
    table.write_text("\n".join([lines[0] + " crimson who", *rows]) + "\n")
    recipes = [
        Recipe(labels=str(table), group_column=column, attributes=("red", "crimson"))
        for column in (None, "who")
    ]
    console = Console(quiet=True)
    for read in (gather, partial(gather_unsplit, check=lambda table: None)):
        alone, grouped = (read(recipe, console, preprocessing=None).facts.health for recipe in recipes)
        assert any(sentence.startswith("crimson says the same as red") for sentence in alone)
        assert not any(sentence.startswith("crimson") for sentence in grouped)


def test_health_reaches_the_record_the_console_and_inspect(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlcls import inspect, train

    lines = table.read_text().splitlines()
    rows = [f"{line} {line.split()[1]} 0" for line in lines[1:]]
    table.write_text("\n".join([lines[0] + " crimson never", *rows]) + "\n")
    assert inspect.main(["--labels", str(table)]) == 0
    shown = capsys.readouterr().out
    out = tmp_path / "o"
    flags = [*TINY, "--epochs", "1", "--unfreeze", "none", "--augment", "none"]
    assert train.main(["--labels", str(table), "--out", str(out), *flags]) == 0
    trained = capsys.readouterr().err
    data = json.loads((out / "metrics.json").read_text())["data"]
    assert data["health"][0] == "never: absent wherever known, so there is nothing to learn"
    assert data["health"][1].startswith("crimson says the same as red in all ")
    assert data["near_duplicates"] == [["900.png", "901.jpg", "902.png"]]
    for sentence in (*data["health"], "red, crimson: 900.png ~ 902.png yes, 901.jpg no"):
        assert sentence in shown
        assert sentence in trained


def test_neither_mlcls_nor_prediction_loads_the_hash_library() -> None:
    code = (
        "import sys, mlcls, mlcls.bundle.predictor, mlcls.workflows.prediction, mlcls.images.dataset; "
        "assert 'imagehash' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
