"""Owns the question which threshold to trust: what rules for choosing one look like, and what they are worth.

python benchmarks/thresholds.py                 # all tables, in about 10 minutes
python benchmarks/thresholds.py --sets 20       # a quick look

Each repetition draws a population of 8 attributes (40,000 images), a validation set from it with so many positives
an attribute, chooses thresholds on that set alone, and asks what they are worth on the population.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcls.scoring import estimators
from mlcls.scoring.crossfit import cross_fit
from mlcls.scoring.estimators import exact, robust
from mlcls.scoring.known import Known
from mlcls.scoring.objectives import Cuts, Objective, parse_objective

Array = NDArray[Any]
Population = list[tuple[Array, Array]]  # an attribute: scores of its positives, of its negatives, ascending

A, IMAGES = 8, 40_000
POSITIVES = (3, 10, 50)
F1 = parse_objective("f1")


def probability(logits: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(logits, -30, 30)))


def logit(probabilities: Array) -> Array:
    kept = np.clip(probabilities, 1e-8, 1 - 1e-8)
    return np.log(kept / (1 - kept))


def slope(random: np.random.Generator) -> tuple[Array, Array]:
    """Labels and logits: the right order, but over- or underconfident by a factor of 0.37 to 3.3."""
    z = random.normal(random.uniform(-3, 0), random.uniform(1, 2.5), IMAGES)
    return random.random(IMAGES) < probability(z), z * np.exp(random.uniform(-1, 1.2))


def heavy(random: np.random.Generator) -> tuple[Array, Array]:
    """Heavy tails (Student's t, 1.5 degrees of freedom), off by up to 2."""
    labels = random.random(IMAGES) < random.uniform(0.08, 0.5)
    noise = random.standard_t(1.5, IMAGES)
    return labels, noise + random.uniform(0.5, 2.5) * labels - random.uniform(0, 2)


def weighted(random: np.random.Generator) -> tuple[Array, Array]:
    """As after training with `pos_weight`: moved so that 0.5 balances both classes. 0.5 is at its best here."""
    z = random.normal(random.uniform(-3, 0), random.uniform(1, 2.5), IMAGES)
    labels = random.random(IMAGES) < probability(z)
    return labels, z - np.log(labels.mean() / (1 - labels.mean()))


KINDS: dict[str, Callable[[np.random.Generator], tuple[Array, Array]]] = {
    "slope": slope,
    "heavy": heavy,
    "weighted": weighted,
}


def draw_population(kind: str, random: np.random.Generator) -> Population:
    population = []
    for _ in range(A):
        labels, logits = KINDS[kind](random)
        scores = probability(logits).astype(np.float32)
        population.append((np.sort(scores[labels]), np.sort(scores[~labels])))
    return population


def draw_validation(
    population: Population, positives: int | tuple[int, ...], random: np.random.Generator
) -> Known:
    """So many positives of each attribute, negatives by its rate (at most 60 a positive), in rows at random."""
    wanted = (positives,) * A if isinstance(positives, int) else positives
    sizes = [
        min(60 * n, max(3, round(n * len(absent) / len(present))))
        for n, (present, absent) in zip(wanted, population, strict=True)
    ]
    N = max(n + size for n, size in zip(wanted, sizes, strict=True))
    scores, labels = np.zeros((N, A), np.float32), np.full((N, A), np.nan)
    for column, ((present, absent), n, size) in enumerate(zip(population, wanted, sizes, strict=True)):
        rows = random.permutation(N)[: n + size]
        labels[rows, column] = np.arange(len(rows)) < n
        scores[rows, column] = np.concatenate([random.choice(present, n), random.choice(absent, size)])
    return Known(scores, labels == 1, labels == 0, np.arange(N))


def share_above(ascending: Array, threshold: float) -> float:
    return 1 - float(np.searchsorted(ascending, np.float64(threshold))) / len(ascending)


def f1_of(pair: tuple[Array, Array], threshold: float) -> float:
    present = pair[0]
    tp, fp = (len(one) * share_above(one, threshold) for one in pair)
    return 2 * tp / (len(present) + tp + fp)


def f1_seen(known: Known, column: int, threshold: float) -> float:
    pair = (
        np.sort(known.scores[known.present[:, column], column]),
        np.sort(known.scores[known.absent[:, column], column]),
    )
    return f1_of(pair, threshold)


def rules(known: Known) -> Iterator[tuple[str, Array]]:
    """Names and thresholds [A] of each way to choose them."""
    yield "0.5", np.full(A, 0.5)
    yield "exact", exact(known, F1, 0, 0).thresholds
    yield "robust", robust(known, F1, 0, 0).thresholds
    columns = np.arange(A)
    own, common = estimators._own_and_common(known, F1, columns, estimators.RESAMPLES, 0)
    every = Known(
        known.scores.reshape(-1, 1),
        known.present.reshape(-1, 1),
        known.absent.reshape(-1, 1),
        np.arange(known.scores.size),
    )
    n = int(known.present[:, 0].sum())
    pooled = float(exact(every, F1, 0, 0).thresholds[0])
    median = np.nanmedian(own, axis=0)
    mean, common_mean = np.nanmean(logit(own), axis=0), logit(common).mean()
    yield "one for all: best F1 of all cells pooled", np.full(A, pooled)
    yield "one for all: best mean F1, bootstrapped", probability(np.full(A, common_mean))
    yield "median of optima, alone", median
    yield "median, to pooled, 5", (n * median + 5 * pooled) / (n + 5)
    yield "mean of optima (logits), alone", probability(mean)
    for pull in (1, 2, 3, 5, 10):
        yield f"mean (logits), to common, {pull}", probability((n * mean + pull * common_mean) / (n + pull))
    plain = (n * np.nanmean(own, axis=0) + 3 * common.mean()) / (n + 3)
    yield "mean (probabilities), to common, 3", plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=200, help="repetitions of each cell of the tables")
    parser.add_argument("--seed", type=int, default=2024)
    tables = {
        "f1": table_of_rules,
        "cross-fitting": table_of_cross_fitting,
        "objectives": table_of_objectives,
        "few": table_of_few,
        "floors": table_of_floors,
    }
    parser.add_argument("--only", choices=tables)
    flags = parser.parse_args()
    for name, table in tables.items():
        if flags.only in (None, name):
            table(flags.sets, flags.seed)


