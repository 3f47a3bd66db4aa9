"""What moves while work is going on: bars on a terminal alone, and a line for each finished epoch."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from mlcls.reports.console import UNDEFINED, count, emit, figure, notes, plural, safe, say
from mlcls.reports.record import EpochFigures

# title in a wide window, in a narrow one, width, text of an epoch
_COLUMNS: tuple[tuple[str, str, int, Callable[[EpochFigures], str]], ...] = (
    ("epoch", "ep", 3, lambda row: str(row.epoch)),
    ("stage", "st", 2, lambda row: str(row.stage)),
    ("lr", "lr", 7, lambda row: f"{row.lr:.1e}"),
    ("train loss", "train", 7, lambda row: figure(row.train_loss)),
    ("val loss", "val", 7, lambda row: figure(row.val_loss)),
    ("mAP", "mAP", 5, lambda row: figure(row.val_map)),
    ("F1", "F1", 5, lambda row: figure(row.val_f1)),
    ("precision", "prec", 5, lambda row: figure(row.val_precision)),
    ("recall", "rec", 5, lambda row: figure(row.val_recall)),
    ("Hamming", "hamm", 5, lambda row: figure(row.val_hamming_loss)),
    ("exact", "exact", 5, lambda row: figure(row.val_exact_match)),
    ("images/s", "img/s", 6, lambda row: _rate(row.images_per_second)),
)


def _rate(images_per_second: float | None) -> str:
    if images_per_second is None:
        return UNDEFINED
    return f"{images_per_second:,.1f}" if images_per_second < 10 else f"{images_per_second:,.0f}"


def _done(done: int, total: int | None) -> str:
    return count(done) if total is None else f"{done:,}/{total:,}"


class EpochTable:
    """A row an epoch, and below the rows a bar with images a second while one is running.

    A context manager: the bar is gone when it is left, however it is left. In a pipe there is no bar.

        with EpochTable(console) as table:
            table.start_epoch(0, total_images=782)
            table.advance(16)
            table.start_validation(total_images=168)
            table.finish_epoch(figures, best=True)
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = _make_progress(console)
        self._task: TaskID | None = None
        self._header_due = True
        self._narrow = console.is_terminal and console.width < 110
        self._started = 0.0
        self._done = 0
        self._total = 0

    def __enter__(self) -> "EpochTable":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def start_epoch(self, epoch: int, total_images: int) -> None:
        """Begin a bar for the training images of an epoch."""
        self._start(f"epoch {epoch}", total_images)

    def start_validation(self, total_images: int) -> None:
        """Begin a bar for the validation images, in the place of the epoch's."""
        self._start("validation", total_images)

    def advance(self, images: int) -> None:
        """So many images more are done."""
        if self._task is None:
            return
        self._done += images
        rate = self._done / max(time.monotonic() - self._started, 1e-9)
        self._progress.update(
            self._task, advance=images, done=_done(self._done, self._total), rate=f"{_rate(rate)} images/s"
        )

    def finish_epoch(self, figures: EpochFigures, best: bool = False) -> None:
        """Print the epoch's row; `best` marks it as the best so far."""
        self._stop()
        if self._header_due:
            self._print_header()
        values = [text(figures) for *_, text in _COLUMNS]
        self._print(self._line(values) + (" *" if best else ""), "bold green" if best else "")
        if figures.skipped_steps:
            steps = plural(figures.skipped_steps, "step")
            notes(self._console, [f"{steps} skipped in epoch {figures.epoch}: loss or gradient not finite"])

    def _print_header(self) -> None:
        self._header_due = False
        legend = "figures of validation at threshold 0.5; * the best epoch so far"
        say(self._console, legend, style="dim")
        self._print(self._line([narrow if self._narrow else wide for wide, narrow, *_ in _COLUMNS]), "bold")

    def _line(self, values: list[str]) -> str:
        gap = " " if self._narrow else "  "
        widths = [max(width, len(narrow if self._narrow else wide)) for wide, narrow, width, _ in _COLUMNS]
        return gap.join(f"{value:>{width}}" for value, width in zip(values, widths, strict=True))

    def _print(self, line: str, style: str) -> None:
        emit(self._console, Text(safe(self._console, line), style=style))

    def _start(self, title: str, total: int) -> None:
        self._stop()
        self._started, self._done, self._total = time.monotonic(), 0, total
        self._task = self._progress.add_task(title, total=total, done=_done(0, total), rate="")

    def _stop(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


@contextmanager
def progress(
    console: Console, title: str, total: int | None = None, unit: str = "images"
) -> Iterator[Callable[[int], None]]:
    """A bar while a piece of work lasts, and one line when it is done.

    Args:
        title: what is being done, e.g. `checking images`.
        total: how many units there are; None if that is not known.

    Yields:
        a function to be called with the number of units done since the last call.
    """
    started, done = time.monotonic(), 0
    bar = _make_progress(console)
    task = bar.add_task(safe(console, title), total=total, done=_done(0, total), rate="")

    def advance(units: int = 1) -> None:
        nonlocal done
        done += units
        rate = done / max(time.monotonic() - started, 1e-9)
        bar.update(task, advance=units, done=_done(done, total), rate=f"{_rate(rate)} {unit}/s")

    with bar:
        yield advance
    say(console, f"{title}: {count(done)} {unit} in {time.monotonic() - started:.1f} s", style="dim")


def _make_progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None if console.width < 100 else 40),
        TextColumn("{task.fields[done]}", markup=False),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=console.quiet or not console.is_terminal,
        redirect_stdout=False,  # stdout may be a pipe that waits for results: they are not the bar's to move
        redirect_stderr=False,
    )
