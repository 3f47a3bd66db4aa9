"""Owns the check of the intervals: how often 95% intervals hold the truth, where the truth is known.

python benchmarks/intervals.py                       # 500 repetitions of every setting; differences; speed
python benchmarks/intervals.py --repetitions 100 --only few
python benchmarks/intervals.py --rivals              # other bootstrap intervals beside it (half as fast)

Scores are normal with a shift where the attribute is present, so the population's F1, average precision and
AUROC at the same thresholds are integrals, not estimates.
"""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from mlcls.scoring import resampling
from mlcls.scoring.differences import paired_differences
from mlcls.scoring.intervals import evidence, intervals
from mlcls.scoring.metrics import FIGURES as ALL

FIGURES = ("f1", "average_precision", "auroc")
COLUMNS = [ALL.index(name) for name in FIGURES]
ENOUGH = 10  # images of the rarer class, for the table of single attributes
FEW_PREDICTED = ((5, 0.9), (10, 0.9), (10, 0.5), (30, 0.9), (100, 0.9))
GRID = np.linspace(-9.0, 13.0, 8001)


@dataclass(frozen=True)
class Setting:
    """A population and the size of a sample from it; `size` images a group, 1 for none."""

    name: str
    images: int
    attributes: int
    rates: tuple[float, float] = (0.05, 0.5)
    shifts: tuple[float, float] = (0.5, 2.5)
    unknown: float = 0.25
    shared: float = 0.4
    size: int = 1

    def rate(self) -> NDArray[np.float64]:
        return np.linspace(*self.rates, self.attributes)

    def shift(self) -> NDArray[np.float64]:
        """Out of step with the rates, so that rare attributes are easy and hard."""
        places = np.arange(self.attributes) * 3 % self.attributes
        return np.linspace(*self.shifts, self.attributes)[places]


