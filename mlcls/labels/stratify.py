"""Owns iterative stratification: which subset each row goes to, groups whole, every label spread evenly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlcls.labels.cover import SLICE, Cover, count_groups, cover_subsets

SUBSETS = ("train", "val", "test")
CHUNK = 16  # rows that are seated together: small enough that one chunk's excess is made good by the next


@dataclass(frozen=True, slots=True)
class Stratification:
    """Where each row went, and what could not be had.

    Attributes:
        subset_of_row: [N] int64, indices into SUBSETS.
        groups_with: [2A] int64, in how many groups each label occurs: A known positives, A known negatives.
        lacking: [3, 2A] bool, the subsets in use that a label with enough groups is nevertheless absent from.
    """

    subset_of_row: NDArray[np.int64]
    groups_with: NDArray[np.int64]
    lacking: NDArray[np.bool_]


def stratify(
    labels: NDArray[np.float32], groups: NDArray[np.int64], fractions: Sequence[float], seed: int
) -> Stratification:
    """Divide rows among subsets by iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011, section 3).

    The "labels" of the paper are here the known positives *and* the known negatives of each attribute. The
    rarest label that is left is handed out first, to each subset what it still needs of it. The paper leaves
    open *which* of a label's rows go where: here those go that the other labels, and the unknowns, ask for
    (see `_gains`). Groups of several rows are placed before, the largest first, each where it is needed most.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        groups: [N] ids from 0; rows of one id never part.
        fractions: of train, val and test, summing to 1; a subset of fraction 0 stays empty, and there are
            at least as many groups as subsets in use.
        seed: decides between rows that are alike.

    Without groups the subsets' sizes are exact within rounding. Time is linear in N x A.
    """
    rng = np.random.default_rng(seed)
    marks = _marks_of_groups(labels, groups)
    used = np.flatnonzero(np.asarray(fractions) > 0)
    shares = np.asarray(fractions, dtype=np.float64)[used]
    groups_with = count_groups(marks, np.ones(len(marks), dtype=bool))
    leads = np.ones(marks.shape[1], dtype=bool)  # an unknown is spread, but asks for no subset of its own
    leads[2 * labels.shape[1] : -1] = False
    need = _quotas(marks.sum(axis=0, dtype=np.int64), groups_with, shares)
    targets = need[:, -1].copy()  # the plan counts down in place
    plan = _Plan(marks, need, need.sum(axis=0) * shares[:, None], np.full(len(marks), -1, dtype=np.int64))
    sizes = marks[:, -1]
    _place_groups(plan, _largest_first(sizes, rng))
    _place_rows(plan, rng, leads, smallest_first=np.argsort(shares, kind="stable"))
    cover = Cover(marks, plan.subset, needed=leads & (groups_with >= len(used)), targets=targets)
    known = slice(0, 2 * labels.shape[1])
    lacking = np.zeros((len(fractions), known.stop), dtype=bool)
    lacking[used] = cover_subsets(cover, rng)[:, known]
    return Stratification(used[plan.subset][groups], groups_with[known], lacking)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The state of the greedy pass; its arrays are changed in place.

    Attributes:
        marks: [U, L] how many rows of each group have each label (see `_marks_of_groups`).
        need: [S, L] float64, how many rows with each label each subset still needs.
        scale: [S, L] float64, how many it is to have in all (0 where the label does not occur).
        subset: [U] the subset of each group, -1 while it has none.
    """

    marks: NDArray[np.unsignedinteger]
    need: NDArray[np.float64]
    scale: NDArray[np.float64]
    subset: NDArray[np.int64]


def _marks_of_groups(labels: NDArray[np.float32], groups: NDArray[np.int64]) -> NDArray[np.unsignedinteger]:
    """[U, L = 3A + 1] how many rows of each group are known positive, known negative, unknown; and rows."""
    rows, attributes = labels.shape
    sizes = np.bincount(groups)
    if len(sizes) == rows and np.array_equal(groups, np.arange(rows)):
        marks = np.empty((rows, 3 * attributes + 1), dtype=np.uint8)
        _mark(labels, marks)
        return marks
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(sizes)
    marks = np.empty((len(sizes), 3 * attributes + 1), dtype=np.min_scalar_type(int(sizes.max())))
    first = 0
    while first < len(
        sizes
    ):  # some whole groups at a time: never a mark for each row beside those for each group
        start = ends[first] - sizes[first]
        last = max(first + 1, int(np.searchsorted(ends, start + SLICE, side="right")))
        some = order[start : ends[last - 1]]
        part = np.empty((len(some), 3 * attributes + 1), dtype=np.uint8)
        _mark(labels[some], part)
        starts = ends[first:last] - sizes[first:last] - start
        np.add.reduceat(part, starts, axis=0, dtype=marks.dtype, out=marks[first:last])
        first = last
    return marks


def _mark(labels: NDArray[np.float32], marks: NDArray[np.uint8]) -> None:
    """Fill [N, L = 3A + 1] with 1 where a row is known positive, known negative, unknown; and for being a row."""
    attributes = labels.shape[1]
    np.equal(labels, 1, out=marks[:, :attributes], casting="unsafe")
    np.equal(labels, 0, out=marks[:, attributes : 2 * attributes], casting="unsafe")
    np.isnan(labels, out=marks[:, 2 * attributes : -1], casting="unsafe")
    marks[:, -1] = 1


