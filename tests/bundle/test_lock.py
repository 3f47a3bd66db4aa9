"""Two trainings into one folder: the second is refused while the first lives, and no longer."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlcls.bundle import lock
from mlcls.bundle.lock import hold_folder
from mlcls.errors import BundleError

HOLD = """
import os, sys, time
from pathlib import Path
from mlcls.bundle.lock import hold_folder
with hold_folder(Path(sys.argv[1])):
    if os.fork() == 0:  # as a process that loads images
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def another(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that holds the folder, with a forked one below it that lives on."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_second_process_is_refused_while_the_first_lives_and_no_longer(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with another(out) as process:
        with pytest.raises(BundleError, match=f"another training \\(process {process.pid}\\) writes there"):
            hold_folder(out).__enter__()
        assert (out / "checkpoint" / "lock").exists()
        process.kill()
        process.wait()
        with hold_folder(out) as note:  # though its forked process lives
            assert note is None
    assert list(out.iterdir()) == []


def test_the_same_process_is_refused_by_any_name_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with hold_folder(tmp_path / "out"), pytest.raises(BundleError, match=f"process {os.getpid()}"):
        hold_folder(tmp_path / "link").__enter__()
    with hold_folder(tmp_path / "link"):
        pass


def test_it_leaves_what_stood_there_and_what_the_run_wrote(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with hold_folder(tmp_path):
        (tmp_path / "checkpoint" / "manifest.json").write_text("{}")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "checkpoint", "checkpoint/manifest.json", "mine.txt",
    ]  # fmt: skip


def test_a_lock_that_was_removed_between_open_and_lock_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = lock._lock, []

    def slow(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 1:  # the run before it ends just now
            (tmp_path / "checkpoint" / "lock").unlink()
            (tmp_path / "checkpoint").rmdir()
        real(handle)

    monkeypatch.setattr(lock, "_lock", slow)
    with hold_folder(tmp_path):
        assert len(calls) == 2
        assert (tmp_path / "checkpoint" / "lock").exists()


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*arguments: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with hold_folder(tmp_path) as note:
        assert "has no locks" in (note or "")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="a file stands there"):
        hold_folder(tmp_path / "file").__enter__()
    with pytest.raises(BundleError, match="cannot be written"):
        hold_folder(tmp_path / "file" / "below").__enter__()
    (tmp_path / "checkpoint" / "lock").mkdir(parents=True)
    with pytest.raises(BundleError, match="cannot be written"):
        hold_folder(tmp_path).__enter__()


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(BundleError, match="cannot be written"):
        hold_folder(tmp_path).__enter__()
    assert (tmp_path / "precious").read_text() == "x"


def test_many_that_come_and_go_are_never_two_at_once(tmp_path: Path) -> None:
    out, log, children = tmp_path / "out", tmp_path / "log", []
    for _ in range(8):
        if (child := os.fork()) == 0:
            _come_and_go(out, log)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    lines = log.read_text().splitlines()
    assert len(lines) > 8
    assert lines[0::2] == [line.replace("out", "in") for line in lines[1::2]]


def _come_and_go(out: Path, log: Path) -> None:
    """In a forked process: hold the folder as often as it can be had, for a second."""
    code, end = 1, time.monotonic() + 1
    try:
        with log.open("a", buffering=1) as file:
            while time.monotonic() < end:
                try:
                    with hold_folder(out):
                        file.write(f"in {os.getpid()}\n")
                        time.sleep(0.001)
                        file.write(f"out {os.getpid()}\n")
                except BundleError:
                    time.sleep(0.0005)
        code = 0
    finally:
        os._exit(code)
