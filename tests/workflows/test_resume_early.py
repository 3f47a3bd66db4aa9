"""Runs that end early: what one was begun with stands after its first step, or it says that it does not."""

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from toy_data import TINY, write_toy

from mlcls import durable, train
from mlcls.learning import epochs as learning_epochs
from mlcls.learning.checkpoint import read_checkpoint
from mlcls.learning.optimizers import build_optimizer
from mlcls.workflows import validating
from mlcls.workflows.checkpoints import Saver

SHORT = ["--precision", "fp32", "--epochs", "1", "--batch-size", "8", "--resamples", "0"]
FLAGS = ["--labels", "labels.txt", *TINY, *SHORT]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy(tmp_path, images=32)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlcls.workflows.finishing._draw", lambda *arguments: "")


def end_at(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, call: int, signals: int) -> None:
    """So many Ctrl-C at the n-th call of a function."""
    original, count = getattr(module, name), 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        for _ in range(signals * (count == call)):
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments, **named)

    monkeypatch.setattr(module, name, counted)


def test_after_the_first_step_a_run_goes_on_with_no_other_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        # the second signal ends it at once, as a kill does
        end_at(patch, learning_epochs, "take_step", 2, signals=2)
        assert train.main([*FLAGS, "--seed", "3", "--out", "out"]) == 130
    found = read_checkpoint(Path("out/checkpoint"))
    assert found is not None
    assert found.state["begun"]["recipe"]["seed"] == 3
    capsys.readouterr()
    assert train.main(["--out", "out", "--resume"]) == 0
    assert "resumed at epoch 0, step 1" in capsys.readouterr().err


def test_ctrl_c_where_nothing_can_be_saved_does_not_say_that_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "write_flushed", full)
    end_at(monkeypatch, learning_epochs, "take_step", 2, signals=1)
    assert train.main([*FLAGS, "--out", "out"]) == 130
    said = capsys.readouterr().err
    assert "which could not be saved (No space left on device)" in said
    assert "which is saved" not in said


def test_an_optimizer_whose_state_has_no_form_is_not_said_to_be_saved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def odd(*arguments: Any, **named: Any) -> Any:
        optimizer = build_optimizer(*arguments, **named)
        optimizer.param_groups[0]["odd"] = object()
        return optimizer

    monkeypatch.setattr("mlcls.workflows.setup.build_optimizer", odd)
    end_at(monkeypatch, learning_epochs, "take_step", 2, signals=1)
    assert train.main([*FLAGS, "--out", "out"]) == 130
    said = capsys.readouterr().err
    assert "which is saved" not in said
    assert "which could not be saved (--optimizer" in said


def test_a_checkpoint_that_is_due_in_validation_is_made_there(monkeypatch: pytest.MonkeyPatch) -> None:
    predict, began = validating.predict, False

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal began
        began = True
        return predict(*arguments, **named)

    monkeypatch.setattr(validating, "predict", counted)
    monkeypatch.setattr(Saver, "due", lambda saver: began)
    end_at(monkeypatch, validating, "evaluate", 1, signals=2)  # after the last batch of validation
    assert train.main([*FLAGS, "--out", "out"]) == 130
    found = read_checkpoint(Path("out/checkpoint"))
    assert found is not None
    assert found.tensors("step")["losses"].numel() == 3  # of 22 images in batches of 8
    assert not found.state["position"]["ended"]


def test_where_no_run_stands_none_is_finished_and_a_new_one_is_announced(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train.main([*FLAGS, "--out", "out", "--resume", "--finish"]) == 2
    assert "--finish: no unfinished run stands in out" in capsys.readouterr().err
    assert not Path("out").exists()
    assert train.main([*FLAGS, "--out", "out", "--resume"]) == 0
    assert "no unfinished run stands in out: one begins" in capsys.readouterr().err


def test_from_another_folder_it_is_told_where_the_run_was_begun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        end_at(patch, learning_epochs, "take_step", 2, signals=1)
        assert train.main([*FLAGS, "--out", "out"]) == 130
    begun = Path.cwd()
    Path("elsewhere").mkdir()
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.chdir("elsewhere")
        assert train.main(["--out", "../out", "--resume"]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"the run was begun in {begun}: " in said
        assert "labels.txt: no such file" in said
    assert train.main(["--out", "out", "--resume"]) == 0
    assert "the run was begun in" not in capsys.readouterr().err


@pytest.mark.parametrize(("worth", "saved"), [(0.0, [-1, 0, 1, 2, 3]), (float("inf"), [-1, 3])])
def test_an_epochs_end_is_saved_where_that_is_cheap_and_the_last_one_always(
    worth: float, saved: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []
    save = Saver.save

    def waiting(saver: Saver, *, wait: bool = False) -> str | None:
        position = saver.progress.running.position
        ended.append(position.epoch if position.ended else -1)
        return save(saver, wait=True)  # so that what it cost is known

    monkeypatch.setattr(Saver, "save", waiting)
    monkeypatch.setattr("mlcls.workflows.checkpoints.WORTH", worth)
    assert train.main([*FLAGS, "--epochs", "4", "--patience", "0", "--out", "out"]) == 0
    assert ended == saved
