"""The test against chance: enumeration with ties, SciPy without, Holm, groups, false alarms."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlcls.errors import NumericalError
from mlcls.scoring import chance
from mlcls.scoring.chance import against_chance, holm, rank_p_value, rank_p_values

nan = np.nan


def enumerated(positives, negatives):
    """The share of all deals whose rank sum is at least the observed one."""
    ranks = stats.rankdata(np.concatenate([positives, negatives]))
    observed = ranks[: len(positives)].sum()
    sums = np.array([sum(deal) for deal in combinations(ranks, len(positives))])
    return np.mean(sums >= observed - 1e-9)


few_levels = st.lists(st.integers(0, 4), min_size=1, max_size=6)


@given(few_levels, few_levels)
@settings(deadline=None, max_examples=150)
def test_equal_to_enumeration_with_ties(positives, negatives):
    found = rank_p_value(np.array(positives, float), np.array(negatives, float))
    assert found == pytest.approx(enumerated(positives, negatives), abs=1e-12)


@pytest.mark.parametrize(
    ("positive", "negative"), [(1, 40), (3, 80), (15, 15), (20, 200), (80, 4), (20, 490)]
)
def test_equal_to_scipys_exact_test_without_ties(positive, negative):
    random = np.random.default_rng(positive)
    for shift in (-0.5, 0.0, 0.5, 1.5):
        high, low = random.standard_normal(positive) + shift, random.standard_normal(negative)
        expected = stats.mannwhitneyu(high, low, alternative="greater", method="exact").pvalue
        assert rank_p_value(high, low) == pytest.approx(expected, rel=1e-6, abs=1e-13)


@pytest.mark.parametrize("decimals", [1, 10])
@pytest.mark.parametrize(("positive", "negative"), [(21, 80), (300, 50), (400, 900)])
def test_equal_to_scipys_normal_approximation_where_both_classes_are_many(positive, negative, decimals):
    random = np.random.default_rng(positive)
    high = np.round(random.standard_normal(positive) + 0.2, decimals)
    low = np.round(random.standard_normal(negative), decimals)
    expected = stats.mannwhitneyu(high, low, alternative="greater", method="asymptotic").pvalue
    assert rank_p_value(high, low) == pytest.approx(expected, rel=1e-6)


def test_ranks_rounded_to_a_grid_move_p_little():
    random = np.random.default_rng(0)
    high, low = random.standard_normal(2) + 1.5, random.standard_normal(3000)
    expected = stats.mannwhitneyu(high, low, alternative="greater", method="exact").pvalue
    assert rank_p_value(high, low) == pytest.approx(expected, rel=0.02)


def test_ties_of_most_scores_are_dealt_out_not_approximated(monkeypatch):
    """30 of 2,000 are positive, 10 scores are not 0, two of those positive: Fisher's exact test is the truth."""
    high, low = np.zeros(30), np.zeros(1970)
    high[:2], low[:8] = 1, 1
    expected = stats.fisher_exact([[2, 28], [8, 1962]], alternative="greater").pvalue
    assert rank_p_value(high, low) == pytest.approx(expected, rel=0.2)
    monkeypatch.setattr(chance, "SKEWED", np.inf)
    assert rank_p_value(high, low) < 0.1 * expected  # what the normal distribution would have said


def test_scores_in_order_have_the_least_p_that_there_is():
    high, low = np.arange(100, 103.0), np.arange(80.0)
    assert rank_p_value(high, low) == pytest.approx(1 / comb(83, 3))
    assert rank_p_value(low, high) == pytest.approx(1)
    assert 0 < rank_p_value(np.arange(5e4, 1e5), np.arange(5e4)) < 1e-300
    assert rank_p_value(np.ones(50), np.ones(60)) == 1
    assert rank_p_value(np.ones(2), np.ones(3)) == 1


def test_unknown_cells_take_no_part():
    random = np.random.default_rng(3)
    labels = np.array([1, 1, 1, 0, 0, 0, 0, nan, nan, nan], dtype=np.float32)[:, None]
    scores = random.random((10, 1)).astype(np.float32)
    assert rank_p_values(labels, scores)[0] == rank_p_value(scores[:3, 0], scores[3:7, 0])


