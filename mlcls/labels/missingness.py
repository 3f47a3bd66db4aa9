"""Owns the tests of whether labels are missing at random: do unknowns go with other labels, or with image size?

"Missing at random" is what training on the known labels alone rests on. Each pair of attributes is a two by two
table (unknown or known, the other present or absent), each of pixel count and shape a comparison of ranks. All of
these tests are corrected together (Holm, 1979), and a difference too small to matter is not reported however sure
it is. Where images belong together, the tests take one of each group; what is reported counts all images.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlcls.labels.pair_counts import BLOCK, Independent, PairCounts, log_factorial, pick_independent

LEVEL = 0.05  # of all tests of a table together
LEAST_DIFFERENCE = 0.05  # between two shares of unknowns
LEAST_SHIFT = 0.1  # of P(an image with the label unknown is larger than one where it is known), from 0.5
LEAST_EXPECTED = 5.0  # in each cell, for a pair to be tested
EXACT_BELOW = 100.0  # expected in a cell: with less, what chi-square finds is tested again by Fisher
LEAST_SIDE = 10  # images with and without the label, for sizes to be compared


@dataclass(frozen=True, slots=True)
class ByLabel:
    """`attribute` is unknown for a share of the images that show `other`, and another of those that do not."""

    attribute: int
    other: int
    where_present: float
    where_absent: float


@dataclass(frozen=True, slots=True)
class BySize:
    """`attribute` is unknown rather in small or large, in narrow or wide images.

    Attributes:
        measure: `pixels` or `shape` (width / height).
        where_unknown, where_known: medians of the measure.
        shift: P(larger where unknown) - 0.5, ties half; -0.5 to 0.5.
    """

    attribute: int
    measure: str
    where_unknown: float
    where_known: float
    shift: float


def find_dependence(
    labels: NDArray[np.float32],
    counts: PairCounts,
    sizes: NDArray[np.int32] | None = None,
    independent: Independent | None = None,
) -> tuple[list[ByLabel], list[BySize]]:
    """What the unknown labels depend on.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        counts: of these labels.
        sizes: int [N, 2], width and height in pixels; None tests labels alone.
        independent: the rows that the tests rest on; None: all of them.

    Returns:
        By label and by size, each sorted by how large the difference is, over all rows.
    """
    tested = independent or pick_independent(labels, counts, None)
    whole = len(tested.rows) == len(labels)
    p_labels = _test_labels(tested.counts)
    measures = {} if sizes is None else _measures(sizes)
    part = slice(None) if whole else tested.rows  # a slice makes no copy
    ranked = {name: _test_ranks(labels[part], values[part]) for name, values in measures.items()}
    family = [p_labels.ravel(), *(p for p, _ in ranked.values())]
    passed = np.split(_holm(np.concatenate(family)), np.cumsum([len(part) for part in family])[:-1])
    where_present, where_absent = _shares(counts)
    difference, in_tested = where_present - where_absent, np.subtract(*_shares(tested.counts))
    told = passed[0].reshape(p_labels.shape) & _matters(difference, in_tested, LEAST_DIFFERENCE)
    by_label = [
        ByLabel(int(i), int(j), float(where_present[i, j]), float(where_absent[i, j]))
        for i, j in np.argwhere(told)
    ]
    by_size = []
    for (name, (_, tested_shift)), ok in zip(ranked.items(), passed[1:], strict=True):
        shift = tested_shift if whole else _test_ranks(labels, measures[name])[1]
        by_size += [
            _by_size(labels, int(index), name, measures[name], float(shift[index]))
            for index in np.flatnonzero(ok & _matters(shift, tested_shift, LEAST_SHIFT))
        ]
    by_label.sort(key=lambda found: -abs(found.where_present - found.where_absent))
    return by_label, sorted(by_size, key=lambda found: -abs(found.shift))


def _matters(
    difference: NDArray[np.float64], in_tested: NDArray[np.float64], least: float
) -> NDArray[np.bool_]:
    """Which differences, over all rows, are large enough and of the direction that was tested."""
    return np.asarray((np.abs(difference) >= least) & (difference * in_tested > 0))


def _shares(counts: PairCounts) -> NDArray[np.float64]:
    """[2, A, A] of the images that show attribute j, and of those that do not: the share with i unknown."""
    unknown, known = _unknown_known(counts)
    with np.errstate(invalid="ignore"):
        return np.asarray(unknown / (unknown + known))


def _unknown_known(counts: PairCounts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[2, A, A] each: how often attribute i is unknown, and known, with attribute j present and absent."""
    unknown = np.stack([counts.unknown_present, counts.unknown_absent])
    known = np.stack(
        [
            counts.present_present + counts.absent_present,
            counts.present_absent + counts.absent_absent,
        ]
    )
    return unknown, known