def show(title: str, header: list[str], rows: dict[str, list[float]], digits: int = 3) -> None:
    print(f"\n{title}\n\n| | {' | '.join(header)} |\n|---|{'---|' * len(header)}")
    for name, figures in rows.items():
        print(f"| {name} | {' | '.join(f'{figure:.{digits}f}' for figure in figures)} |", flush=True)


def table_of_rules(sets: int, seed: int) -> None:
    """What each rule is worth; the first line is what the exact optimum looks like on its own labels."""
    rows: dict[str, list[float]] = defaultdict(list)
    for kind in KINDS:
        for positives in POSITIVES:
            random = np.random.default_rng([seed, positives, *kind.encode()])
            figures: dict[str, list[float]] = defaultdict(list)
            for _ in range(sets):
                population = draw_population(kind, random)
                known = draw_validation(population, positives, random)
                for name, thresholds in rules(known):
                    if name == "exact":
                        seen = [f1_seen(known, a, t) for a, t in enumerate(thresholds)]
                        figures["exact, as it looks"] += seen
                    figures[name] += [f1_of(population[a], t) for a, t in enumerate(thresholds)]
            for name, one in figures.items():
                rows[name].append(float(np.mean(one)))
    header = [f"{kind} {positives}" for kind in KINDS for positives in POSITIVES]
    show(f"F1 on the population ({sets} sets of {A} attributes)", header, rows)


