"""A run's figures for tools of others: each log is a function of (folder, Record) that writes what is new.

    LOGS[name](folder, record)      after each epoch, and once more when the run is over

A log may be called with the same record twice, and by a run that goes on after a kill with fewer epochs than were
written: no epoch stands in a log twice. Where the epochs that were written are not the record's, another run wrote
them, and the log begins anew. Nothing of a tool is imported before its log is called.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlcls import durable
from mlcls.errors import RecipeError
from mlcls.naming import look_up
from mlcls.reports.log_tensorboard import append_events
from mlcls.reports.log_wandb import append_to_run
from mlcls.reports.record import EpochFigures, Record, facts_to_plain

Log = Callable[[Path, Record], None]
"""(folder, record so far): raises OSError where the folder cannot be written, OutputError where the tool fails."""

EPOCHS_CSV, FIGURES_CSV = "epochs.csv", "figures.csv"
UNREPEATED = ("seconds", "images_per_second")  # of an epoch that is trained again after a kill
GROUPS = ("macro", "micro")
SCALARS = {
    "train_loss": "loss/train",
    "val_loss": "loss/val",
    "val_map": "val/map",
    "val_f1": "val/f1",
    "val_precision": "val/precision",
    "val_recall": "val/recall",
    "val_hamming_loss": "val/hamming_loss",
    "val_exact_match": "val/exact_match",
    "lr": "run/lr",
    "seconds": "run/seconds",
    "images_per_second": "run/images_per_second",
    "skipped_steps": "run/skipped_steps",
}
"""How tools that group figures by the part before the slash call those of an epoch."""


@dataclass(frozen=True)
class News:
    """What a log lacks of a record.

    anew: what was written is another run's.
    epochs: figures by name of each epoch that was not written, with its number; undefined ones left out.
    final: of the finished run, by name; empty while it goes on, or where they are written.
    state: what to give to `news_of` the next time, once these are written.
    """

    anew: bool
    epochs: tuple[tuple[int, dict[str, float]], ...]
    final: dict[str, float]
    state: dict[str, Any]


def news_of(record: Record, state: Mapping[str, Any] | None) -> News:
    """What of a record has to be written.

    Args:
        state: of what is written; None where nothing is.
    """
    rows = [_repeated(epoch) for epoch in record.epochs]
    final = final_figures(record)
    before, done = ([], {}) if state is None else (state.get("epochs", []), state.get("final", {}))
    common = min(len(rows), len(before))
    anew = state is not None and (rows[:common] != before[:common] or bool(final and done and final != done))
    if anew:
        before, done = [], {}
    new = tuple((epoch.epoch, _scalars(epoch)) for epoch in record.epochs[len(before) :])
    kept = before if len(before) > len(rows) else rows
    return News(anew, new, {} if done else final, {"epochs": kept, "final": done or final})


def final_figures(record: Record) -> dict[str, float]:
    """The figures of a finished run, as `test/macro/average_precision`; empty for one that goes on."""
    found: dict[str, Any] = {}
    for subset, entry in record.evaluation.items():
        if entry is None:
            continue
        for group in GROUPS:
            found |= {f"{subset}/{group}/{name}": value for name, value in entry.get(group, {}).items()}
        found |= {f"{subset}/{name}": entry.get(name) for name in ("hamming_loss", "exact_match")}
    if found:
        found |= {"run/best_epoch": record.best_epoch, "run/seconds": record.seconds}
    return {name: float(value) for name, value in found.items() if value is not None}


def _scalars(epoch: EpochFigures) -> dict[str, float]:
    values = {tag: getattr(epoch, name) for name, tag in SCALARS.items()}
    return {tag: float(value) for tag, value in values.items() if value is not None}


def _repeated(epoch: EpochFigures) -> dict[str, Any]:
    """The figures that come out alike when an epoch is trained again."""
    return {name: value for name, value in facts_to_plain(epoch).items() if name not in UNREPEATED}


def log_csv(folder: Path, record: Record) -> None:
    """`epochs.csv`, a row an epoch, and, of a finished run, `figures.csv`: subset, attribute, figure, value.

    Undefined is an empty cell; a figure over all attributes has `macro`, `micro` or nothing for an attribute's name.
    """
    names = [field.name for field in fields(EpochFigures)]
    rows = [[getattr(epoch, name) for name in names] for epoch in record.epochs]
    folder.mkdir(parents=True, exist_ok=True)
    durable.write_whole(folder / EPOCHS_CSV, _table(names, rows))
    figures = _figure_rows(record)
    if figures:
        durable.write_whole(folder / FIGURES_CSV, _table(["subset", "attribute", "figure", "value"], figures))
    else:
        durable.remove(folder / FIGURES_CSV)  # of a run that stood here before


def _figure_rows(record: Record) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for subset, entry in record.evaluation.items():
        if entry is None:
            continue
        for group in GROUPS:
            rows += [[subset, group, name, value] for name, value in entry.get(group, {}).items()]
        rows += [[subset, "", name, entry.get(name)] for name in ("hamming_loss", "exact_match")]
        for one in entry["attributes"]:
            plain = {
                key: value for key, value in one.items() if value is None or isinstance(value, int | float)
            }
            rows += [[subset, one["name"], name, value] for name, value in plain.items()]
    return rows


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    return text.getvalue().encode("utf-8", "surrogatepass")


def log_tensorboard(folder: Path, record: Record) -> None:
    """An event file that TensorBoard reads while it grows: scalars by epoch, the recipe as text.

    The figures of a finished run stand at its best epoch.
    """
    file, state = folder / "tensorboard.json", read_state(folder / "tensorboard.json")
    news = news_of(record, state)
    facts = append_events(folder, news.epochs, news.final, record, None if news.anew else state)
    _write_state(file, news.state | facts)


def log_wandb(folder: Path, record: Record) -> None:
    """A run of Weights & Biases by epochs, offline where no key is known; WANDB_MODE and WANDB_PROJECT count.

    An offline run lies in `folder/wandb/`, for `wandb sync`.
    """
    file, state = folder / "wandb.json", read_state(folder / "wandb.json")
    news = news_of(record, state)
    facts = append_to_run(folder, news.epochs, news.final, record, None if news.anew else state)
    _write_state(file, news.state | facts)


def read_state(file: Path) -> dict[str, Any] | None:
    """What a log has told of itself; None where it has not, or no more can be read."""
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) and isinstance(state.get("epochs"), list) else None


def _write_state(file: Path, state: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    durable.write_whole(file, json.dumps(state, allow_nan=False).encode())


LOGS: dict[str, Log] = {"csv": log_csv, "tensorboard": log_tensorboard, "wandb": log_wandb}
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}  # what a log needs beside mlcls


def build_logs(names: Sequence[str], folder: Path) -> Callable[[Record], None]:
    """All the logs of these names as one function of the record; imports none of their packages.

    Args:
        names: keys of `LOGS`, or `package.module:function`.
        folder: of the logs; made when they are first written.

    Raises:
        RecipeError: a name that is not known, or whose package is not installed.
    """
    logs = [partial(look_up(LOGS, name, "--log"), folder) for name in names]
    for name in names:
        if name in PACKAGES and find_spec(PACKAGES[name]) is None:
            raise RecipeError(
                f"--log {name}: needs the package {PACKAGES[name]}: pip install 'mlcls[{name}]'"
            )

    def write(record: Record) -> None:
        for log in logs:
            log(record)

    return write
