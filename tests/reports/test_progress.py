"""Bars and epoch rows: on a terminal both, in a pipe the rows alone, and nothing stays behind."""

import math
import sys
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from mlcls.reports.progress import EpochTable, progress
from mlcls.reports.record import EpochFigures

Read = Callable[[Console], str]
Epoch = Callable[..., EpochFigures]


def run(console: Console, rows: list[EpochFigures], best: set[int]) -> None:
    with EpochTable(console) as table:
        for row in rows:
            table.start_epoch(row.epoch, total_images=32)
            table.advance(16)
            table.advance(16)
            table.start_validation(total_images=8)
            table.advance(8)
            table.finish_epoch(row, best=row.epoch in best)


def test_a_pipe_has_one_header_and_one_line_an_epoch(pipe: Console, written: Read, epoch: Epoch) -> None:
    rows = [epoch(0, val_map=None, val_f1=math.nan), epoch(1), epoch(2, train_loss=54321.0), epoch(3)]
    run(pipe, rows, best={1, 3})
    legend, header, *lines = written(pipe).splitlines()
    assert "threshold 0.5" in legend
    assert header.split()[:3] == ["epoch", "stage", "lr"]
    assert len(lines) == 4
    assert lines[0].split() == [
        "0", "0", "2.0e-03", "0.800", "0.900", "–", "–", "0.400", "0.700", "0.250", "0.125", "123",
    ]  # fmt: skip
    assert [line.endswith(" *") for line in lines] == [False, True, False, True]
    assert {len(line.removesuffix(" *")) for line in lines} == {len(header)}
    assert lines[3].split()[1] == "1"


def test_skipped_steps_are_told(pipe: Console, written: Read, epoch: Epoch) -> None:
    run(pipe, [epoch(0, skipped_steps=2)], best=set())
    assert "note: 2 steps skipped in epoch 0: loss or gradient not finite" in written(pipe)


@pytest.mark.parametrize("width", [80, 120])
def test_rows_fit_a_terminal(
    terminal: Callable[[int], Console], written: Read, epoch: Epoch, width: int
) -> None:
    console = terminal(width)
    run(console, [epoch(0, images_per_second=12345.6), epoch(1)], best={1})
    text = written(console)
    assert "…" not in text
    assert "12,346" in text
    assert "*" in text


def test_a_terminal_has_a_bar_with_images_a_second(terminal: Callable[[int], Console], written: Read) -> None:
    console = terminal(80)
    with EpochTable(console) as table:
        table.start_epoch(7, total_images=3200)
        table.advance(16)
        deadline = time.monotonic() + 10
        while "16/3,200" not in written(console) and time.monotonic() < deadline:
            time.sleep(0.05)
    line = written(console).split("16/3,200")[1]
    assert "epoch 7" in written(console)
    assert "images/s" in line


def test_the_bar_is_gone_and_the_cursor_back_after_an_error(
    terminal: Callable[[int], Console], written: Read
) -> None:
    console, stdout, stderr = terminal(100), sys.stdout, sys.stderr
    streams = []

    def interrupted() -> None:
        with EpochTable(console) as table:
            table.start_epoch(0, total_images=100)
            table.advance(10)
            streams.extend([sys.stdout, sys.stderr])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert streams == [stdout, stderr]  # results that go to stdout are never drawn into the bar
    shown, hidden = written(console).rfind("\x1b[?25h"), written(console).rfind("\x1b[?25l")
    assert shown > hidden >= 0


@pytest.mark.parametrize("total", [30, None])
def test_progress_ends_in_one_line(
    pipe: Console, terminal: Callable[[int], Console], written: Read, total: int | None
) -> None:
    for console in (pipe, terminal(80)):
        with progress(console, "checking [bold]", total) as advance:
            for _ in range(3):
                advance(10)
        assert "checking [bold]: 30 images in " in written(console)
    assert written(pipe).count("\n") == 1


def test_a_quiet_console_stays_silent(epoch: Epoch, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(quiet=True)
    run(console, [epoch(0)], best={0})
    with progress(console, "x", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")
