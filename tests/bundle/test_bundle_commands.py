"""What commands say of a folder with an unfinished run, and of a bundle whose every file is verified."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlcls import compare, evaluate, inspect, predict, tune_thresholds

Main = Callable[[list[str]], int]


@pytest.fixture
def bundle(toy_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_bundle, tmp_path / "bundle"))


def leave_unfinished(folder: Path) -> None:
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "manifest.json").write_text("{}")


def commands(bundle: Path, image: Path) -> list[tuple[Main, list[str]]]:
    return [
        (predict.main, ["--model", str(bundle), "--image", str(image), "--format", "json"]),
        (evaluate.main, ["--model", str(bundle), "--resamples", "0", "--format", "json"]),
        (compare.main, [str(bundle), str(bundle), "--resamples", "1", "--format", "json"]),
        (tune_thresholds.main, ["--model", str(bundle), "--dry-run"]),
        (inspect.main, ["--model", str(bundle)]),
    ]


def test_every_command_says_of_an_unfinished_run_how_to_go_on(
    bundle: Path, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_unfinished(bundle)
    (bundle / "bundle.json").unlink()  # cut off while its files moved
    for main, flags in commands(bundle, toy.parent / "images" / "img_000.png"):
        assert main(flags) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert f"unfinished run; go on with: python -m mlcls.train --out {bundle} --resume" in captured.err
        assert captured.err.count("\n") == 1


def test_every_command_uses_the_bundle_that_a_newer_run_stands_over_and_says_so(
    bundle: Path, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for unfinished in (False, True):
        if unfinished:
            leave_unfinished(bundle)
        for main, flags in commands(bundle, toy.parent / "images" / "img_000.png"):
            assert main(flags) == 0
            captured = capsys.readouterr()
            if "json" in flags:
                json.loads(captured.out)
            assert "an unfinished run stands" not in captured.out
            assert ("an unfinished run stands" in captured.err) == unfinished


def test_a_bundle_is_verified_from_the_command_line(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main(["--model", str(bundle)]) == 0
    out = capsys.readouterr().out
    count = sum(path.is_file() for path in bundle.iterdir())
    assert f"{count} files, all as they were written" in out
    for fact in ("test_resnet.r160_in1k", "red, bright, square_left", "tuned for f1"):
        assert fact in out
    for name in ("loss_curve.png", "recipe.toml"):
        with (bundle / name).open("ab") as file:
            file.write(b" ")
    (bundle / "split.csv").unlink()
    assert inspect.main(["--model", str(bundle)]) == 2
    err = capsys.readouterr().err
    assert all(name in err for name in ("loss_curve.png", "recipe.toml", "split.csv"))
    assert "iterations.csv" not in err


@pytest.mark.parametrize(
    "flags", [["--labels", "x"], ["--preview", "x.png"], ["--recipe", "demo"], ["--seed", "1"]]
)
def test_a_flag_of_a_table_beside_a_bundle_is_a_mistake(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect.main(["--model", "x", *flags]) == 2
    assert f"{flags[0]}: speaks of a table" in capsys.readouterr().err
