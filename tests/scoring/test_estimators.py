"""The robust estimator by its effects: steady, drawn toward all attributes, by group, the same by its seed."""

import numpy as np
import pytest

from mlcls.scoring.known import unit_numbers
from mlcls.scoring.metrics import evaluate
from mlcls.scoring.optima import draw_weights, midway, resampled_cuts, side, thinned_cuts
from mlcls.scoring.thresholds import tune, tune_report

nan = np.nan


def make(positives, seed, attributes=8, size=60):
    """Overconfident scores whose best threshold is about the same for every attribute."""
    random = np.random.default_rng(seed)
    labels = np.full((size, attributes), nan, np.float32)
    for column in range(attributes):
        rows = random.permutation(size)[: positives * 4]
        labels[rows, column] = np.arange(len(rows)) < positives
    logits = 3 * (random.normal(size=labels.shape) + 1.5 * (labels == 1) - 1.5)
    return labels, (1 / (1 + np.exp(-logits))).astype(np.float32)


def worth(thresholds):
    """Mean F1 on fresh data."""
    random = np.random.default_rng(99)
    labels = (random.random((20_000, len(thresholds))) < 0.25).astype(np.float32)
    logits = 3 * (random.normal(size=labels.shape) + 1.5 * labels - 1.5)
    return evaluate(labels, 1 / (1 + np.exp(-logits)), thresholds)["macro"]["f1"]


@pytest.mark.parametrize(("positives", "gain"), [(3, 0.02), (10, 0.01)])
def test_with_few_positives_robust_thresholds_are_worth_more(positives, gain):
    figures = {"exact": [], "robust": []}
    for seed in range(8):
        for estimator, found in figures.items():
            found.append(worth(tune(*make(positives, seed), estimator=estimator)))
    assert np.mean(figures["robust"]) > np.mean(figures["exact"]) + gain


def test_few_positives_lean_on_the_others_and_say_so():
    labels, scores = make(15, 0)
    labels[:, 0] = nan
    labels[:4, 0] = 1, 0, 0, 0
    scores[:4, 0] = 0.99, 0.1, 0.2, 0.3
    labels[:, 1] = np.where(np.isnan(labels[:, 1]), nan, 0)
    labels[:, 2] = nan
    report = tune_report(labels, scores)
    assert report[0].note == "leans on the threshold of all attributes together: 1 known positive"
    assert report[1].note == "the threshold that is best for all attributes together: no known positives"
    assert report[1].interval is None
    assert report[2].note == report[1].note
    common = report[2].threshold
    assert report[1].threshold == common  # not its own, so it is moved to no gap of its own
    assert abs(report[0].threshold - common) < abs(0.645 - common) * 0.6  # its own optimum is 0.3 to 0.99
    assert all(one.note is None for one in report[3:])
    assert [one.note[:11] for one in tune_report(labels, scores, estimator="exact")[:2]] == [
        "kept at 0.5"
    ] * 2


@pytest.mark.parametrize("objective", ["f1", "fbeta:2", "youden", "cost:1,4"])
def test_every_objective_is_estimated_robustly(objective):
    labels, scores = make(12, 1)
    exact = tune_report(labels, scores, objective, estimator="exact")
    robust = tune_report(labels, scores, objective)
    assert np.std([one.threshold for one in robust]) < np.std([one.threshold for one in exact])
    for one, best in zip(robust, exact, strict=True):
        assert one.value >= best.value if objective.startswith("cost") else one.value <= best.value + 1e-12
        assert one.interval[0] <= one.threshold <= one.interval[1]


def test_floors_are_chosen_exactly_by_either_estimator():
    labels, scores = make(12, 2)
    for objective in ("precision:0.5", "recall:0.6", "fixed:0.7"):
        exact, robust = (tune(labels, scores, objective, estimator=name) for name in ("exact", "robust"))
        np.testing.assert_array_equal(exact, robust)


