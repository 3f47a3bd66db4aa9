"""`--log`: what a training tells other tools, also when it is killed and goes on, and what it says where it cannot."""

import csv
from pathlib import Path

import pytest
from toy_data import TINY, write_toy

from mlcls import train
from mlcls.learning.checkpoint import read_checkpoint
from mlcls.recipe import Recipe
from mlcls.workflows import checkpoints
from mlcls.workflows.logs import log_folder

FLAGS = [*TINY, "--precision", "fp32", "--epochs", "3", "--unfreeze-epoch", "2", "--resamples", "20"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("mlcls.workflows.finishing._draw", lambda *arguments: "")
    write_toy(tmp_path, images=48)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*flags: str, out: str = "out") -> int:
    return train.main(["--labels", "labels.txt", *FLAGS, "--out", out, *flags])


def epochs_in(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as file:
        return [row["epoch"] for row in csv.DictReader(file)]


def test_a_training_logs_where_it_is_told(here: Path) -> None:
    assert run("--log", "csv", "tensorboard") == 0
    assert epochs_in(here / "logs/out/epochs.csv") == ["0", "1", "2"]
    assert (here / "logs/out/figures.csv").is_file()
    assert len(list((here / "logs/out").glob("events.out.tfevents.*"))) == 1
    assert not list((here / "out").rglob("epochs.csv"))
    assert run("--log", "csv", "--log-dir", "elsewhere", "--overwrite") == 0
    assert epochs_in(here / "elsewhere/epochs.csv") == ["0", "1", "2"]


def test_an_interrupted_run_logs_no_epoch_twice(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = checkpoints.Saver.save

    def interrupted(self: checkpoints.Saver, *, wait: bool = False) -> str | None:
        problem = whole(self, wait=True)
        if len(self.progress.figures) == 2:
            raise KeyboardInterrupt
        return problem

    monkeypatch.setattr(checkpoints.Saver, "save", interrupted)
    monkeypatch.setattr(checkpoints.Saver, "is_worth", lambda self: True)
    assert run("--log", "csv", "tensorboard") == 130
    assert epochs_in(here / "logs/out/epochs.csv") == ["0", "1"]
    assert read_checkpoint(here / "out/checkpoint") is not None
    monkeypatch.setattr(checkpoints.Saver, "save", whole)
    assert train.main(["--out", "out", "--resume"]) == 0
    assert epochs_in(here / "logs/out/epochs.csv") == ["0", "1", "2"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(here / "logs/out"))
    found.Reload()
    assert [one.step for one in found.Scalars("loss/val")] == [0, 1, 2]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--log", "cvs"), "--log: unknown name 'cvs'; did you mean 'csv'?"),
        (("--log", "csv", "--log-dir", "out/logs"), "--log-dir out/logs: lies in --out out"),
    ],
)
def test_a_log_that_cannot_be_is_refused_before_anything_is_read(
    flags: tuple[str, ...], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*flags) == 2
    assert said in capsys.readouterr().err
    assert not (here / "out").exists()


def test_a_log_that_cannot_be_written_is_told_before_the_training(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "file").write_text("")
    assert run("--log", "csv", "--log-dir", "file/logs") == 3
    assert "--log-dir: file/logs: cannot be written" in capsys.readouterr().err


def test_a_log_that_fails_later_does_not_cost_the_training(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "failing.py").write_text(
        "def log(folder, record):\n    if record.epochs:\n        raise OSError(28, 'No space left', str(folder))\n"
    )
    import sys

    sys.path.insert(0, str(here))
    try:
        assert run("--log", "failing:log") == 0
    finally:
        sys.path.remove(str(here))
    told = capsys.readouterr().err
    assert " ".join(told.split()).count("--log: not written") == 1
    assert (here / "out/bundle.json").is_file()


def test_the_folder_has_the_name_of_out(here: Path) -> None:
    recipe = Recipe(log=("csv",))
    assert log_folder(recipe, Path("trials/trial-0007")) == Path("logs/trial-0007")
    (here / "runs/a").mkdir(parents=True)
    assert log_folder(recipe, Path("runs/a/../b")) == Path("logs/b")
