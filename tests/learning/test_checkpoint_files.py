"""Checkpoints on disk and the thread that writes them: what stands after a failure, and who is told."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mlcls import durable
from mlcls.errors import BundleError, NumericalError
from mlcls.learning.checkpoint import MANIFEST, Writer, read_checkpoint, write_checkpoint
from mlcls.learning.epochs import Position, Running
from mlcls.learning.plain_state import restore_optimizer
from mlcls.sealed import seal, unseal


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def out_of_memory() -> None:
    raise MemoryError


@pytest.mark.parametrize("fail", [full, out_of_memory])
def test_what_the_last_job_failed_with_is_told_once(fail: Callable[[], None]) -> None:
    writer = Writer()
    writer.submit(fail)
    assert writer.wait() is not None
    assert writer.wait() is None
    writer.submit(lambda: None)
    assert writer.wait() is None


def test_a_job_that_succeeds_makes_an_earlier_failure_good() -> None:
    writer = Writer()
    writer.submit(full)
    while writer._busy:
        pass
    writer.submit(lambda: None)
    assert writer.wait() is None


def test_an_attempt_that_fails_takes_no_room_and_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {"first": {"a": torch.zeros(3)}, "now": {"a": torch.ones(3)}}
    write_checkpoint(tmp_path, 1, {"step": 1}, tensors)
    before = sorted(tmp_path.iterdir())
    flush, calls = durable.flush, 0

    def second_fails(file: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            full()
        flush(file)

    monkeypatch.setattr(durable, "flush", second_fails)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(tmp_path, 2, {"step": 2}, tensors)
    assert sorted(tmp_path.iterdir()) == before
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert found.state == {"step": 1}
    assert torch.equal(found.tensors("now")["a"], torch.ones(3))


def test_a_manifest_of_a_stranger_is_refused_in_words(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, {}, {"first": {"a": torch.zeros(3)}})
    found = read_checkpoint(tmp_path)
    assert found is not None
    with pytest.raises(BundleError, match="names no file of 'now'"):
        found.tensors("now")
    content = unseal((tmp_path / MANIFEST).read_bytes())
    content["files"]["first"][0] = "a\0b"
    (tmp_path / MANIFEST).write_bytes(seal(content))
    with pytest.raises(BundleError, match="outside of its folder"):
        read_checkpoint(tmp_path)


def test_a_training_that_was_saved_as_it_failed_fails_again(tiny: Any, train: Any) -> None:
    position = Position(losses=[None], images=4, bad=[(number,) for number in range(10)])
    running = Running(position, restore=lambda stepper: None)
    with pytest.raises(NumericalError, match="10 steps in a row") as caught:
        train(tiny(), running=running)
    assert caught.value.indices == tuple(range(10))


def test_what_an_optimizer_keeps_of_all_parameters_together_is_restored() -> None:
    def built() -> torch.optim.Optimizer:
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1, momentum=0.9)

    state = built().state_dict()
    state["state"]["all"] = 7
    again = built()
    restore_optimizer(again, state)
    assert again.state_dict()["state"] == {"all": 7}