def _whole_shares(count: int, shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """[S] whole numbers in proportion to `shares` (largest remainder) that sum to `count`."""
    wanted = _at_least_one(count * shares) if count >= len(shares) else count * shares
    return _seats(count, wanted, np.full(len(shares), count, dtype=np.int64))


def _at_least_one(wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Raise what is below 1 to 1, at the cost of the largest; the sum, at least their number, stays."""
    wanted = wanted.copy()
    while wanted.min() < 1 - 1e-9:
        smallest, largest = int(wanted.argmin()), int(wanted.argmax())
        wanted[largest] -= 1 - wanted[smallest]
        wanted[smallest] = 1
    return wanted


def _quotas(
    counts: NDArray[np.int64], groups_with: NDArray[np.int64], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[S, L] how many rows with each label each subset is to have: its share, at least one where possible."""
    quotas = shares[:, None] * counts
    for label in np.flatnonzero((quotas.min(axis=0) < 1) & (groups_with >= len(shares))):
        quotas[:, label] = _at_least_one(quotas[:, label])
    quotas[:, -1] = _whole_shares(int(counts[-1]), shares)
    return quotas


def _gains(
    marks: NDArray[np.float64], need: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[B, S] by how much each group, put into each subset, lowers sum(need^2 / scale): a chi-square distance.

    need^2 - (need - m)^2 = m (2 need - m). Rounded, so that the order of summation, which differs between
    machines, decides nothing.
    """
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    gains = marks @ (2 * need * inverse).T - (marks * marks) @ inverse.T
    return np.asarray(gains.round(6))


def _largest_first(sizes: NDArray[np.unsignedinteger], rng: np.random.Generator) -> NDArray[np.int64]:
    """Groups of more than one row, the largest first, equals in random order."""
    several = rng.permutation(np.flatnonzero(sizes > 1))
    return several[np.argsort(-sizes[several].astype(np.int64), kind="stable")]


def _place_groups(plan: _Plan, order: NDArray[np.int64]) -> None:
    """Put each group where it lowers the distance most, among the subsets with room for it, if any has."""
    for group in order:
        marks = plan.marks[group].astype(np.float64)
        room = plan.need[:, -1]
        gains = _gains(marks[None], plan.need, plan.scale)[0]
        fits = room >= marks[-1]
        best = int(np.where(fits, gains, -np.inf).argmax()) if fits.any() else int(room.argmax())
        plan.subset[group] = best
        plan.need[best] -= marks


def _place_rows(
    plan: _Plan, rng: np.random.Generator, leads: NDArray[np.bool_], smallest_first: NDArray[np.int64]
) -> None:
    """Hand out single rows, those of the rarest leading label that is left first, in chunks."""
    rows = np.flatnonzero(plan.marks[:, -1] == 1)
    left = np.rint(plan.need.sum(axis=0)).astype(np.int64)  # what is needed is what there still is
    while rows.size:
        label = int(np.where(leads & (left > 0), left, rows.size + 1).argmin())
        has_label = plan.marks[rows, label] > 0
        batch, rows = rng.permutation(rows[has_label]), rows[~has_label]
        room = np.maximum(plan.need[:, -1], 0).astype(np.int64)
        seats = _seats(len(batch), plan.need[:, label], room)
        for start in range(0, len(batch), CHUNK):
            chunk = batch[start : start + CHUNK]
            taken = _seats(len(chunk), seats * (len(chunk) / seats.sum()), seats)
            left -= _seat_chunk(plan, chunk, taken, smallest_first)
            seats = seats - taken


def _seats(count: int, wanted: NDArray[np.float64], room: NDArray[np.int64]) -> NDArray[np.int64]:
    """[S] how many of `count` rows each subset takes: row by row, the one that wants most and has room.

    The sum of `room` is at least `count`, also where groups have overfilled a subset.
    """
    seats = np.clip(np.floor(np.minimum(wanted + 1e-9, room)), 0, None).astype(np.int64)
    while seats.sum() > count:
        seats[np.where(seats > 0, wanted - seats, np.inf).argmin()] -= 1
    while seats.sum() < count:
        seats[np.where(seats < room, wanted - seats, -np.inf).argmax()] += 1
    return seats


def _seat_chunk(
    plan: _Plan, chunk: NDArray[np.int64], seats: NDArray[np.int64], smallest_first: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Fill each subset's seats with the rows it gains most from; returns [L], the labels handed out."""
    marks = plan.marks[chunk].astype(np.float64)
    gains = _gains(marks, plan.need, plan.scale)
    largest = smallest_first[-1]
    free = np.arange(len(chunk))
    for subset in smallest_first[:-1]:
        order = np.argsort(gains[free, largest] - gains[free, subset], kind="stable")
        chosen, free = free[order[: seats[subset]]], free[order[seats[subset] :]]
        plan.subset[chunk[chosen]] = subset
        plan.need[subset] -= marks[chosen].sum(axis=0)
    plan.subset[chunk[free]] = largest
    plan.need[largest] -= marks[free].sum(axis=0)
    return np.asarray(marks.sum(axis=0), dtype=np.int64)
