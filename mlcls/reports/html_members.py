"""The part of the HTML report on an ensemble's members: how each was trained, and what the ensemble has over them."""

from typing import Any

from mlcls.reports.console_folds import FLATTERS, difference_said
from mlcls.reports.html_table import Cell, Table, columns, mapping, name, number, whole
from mlcls.reports.record import Record

EMPTY = Cell(text="")


def members_table(record: Record) -> Table | None:
    """A row a member, then their mean and the ensemble; None of an ordinary run."""
    if record.members is None or record.ensemble is None:
        return None
    rows: list[tuple[Cell, ...]] = [
        (
            name(one.name),
            whole(one.train),
            whole(one.val),
            whole(one.epochs),
            whole(one.best_epoch),
            number(one.seconds, decimals=1),
            number(one.val_map),
            number(one.test_map),
        )
        for one in record.members
    ]
    own = record.ensemble
    rows.append((name("mean member"), *[EMPTY] * 5, number(own.mean_val_map), number(own.mean_test_map)))
    rows.append((name("ensemble"), *[EMPTY] * 5, _macro(record, "val"), _macro(record, "test")))
    titles = (
        "trained on",
        "validated on",
        "epochs",
        "best epoch",
        "seconds",
        "val macro AP",
        "test macro AP",
    )
    return Table(
        caption="Members", columns=columns(*titles, first="member"), rows=tuple(rows), sortable=False
    )


def members_said(record: Record) -> tuple[str, ...]:
    """Sentences on what the figures of the members and of the ensemble are worth; none of an ordinary run."""
    if record.ensemble is None:
        return ()
    said = [f"{subset}: {words}." for subset, words in record.ensemble.predictions.items()]
    if record.ensemble.test_difference is not None:
        said.append(difference_said(record.ensemble.test_difference)[0] + ".")
    said.append(FLATTERS + ".")
    return tuple(one[:1].upper() + one[1:] for one in said)


def _macro(record: Record, subset: str) -> Cell:
    """The ensemble's macro average precision, as the record has it; a dash where it has none of the subset."""
    entry: Any = mapping(record.evaluation.get(subset))
    interval = mapping(mapping(entry.get("intervals")).get("macro")).get("average_precision")
    return number(mapping(entry.get("macro")).get("average_precision"), interval)