def test_an_attribute_of_one_class_is_not_tested_and_not_counted():
    labels = np.array([[1, 1, 0], [0, 1, nan], [0, 1, 0], [0, 1, nan]] * 5, dtype=np.float32)
    scores = np.tile(labels[:, :1] * 0.5 + 0.2, (1, 3))
    rows = against_chance(labels, scores)
    assert rows[0]["p"] == rows[0]["p_adjusted"] == pytest.approx(1 / comb(20, 5))
    assert rows[0]["distinguishable"] is True
    assert rows[1] == rows[2] == {"p": None, "p_adjusted": None, "distinguishable": None}
    assert against_chance(np.zeros((0, 2)), np.zeros((0, 2)))[0]["p"] is None


def test_holm_by_hand():
    adjusted = holm([0.01, 0.04, nan, 0.03, 0.005, 0.9])
    np.testing.assert_allclose(adjusted, [0.04, 0.09, nan, 0.09, 0.025, 0.9])
    np.testing.assert_array_equal(holm([0.5, 0.5, 0.7]), [1, 1, 1])
    assert len(holm([])) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(deadline=None)
def test_holm_keeps_the_order_and_never_lowers(values):
    p, adjusted = np.array(values), holm(values)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, p * len(p)) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_a_copy_in_the_same_group_adds_no_evidence():
    random = np.random.default_rng(0)
    labels = (np.arange(20) < 6).astype(np.float32)[:, None]
    scores = random.random((20, 1)) + 0.3 * labels
    once = rank_p_values(labels, scores)[0]
    rows = np.repeat(np.arange(20), 5)
    assert rank_p_values(labels[rows], scores[rows])[0] < once
    assert rank_p_values(labels[rows], scores[rows], groups=rows)[0] == once
    assert rank_p_values(labels, scores, groups=np.arange(20)[::-1])[0] == once


def test_the_first_image_of_each_group_and_known_label_counts():
    labels = np.array([nan, 1, 0, 1, 0, 0, 0], dtype=np.float32)[:, None]
    scores = np.array([0.9, 0.8, 0.1, 0.0, 0.7, 0.3, 0.2])[:, None]
    groups = np.array(["b", "b", "b", "b", "a", "c", "c"])
    expected = rank_p_value(np.array([0.8]), np.array([0.1, 0.7, 0.3]))
    assert rank_p_values(labels, scores, groups=groups)[0] == expected
    with pytest.raises(ValueError, match="groups must be"):
        rank_p_values(labels, scores, groups=groups[:-1])


@pytest.mark.parametrize("change", ["none", "ties", "grouped"])
def test_false_alarms_are_at_most_one_in_twenty(change):
    random, alarms, repetitions = np.random.default_rng(0), 0, 250
    for _ in range(repetitions):
        labels = (random.random((90, 5)) < 0.1).astype(np.float32)
        scores, groups = random.standard_normal((90, 5)), None
        labels[random.random((90, 5)) < 0.25] = nan
        if change == "ties":
            scores = np.maximum(np.round(scores), 0)
        if change == "grouped":
            groups = np.arange(90) // 3
            labels, scores = labels[groups], scores[groups]
        alarms += any(row["distinguishable"] for row in against_chance(labels, scores, groups=groups))
    assert stats.binomtest(alarms, repetitions, 0.05, alternative="greater").pvalue > 0.01


def test_what_is_there_is_found():
    random = np.random.default_rng(1)
    labels = np.zeros((300, 3), dtype=np.float32)
    labels[:50] = 1
    scores = random.standard_normal((300, 3))
    scores[:, 0] += labels[:, 0]
    found = [row["distinguishable"] for row in against_chance(labels, scores)]
    assert found == [True, False, False]


def test_a_score_that_is_nan_is_refused():
    with pytest.raises(NumericalError):
        against_chance(np.ones((2, 1)), np.array([[nan], [0.5]]))
