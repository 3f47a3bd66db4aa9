"""The trials of a search on the console: the table, best first, live on a terminal, and a line a trial in a pipe."""

import io
import time
from collections.abc import Sequence
from statistics import fmean
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mlcls.reports.console import UNDEFINED, count, figure, heading, notes, plural, say, some
from mlcls.reports.grid import Cell, Column, print_grid
from mlcls.reports.record import EpochFigures
from mlcls.reports.trial_rows import TABLE, SeedRow, TrialRow, best_first

_MOST = 12  # rows of the live table
_STYLES = {"complete": "", "pruned": "dim", "failed": "red"}
FIGURES = {"val_loss": "val loss", "val_map": "val mAP", "val_f1": "val F1"}
_TEST = (("test_map", "test mAP"), ("test_auroc", "test AUROC"), ("test_f1", "test F1"))
_SHORT = {
    "Optimizer": "Opt",
    "Learning Rate": "LR",
    "Weight Decay": "WD",
    "Scheduler": "Sched",
    "Batch Size": "Batch",
}
_ROOMY = 150  # columns of a terminal that the whole headings need
# which columns of the table a narrow terminal loses first: what is the same in every row, then these
_DROPS = {
    "seconds": 50,
    "epochs": 49,
    "dropout": 6,
    "weight_decay": 5,
    "schedule": 4,
    "batch_size": 3,
    "optimizer": 2,
    "lr_finetune": 1,
}


def show_trials(
    console: Console, rows: Sequence[TrialRow], *, metric: str, maximize: bool, title: str = "Trials"
) -> None:
    """Print the trials that are over, the best first, and what became of the others.

    Args:
        metric: the figure that they are compared by.
        maximize: whether more of it is better.
    """
    heading(console, title)
    ranked = best_first(rows, maximize)
    if not ranked:
        say(console, "no trial has come to its end", indent=2)
        return
    dropped = _print_table(console, ranked, rows)
    if dropped:
        say(console, f"not shown in this narrow window: {some(dropped, len(dropped))}", style="dim", indent=2)
    say(
        console, f"best first, by {FIGURES[metric]}; the test subset was not looked at", style="dim", indent=2
    )
    for row in ranked:
        if row.state == "failed" and row.reason:
            notes(console, [f"trial {row.number} failed: {row.reason}"])
    for row in rows:
        if row.state == "again":
            notes(console, [f"trial {row.number}: {row.reason}"])


def _print_table(console: Console, shown: Sequence[TrialRow], rows: Sequence[TrialRow]) -> tuple[str, ...]:
    headings = {name: title for title, name in TABLE.items()}
    names = list(dict.fromkeys([*TABLE.values(), *(name for row in rows for name in row.settings)]))
    short = console.is_terminal and console.width < _ROOMY
    columns = [Column("Trial", text=True)]
    for place, name in enumerate(names):
        found = {setting(row.settings.get(name)) for row in rows}
        drop = 100 + place if len(found) == 1 and len(rows) > 1 else _DROPS.get(name, 10 + place)
        title = headings.get(name, name)
        words = any(isinstance(row.settings.get(name), str) for row in rows)
        columns.append(Column(_SHORT.get(title, title) if short else title, words, drop, name))
    columns.append(Column("val loss" if short else "Best Validation Loss"))
    columns += [Column("val mAP"), Column("epochs", drop=_DROPS["epochs"])]
    columns += [Column("s" if short else "seconds", drop=_DROPS["seconds"], name="seconds")]
    told = not short or {row.state for row in shown} != {"complete"}
    columns += [Column("state", text=True, drop=48)] * told
    cells: list[list[Cell]] = []
    for place, row in enumerate(shown):
        style = "bold green" if place == 0 and row.state == "complete" else _STYLES[row.state]
        values = [trial_name(row, short), *(setting(row.settings.get(name)) for name in names)]
        values += [figure(row.val_loss, 4), figure(row.val_map), count(row.epochs)]
        values += [figure(row.seconds, 0), *[row.state] * told]
        cells.append([(value, style) for value in values])
    return print_grid(console, columns, cells)


def trial_name(row: TrialRow, short: bool = False) -> str:
    """`Trial 7`, short `7`; of one that was planned under another number, also its name."""
    own = f"Trial {row.number}"
    shown = str(row.number) if short else own
    return shown if row.name in (None, own) else f"{shown} ({row.name})"


