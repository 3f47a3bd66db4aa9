"""A run that was ended goes on to the same bytes; with other data or another recipe it does not."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from toy_data import TINY, write_toy

from mlcls import Predictor, evaluate, fit, predict, train
from mlcls.errors import BundleError, Interrupted
from mlcls.learning import epochs as learning_epochs
from mlcls.learning.checkpoint import read_checkpoint
from mlcls.recipe import Recipe, build_recipe, recipe_values
from mlcls.workflows import validating
from mlcls.workflows.identity import check_recipe

# which arithmetic is faster is measured, and told: two runs on a busy machine may find different things
FLAGS = [
    *TINY,
    "--precision",
    "fp32",
    "--epochs",
    "4",
    "--unfreeze-epoch",
    "2",
    "--batch-size",
    "8",
    "--resamples",
    "20",
]
SAME = ("weights.safetensors", "thresholds.json", "iterations.csv", "split.csv", "model.onnx")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlcls.workflows.finishing._draw", lambda *arguments: "")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_toy(tmp_path, images=48)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*flags: str, out: str = "out") -> int:
    return train.main(["--labels", "labels.txt", *FLAGS, "--out", out, *flags])


def go_on(*flags: str, out: str = "out") -> int:
    return train.main(["--out", out, "--resume", *flags])


def result(folder: str) -> dict[str, object]:
    """All that a run leaves, but for how long it took and what it was called."""
    found: dict[str, object] = {name: Path(folder, name).read_bytes() for name in SAME}
    found.update({path.name: path.read_bytes() for path in Path(folder).glob("predictions-*.csv")})
    metrics = json.loads(Path(folder, "metrics.json").read_text())
    for row in (metrics, *metrics["epochs"]):
        row.pop("seconds")
        row.pop("images_per_second", None)
    metrics.pop("command")
    return {**found, "metrics.json": metrics}


def interrupt_at(
    monkeypatch: pytest.MonkeyPatch, *steps: int, number: int = signal.SIGINT, in_validation: bool = False
) -> None:
    """A signal before the steps (or before the validations) of these numbers, counted over all runs from 1."""
    module, name = (validating, "predict") if in_validation else (learning_epochs, "take_step")
    original: Callable[..., object] = getattr(module, name)
    count = 0

    def counted(*arguments: object, **more: object) -> object:
        nonlocal count
        count += 1
        if count in steps:
            os.kill(os.getpid(), number)
        return original(*arguments, **more)

    monkeypatch.setattr(module, name, counted)


@pytest.mark.parametrize("more", [(), ("--views", "0", "--accumulate", "2", "--schedule", "plateau")])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    more: tuple[str, ...],
    number: int,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(*more, out="whole") == 0
    interrupt_at(monkeypatch, 1, 5, 9, 10, number=number)
    assert run(*more) == 130
    assert "python -m mlcls.train --out out --resume" in capsys.readouterr().err
    assert os.listdir("out") == ["checkpoint"]
    times = 1
    while go_on() == 130:
        times += 1
    told = capsys.readouterr().err
    assert times == 4
    assert "resumed at epoch 0, step 1" in told
    assert "checkpoint" not in os.listdir("out")
    assert result("out") == result("whole")


def test_interrupted_in_validation_the_epoch_is_not_trained_again(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(out="whole") == 0
    interrupt_at(monkeypatch, 2, in_validation=True)
    assert run() == 130
    state = read_checkpoint(here / "out" / "checkpoint")
    assert state is not None
    assert state.state["position"]["epoch"] == 1
    assert not state.state["position"]["ended"]
    steps = len(state.tensors("step")["losses"])
    assert go_on() == 0
    assert f"resumed at epoch 1, step {steps}" in capsys.readouterr().err
    assert result("out") == result("whole")


def test_a_loader_that_is_killed_costs_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--views", "0", "--workers", "2")
    assert run(*flags, out="whole") == 0
    original = learning_epochs.take_step
    count = 0

    def counted(*arguments: object, **more: object) -> object:
        nonlocal count
        count += 1
        if count == 9:
            for child in multiprocessing.active_children():
                child.kill()
        return original(*arguments, **more)

    monkeypatch.setattr(learning_epochs, "take_step", counted)
    code = run(*flags)
    if code == 3:
        assert "--resume" in capsys.readouterr().err
        code = go_on()
    assert code == 0
    assert count > 9
    assert result("out") == result("whole")


def test_what_the_frozen_part_computed_is_kept_where_it_took_long(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(out="whole") == 0
    interrupt_at(monkeypatch, 6, 11)
    assert run() == 130
    assert not list(Path("out/checkpoint").glob("*.rows"))  # soon computed: not worth the disk
    assert go_on("--checkpoint-minutes", "1e-6") == 130
    files = sorted(Path("out/checkpoint").glob("train0-*.rows"))
    assert files
    files[0].write_bytes(files[0].read_bytes()[:-1])
    capsys.readouterr()
    assert go_on() == 0
    assert f"damaged, and computed again: {files[0].name}" in " ".join(capsys.readouterr().err.split())
    again, whole = result("out"), result("whole")
    again["metrics.json"]["recipe"].pop("checkpoint_minutes")  # type: ignore[index]
    whole["metrics.json"]["recipe"].pop("checkpoint_minutes")  # type: ignore[index]
    assert again == whole


def test_other_workers_and_memory_may_be_used_and_nothing_else(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(out="whole") == 0
    interrupt_at(monkeypatch, 6)
    assert run() == 130
    assert go_on("--lr-head", "0.1", "--batch-size", "8", "--epochs", "5") == 2
    told = capsys.readouterr().err
    assert "--lr-head: 0.002 then, 0.1 now" in told
    assert "--epochs: 4 then, 5 now" in told
    assert "--batch-size" not in told
    assert go_on("--recipe", "two-stage") == 2
    assert "--backbone" in capsys.readouterr().err
    assert go_on("--workers", "2", "--cache-gb", "0") == 0
    again, whole = result("out"), result("whole")
    for settings in (again["metrics.json"]["recipe"], whole["metrics.json"]["recipe"]):  # type: ignore[index]
        settings.pop("workers")
        settings.pop("cache_gb")
    assert again == whole


def test_a_run_that_a_version_with_fewer_settings_began_is_refused_as_that() -> None:
    before = recipe_values(Recipe())
    del before["mixup"]
    with pytest.raises(BundleError, match=r"another version of mlcls, which had no --mixup;"):
        check_recipe(before, Recipe())


def test_other_data_are_refused_by_name(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt_at(monkeypatch, 6)
    assert run() == 130
    table, text = here / "labels.txt", (here / "labels.txt").read_text()
    lines = text.splitlines()
    cells = lines[3].split()
    cells[1] = "NA" if cells[1] != "NA" else "1"
    table.write_text("\n".join([*lines[:3], " ".join(cells), *lines[4:]]) + "\n")
    assert go_on() == 2
    assert "1 images have other labels (img_002.png)" in capsys.readouterr().err
    table.write_text("\n".join(lines[:-1]) + "\n")
    assert go_on() == 2
    assert "1 images are gone or cannot be read any more (img_047.png)" in capsys.readouterr().err
    table.write_text(text)
    picture = here / "images" / "img_004.png"
    kept = picture.read_bytes()
    cv2.imwrite(str(picture), np.full((40, 48, 3), 99, dtype=np.uint8))
    assert go_on() == 2
    assert "img_004.png" in capsys.readouterr().err
    picture.write_bytes(kept)
    assert go_on() == 0


def test_other_groups_are_refused_by_name(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    header, *lines = Path("labels.txt").read_text().splitlines()
    parts = ["train"] * 32 + ["val"] * 8 + ["test"] * 8

    def write(groups: list[int]) -> None:
        rows = [f"{line} {part} g{group}" for line, part, group in zip(lines, parts, groups, strict=True)]
        Path("labels.txt").write_text("\n".join([f"{header} part person", *rows]) + "\n")

    write(list(range(48)))
    interrupt_at(monkeypatch, 6)
    assert run("--split", "column:part", "--group-column", "person") == 130
    write([*range(47), 46])
    assert go_on() == 2
    assert "1 images belong to another group (img_047.png)" in capsys.readouterr().err


def test_an_unfinished_run_is_no_bundle_and_says_so(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt_at(monkeypatch, 6)
    assert run() == 130
    capsys.readouterr()
    for command in (
        lambda: predict.main(["--model", "out", "--image", "images/img_000.png"]),
        lambda: evaluate.main(["--model", "out"]),
    ):
        assert command() == 2
        told = capsys.readouterr().err
        assert "unfinished" in told
        assert "--out out --resume" in told
    assert run() == 2
    assert "--resume goes on with it, --overwrite begins anew" in capsys.readouterr().err
    assert run("--overwrite", "--epochs", "1") == 0
    assert len(json.loads(Path("out/metrics.json").read_text())["epochs"]) == 1


def test_from_python_a_dataframe_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.read_csv("labels.txt", sep=" ")
    recipe = build_recipe(
        backbone=TINY[1],
        weights="none",
        precision="fp32",
        image_size=32,
        workers=0,
        epochs=3,
        unfreeze_epoch=1,
        batch_size=8,
        resamples=20,
    )
    whole = fit(recipe, labels=table, images="images", out="whole")
    interrupt_at(monkeypatch, 6)
    with pytest.raises(Interrupted, match="--resume"):
        fit(recipe, labels=table, images="images", out="out")
    again = fit(labels=table, images="images", out="out", resume=True)
    assert result("out") == result("whole")
    assert again.evaluation == whole.evaluation


def test_finish_makes_the_bundle_of_the_best_epoch(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt_at(monkeypatch, 2, 12)
    assert run() == 130
    assert go_on("--finish") == 2
    assert "no epoch has ended" in capsys.readouterr().err
    assert go_on() == 130
    assert go_on("--finish") == 0
    metrics = json.loads(Path("out/metrics.json").read_text())
    assert metrics["stopped_because"].startswith("--finish")
    assert metrics["best_epoch"] <= 2
    assert Predictor("out").predict(["images/img_000.png"])[0]["attributes"]


def test_a_finished_run_is_left_as_it_is_and_without_a_run_one_begins(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--resume", "--epochs", "1") == 0
    before = {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    assert run("--resume", "--epochs", "1") == 0
    assert "nothing is left to do" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in Path("out").iterdir()} == before


def test_a_second_ctrl_c_ends_the_run_at_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(out="whole") == 0
    original = learning_epochs.take_step
    count = 0

    def twice(*arguments: object, **more: object) -> object:
        nonlocal count
        count += 1
        if count == 12:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("it went on")
        return original(*arguments, **more)

    monkeypatch.setattr(learning_epochs, "take_step", twice)
    assert run() == 130
    assert go_on() == 0  # from the epoch's end before it
    assert result("out") == result("whole")


def test_the_second_training_into_a_folder_is_refused_while_the_first_lives(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import sys, time\nfrom mlcls import train\nfrom mlcls.workflows import epochs\n"
        "def waits(*a, **k):\n    print('trains', flush=True)\n    time.sleep(60)\n"
        "epochs.run_epochs = waits\ntrain.main(sys.argv[1:])\n"
    )
    flags = ["--labels", "labels.txt", *FLAGS, "--out", "out"]
    with subprocess.Popen([sys.executable, "-c", code, *flags], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "trains\n"
        assert run() == 2
        assert f"process {first.pid}" in capsys.readouterr().err
        first.kill()
    assert run("--epochs", "1", "--unfreeze-epoch", "0") == 0