@pytest.mark.parametrize("positives", [3, 10])
def test_a_robust_threshold_lies_midway_between_its_own_neighbouring_scores(positives):
    labels, scores = make(positives, 3)
    known = ~np.isnan(labels)
    for column, threshold in enumerate(tune(labels, scores)):
        around = np.sort(np.concatenate([[0, 1], scores[known[:, column], column]]).astype(np.float64))
        above = np.searchsorted(around, threshold)
        assert threshold == pytest.approx((around[above - 1] + around[above]) / 2, abs=1e-7)


def test_the_same_seed_gives_the_same_thresholds_in_any_precision():
    labels, scores = make(10, 4)
    first = tune_report(labels, scores, seed=3)
    assert first == tune_report(labels, scores, seed=3)
    assert first != tune_report(labels, scores, seed=4)
    assert [one.threshold for one in first] == tune(labels, scores, seed=3).tolist()
    again = tune(labels, scores.astype(np.float64), seed=3)
    np.testing.assert_allclose(again, [one.threshold for one in first], atol=1e-6)


def test_unknown_rows_change_little_and_unknown_scores_nothing():
    labels, scores = make(10, 5)
    changed = np.where(np.isnan(labels), 0.123, scores).astype(np.float32)
    np.testing.assert_array_equal(tune(labels, scores), tune(labels, changed))


def test_images_of_one_group_are_drawn_together():
    # each image five times: by image the threshold seems five times as sure as by group
    labels, scores = make(12, 6)
    labels, scores, groups = np.repeat(labels, 5, 0), np.repeat(scores, 5, 0), np.repeat(np.arange(60), 5)

    def width(rows):
        return np.mean([one.interval[1] - one.interval[0] for one in rows])

    by_group = tune_report(labels, scores, estimator="exact", groups=groups)
    assert width(by_group) > 1.3 * width(tune_report(labels, scores, estimator="exact"))
    names = [f"person {group}" for group in groups]
    renamed = tune_report(labels, scores, estimator="exact", groups=names)
    assert width(renamed) == pytest.approx(width(by_group), rel=0.3)
    with pytest.raises(ValueError, match=r"groups must be \[300\]"):
        tune_report(labels, scores, groups=groups[:5])
    assert unit_numbers(["b", "a", "b"], 3).tolist() == [1, 0, 1]


def test_one_group_leaves_nothing_to_resample():
    labels, scores = make(10, 7)
    for one in tune_report(labels, scores, groups=np.zeros(len(labels))):
        assert one.threshold in one.interval  # all draws are one; the threshold was moved midway from there
        assert one.cross_fitted is None


def test_very_rare_and_very_many_labels():
    random = np.random.default_rng(8)
    labels = (random.random((20_000, 2)) < [0.002, 0.5]).astype(np.float32)
    scores = 1 / (1 + np.exp(-random.normal(size=labels.shape) - 2 * labels))
    robust, exact = tune(labels, scores), tune(labels, scores, estimator="exact")
    best = [entry["f1"] for entry in evaluate(labels, scores, exact)["attributes"]]
    found = [entry["f1"] for entry in evaluate(labels, scores, robust)["attributes"]]
    assert best[1] - found[1] < 0.002
    assert best[0] - found[0] < 0.05


def test_resampled_counts_are_those_of_the_repeated_cells():
    random = np.random.default_rng(9)
    scores = np.round(random.random(300), 2)
    present = random.random(300) < 0.3
    known = random.random(300) < 0.8
    units = random.integers(0, 40, 300)
    weights = draw_weights(40, 7, random)
    assert weights.sum(axis=0).tolist() == [40] * 7
    positives, negatives = side(scores, present & known, units), side(scores, ~present & known, units)
    cuts = random.permutation(thinned_cuts(positives, negatives))
    counts, both = resampled_cuts(positives, negatives, cuts, weights)
    assert both.all()
    for b in range(7):
        times = weights[units, b].astype(int) * known
        again, label = np.repeat(scores, times), np.repeat(present, times)
        assert counts.positive[b] == label.sum()
        for row, cut in enumerate(cuts):
            assert counts.tp[row, b] == (label & (again >= cut)).sum()
            assert counts.fp[row, b] == (~label & (again >= cut)).sum()