def setting(value: Any) -> str:
    """A setting's value in few characters."""
    if value is None:
        return UNDEFINED
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def show_seeds(console: Console, seeds: Sequence[SeedRow]) -> None:
    """Print the best trial's recipe over several seeds: each one's test figures, their mean and range."""
    heading(console, "The best one again")
    columns = [
        Column("", text=True),
        Column("val mAP"),
        *(Column(title) for _, title in _TEST),
        Column("seconds"),
    ]
    keys = ("val_map", *(key for key, _ in _TEST))
    rows: list[list[Cell]] = [
        [f"seed {row.seed}", *(figure(getattr(row, key)) for key in keys), figure(row.seconds, 0)]
        for row in seeds
    ]
    known = {key: [getattr(row, key) for row in seeds] for key in keys}
    whole = {key: values for key, values in known.items() if None not in values}
    more: list[list[Cell]] = []
    if len(seeds) > 1:
        more.append(["mean", *(figure(fmean(whole[key]) if key in whole else None) for key in keys), ""])
        more.append(["least", *(figure(min(whole[key]) if key in whole else None) for key in keys), ""])
        more.append(["most", *(figure(max(whole[key]) if key in whole else None) for key in keys), ""])
    print_grid(console, columns, [*rows, *more], last=len(more))
    if all(row.test_map is None for row in seeds):
        say(console, "there is no test subset", style="dim", indent=2)


class TrialTable:
    """What moves while trials run: on a terminal the table, best first, and the running one; in a pipe a line a trial.

    A context manager: what moved is gone when it is left, however it is left.
    """

    def __init__(self, console: Console, *, metric: str, maximize: bool, most: int) -> None:
        self._console, self._metric, self._maximize, self._most = console, metric, maximize, most
        self._rows: Sequence[TrialRow] = ()
        self._running, self._at, self._epochs = "", "", 0
        self._started = time.monotonic()
        self._live = Live(
            console=console, auto_refresh=True, refresh_per_second=2, transient=True, get_renderable=self._shown,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self._moves = console.is_terminal and not console.quiet

    def __enter__(self) -> "TrialTable":
        if self._moves:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._moves:
            self._live.stop()

    def begin(self, number: int, name: str | None, epochs: int) -> None:
        """A trial begins."""
        own = f"trial {number}"
        self._running = own if name in (None, f"Trial {number}") else f"{own} ({name})"
        self._started = time.monotonic()
        self._epochs, self._at = epochs, "reading"

    def epoch(self, row: EpochFigures, value: float | None) -> None:
        """An epoch of the running trial is over."""
        self._at = f"epoch {row.epoch + 1}/{self._epochs}, {FIGURES[self._metric]} {figure(value)}"

    def show(self, rows: Sequence[TrialRow], number: int) -> None:
        """Show the trials as they stand, now that one has ended (0: none of them)."""
        self._rows, self._running = rows, ""
        if self._moves:
            return
        for row in rows:
            if row.number == number:
                say(self._console, self._line(row))

    def _line(self, row: TrialRow) -> str:
        over = [one for one in self._rows if one.state in ("complete", "pruned")]
        said = [f"[{len(over)}/{self._most}] {trial_name(row)}: {row.state}"]
        if row.reason:
            said.append(row.reason)
        said.append(f"{FIGURES[self._metric]} {figure(row.value, 4)}")
        ranked = best_first(over, self._maximize)
        if ranked and ranked[0].state == "complete":
            best = ranked[0]
            said.append(
                "the best so far" if best is row else f"best {figure(best.value, 4)} of trial {best.number}"
            )
        said.append(f"{plural(row.epochs or 0, 'epoch')}, {figure(row.seconds, 1)} s")
        settings = " ".join(f"{name}={setting(value)}" for name, value in row.settings.items())
        return f"{', '.join(said)}; {settings}"

    def _shown(self) -> Text:
        """The table as it stands, as lines."""
        inner = Console(
            file=io.StringIO(), width=self._console.width, force_terminal=True, legacy_windows=False,
            color_system="standard" if self._console.color_system else None, markup=False, highlight=False,
        )  # fmt: skip
        ranked = best_first(self._rows, self._maximize)
        if ranked:
            room = max(3, min(_MOST, self._console.height - 6))
            _print_table(inner, ranked[:room], self._rows)
            if len(ranked) > room:
                say(inner, f"and {len(ranked) - room} more", style="dim", indent=2)
        over = sum(row.state in ("complete", "pruned") for row in self._rows)
        others = sum(row.state == "running" for row in self._rows)
        line = f"{over} of {plural(self._most, 'trial')} over"
        if others:
            line += f", {others} running elsewhere"
        if self._running:
            seconds = time.monotonic() - self._started
            line += f"; {self._running}: {self._at}, {seconds:.0f} s"
        say(inner, line, indent=2)
        file = inner.file
        assert isinstance(file, io.StringIO)
        return Text.from_ansi(file.getvalue().rstrip("\n"))
