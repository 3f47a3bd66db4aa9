"""One trial of a search as every view of it needs it: a row of the table, best first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

STATES = ("complete", "pruned", "failed", "again", "running", "waiting")

# the table of published trials: a heading, and the setting below it
TABLE = {
    "Optimizer": "optimizer",
    "Learning Rate": "lr_finetune",
    "Weight Decay": "weight_decay",
    "Dropout": "dropout",
    "Scheduler": "schedule",
    "Batch Size": "batch_size",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """A trial. None is undefined or not known yet.

    Attributes:
        number: from 1, in the order they were begun or planned.
        name: of one that was planned.
        state: `complete`; `pruned`: it lagged behind and was ended; `failed` by its own values; `again`: its process
            died, another trial has its values; `running`; `waiting`.
        settings: what it varies, and the columns of `TABLE`, by the recipe's names.
        value: the figure that trials are compared by; of a pruned one the last.
        val_loss: the lowest of its epochs.
        val_map: of the epoch whose weights were kept.
        epochs: that it ran.
        folder: of its bundle.
        reason: why it failed, or what became of it.
        started: seconds since 1970.
    """

    number: int
    state: str
    name: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    value: float | None = None
    val_loss: float | None = None
    val_map: float | None = None
    val_f1: float | None = None
    best_epoch: int | None = None
    epochs: int | None = None
    seconds: float | None = None
    folder: str | None = None
    reason: str | None = None
    started: float | None = None
    curve: tuple[tuple[int, float], ...] = ()  # epoch, figure


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedRow:
    """The best trial's recipe with another seed, and what came of it on the test subset (None: there is none)."""

    seed: int
    folder: str
    val_map: float | None
    test_map: float | None
    test_auroc: float | None
    test_f1: float | None
    seconds: float | None


def best_first(rows: Sequence[TrialRow], maximize: bool) -> list[TrialRow]:
    """The trials that are over: complete ones, the best first (of equals the one of least loss), pruned, failed."""
    order = {"complete": 0, "pruned": 1, "failed": 2}

    def key(row: TrialRow) -> tuple[int, float, float, int]:
        value = math.inf if row.value is None else -row.value if maximize else row.value
        return order[row.state], value, math.inf if row.val_loss is None else row.val_loss, row.number

    return sorted((row for row in rows if row.state in order), key=key)


def best_so_far(rows: Sequence[TrialRow], maximize: bool) -> list[float | None]:
    """For each row in its order the best figure of the complete ones up to it."""
    best: float | None = None
    found: list[float | None] = []
    for row in rows:
        if row.state == "complete" and row.value is not None:
            best = row.value if best is None else (max if maximize else min)(best, row.value)
        found.append(best)
    return found
