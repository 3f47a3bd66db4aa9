"""Owns runs that are kept as they end, a line of JSON each, so that a benchmark that was killed goes on from there."""

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import machine_words

from mlcls.errors import Interrupted, MlclsError
from mlcls.reports.record import Record

Facts = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One run: what tells it from all others, and what does it in an empty folder and returns its figures."""

    key: Facts
    run: Callable[[Path], Facts]

    @property
    def words(self) -> str:
        return ", ".join(
            f"{name} {value}" if name == "seed" else str(value) for name, value in self.key.items()
        )


def read_runs(file: Path) -> list[Facts]:
    """The runs that ended: `{"key", "machine", "seconds", and their figures}` each."""
    runs = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            runs.append(json.loads(line))
        except ValueError:  # the write that a kill cut short
            continue
    return runs


def find_run(file: Path, key: Facts) -> Facts | None:
    """The run with this key, where it has ended."""
    return next((run for run in read_runs(file) if run["key"] == key), None)


def run_cases(file: Path, cases: Sequence[Case]) -> None:
    """Run those that are not kept yet, in order, telling how far it is; one that fails is told and left out.

    Exits with 1 in the end where one failed, and with 130 at Ctrl-C.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_file() and not file.read_bytes().endswith(b"\n"):
        with file.open("a", encoding="utf-8") as lines:
            lines.write("\n")  # so that the next run's line is not joined to one that was cut short
    there = [run["key"] for run in read_runs(file)]
    left = [case for case in cases if case.key not in there]
    began, failed = time.monotonic(), 0
    say(f"{len(cases)} runs, {len(cases) - len(left)} of them done before")
    for number, case in enumerate(left):
        spent = time.monotonic() - began
        rest = f", about {spent / number * (len(left) - number) / 60:.0f} min left" if number else ""
        say(f"{len(cases) - len(left) + number + 1} of {len(cases)}{rest}: {case.words} ...")
        started = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(dir=file.parent, prefix="run-") as folder:
                facts = case.run(Path(folder))
        except Interrupted:
            say("interrupted: the same command goes on with the run that was under way")
            sys.exit(130)
        except MlclsError as error:
            failed += 1
            say(f"  failed: {error}")
            continue
        seconds = round(time.monotonic() - started, 1)
        line = {"key": case.key, "machine": machine_words(), "whole_seconds": seconds, **facts}
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")
        figure = facts.get("test_map") or facts.get("within", {}).get("test_map")
        say(f"  {seconds:.0f} s" if figure is None else f"  test macro AP {figure:.3f}, {seconds:.0f} s")
    if failed:
        say(f"{failed} runs failed")
        sys.exit(1)


def say(words: str) -> None:
    """A line of progress: on stderr, as the tables are what a script prints."""
    print(words, file=sys.stderr, flush=True)


def figures(record: Record) -> Facts:
    """What is kept of a record: the test subset's macro average precision, each attribute's, and what it took."""
    test = record.evaluation["test"] or {}
    best = next((row for row in record.epochs if row.epoch == record.best_epoch), None)
    return {
        "test_map": test["macro"]["average_precision"],
        "test_ap": {entry["name"]: entry["average_precision"] for entry in test["attributes"]},
        "val_map": None if best is None else best.val_map,
        "best_epoch": record.best_epoch,
        "epochs": len(record.epochs),
        "seconds": record.seconds,
    }


# ---------------------------------------------------------------- figures over seeds, as words


def mean_words(values: Iterable[float], form: str = "{:.3f}") -> str:
    """The mean over seeds, and the lowest and the highest where they differ."""
    given = sorted(values)
    if not given:
        return ""
    low, high = form.format(given[0]), form.format(given[-1])
    said = form.format(statistics.fmean(given))
    return said if low == high else f"{said} ({low} to {high})"


def difference_words(one: Sequence[float], other: Sequence[float]) -> str:
    """The mean of the paired differences one - other, with Student's 95% interval over the seeds."""
    differences = [a - b for a, b in zip(one, other, strict=True)]
    if not differences:
        return ""
    middle = statistics.fmean(differences)
    if len(differences) == 1:
        return f"{middle:+.3f}"
    from scipy.stats import t

    reach = t.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{middle:+.3f} ({middle - reach:+.3f} to {middle + reach:+.3f})"


def by_key(runs: Iterable[Facts], *names: str) -> dict[tuple[Any, ...], list[Facts]]:
    """Runs in groups that agree in these parts of the key, each by seed; groups in the order they are met."""
    groups: dict[tuple[Any, ...], list[Facts]] = {}
    for run in runs:
        groups.setdefault(tuple(run["key"].get(name) for name in names), []).append(run)
    return {key: sorted(group, key=lambda run: run["key"]["seed"]) for key, group in groups.items()}


def paired(one: Sequence[Facts], other: Sequence[Facts], name: str) -> tuple[list[float], list[float]]:
    """A figure of both groups' runs, of the seeds that both have it of."""
    both = [
        {run["key"]["seed"]: run[name] for run in group if run.get(name) is not None}
        for group in (one, other)
    ]
    seeds = [seed for seed in both[0] if seed in both[1]]
    return [both[0][seed] for seed in seeds], [both[1][seed] for seed in seeds]


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def heading(runs: Sequence[Facts], about: str = "") -> str:
    """What stands above the table of a set's runs: the set, the network, the machines, the flags that all had."""
    first, seeds = runs[0]["key"], len({run["key"]["seed"] for run in runs})
    flags = f" All with `{first['flags']}`." if first["flags"] else ""
    network = f", {first['network']}" if "network" in first else ""
    what = f"{first['set']}: {first['counts']} images{about}{network}, {seeds} seeds"
    return f"### {what}\n\n{machines(runs)}.{flags}\n\n"


def machines(runs: Iterable[Facts]) -> str:
    """The machines that the runs ran on."""
    return "; ".join(dict.fromkeys(run["machine"] for run in runs))