SETTINGS = (
    Setting("100 images, 5 attributes", 100, 5),
    Setting("100 images, 20 attributes", 100, 20),
    Setting("300 images, 5 attributes", 300, 5),
    Setting("300 images, 20 attributes", 300, 20),
    Setting("1000 images, 5 attributes", 1000, 5),
    Setting("1000 images, 20 attributes", 1000, 20),
    Setting("few positives: 300 images, 5 attributes of 5%", 300, 5, rates=(0.05, 0.05)),
    Setting("nothing learnt: 300 images, 5 attributes", 300, 5, shifts=(0.0, 0.0)),
    Setting("groups of 4: 1000 images, 5 attributes", 1000, 5, size=4),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--only", default="", help="settings whose name holds this")
    parser.add_argument("--rivals", action="store_true", help="other intervals of the macro figures as well")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    flags = parser.parse_args()
    chosen = [setting for setting in SETTINGS if flags.only in setting.name]
    print(
        f"{flags.repetitions} repetitions, {flags.resamples} resamples, 95% intervals: % that hold the truth\n"
    )
    print(
        "| setting | macro F1 | macro AP | macro AUROC | micro F1 | micro AP | attributes: F1 | AP | AUROC |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    rivals = {}
    with ProcessPoolExecutor(flags.jobs) as pool:
        for setting in chosen:
            one = partial(repeat, setting, flags.resamples, flags.rivals)
            found = list(pool.map(one, range(flags.repetitions), chunksize=5))
            overall = [np.mean([hits[0][k] for hits in found]) for k in range(5)]
            single = np.nanmean(np.concatenate([hits[1] for hits in found]), axis=0)
            print(
                f"| {setting.name} | " + " | ".join(f"{100 * x:.1f}" for x in (*overall, *single)) + " |",
                flush=True,
            )
            rivals[setting.name] = [hits[2] for hits in found]
        if flags.rivals:
            show_rivals(rivals)
        show_false_alarms(pool, flags)
        show_precision(pool, flags)
    show_speed()


def repeat(setting: Setting, resamples: int, with_rivals: bool, number: int) -> tuple:
    """One sample: (five overall hits, [A, 3] hits of attributes with enough images, hits of rivals)."""
    random = np.random.default_rng([number, setting.images, setting.attributes])
    figures, limits = truth(setting)
    macro, micro = figures.mean(axis=0), pooled_truth(setting, limits)
    labels, scores, groups = sample(setting, random)
    options = {"groups": groups if setting.size > 1 else None, "resamples": resamples, "seed": number}
    found = intervals(labels, scores, limits, **options)
    overall = [holds(found.overall["macro"][name], macro[k]) for k, name in enumerate(FIGURES)]
    overall += [holds(found.overall["micro"][name], micro[k]) for k, name in enumerate(FIGURES[:2])]
    units = evidence(labels, [(scores, limits)], options["groups"]).attributes[:, ALL.index("f1")]
    single = np.full((len(units), 3), np.nan)
    for a in np.flatnonzero(units >= ENOUGH):
        single[a] = [holds(found.attributes[a][name], figures[a, k]) for k, name in enumerate(FIGURES)]
    others = {}
    if with_rivals:
        scorer = resampling.Scorer(labels, scores, limits)
        point = scorer.score(np.ones((1, setting.images)))
        drawn = resampling.replicates(scorer, options["groups"], resamples, number)
        for name, rival in RIVALS.items():
            others[name] = [
                holds(rival(point.macro[0, c], drawn.macro[:, c], int(units.sum())), macro[k])
                for k, c in enumerate(COLUMNS)
            ]
    return overall, single, others


def holds(interval: list[float] | None, value: float) -> float:
    """1 or 0; NaN where there is no interval."""
    return float("nan") if interval is None else float(interval[0] <= value <= interval[1])


def percentile(x: float, drawn: NDArray[np.float64], n: int) -> tuple[float, float]:
    return tuple(np.quantile(drawn, [0.025, 0.975]))


def expanded(x: float, drawn: NDArray[np.float64], n: int) -> tuple[float, float]:
    tail = norm.cdf(-np.sqrt(n / (n - 1)) * t.ppf(0.975, n - 1))
    return tuple(np.quantile(drawn, [tail, 1 - tail]))


def basic(x: float, drawn: NDArray[np.float64], n: int) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return 2 * x - high, 2 * x - low


def bias_corrected(x: float, drawn: NDArray[np.float64], n: int) -> tuple[float, float]:
    share = (np.sum(drawn < x) + np.sum(drawn == x) / 2 + 0.5) / (len(drawn) + 1)
    return tuple(np.quantile(drawn, norm.cdf(2 * norm.ppf(share) + norm.ppf([0.025, 0.975]))))


def normal_less_bias(x: float, drawn: NDArray[np.float64], n: int) -> tuple[float, float]:
    middle, reach = 2 * x - drawn.mean(), 1.96 * drawn.std(ddof=1)
    return middle - reach, middle + reach


def arcsine_less_bias(x: float, drawn: NDArray[np.float64], n: int) -> tuple[float, float]:
    turned = np.arcsin(np.sqrt(drawn))
    middle, reach = 2 * np.arcsin(np.sqrt(x)) - turned.mean(), 1.96 * turned.std(ddof=1)
    return tuple(np.sin(np.clip([middle - reach, middle + reach], 0, np.pi / 2)) ** 2)


RIVALS = {
    "percentile": percentile,
    "expanded percentile": expanded,
    "basic": basic,
    "bias-corrected (BC)": bias_corrected,
    "normal, less bias": normal_less_bias,
    "arcsine, less bias, z for t": arcsine_less_bias,
}


def show_rivals(rivals: dict[str, list[dict[str, list[float]]]]) -> None:
    print("\n| setting | interval | macro F1 | macro AP | macro AUROC |\n|---|---|---|---|---|")
    for setting, found in rivals.items():
        for name in RIVALS:
            hits = np.nanmean([one[name] for one in found], axis=0)
            print(f"| {setting} | {name} | " + " | ".join(f"{100 * x:.1f}" for x in hits) + " |")


def show_false_alarms(pool: ProcessPoolExecutor, flags: argparse.Namespace) -> None:
    """Two models of the same skill: how often an attribute is called changed, and 0 is in the interval."""
    print(
        "\n| two models of equal skill | any attribute called changed, % | macro F1 holds 0 | macro AP holds 0 |"
    )
    print("|---|---|---|---|")
    for setting in SETTINGS:
        if setting.attributes == 5 and setting.shifts != (0, 0) and flags.only in setting.name:
            one = partial(compare, setting, flags.resamples)
            rows = np.array(list(pool.map(one, range(flags.repetitions), chunksize=5)))
            print(
                f"| {setting.name} | " + " | ".join(f"{100 * x:.1f}" for x in rows.mean(axis=0)) + " |",
                flush=True,
            )


def compare(setting: Setting, resamples: int, number: int) -> tuple[float, float, float]:
    random = np.random.default_rng([number, setting.images])
    _, limits = truth(setting)
    labels, one, groups = sample(setting, random)
    # one score with two noises: models that differ from image to image, and are equally good
    other = one + random.normal(0, 0.3, one.shape)
    first = one + random.normal(0, 0.3, one.shape)
    options = {"groups": groups if setting.size > 1 else None, "resamples": resamples, "seed": number}
    (model,) = paired_differences(labels, [(first, limits), (other, limits)], **options)["models"]
    zero = [holds(model["macro"][name]["interval"], 0) for name in FIGURES[:2]]
    return float(any(row["changed"] for row in model["attributes"])), *zero


def show_precision(pool: ProcessPoolExecutor, flags: argparse.Namespace) -> None:
    """One attribute of 200 positives and 200 negatives of which few are predicted present."""
    print("\n| predicted present, on average | true precision | intervals that hold it, % | no interval, % |")
    print("|---|---|---|---|")
    for expected, precision in FEW_PREDICTED:
        one = partial(predict_few, expected, precision, flags.resamples)
        hits = np.array(list(pool.map(one, range(flags.repetitions), chunksize=5)))
        print(
            f"| {expected} of 400 | {precision} | {100 * np.nanmean(hits):.1f} | {100 * np.isnan(hits).mean():.1f} |",
            flush=True,
        )


def predict_few(expected: int, precision: float, resamples: int, number: int) -> float:
    random = np.random.default_rng([number, expected])
    labels = np.repeat([1.0, 0.0], 200)[:, None]
    chance = np.where(labels == 1, precision, 1 - precision) * expected / 200
    predicted = (random.random(labels.shape) < chance).astype(np.float32)
    found = intervals(labels, predicted, 0.5, resamples=resamples, seed=number)
    return holds(found.attributes[0]["precision"], precision)


def show_speed() -> None:
    random = np.random.default_rng(0)
    labels = (random.random((10_000, 25)) < np.linspace(0.01, 0.6, 25)).astype(np.float32)
    scores = random.normal(labels).astype(np.float32)
    start, busy = time.perf_counter(), time.process_time()
    intervals(labels, scores, 0.5)
    wall, busy = time.perf_counter() - start, time.process_time() - busy
    print(
        f"\n1,000 resamples of 10,000 x 25: {wall:.1f} s, {busy:.1f} s of the processor, {os.cpu_count()} CPUs"
    )


def pooled_truth(setting: Setting, limits: NDArray[np.float64]) -> tuple[float, float]:
    """(F1, average precision) of the population's pool of cells."""
    rate, shift = setting.rate()[:, None], setting.shift()[:, None]
    hit = rate * norm.sf(limits[:, None] - shift)
    false = (1 - rate) * norm.sf(limits[:, None])
    f1 = 2 * hit.sum() / (hit + false + rate).sum()
    above = (rate * norm.sf(GRID - shift)).sum(axis=0)
    wrong = ((1 - rate) * norm.sf(GRID)).sum(axis=0)
    density = (rate * norm.pdf(GRID - shift)).sum(axis=0) / rate.sum()
    return float(f1), float(np.trapezoid(density * above / np.maximum(above + wrong, 1e-300), GRID))


def truth(setting: Setting) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(figures [A, 3], thresholds [A] of the latent score) of the population; thresholds are best for F1."""
    figures, limits = [], []
    for rate, shift in zip(setting.rate(), setting.shift(), strict=True):
        hit, false = norm.sf(GRID - shift), norm.sf(GRID)
        precision = rate * hit / np.maximum(rate * hit + (1 - rate) * false, 1e-300)
        f1 = 2 * rate * hit / (rate * hit + (1 - rate) * false + rate)
        ap = np.trapezoid(norm.pdf(GRID - shift) * precision, GRID)
        best = int(f1.argmax())
        figures.append((f1[best], ap, norm.cdf(shift / np.sqrt(2))))
        limits.append(GRID[best])
    return np.array(figures), np.array(limits)


def sample(setting: Setting, random: np.random.Generator) -> tuple[NDArray[np.float32], ...]:
    """Labels [N, A] with NaN, latent scores [N, A], groups [N].

    Part of every label's and score's normal is shared by the attributes of an image, part by a group's images.
    """
    N, A = setting.images, setting.attributes
    groups = np.arange(N) // setting.size

    def normals() -> NDArray[np.float64]:
        image = random.standard_normal((N, 1))
        own = random.standard_normal((N, A))
        mixed = np.sqrt(setting.shared) * image + np.sqrt(1 - setting.shared) * own
        if setting.size == 1:
            return mixed
        group = random.standard_normal((N, A))[groups]
        return np.sqrt(0.5) * group + np.sqrt(0.5) * mixed

    labels = (normals() < norm.ppf(setting.rate())).astype(np.float32)
    scores = (normals() + labels * setting.shift()).astype(np.float32)
    labels[random.random((N, A)) < setting.unknown] = np.nan
    return labels, scores, groups


if __name__ == "__main__":
    main()
