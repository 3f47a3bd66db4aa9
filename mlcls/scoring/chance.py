"""Owns the test against chance: does an attribute's ranking put known positives above known negatives?"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.scoring.cells import BoolArray, checked_cells, known_sides

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LEVEL = 0.05  # of the whole family of attributes
EXACT = 20  # up to so many of the rarer class the null distribution is exact
STEPS = 1023  # of the grid that ranks are put on where there are more of them, for the exact distribution
SKEWED = 0.02  # of the rank sum, from which its null is drawn: the normal's tail is then 10% off and more
DEALS, FIRST_DEALS, DEALT_STEPS = 20_000, 1_000, 31
CLEAR = 0.15  # a p that no further deals would bring near the level
TINY_TERM = 1e-17  # relative to 1, so beyond float64
NOISE = 1e-14  # what the exact distribution is good to: a smaller p is given as this


def against_chance(
    labels: ArrayLike, scores: ArrayLike, *, groups: ArrayLike | None = None, level: float = LEVEL
) -> list[dict[str, Any]]:
    """Whether each attribute's ranking can be told from chance, the whole family held at `level`.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        scores: [N, A], the larger the surer of present.
        groups: [N] of anything that can be sorted, equal for images that belong together; see
            `rank_p_values`.
        level: the greatest probability of a single false `True` where no attribute can be told from chance.

    Returns:
        A dict an attribute: `p`, `p_adjusted` (Holm) and `distinguishable`, which is `p_adjusted <= level`.
        All three None without both a known positive and a known negative: not tested, and not counted in
        the correction.

    Raises:
        ValueError, NumericalError: as `rank_p_values`.
    """
    p = rank_p_values(labels, scores, groups=groups)
    return [
        {"p": None, "p_adjusted": None, "distinguishable": None}
        if math.isnan(one)
        else {"p": one, "p_adjusted": adjusted, "distinguishable": adjusted <= level}
        for one, adjusted in zip(p.tolist(), holm(p).tolist(), strict=True)
    ]


def holm(p: ArrayLike) -> FloatArray:
    """P-values [A] corrected for their number, step by step (Holm 1979); NaN counts as not tested.

    The k-th smallest of m is multiplied by m - k + 1, never falls below the one before it, and is at most 1.
    """
    p = np.asarray(p, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def rank_p_values(labels: ArrayLike, scores: ArrayLike, *, groups: ArrayLike | None = None) -> FloatArray:
    """One-sided Mann-Whitney test of each attribute: do known positives score above known negatives?

    Images are taken to be independent. Where `groups` says that they are not, one image stands for all of the
    same group and the same known label, the first in the order given: a copy adds no evidence. What varies
    within a group still counts, since a group may give one positive and one negative.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        scores: [N, A], the larger the surer of present.
        groups: [N], equal for images that belong together, or None.

    Returns:
        float64 [A] in (0, 1]; NaN without both a known positive and a known negative.

    Raises:
        ValueError: shapes that do not fit, or a label other than 0, 1 and NaN.
        NumericalError: a score is NaN.
    """
    labels, scores = checked_cells(labels, scores)
    order, starts = (None, None) if groups is None else _runs(np.asarray(groups), len(labels))
    p = np.full(scores.shape[1], np.nan)
    for column in range(scores.shape[1]):
        one, sides = scores[:, column], known_sides(labels[:, column])
        if order is not None and starts is not None:
            sides = _first_of_each(sides[0], order, starts), _first_of_each(sides[1], order, starts)
        positives, negatives = one[sides[0]], one[sides[1]]
        if len(positives) and len(negatives):
            p[column] = rank_p_value(positives, negatives)
    return p


def rank_p_value(positives: NDArray[Any], negatives: NDArray[Any]) -> float:
    """P(the sum of the positives' midranks is as large, or larger, were the labels dealt out at random).

    That is the one-sided test of Mann & Whitney (1947), conditional on the ties at hand. How the tail is
    found depends on m, the size of the rarer class (`benchmarks/chance.py` shows why):

    - m <= 20: the exact distribution, ties and all. The normal's tail is several times too heavy for 3 positives,
      which then could not pass a corrected level whatever they scored. With more than 512 images the
      ranks are first rounded to a grid of 1,024 steps: still an exact test, of the rounded ranks.
    - m > 20: the normal distribution, with the variance for ties and a correction for continuity.
    - m > 20, but ties so uneven that the rank sum is skewed (scores of which most are exactly 0): 20,000
      random deals with a fixed seed, over ranks rounded to 32 levels; p is then at least 1 / 20,001. When p is
      above 0.15 after 1,000 of them, that is the answer.

    Args:
        positives, negatives: scores [P] and [N], at least one each, no NaN.

    Returns:
        p in (0, 1]; 1 when all scores are equal.
    """
    few, many = sorted((positives, negatives), key=len)
    values, ties = np.unique(np.concatenate([few, many]), return_counts=True)
    taken = np.bincount(np.searchsorted(values, np.sort(few)), minlength=len(values))
    ranks = 2 * (np.cumsum(ties) - ties) + ties - 1  # twice the midrank, counted from 0: whole numbers
    if few is not positives:  # the negatives are fewer: they should lie low
        ranks = ranks[-1] + ranks[0] - ranks
    m, n = len(few), len(few) + len(many)
    if len(values) == 1:
        return 1.0
    if m <= EXACT:
        return _exact_tail(_on_grid(ranks, STEPS), ties, taken, m, n)
    z, skewness = _standardised(ranks, ties, taken, m, n)
    if abs(skewness) > SKEWED:
        return _dealt_tail(_on_grid(ranks, DEALT_STEPS), ties, taken, m)
    return min(max(math.erfc(z / math.sqrt(2)) / 2, math.ulp(0.0)), 1.0)


def _on_grid(ranks: IntArray, steps: int) -> IntArray:
    """Ranks as small whole numbers from 0: as they are where few enough, else rounded to `steps` + 1 levels.

    Any fixed function of the pooled ranks makes a valid permutation test; a coarse one loses a little power.
    """
    grid = ranks - ranks.min()
    if grid.max() > steps:
        grid = np.rint(grid * (steps / grid.max())).astype(np.int64)
    return np.asarray(grid // np.gcd.reduce(grid), dtype=np.int64)


def _exact_tail(ranks: IntArray, ties: IntArray, taken: IntArray, m: int, n: int) -> float:
    """P(sum of m ranks drawn without replacement >= the one observed)."""
    histogram = np.bincount(ranks, weights=ties)
    tail = float(_null_tail(histogram.tobytes(), m)[int(ranks @ taken)])
    least = math.exp(math.lgamma(m + 1) + math.lgamma(n - m + 1) - math.lgamma(n + 1))  # one deal of all
    floor = max(least, NOISE) if tail < NOISE else least
    return min(max(tail, floor), 1.0)


@lru_cache(maxsize=32)  # attributes without unknowns and ties share it
def _null_tail(histogram: bytes, m: int) -> FloatArray:
    """P(sum >= s) for s = 0, 1, ..., of m ranks drawn without replacement from their histogram (float64).

    The generating function of the sum over all m-subsets is the elementary symmetric polynomial e_m of the
    x**rank, and Newton's identities give it from the power sums: j e_j = sum_k (-1)**(k-1) e_(j-k) p_k, where
    p_k(x) = p_1(x**k). Evaluated at the roots of unity, p_1 is a Fourier transform of the ranks' histogram and
    p_k a rearrangement of it. Each e_j is divided by (n choose j), so that all stay within the unit circle;
    absolute errors were below 1e-14 for m <= 20 against direct enumeration.
    """
    counts = np.frombuffer(histogram)
    n, size = int(counts.sum()), m * (len(counts) - 1) + 1
    length = 1 << (size - 1).bit_length()
    frequencies = np.arange(length // 2 + 1)
    power = np.fft.fft(counts / n, length)
    powers: list[NDArray[np.complex128]] = []
    polynomials = [np.ones(len(frequencies), dtype=np.complex128)]
    for j in range(1, m + 1):
        powers.append(power[(j * frequencies) % length])
        total = np.zeros(len(frequencies), dtype=np.complex128)
        factor = -n / j
        for k in range(1, j + 1):
            factor *= -(j - k + 1) / (n - j + k)
            if abs(factor) < TINY_TERM:
                break
            total += factor * polynomials[j - k] * powers[k - 1]
        polynomials.append(total)
    mass = np.fft.irfft(polynomials[m], length)[:size]
    tail: FloatArray = np.cumsum(mass[::-1])[::-1]  # from the far end, where the terms are small
    return tail


def _standardised(ranks: IntArray, ties: IntArray, taken: IntArray, m: int, n: int) -> tuple[float, float]:
    """The observed rank sum in standard deviations above its null mean, and the null's skewness."""
    away = ranks - float(ranks @ ties) / n
    variance, third = float(ties @ away**2) / n, float(ties @ away**3) / n
    # two is one rank, the step where nothing is tied; a coarser lattice has a coarser correction
    step = max(int(np.gcd.reduce(ranks - ranks.min())), 2)
    z = (float(taken @ away) - step / 2) / math.sqrt(variance * m * (n - m) / (n - 1))
    skewness = third / variance**1.5 * (n - 2 * m) / (n - 2) * math.sqrt((n - 1) / (m * (n - m)))
    return z, skewness


def _dealt_tail(ranks: IntArray, ties: IntArray, taken: IntArray, m: int) -> float:
    """P(sum >= observed) among random deals, the observed one counted with them, so that p is never 0."""
    random = np.random.default_rng(0)
    counts = np.bincount(ranks, weights=ties).astype(np.int64)
    levels, observed = np.arange(len(counts)), int(ranks @ taken)
    p = 1.0
    for deals in (FIRST_DEALS, DEALS):
        sums = random.multivariate_hypergeometric(counts, m, size=deals) @ levels
        p = (1 + np.count_nonzero(sums >= observed)) / (1 + deals)
        if p > CLEAR:
            break
    return p


def _runs(groups: NDArray[Any], rows: int) -> tuple[NDArray[np.intp], NDArray[np.intp]] | tuple[None, None]:
    """Rows in an order in which a group's stand together, the first on top, and where each group starts there.

    None where every row is a group of its own.
    """
    if groups.shape != (rows,):
        raise ValueError(f"groups must be [{rows}], one an image; got {groups.shape}")
    codes = np.unique(groups, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    return (None, None) if len(starts) == len(order) else (order, starts)


def _first_of_each(mask: BoolArray, order: NDArray[np.intp], starts: NDArray[np.intp]) -> BoolArray:
    """The mask [N] with one cell left of each group: the first."""
    first = np.zeros_like(mask)
    ordered = mask[order]
    seen = np.cumsum(ordered)
    before = np.where(starts > 0, seen[starts - 1], 0)
    first[order] = ordered & (seen - np.repeat(before, np.diff(starts, append=len(order))) == 1)
    return first