def _test_labels(counts: PairCounts) -> NDArray[np.float64]:
    """p [A, A] (NaN: not tested) of attribute i's unknowns against attribute j."""
    unknown, known = _unknown_known(counts)
    column, total = unknown + known, (unknown + known).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.stack([column * part.sum(axis=0) / total for part in (unknown, known)])
        distance = np.maximum(np.abs(unknown[0] - expected[0, 0]) - 0.5, 0)  # Yates
        statistic = distance**2 * (1 / expected).sum(axis=(0, 1))
    least = np.nan_to_num(expected.min(axis=(0, 1)))
    p = np.where(least >= LEAST_EXPECTED, _two_sided(np.sqrt(statistic)), np.nan)
    suspects = (p <= LEVEL / max(1, int(np.count_nonzero(~np.isnan(p))))) & (least < EXACT_BELOW)
    for i, j in np.argwhere(suspects):
        p[i, j] = fisher(*unknown[:, i, j].astype(int).tolist(), *known[:, i, j].astype(int).tolist())
    return p


def _measures(sizes: NDArray[np.int32]) -> dict[str, NDArray[np.float64]]:
    width, height = sizes.T.astype(np.float64)
    return {"pixels": width * height, "shape": width / np.maximum(height, 1)}


def _test_ranks(
    labels: NDArray[np.float32], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """p [A] of a two-sided Mann-Whitney test with ties (NaN: not tested), and the shift [A] as in `BySize`."""
    ranks = _ranks(values)
    rows, count = labels.shape
    sums, unknown = np.zeros(count), np.zeros(count)
    for start in range(0, rows, BLOCK):
        hidden = np.isnan(labels[start : start + BLOCK])
        sums += ranks[start : start + BLOCK] @ hidden
        unknown += hidden.sum(axis=0)
    known = rows - unknown
    # the variance of a random part's mean rank is taken from these very ranks, and so counts ties as they are
    variance = ranks.var() * rows / max(rows - 1, 1) if rows else 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = (sums - unknown * (unknown + 1) / 2) / (unknown * known) - 0.5
        z = np.abs(shift) / np.sqrt(variance / (unknown * known * rows))
    tested = (np.minimum(unknown, known) >= LEAST_SIDE) & (variance > 0)
    return np.where(tested, _two_sided(np.where(tested, z, 0)), np.nan), np.where(tested, shift, 0.0)


def _two_sided(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability that a normal deviate is as far from 0; of z squared, chi-square with one degree of freedom."""
    return np.array([math.erfc(one / math.sqrt(2)) for one in z.ravel().tolist()]).reshape(z.shape)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 1; equal values share the mean of theirs."""
    _, place, ties = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(ties) - (ties - 1) / 2)[place]


def fisher(a: int, b: int, c: int, d: int) -> float:
    """Fisher's (1935) exact test, two-sided, of the table [[a, b], [c, d]]: P of all tables as rare, or rarer.

    As in R and SciPy, a table is as rare where its probability is at most the observed one's but for rounding.
    """
    first, rows, total = a + c, a + b, a + b + c + d
    x = np.arange(max(0, first + rows - total), min(first, rows) + 1)
    log = -log_factorial(x, first - x, rows - x, total - first - rows + x)
    mass = np.exp(log - log.max())
    rare = mass <= mass[a - x[0]] * (1 + 1e-7)
    return float(mass[rare].sum() / mass.sum())


def _holm(p: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which pass at `LEVEL` after Holm's correction; NaN was not tested and does not count."""
    order = np.argsort(p)  # NaN last
    tests = int(np.count_nonzero(~np.isnan(p)))
    limits = LEVEL / np.arange(tests, 0, -1)
    fails = ~(p[order[:tests]] <= limits)
    passed = np.zeros(len(p), dtype=bool)
    passed[order[: int(fails.argmax()) if fails.any() else tests]] = True
    return passed


def _by_size(
    labels: NDArray[np.float32], index: int, measure: str, values: NDArray[np.float64], shift: float
) -> BySize:
    unknown = np.isnan(labels[:, index])
    return BySize(
        index, measure, float(np.median(values[unknown])), float(np.median(values[~unknown])), shift
    )
