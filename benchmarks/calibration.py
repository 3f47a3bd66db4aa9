"""Owns the proof of calibration: what the shift and the ridge are worth with 3 to 200 positives.

python benchmarks/calibration.py                     # 200 repetitions; about 3 minutes on one core
python benchmarks/calibration.py --repetitions 50    # a quick look
"""

import argparse
import time
from itertools import product

import numpy as np

from mlcls.scoring.calibration import Calibration, fit_calibration, known_shift, out_of_fold
from mlcls.scoring.calibration_error import calibration_figures

POSITIVES = (3, 10, 50, 200)
RATE, CENTRE, SPREAD = 0.116, -3.0, 1.8  # the rate is what true logits of this mean and deviation give
FRESH = 2000  # cells of a repetition on which calibrated scores are judged
RIDGES = tuple(product((1.0, 2.0, 5.0, 12.0, 30.0), (1.0, 3.0, 10.0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    start = time.perf_counter()
    before_and_after(flags.repetitions, flags.seed)
    unknown_as_negative(flags.repetitions, flags.seed)
    held_out_is_honest(flags.repetitions, flags.seed)
    ridges(flags.repetitions, flags.seed)
    speed()
    print(f"\n{time.perf_counter() - start:.0f} seconds")


def table(
    random: np.random.Generator, cells: int, repetitions: int, slope: float, shift: float, turn: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Labels [cells, repetitions] and raw scores that a line of this slope, about the logit `turn`, would mend."""
    true = CENTRE + SPREAD * random.standard_normal((cells, repetitions))
    labels = (random.random(true.shape) < sigmoid(true)).astype(np.float32)
    return labels, sigmoid((true - turn) / slope + turn + shift).astype(np.float32)


def before_and_after(repetitions: int, seed: int) -> None:
    print(f"## Scores of fresh cells, base rate {RATE:.0%}, means of {repetitions} validation subsets\n")
    print("Each cell of the table: as trained / shift alone / shift and ridge Platt scaling.\n")
    print("| pos_weight | slope to mend | positives | log loss | Brier score | calibration error |")
    print("|---|---|---|---|---|---|")
    for weight, slope, positives in product((1.0, 3.0, 10.0), (0.5, 1.0, 2.0), POSITIVES):
        random = np.random.default_rng(seed)
        shape = (slope, np.log(weight))
        labels, scores = table(random, round(positives / RATE), repetitions, *shape)
        fresh, fresh_scores = table(random, FRESH, repetitions, *shape)
        shift = known_shift(np.full(repetitions, weight))
        assert shift is not None
        ways = (
            fresh_scores,
            Calibration(np.ones(repetitions), shift).apply(fresh_scores),
            fit_calibration(labels, scores, shift).apply(fresh_scores),
        )
        figures = [calibration_figures(fresh, way) for way in ways]
        losses = " / ".join(f"{log_loss(fresh, way):.3f}" for way in ways)
        briers, errors = (" / ".join(f"{f[name]:.3f}" for f in figures) for name in ("brier", "ece"))
        print(f"| {weight:g} | {slope:g} | {positives} | {losses} | {briers} | {errors} |", flush=True)


def unknown_as_negative(repetitions: int, seed: int) -> None:
    """A network that learned P(known to be present) exactly; whether a cell is known does not depend on it."""
    print("\n## Unknown cells trained as absent: log loss as trained / shift alone / both\n")
    print("| cells known | base rate | 10 positives | 50 positives |\n|---|---|---|---|")
    for share, centre in product((0.7, 0.3), (-3.0, -1.0, 0.0)):
        cells, rate = [], 0.0
        for positives in (10, 50):
            random = np.random.default_rng(seed)
            true = centre + SPREAD * random.standard_normal((FRESH, repetitions))
            rate = float(sigmoid(true).mean())
            labels = (random.random(true.shape) < sigmoid(true)).astype(np.float32)
            scores = (share * sigmoid(true)).astype(np.float32)
            shift = known_shift(
                negative=np.full(repetitions, share * (1 - rate)), unknown=np.full(repetitions, 1 - share)
            )
            assert shift is not None
            some = min(FRESH // 2, round(positives / rate))
            fitted = fit_calibration(labels[:some], scores[:some], shift)
            alone = Calibration(np.ones(repetitions), shift)
            fresh, fresh_scores = labels[FRESH // 2 :], scores[FRESH // 2 :]
            ways = (fresh_scores, alone.apply(fresh_scores), fitted.apply(fresh_scores))
            cells.append(" / ".join(f"{log_loss(fresh, way):.3f}" for way in ways))
        print(f"| {share:.0%} | {rate:.0%} | {' | '.join(cells)} |", flush=True)


def held_out_is_honest(repetitions: int, seed: int) -> None:
    """The figures that a bundle prints against those of fresh images."""
    print("\n## Log loss after calibration, pos_weight 3, slope to mend 0.5\n")
    print("| positives | on the cells it was fitted on | out of fold | on fresh cells |\n|---|---|---|---|")
    for positives in POSITIVES:
        random = np.random.default_rng(seed)
        labels, scores = table(random, round(positives / RATE), repetitions, 0.5, np.log(3))
        fresh, fresh_scores = table(random, FRESH, repetitions, 0.5, np.log(3))
        shift = known_shift(np.full(repetitions, 3.0))
        fitted = fit_calibration(labels, scores, shift)
        found = (
            log_loss(labels, fitted.apply(scores)),
            log_loss(labels, out_of_fold(labels, scores, shift)),
            log_loss(fresh, fitted.apply(fresh_scores)),
        )
        print(f"| {positives} | " + " | ".join(f"{loss:.3f}" for loss in found) + " |", flush=True)


def ridges(repetitions: int, seed: int) -> None:
    """Excess log loss over the true probabilities, after a shift that is right or 0.7 off."""
    print("\n## Choice of the ridges: log loss above that of the true probabilities, times 1,000\n")
    print(
        "Mean of slopes 0.5, 0.7, 1, 1.4, 2 about the logits 0 and -3, after a shift right, or wrong by 0.7;"
    )
    print("in brackets where nothing is to be mended.\n")
    print("| slope ridge, intercept ridge | " + " | ".join(f"{p} positives" for p in POSITIVES) + " |")
    print("|---|" + "---|" * len(POSITIVES))
    rows: dict[tuple[float, float] | None, list[str]] = {ridge: [] for ridge in (None, *RIDGES)}
    for positives in POSITIVES:
        excess: dict[tuple[float, float] | None, list[float]] = {ridge: [] for ridge in rows}
        perfect = dict.fromkeys(rows, 0.0)
        for slope, turn, off in product((0.5, 0.7, 1.0, 1.4, 2.0), (0.0, -3.0), (-0.7, 0.0, 0.7)):
            random, few = np.random.default_rng(seed), max(10, repetitions // 5)
            shape = (slope, off, turn)
            labels, scores = table(random, round(positives / RATE), few, *shape)
            fresh, fresh_scores = table(random, FRESH, few, *shape)
            floor = log_loss(fresh, Calibration(*_truth(few, slope, off, turn)).apply(fresh_scores))
            for ridge in rows:
                after = fresh_scores
                if ridge is not None:
                    strength = {"ridge_slope": ridge[0], "ridge_intercept": ridge[1]}
                    after = fit_calibration(labels, scores, **strength).apply(fresh_scores)
                excess[ridge].append(1000 * (log_loss(fresh, after) - floor))
                if slope == 1 and off == 0:
                    perfect[ridge] = excess[ridge][-1]
        for ridge, row in rows.items():
            row.append(f"{np.mean(excess[ridge]):.1f} ({perfect[ridge]:.1f})")
    for ridge, row in rows.items():
        name = "shift alone" if ridge is None else f"{ridge[0]:g}, {ridge[1]:g}"
        print(f"| {name} | " + " | ".join(row) + " |", flush=True)


def _truth(repetitions: int, slope: float, off: float, turn: float) -> tuple[np.ndarray, np.ndarray]:
    return np.full(repetitions, slope), np.full(repetitions, turn - slope * (turn + off))


def speed() -> None:
    print(
        "\n## Seconds\n\n| images | attributes | fit_calibration | out_of_fold | apply |\n|---|---|---|---|---|"
    )
    for images, attributes in ((10_000, 25), (100_000, 100)):
        labels, scores = table(np.random.default_rng(0), images, attributes, 0.5, 1.0)
        seconds, fitted = [], fit_calibration(labels[:10], scores[:10])
        for call in (
            lambda p=labels, q=scores: fit_calibration(p, q),
            lambda p=labels, q=scores: out_of_fold(p, q),
            lambda q=scores, line=fitted: line.apply(q),
        ):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        print(f"| {images:,} | {attributes} | " + " | ".join(f"{s:.1f}" for s in seconds) + " |", flush=True)


def log_loss(labels: np.ndarray, scores: np.ndarray) -> float:
    p = np.clip(scores.astype(np.float64), 1e-12, 1 - 1e-8)
    return float(-(labels * np.log(p) + (1 - labels) * np.log1p(-p)).mean())


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


if __name__ == "__main__":
    main()
