"""Owns what reading a label table gives: images, labels, and a report of what was found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TableReport:
    """What reading a table found, for the console and the record."""

    source: str  # the path as given, or "DataFrame"
    layout: str  # in words: "whitespace between cells, no header, 4 attribute columns"
    rows: int  # of the table, before any is merged or left out
    missing: tuple[str, ...] = ()  # names, as in the table, whose image does not exist: left out
    repeated: tuple[str, ...] = ()  # images that stand in several rows: merged
    conflicts: tuple[str, ...] = ()  # images whose rows say the opposite somewhere: unknown there
    conflict_attributes: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # where, for each of `conflicts`
    metadata: tuple[str, ...] = ()  # columns left alone
    left_out: tuple[str, ...] = ()  # categories of a COCO json that no image has
    unknown: tuple[
        str, ...
    ] = ()  # those of `metadata` without a known label in any row: they could be attributes
    notes: tuple[
        str, ...
    ] = ()  # sentences that a person should read, each a reading of the table that may be wrong
    shared: tuple[str, ...] = ()  # images of several combined tables: kept in the last of train, val, test
    # what an attribute is that the table never names: "absent" (tags, COCO), "unknown" (a long table), None (an error)
    unmentioned: str | None = None


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Images and their labels: N images, A attributes."""

    images: NDArray[
        np.object_
    ]  # [N] str, different, relative to images_dir, `/` between parts, extension as on disk
    labels: NDArray[np.float32]  # [N, A], 0 absent, 1 present, NaN unknown
    attributes: tuple[str, ...]
    images_dir: Path
    subsets: (
        NDArray[np.object_] | None
    )  # [N] str, the split column's cells; train, val or test in combined tables
    groups: (
        NDArray[np.object_] | None
    )  # [N] str, the group column's cells; a row without one has one that no other has
    report: TableReport
