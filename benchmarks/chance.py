"""Owns the proof of the test against chance: false alarms where nothing can be learned, power where something can.

python benchmarks/chance.py                          # 2,000 repetitions; about 6 minutes on one core
python benchmarks/chance.py --repetitions 200        # a quick look
"""

import argparse
import time
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from mlcls.scoring import chance
from mlcls.scoring.chance import LEVEL, holm, rank_p_value, rank_p_values

Table = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # labels, scores, groups
FAMILIES = (1, 5, 25)
ATTRIBUTES = max(FAMILIES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    start = time.perf_counter()
    false_alarms(flags.repetitions, flags.seed)
    power(flags.repetitions, flags.seed)
    normal_tail(flags.seed)
    speed()
    print(f"\n{time.perf_counter() - start:.0f} seconds")


def false_alarms(repetitions: int, seed: int) -> None:
    """Scores know nothing: how often does any attribute of the family pass?"""
    print(
        f"## False alarms: share of {repetitions:,} tables with an attribute that passes, level {LEVEL:.0%}\n"
    )
    print("| scores and labels | images | present | " + " | ".join(f"{a} tested" for a in FAMILIES) + " |")
    print("|---|---|---|" + "---|" * len(FAMILIES))
    plain = [("independent", independent, n, rate) for n in (100, 300, 1000) for rate in (0.03, 0.1, 0.5)]
    others = [
        (name, make, 300, rate)
        for name, make in (
            ("scores with one decimal", one_decimal),
            ("80% of the scores are 0", mostly_zero),
            ("a quarter unknown", quarter_unknown),
            ("attributes correlated 0.7", correlated),
            ("images in groups of 3 with the same label, scores correlated 0.9", grouped),
            ("the same, groups not told", ungrouped),
        )
        for rate in (0.03, 0.1, 0.5)
    ]
    pooled = np.zeros(len(FAMILIES))
    for row, (name, make, images, rate) in enumerate(plain + others):
        random = np.random.default_rng((seed, row))
        alarms = np.zeros(len(FAMILIES))
        for _ in range(repetitions):
            labels, scores, groups = make(random, images, rate)
            p = rank_p_values(labels, scores, groups=groups)
            alarms += [bool((holm(p[:tested]) <= LEVEL).any()) for tested in FAMILIES]
        show(name, f"{images}", f"{rate:.0%}", alarms / repetitions)
        if make is not ungrouped:
            pooled += alarms / repetitions
    rows = sum(make is not ungrouped for _, make, _, _ in plain + others)
    show("all of these but the last three", "", "", pooled / rows)
    error = np.sqrt(LEVEL * (1 - LEVEL) / repetitions)
    print(f"\nStandard error of a row at {LEVEL:.0%}: {error:.1%}; of all: {error / np.sqrt(rows):.1%}")


def show(name: str, images: str, rate: str, shares: np.ndarray) -> None:
    print(
        f"| {name} | {images} | {rate} | " + " | ".join(f"{share:.1%}" for share in shares) + " |", flush=True
    )


def independent(random: np.random.Generator, images: int, rate: float) -> Table:
    labels = (random.random((images, ATTRIBUTES)) < rate).astype(np.float32)
    return labels, random.standard_normal((images, ATTRIBUTES)), None


def one_decimal(random: np.random.Generator, images: int, rate: float) -> Table:
    labels, scores, _ = independent(random, images, rate)
    return labels, np.round(1 / (1 + np.exp(-scores)), 1), None


def mostly_zero(random: np.random.Generator, images: int, rate: float) -> Table:
    labels, scores, _ = independent(random, images, rate)
    return labels, np.maximum(scores - 0.84, 0), None


def quarter_unknown(random: np.random.Generator, images: int, rate: float) -> Table:
    labels, scores, _ = independent(random, images, rate)
    labels[random.random(labels.shape) < 0.25] = np.nan
    return labels, scores, None


def correlated(random: np.random.Generator, images: int, rate: float) -> Table:
    def shared(rho: float) -> np.ndarray:
        common, own = random.standard_normal((images, 1)), random.standard_normal((images, ATTRIBUTES))
        return np.sqrt(rho) * common + np.sqrt(1 - rho) * own

    return (shared(0.7) > NormalDist().inv_cdf(1 - rate)).astype(np.float32), shared(0.7), None


def grouped(random: np.random.Generator, images: int, rate: float) -> Table:
    groups = np.arange(images) // 3
    labels, scores, _ = independent(random, images, rate)
    noise = random.standard_normal(scores.shape)
    return labels[groups], np.sqrt(0.9) * scores[groups] + np.sqrt(0.1) * noise, groups


def ungrouped(random: np.random.Generator, images: int, rate: float) -> Table:
    return *grouped(random, images, rate)[:2], None


def power(repetitions: int, seed: int) -> None:
    """Binormal scores of a given AUROC, five negatives a positive; four more attributes know nothing."""
    print(f"\n## Power: share of {repetitions:,} tables in which the attribute passes\n")
    print(
        "| positives | negatives | corrected among | AUROC 0.6 | AUROC 0.7 | AUROC 0.8 |\n|---|---|---|---|---|---|"
    )
    for positives in (3, 10, 50, 200):
        labels = np.repeat([1.0, 0.0], [positives, 5 * positives])[:, None] * np.ones(5)
        passed = np.zeros((2, 3))
        for column, area in enumerate((0.6, 0.7, 0.8)):
            random = np.random.default_rng(seed)
            shift = np.sqrt(2) * NormalDist().inv_cdf(area)
            for _ in range(repetitions):
                scores = random.standard_normal(labels.shape)
                scores[:positives, 0] += shift
                p = rank_p_values(labels, scores)
                passed[:, column] += (p[0] <= LEVEL, holm(p)[0] <= LEVEL)
        for tested, shares in zip((1, 5), passed / repetitions, strict=True):
            cells = " | ".join(f"{share:.0%}" for share in shares)
            print(f"| {positives} | {5 * positives} | {tested} | {cells} |", flush=True)


def normal_tail(seed: int) -> None:
    """The normal approximation's p over the exact p, near three levels: why few positives are done exactly."""
    print("\n## The normal approximation's p divided by the exact p (median of those near the level)\n")
    print("| scores | positives | negatives | p = 0.05 | p = 0.01 | p = 0.0005 |\n|---|---|---|---|---|---|")
    for name, change in (("distinct", lambda x: x), ("80% are 0", lambda x: np.maximum(x - 0.84, 0))):
        for positives, negatives in ((3, 80), (3, 500), (10, 80), (10, 500), (20, 80), (20, 500)):
            pairs = _pairs(np.random.default_rng(seed), positives, negatives, change)
            near = [np.abs(np.log(pairs[:, 0] / level)) < 0.5 for level in (0.05, 0.01, 0.0005)]
            ratios = [np.median(pairs[rows, 1] / pairs[rows, 0]) if rows.any() else np.nan for rows in near]
            cells = " | ".join("-" if np.isnan(ratio) else f"{ratio:.2g}" for ratio in ratios)
            print(f"| {name} | {positives} | {negatives} | {cells} |", flush=True)


def _pairs(
    random: np.random.Generator, positives: int, negatives: int, change: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """[K, 2]: exact and normal p of the same scores, from no difference to a large one."""
    pairs = []
    for shift in np.linspace(0, 4, 300):
        high = change(random.standard_normal(positives) + shift)
        low = change(random.standard_normal(negatives))
        both = [rank_p_value(high, low)]
        exact, skewed = chance.EXACT, chance.SKEWED
        chance.EXACT, chance.SKEWED = 0, np.inf
        both.append(rank_p_value(high, low))
        chance.EXACT, chance.SKEWED = exact, skewed
        pairs.append(both)
    return np.array(pairs)


def speed() -> None:
    random = np.random.default_rng(0)
    print("\n## 100,000 images by 100 attributes\n\n| present | seconds |\n|---|---|")
    scores = random.random((100_000, 100), np.float32)
    for rate in (0.0002, 0.01, 0.3):
        labels = (random.random(scores.shape, np.float32) < rate).astype(np.float32)
        start = time.perf_counter()
        rank_p_values(labels, scores)
        print(f"| {rate:.2%} | {time.perf_counter() - start:.1f} |", flush=True)


if __name__ == "__main__":
    main()