def table_of_cross_fitting(sets: int, seed: int) -> None:
    """What a threshold's F1 looks like, what cross-fitting says, and what it is worth."""
    rows: dict[str, list[float]] = defaultdict(list)
    for kind in KINDS:
        for positives in POSITIVES:
            random = np.random.default_rng([seed, 1, positives, *kind.encode()])
            figures: dict[str, list[float]] = defaultdict(list)
            for _ in range(sets):
                population = draw_population(kind, random)
                known = draw_validation(population, positives, random)
                labels = np.where(known.present, 1.0, np.where(known.absent, 0.0, np.nan))
                for name in ("exact", "robust"):
                    thresholds = estimators.ESTIMATORS[name](known, F1, 0, 0).thresholds
                    figures[f"{name}, as it looks"] += [
                        f1_seen(known, a, t) for a, t in enumerate(thresholds)
                    ]
                    crossed = cross_fit(labels, known.scores, F1, name).f1
                    figures[f"{name}, cross-fitted"] += [one for one in crossed if one is not None]
                    figures[f"{name}, worth"] += [f1_of(population[a], t) for a, t in enumerate(thresholds)]
            for name, one in figures.items():
                rows[name].append(float(np.mean(one)))
    header = [f"{kind} {positives}" for kind in KINDS for positives in POSITIVES]
    show(f"F1 as it looks, cross-fitted, and on the population ({sets} sets of {A} attributes)", header, rows)


