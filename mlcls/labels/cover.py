"""Owns the repair after stratification: groups are exchanged until each label stands in each subset."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

DONORS, PARTNERS = (
    16,
    64,
)  # how many exchanges are weighed for one absent label: bounded, so that no table is slow
TRIES = 2000  # how many absent labels are tried in all, counting repetitions
SLACK = 1.1  # a subset may grow to this times its target to take in a group of several rows
SLICE = 1 << 16


@dataclass(slots=True)
class Cover:
    """Which labels each subset holds.

    Attributes:
        marks: [U, L = 3A + 1] rows of each group with each label: A known positives, A known negatives, A
            unknowns, and last "is a row", without which a subset is empty.
        subset: [U] the subset of each group, changed in place.
        needed: [L] whether a label is to stand in every subset.
        targets: [S] how many rows each subset is meant to have.
        held: [S, L] how many groups of each subset have each label.
        rows: [S] how many rows each subset has.
        most: [S] how many it may come to have: no more than before where all groups are of one row.
        weights: [L] how bad an absence is: an empty subset, then no known positive, then no known negative.
    """

    marks: NDArray[np.unsignedinteger]
    subset: NDArray[np.int64]
    needed: NDArray[np.bool_]
    targets: NDArray[np.float64]
    held: NDArray[np.int64] = field(init=False)
    rows: NDArray[np.int64] = field(init=False)
    most: NDArray[np.int64] = field(init=False)
    weights: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        attributes = (self.marks.shape[1] - 1) // 3
        self.weights = np.ones(self.marks.shape[1], dtype=np.int64)
        self.weights[:attributes] = 1 + attributes
        self.weights[-1] = 1 + self.weights.sum()
        self.weights *= self.needed
        held = [count_groups(self.marks, self.subset == subset) for subset in range(len(self.targets))]
        self.held = np.array(held, dtype=np.int64)
        sizes = self.marks[:, -1]
        self.rows = np.bincount(self.subset, weights=sizes, minlength=len(held)).astype(np.int64)
        slack = np.ceil(SLACK * self.targets).astype(np.int64) if sizes.max() > 1 else 0
        self.most = np.maximum(self.rows, slack)

    def lacking(self) -> NDArray[np.bool_]:
        """[S, L] the needed labels that are absent."""
        return np.asarray(self.needed & (self.held == 0))


def count_groups(marks: NDArray[np.unsignedinteger], chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[L] how many of the chosen groups have each label; in slices, so that no copy of all marks is made."""
    total = np.zeros(marks.shape[1], dtype=np.int64)
    for start in range(0, len(marks), SLICE):
        part = slice(start, start + SLICE)
        total += np.count_nonzero(marks[part][chosen[part]], axis=0)
    return total


def cover_subsets(cover: Cover, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Exchange groups between subsets while that brings an absent label in and costs less elsewhere.

    Two rows change places, so that the subsets' sizes stay. Groups of several rows change places or move alone
    within the sizes allowed. A local search: bounded, not exhaustive.

    Returns:
        [S, L] bool, what is lacking still.
    """
    tries = 0
    improved = True
    while improved:
        improved = False
        absent = np.argwhere(cover.lacking())
        for subset, label in absent[np.argsort(-cover.weights[absent[:, 1]], kind="stable")]:
            if cover.held[subset, label] == 0 and tries < TRIES:
                tries += 1
                improved |= _bring_in(cover, int(subset), int(label), rng)
    return cover.lacking()


def _bring_in(cover: Cover, subset: int, label: int, rng: np.random.Generator) -> bool:
    """Make the best of the exchanges that bring `label` into `subset`, if it is an improvement."""
    spare = cover.held[:, label] > 1
    donors = _some(np.flatnonzero((cover.marks[:, label] > 0) & spare[cover.subset]), DONORS, rng)
    donors = donors[np.argsort(cover.marks[donors, -1], kind="stable")]
    sizes, inside = cover.marks[:, -1], np.flatnonzero(cover.subset == subset)
    best: tuple[int, int, int | None] = (0, -1, None)
    for donor in donors:
        source, gained = cover.subset[donor], int(sizes[donor]) - sizes[inside].astype(np.int64)
        fits = (cover.rows[subset] + gained <= cover.most[subset]) & (
            cover.rows[source] - gained <= cover.most[source]
        )
        partners = _some(inside[fits], PARTNERS, rng)
        costs = _costs(cover, int(donor), subset, partners)
        if costs.size and costs.min() < best[0]:
            best = (int(costs.min()), int(donor), int(partners[costs.argmin()]))
        if cover.rows[subset] + sizes[donor] <= cover.most[subset] or not inside.size:
            alone = int(_costs(cover, int(donor), subset, None)[0])
            if alone < best[0]:
                best = (alone, int(donor), None)
    cost, donor, partner = best
    if cost < 0:
        _move(cover, donor, subset, partner)
    return cost < 0


def _some(candidates: NDArray[np.int64], limit: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """At most `limit` of the candidates, drawn at random."""
    if len(candidates) <= limit:
        return candidates
    return np.sort(rng.choice(candidates, limit, replace=False))


def _costs(cover: Cover, donor: int, subset: int, partners: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """[P] how the weighted absences change when `donor` goes to `subset` and each partner comes back."""
    source = int(cover.subset[donor])
    given = (cover.marks[donor] > 0).astype(np.int64)
    taken = np.zeros((1, len(given)), dtype=np.int64)
    if partners is not None:
        taken = (cover.marks[partners] > 0).astype(np.int64)
    before = (cover.held[[source, subset]] == 0) @ cover.weights
    after = (cover.held[source] - given + taken == 0) @ cover.weights
    after += (cover.held[subset] + given - taken == 0) @ cover.weights
    return np.asarray(after - before.sum(), dtype=np.int64)


def _move(cover: Cover, donor: int, subset: int, partner: int | None) -> None:
    source = int(cover.subset[donor])
    change = (cover.marks[donor] > 0).astype(np.int64)
    rows = int(cover.marks[donor, -1])
    if partner is not None:
        change -= cover.marks[partner] > 0
        rows -= int(cover.marks[partner, -1])
        cover.subset[partner] = source
    cover.subset[donor] = subset
    cover.held[source] -= change
    cover.held[subset] += change
    cover.rows[source] -= rows
    cover.rows[subset] += rows