def test_thinned_cuts_are_cut_points_with_both_ends():
    random = np.random.default_rng(10)
    scores = random.random(5000)
    units = np.arange(5000)
    rare = np.arange(5000) < 20
    cuts = thinned_cuts(side(scores, rare, units), side(scores, ~rare, units))
    assert 20 < len(cuts) <= 512
    assert cuts[0] < scores.min()
    assert cuts[-1] > scores.max()
    for positive in scores[rare]:  # recall can still be chosen one by one
        below = cuts[cuts <= positive].max()
        assert not ((scores >= below) & (scores < positive)).any()


def test_midway():
    assert midway(0.5, np.array([0.2, 0.6])) == pytest.approx(0.4)
    assert midway(0.6, np.array([0.2, 0.6])) == pytest.approx(0.4)  # 0.6 is still present
    assert midway(0.1, np.array([0.2, 0.6])) == pytest.approx(0.1)
    assert midway(0.7, np.array([0.2, 0.6])) == pytest.approx(0.8)
    assert midway(0.7, np.array([])) == 0.7
    # compared as float64: as float32 the threshold would be the 0.3 that it lies above
    tight = float(np.float32(0.3)) + 1e-9
    assert midway(tight, np.float32([0.3, 0.6])) == pytest.approx(0.45)


def test_saturated_scores_reach_both_ends():
    labels = (np.arange(40) < 10).astype(np.float32)[:, None]
    for score, objective in ((0, "f1"), (1, "f1"), (0, "cost:9,1"), (1, "cost:9,1"), (1e-12, "f1")):
        scores = np.full((40, 1), score, np.float32)
        exact, robust = (
            tune_report(labels, scores, objective, estimator=name)[0] for name in ("exact", "robust")
        )
        assert robust.value == exact.value == (pytest.approx(0.4) if objective == "f1" else 10)
        assert robust.threshold == pytest.approx(exact.threshold, abs=1e-12)
        assert robust.interval[0] <= robust.threshold <= robust.interval[1]


def test_probabilities_nearer_to_zero_than_the_last_logit_are_still_parted():
    labels = (np.arange(40) < 10).astype(np.float32)[:, None]
    scores = np.where(labels == 1, 1e-10, 1e-12).astype(np.float32)
    (one,) = tune_report(labels, scores)
    assert one.value == 1
    assert 1e-12 < one.threshold < 1e-10


def test_scores_far_from_the_other_attributes_are_not_drawn_out_of_their_range() -> None:
    """Scores of one attribute crowd around 0.46, those of the others lie near 0.9: it keeps a threshold of its own."""
    rng = np.random.default_rng(1)
    labels = (rng.random((60, 4)) < 0.4).astype(np.float32)
    scores = (0.88 + 0.1 * rng.random(labels.shape)).astype(np.float32)
    scores[:, 0] = 0.46 + 0.001 * (labels[:, 0] + 0.3 * rng.random(60))
    found = tune_report(labels, scores)[0]
    assert 0.46 < found.threshold < 0.4613
    assert found.value == 1.0


def test_an_attribute_without_a_positive_takes_the_common_threshold_as_it_is() -> None:
    rng = np.random.default_rng(2)
    labels = (rng.random((80, 3)) < 0.5).astype(np.float32)
    scores = np.clip(0.3 * labels + 0.6 * rng.random(labels.shape), 0, 1).astype(np.float32)
    labels[:, 0] = 0
    alone = tune_report(labels[:, 1:], scores[:, 1:])
    threshold = tune_report(labels, scores)[0].threshold
    assert min(one.threshold for one in alone) - 0.1 < threshold < max(one.threshold for one in alone) + 0.1
    neighbours = np.sort(scores[:, 0])
    above = int(np.searchsorted(neighbours, threshold))
    assert threshold != pytest.approx((neighbours[above - 1] + neighbours[above]) / 2, abs=1e-9)