def table_of_objectives(sets: int, seed: int) -> None:
    """The other objectives, mean over the three kinds; a cost is per 100 images. A third of the sets."""
    sets = max(1, sets // 3)
    objectives = ("fbeta:2", "youden", "cost:1,4", "cost:4,1")
    rows: dict[str, list[float]] = defaultdict(list)
    for text in objectives:
        aim = parse_objective(text)
        for positives in POSITIVES:
            figures: dict[str, list[float]] = defaultdict(list)
            for kind in KINDS:
                random = np.random.default_rng([seed, 2, positives, *kind.encode()])
                for _ in range(sets):
                    population = draw_population(kind, random)
                    known = draw_validation(population, positives, random)
                    for name, thresholds in few_rules(known, aim):
                        figures[name] += [worth(population[a], t, aim) for a, t in enumerate(thresholds)]
            for name, one in figures.items():
                rows[name].append(float(np.mean(one)))
    header = [f"{text} {positives}" for text in objectives for positives in POSITIVES]
    show(f"Other objectives on the population ({sets} sets of {A} attributes a kind)", header, rows)


def few_rules(known: Known, aim: Objective) -> Iterator[tuple[str, Array]]:
    yield "0.5", np.full(A, 0.5)
    yield "exact", exact(known, aim, 0, 0).thresholds
    yield "robust", robust(known, aim, 0, 0).thresholds
    own, common = estimators._own_and_common(known, aim, np.arange(A), estimators.RESAMPLES, 0)
    n = int(known.present[:, 0].sum())
    median, mean = np.nanmedian(own, axis=0), np.nanmean(own, axis=0)
    yield "median, to common, 5", (n * median + 5 * common.mean()) / (n + 5)
    yield "mean (probabilities), to common, 3", (n * mean + 3 * common.mean()) / (n + 3)


def worth(pair: tuple[Array, Array], threshold: float, aim: Objective) -> float:
    assert aim.rank is not None
    P, N = (len(one) for one in pair)
    tp, fp = (np.array([round(len(one) * share_above(one, threshold))]) for one in pair)
    value = float(aim.rank(Cuts(tp, fp, P, N), *aim.numbers).value[0])
    return value * 100 / (P + N) if aim.text.startswith("cost") else value


def table_of_few(sets: int, seed: int) -> None:
    """Attributes with one and two known positives beside others with more."""
    sizes = (1, 1, 2, 2, 3, 10, 20, 50)
    rows: dict[str, list[float]] = defaultdict(list)
    for kind in KINDS:
        random = np.random.default_rng([seed, 3, *kind.encode()])
        figures: dict[tuple[str, int], list[float]] = defaultdict(list)
        for _ in range(sets):
            population = draw_population(kind, random)
            known = draw_validation(population, sizes, random)
            chosen = {"0.5": np.full(A, 0.5), "robust": robust(known, F1, 0, 0).thresholds}
            more = np.array(sizes) > 2
            without = Known(known.scores, known.present & more, known.absent, known.units)
            chosen["robust, its positives unknown"] = robust(without, F1, 0, 0).thresholds
            nothing = Known(known.scores, known.present & more, known.absent & more, known.units)
            chosen["robust, all its labels unknown"] = robust(nothing, F1, 0, 0).thresholds
            for name, thresholds in chosen.items():
                for a in range(4):
                    figures[name, sizes[a]].append(f1_of(population[a], thresholds[a]))
        for (name, _), one in figures.items():
            rows[name].append(float(np.mean(one)))
    header = [f"{kind} {positives}" for kind in KINDS for positives in (1, 2)]
    show(f"F1 on the population, one or two known positives ({sets} sets)", header, rows)


def table_of_floors(sets: int, seed: int) -> None:
    """Of the sets: in how many the floor is called met, called met but not held, and (the worst attribute) so."""
    print(
        f"\nFloors on the population ({sets} sets of each of {3 * A} attributes; "
        "the last, of an attribute whose scores know nothing and whose rate is just below the floor)\n\n"
        "| floor | positives | called met | ... and false | the worst attribute | held where called met | flat |"
        "\n|---|---|---|---|---|---|---|"
    )
    random = np.random.default_rng([seed, 4])
    attributes = [one for kind in KINDS for one in draw_population(kind, random)]
    for text in ("precision:0.5", "precision:0.8", "precision:0.9", "recall:0.8", "recall:0.9"):
        for positives in (30, 100, 300):
            aim = parse_objective(text)
            counts = np.array([floor_counts(one, aim, positives, sets, random) for one in attributes]) / sets
            met, false = counts.mean(axis=0)
            flat = (
                floor_counts(flat_attribute(aim.numbers[0], random), aim, positives, sets, random)[1] / sets
                if text.startswith("precision")
                else float("nan")
            )
            print(
                f"| {text} | {positives} | {met:.2f} | {false:.3f} | {counts[:, 1].max():.2f} | "
                f"{1 - false / max(met, 1e-12):.3f} | {flat:.2f} |",
                flush=True,
            )


def floor_counts(
    pair: tuple[Array, Array], aim: Objective, positives: int, sets: int, random: np.random.Generator
) -> tuple[int, int]:
    """In how many sets the floor is called met, and in how many of these it does not hold."""
    present, absent = pair
    negatives = max(3, round(positives * len(absent) / len(present)))
    met = false = 0
    for _ in range(sets):
        scores = np.concatenate([random.choice(present, positives), random.choice(absent, negatives)])[
            :, None
        ]
        labels = (np.arange(len(scores)) < positives)[:, None]
        known = Known(scores, labels, ~labels, np.arange(len(scores)))
        found = exact(known, aim, 0, 0)
        if found.notes[0] is None:
            met += 1
            tp, fp = (len(one) * share_above(one, found.thresholds[0]) for one in pair)
            figure = tp / max(tp + fp, 1) if aim.text.startswith("precision") else tp / len(present)
            false += figure < aim.numbers[0]
    return met, false


def flat_attribute(floor: float, random: np.random.Generator) -> tuple[Array, Array]:
    labels = np.arange(IMAGES) < IMAGES * (floor - 0.005)
    scores = random.random(IMAGES).astype(np.float32)
    scores = np.sort(scores)
    order = random.permutation(IMAGES)
    labels = labels[order]
    return scores[labels], scores[~labels]


if __name__ == "__main__":
    main()
