"""Owns the repair after stratification: groups are exchanged until each label stands in each subset."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

DONORS, PARTNERS = (
    16,
    64,
)  # how many exchanges are weighed for one absent label: bounded, so that no table is slow
TRIES = 2000  # how many absent labels are tried in all, counting repetitions
SLICE = 1 << 16


@dataclass(slots=True)
class Cover:
    """Which labels each subset holds.

    Attributes:
        marks: [U, L = 3A + 1] rows of each group with each label: A known positives, A known negatives, A
            unknowns, and last "is a row", without which a subset is empty.
        subset: [U] the subset of each group, changed in place.
        needed: [L] whether a label is to stand in every subset.
        held: [S, L] how many groups of each subset have each label.
        weights: [L] how bad an absence is: an empty subset, then no known positive, then no known negative.
    """

    marks: NDArray[np.unsignedinteger]
    subset: NDArray[np.int64]
    needed: NDArray[np.bool_]
    subsets: int
    held: NDArray[np.int64] = field(init=False)
    weights: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        attributes = (self.marks.shape[1] - 1) // 3
        self.weights = np.ones(self.marks.shape[1], dtype=np.int64)
        self.weights[:attributes] = 1 + attributes
        self.weights[-1] = 1 + self.weights.sum()
        self.weights *= self.needed
        held = [count_groups(self.marks, self.subset == subset) for subset in range(self.subsets)]
        self.held = np.array(held, dtype=np.int64)

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

    Two groups of the same size change places, so that the subsets' sizes stay; a group of several rows may
    also move alone. A local search: bounded, not exhaustive.

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
        partners = _some(inside[sizes[inside] == sizes[donor]], PARTNERS, rng)
        costs = _costs(cover, int(donor), subset, partners)
        if costs.size and costs.min() < best[0]:
            best = (int(costs.min()), int(donor), int(partners[costs.argmin()]))
        if sizes[donor] > 1 or not inside.size:
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
    if partner is not None:
        change -= cover.marks[partner] > 0
        cover.subset[partner] = source
    cover.subset[donor] = subset
    cover.held[source] -= change
    cover.held[subset] += change
