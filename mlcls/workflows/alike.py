"""Which images of a table are one photo: byte-identical, near-identical, and what their labels say of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlcls.images.fingerprint import Fingerprints
from mlcls.labels.duplicates import (
    find_conflicts,
    find_contradictions,
    merge_groups,
)
from mlcls.labels.near_duplicates import NearDuplicates, find_near_duplicates
from mlcls.labels.split import combine_groups
from mlcls.labels.table import LabelTable
from mlcls.reports.record import Contradiction

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Alike:
    """Groups of row indices, ascending within each.

    Attributes:
        identical: byte-identical images.
        near: near-identical ones, with what is byte-identical to one of them.
        conflicts: those of `identical` that are known to show and not to show the same attribute.
        near_conflicts: those of `near`, and pairs across them, of which this is true between images that are not
            byte-identical.
        contradictions: which attributes, and which images say what.
        chains: groups of `near` that pairs of copies join, as one: frame by frame a film is one photo, which a
            split must not part, though its ends are not alike.
        complete: False where so many images look alike that not all of them were compared.
    """

    identical: Groups
    near: Groups
    conflicts: Groups
    near_conflicts: Groups
    contradictions: tuple[Contradiction, ...]
    chains: Groups = ()
    complete: bool = True

    @property
    def groups(self) -> Groups:
        """What a split must not part: all of `identical` and `chains`, without those that lie within another."""
        return merge_groups(self.chains, self.identical)


def find_alike(table: LabelTable, prints: Fingerprints, digests: NDArray[np.uint8]) -> Alike:
    """The images of the table that are one photo; near-identical ones only if the fingerprints hold hashes.

    Args:
        digests: uint8 [N, 32], SHA-256 of each image's file.
    """
    identical = same_files(digests)
    near = NearDuplicates((), (), True)
    if len(prints.hashes):
        near = find_near_duplicates(prints.hashes, prints.pictures, prints.sizes, identical)
    conflicts = find_conflicts(table.labels, identical)
    first = {same[0]: same for same in identical}
    within = {
        group: tuple(first[row] for row in group if row in first) for group in (*near.groups, *near.links)
    }
    near_conflicts = tuple(g for g, same in within.items() if find_contradictions(table.labels, g, same))
    said = [
        *(part for group in conflicts for part in _contradictions(table, group)),
        *(part for group in near_conflicts for part in _contradictions(table, group, within[group])),
    ]
    chains = _chains(len(table.images), near)
    return Alike(identical, near.groups, conflicts, near_conflicts, tuple(said), chains, near.complete)


def same_files(digests: NDArray[np.uint8]) -> Groups:
    """Groups of equal digests: row indices, ascending within each; groups of two or more, by their first index.

    Args:
        digests: uint8 [N, 32].
    """
    keys = np.ascontiguousarray(digests).view("S32").ravel()
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    lengths = np.diff(starts, append=len(keys))
    several = lengths > 1  # few: a million images that are all different must not become a million arrays
    groups = [
        order[start : start + length].tolist()
        for start, length in zip(starts[several].tolist(), lengths[several].tolist(), strict=True)
    ]
    return tuple(sorted(tuple(group) for group in groups))


def _chains(count: int, near: NearDuplicates) -> Groups:
    """The groups and links of `count` images, those that share an image as one; by their first index."""
    members: dict[int, list[int]] = {}
    ids = combine_groups(count, near.groups, near.links).tolist()
    for row in sorted({row for group in (*near.groups, *near.links) for row in group}):
        members.setdefault(ids[row], []).append(row)
    return tuple(tuple(rows) for rows in members.values())


def _contradictions(
    table: LabelTable, group: tuple[int, ...], identical: Groups | None = None
) -> list[Contradiction]:
    """By name; `identical` are the byte-identical images within a group of near-identical ones."""

    def names(rows: Sequence[int]) -> tuple[str, ...]:
        return tuple(str(table.images[row]) for row in rows)

    return [
        Contradiction(
            table.attributes[found.attribute],
            present=names(found.present),
            absent=names(found.absent),
            near=identical is not None,
        )
        for found in find_contradictions(table.labels, group, identical or ())
    ]
