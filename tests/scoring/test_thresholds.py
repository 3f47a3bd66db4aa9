"""Tuned thresholds against brute force over every way to part the scores."""

import json
from functools import cache

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcls.errors import NumericalError, RecipeError
from mlcls.scoring.cells import is_present
from mlcls.scoring.metrics import evaluate
from mlcls.scoring.objectives import OBJECTIVES, Merit, Objective
from mlcls.scoring.thresholds import (
    LEAST_POSITIVE,
    TunedThreshold,
    cut_points,
    parse_objective,
    tune,
    tune_report,
)

nan = np.nan
WRITTEN = [
    "f1",
    "fbeta:2",
    "fbeta:0.5",
    "precision:0.8",
    "precision:1",
    "recall:0.9",
    "youden",
    "cost:1,3",
    "cost:5,0.5",
]


def column(cells):
    return np.array(cells)[:, None]


@cache
def sure(hits, trials, confidence):
    """The one-sided Wilson bound, by another hand."""
    if not trials:
        return 0.0
    interval = scipy.stats.binomtest(int(hits), int(trials), alternative="greater")
    return float(interval.proportion_ci(confidence, method="wilson").low)


def gain(text, labels, present):
    """What an objective is worth, in the words of its definition: larger tuples are better."""
    tp, fp = np.sum(present & (labels == 1)), np.sum(present & (labels == 0))
    fn, tn = np.sum(labels == 1) - tp, np.sum(labels == 0) - fp
    precision, recall = tp / (tp + fp) if tp + fp else 0.0, tp / (tp + fn)
    name, _, rest = text.partition(":")
    numbers = [float(word) for word in rest.split(",") if word]
    if name in ("f1", "fbeta"):
        square = (numbers or [1.0])[0] ** 2
        return ((1 + square) * precision * recall / (square * precision + recall) if tp else 0.0,)
    if name == "precision":
        bound = sure(tp, tp + fp, 0.975)
        return (True, recall, bound) if bound >= numbers[0] else (False, bound, recall)
    if name == "recall":
        bound = sure(tp, tp + fn, 0.95)
        return (True, precision, bound) if bound >= numbers[0] else (False, bound, precision)
    if name == "youden":
        return (recall + tn / (tn + fp) - 1,)
    assert name == "cost"
    return (-(numbers[0] * fp + numbers[1] * fn),)


def assert_no_cut_is_better(text, labels, scores, threshold):
    found = gain(text, labels, scores >= np.float64(threshold))
    for cut in [*np.unique(scores), np.inf]:
        other = gain(text, labels, scores >= cut)
        assert found >= other or found == pytest.approx(other, abs=1e-12)


near, one = np.float32(0.3), np.float32(1)
ADJACENT = [
    near,
    np.nextafter(near, one),
    np.nextafter(one, near),
    one,
]  # no float32 lies between these pairs
SCORES = st.sampled_from([0.0, 1e-45, 0.1, 0.5, 0.9, *map(float, ADJACENT)]) | st.floats(0, 1, width=32)
CELLS = st.lists(st.tuples(st.sampled_from([0.0, 1.0, 1.0, nan]), SCORES), min_size=1, max_size=40)


@pytest.mark.parametrize("text", WRITTEN)
@settings(deadline=None, max_examples=50)
@given(cells=CELLS)
def test_no_cut_point_is_better(text, cells):
    labels, scores = np.array(cells, dtype=np.float32).T[:, :, None]
    (one,) = tune_report(labels, scores, text, estimator="exact")
    known = ~np.isnan(labels)
    assert one.known == known.sum()
    assert (one.positive, one.negative) == ((labels == 1).sum(), (labels == 0).sum())
    if one.positive < LEAST_POSITIVE or not one.negative:
        assert one.threshold == 0.5
        assert one.note.startswith("kept at 0.5: ")
        return
    assert_no_cut_is_better(text, labels[known], scores[known], one.threshold)
    counts = evaluate(labels, scores, [one.threshold])["attributes"][0]
    value = {"f1": counts["f1"], "precision": counts["recall"], "recall": counts["precision"]}
    assert one.value == pytest.approx(value.get(text.partition(":")[0], one.value))


@settings(deadline=None, max_examples=300)
@given(scores=st.lists(SCORES, min_size=1, max_size=30), double=st.booleans())
def test_each_threshold_parts_its_neighbours_and_lies_midway(scores, double):
    scores = np.array(scores, dtype=np.float64 if double else np.float32)
    thresholds, cuts = cut_points(scores, scores[:0])
    levels = np.unique(scores)
    assert len(thresholds) == len(levels) + 1
    read_back = np.array(json.loads(json.dumps(thresholds.tolist())))
    for index, threshold in enumerate(read_back):
        expected = np.isin(scores, levels[index:])
        np.testing.assert_array_equal(is_present(scores, threshold), expected)
        np.testing.assert_array_equal(
            scores >= scores.dtype.type(threshold), expected
        )  # in their own precision
        assert cuts.tp[index] == expected.sum()
    around = np.concatenate([[0], levels.astype(np.float64), [1]])
    midway = (around[1:] + around[:-1]) / 2
    assert (
        np.abs(thresholds - midway) <= np.spacing(np.float32(1)) * np.maximum(midway, 1e-30) + 1e-45
    ).all()


def test_a_threshold_lies_midway_between_its_neighbours():
    labels, scores = [[0], [0], [1], [1], [1]], [[0.1], [0.2], [0.6], [0.7], [0.9]]
    assert tune(labels, scores, estimator="exact").tolist() == [pytest.approx(0.4)]


def test_ties_are_never_parted():
    labels, scores = [[1], [1], [1], [0], [0]], [[0.9], [0.6], [0.6], [0.6], [0.1]]
    (one,) = tune_report(labels, scores, "cost:2,0.5", estimator="exact")
    assert one.threshold == pytest.approx(0.75)  # 0.6 holds a negative too: the two positives there are lost
    assert one.value == pytest.approx(1.0)


def test_between_equal_optima_the_nearest_to_one_half():
    # an error costs 1: at 0.475 the negative of 0.65 is wrong, at 0.775 the positive of 0.55
    labels, scores = [0, 1, 0, 1, 1], [0.4, 0.55, 0.65, 0.9, 0.95]
    assert tune(column(labels), column(scores), "cost:1,1", estimator="exact").tolist() == [
        pytest.approx(0.475)
    ]
    # the same from the other side: 0.225 against 0.525
    labels, scores = [0, 0, 1, 0, 1, 1], [0.05, 0.1, 0.35, 0.45, 0.6, 0.7]
    assert tune(column(labels), column(scores), "cost:1,1", estimator="exact").tolist() == [
        pytest.approx(0.525)
    ]
    # as far from 0.5 on either side: the higher, 0.75 against 0.25
    labels, scores = [0, 1, 0, 1, 1], [0.125, 0.375, 0.625, 0.875, 1.0]
    assert tune(column(labels), column(scores), "cost:1,1", estimator="exact").tolist() == [0.75]


def test_ends_are_cut_points_too():
    labels = np.array([[1.0], [1.0], [1.0], [0.0]])
    low_negative_last = np.array([[0.4], [0.5], [0.6], [0.8]])
    assert tune(labels, low_negative_last, "recall:1", estimator="exact").tolist() == [pytest.approx(0.2)]
    everything_wrong = np.array([[0.0], [0.0], [0.0], [0.5]])
    assert tune(labels, everything_wrong, "cost:9,1", estimator="exact").tolist() == [pytest.approx(0.75)]
    assert tune(labels, everything_wrong, "f1", estimator="exact").tolist() == [0.0]
    certain = np.ones((4, 1), dtype=np.float32)
    (never,) = tune(labels, certain, "cost:9,1", estimator="exact").tolist()
    assert 1 < never < 1.000001
    assert not is_present(certain, never).any()


@pytest.mark.parametrize(
    ("labels", "note", "value"),
    [
        ([1, 1, 0, 0, nan], "kept at 0.5: 2 known positives, at least 3 are needed", 0.5),
        ([1, nan, 0, 0, nan], "kept at 0.5: 1 known positive, at least 3 are needed", 2 / 3),
        ([0, 0, 0, nan, 0], "kept at 0.5: no known positives, at least 3 are needed", None),
        ([1, 1, 1, 1, nan], "kept at 0.5: no known negative", None),
        ([nan] * 5, "kept at 0.5: no known positives, at least 3 are needed", None),
    ],
)
@pytest.mark.parametrize("estimator", ["exact", "robust"])
def test_too_few_labels_keep_one_half_and_say_so(estimator, labels, note, value):
    scores = np.array([[0.8], [0.3], [0.7], [0.2], [0.9]])
    labels = np.array(labels)[:, None]
    (one,) = tune_report(labels, scores, "f1", ["gloves"], estimator=estimator)
    assert (one.name, one.threshold, one.note) == ("gloves", 0.5, note)
    assert one.interval is None
    assert one.value == (None if value is None else pytest.approx(value))
    (fixed,) = tune_report(labels, scores, "fixed:0.25")
    assert (fixed.threshold, fixed.value, fixed.note) == (0.25, None, None)


@pytest.mark.parametrize("estimator", ["exact", "robust"])
def test_a_floor_that_cannot_be_met_is_said_to_be_unmet(estimator):
    # three positives and a negative: even 3 of 3 would leave a precision of 0.44 possible
    labels, scores = [[1], [1], [1], [0]], [[0.2], [0.3], [0.4], [0.9]]
    (one,) = tune_report(labels, scores, "precision:0.9", estimator=estimator)
    assert one.note == (
        "no threshold surely reaches precision:0.9: the best has a precision of 0.750, surely 0.301 or more, "
        "at a recall of 1.000"
    )
    assert (one.threshold, one.value) == (pytest.approx(0.1), 1.0)
    assert sure(3, 4, 0.975) == pytest.approx(0.301, abs=5e-4)
    (met,) = tune_report(labels, scores, "precision:0.3", estimator=estimator)
    assert met.note is None
    (unmet,) = tune_report(labels, scores, "recall:0.9", estimator=estimator)
    assert unmet.note == (
        "no threshold surely reaches recall:0.9: the best has a recall of 1.000, surely 0.526 or more, "
        "at a precision of 0.750"
    )


def test_a_floor_is_met_by_the_bound_and_not_by_the_figure_itself():
    # ten positives above a negative above ninety positives: 100 of 101 are sure of 0.94, and of no more
    labels = column([1.0] * 10 + [0.0] + [1.0] * 90 + [0.0] * 50)
    scores = column(np.linspace(0.9, 0.1, 151))
    for floor, note in ((0.94, None), (0.95, "no threshold surely")):
        (one,) = tune_report(labels, scores, f"precision:{floor}")
        assert one.value == 1.0
        assert one.note is None if note is None else note in one.note
    assert 0.94 < sure(100, 101, 0.975) < 0.95 < 100 / 101
    # recall: 25 of 25 are sure of 0.902, 24 of 24 of 0.899
    for positives, note in ((25, None), (24, "no threshold surely")):
        labels = column([1.0] * positives + [0.0] * 10)
        (one,) = tune_report(labels, column(np.linspace(0.9, 0.1, len(labels))), "recall:0.9")
        assert one.note is None if note is None else note in one.note


def test_among_thresholds_that_meet_the_floor_the_most_of_the_other_figure():
    random = np.random.default_rng(0)
    labels = column((random.random(400) < 0.5).astype(float))
    scores = np.clip(labels * 0.3 + random.random((400, 1)) * 0.7, 0, 1)
    (one,) = tune_report(labels, scores, "recall:0.8")
    tp, positive = int((scores >= one.threshold)[labels == 1].sum()), int(labels.sum())
    assert sure(tp, positive, 0.95) >= 0.8 > sure(tp - 1, positive, 0.95)  # not one positive more than needed


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_tunes_and_keeps_its_own_words(name):
    numbers = {"fbeta": ":2", "precision": ":0.5", "recall": ":0.5", "cost": ":1,2", "fixed": ":0.3"}
    text = name + numbers.get(name, "")
    random = np.random.default_rng(0)
    labels = (random.random((50, 3)) < 0.4).astype(np.float32)
    report = tune_report(labels, random.random((50, 3)), text, ["a", "b", "c"])
    assert [one.name for one in report] == ["a", "b", "c"]
    assert {one.objective for one in report} == {text}
    assert all(0 <= one.threshold <= 1 for one in report)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fbta:2", "unknown objective 'fbta:2'; did you mean 'fbeta:B'"),
        ("xyz", "unknown objective 'xyz'; expected one of: f1, fbeta:B, precision:P"),
        ("fbeta", "write fbeta:B, where B is a number above 0"),
        ("fbeta:0", "above 0"),
        ("fbeta:nan", "above 0"),
        ("fbeta:inf", "above 0"),
        ("fbeta:1e-200", "from 1e-9 to 1e9"),
        ("cost:1e308,1e308", "from 1e-9 to 1e9"),
        ("f1:2", "write f1, without a number"),
        ("f1:", "write f1, without a number"),
        ("precision:90", "where P is a number from 0 to 1"),
        ("recall:high", "write recall:R"),
        ("cost:1", "write cost:FP,FN, where FP is a number above 0, from 1e-9 to 1e9 and FN"),
        ("cost:1,2,3", "write cost:FP,FN"),
        ("fixed:-0.1", "write fixed:T"),
        ("no_such_module:gain", "cannot import 'no_such_module'"),
        ("os:sep", "'os:sep' is not a function"),
    ],
)
def test_an_objective_that_cannot_be_read_names_the_flag_and_the_form(text, message):
    with pytest.raises(RecipeError, match="--objective: ") as error:
        parse_objective(text)
    assert message in str(error.value)


def test_an_objective_from_outside(tmp_path, monkeypatch):
    (tmp_path / "my_aims.py").write_text(
        "from mlcls.scoring.objectives import Merit\n"
        "def true_positives(cuts):\n    return Merit(cuts.tp * 1.0, (cuts.tp - 2.0 * cuts.fp,))\n"
        "def broken(cuts):\n    return Merit(cuts.tp * 1.0, (cuts.tp[:1] * 1.0,))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    labels, scores = [[1], [1], [0], [1], [0]], [[0.9], [0.8], [0.6], [0.3], [0.1]]
    (one,) = tune_report(labels, scores, "my_aims:true_positives", estimator="exact")
    assert (one.threshold, one.value) == (pytest.approx(0.7), 2.0)
    (robust,) = tune_report(labels, scores, "my_aims:true_positives", estimator="robust")
    assert robust.interval[0] <= robust.threshold <= robust.interval[1]
    for estimator in ("exact", "robust"):
        with pytest.raises(RecipeError, match="'my_aims:broken' must give a finite number for each"):
            tune(labels, scores, "my_aims:broken", estimator=estimator)


class Unhashable:
    """A callable with settings, as a mutable dataclass is."""

    __hash__ = None

    def __init__(self, make):
        self.make = make

    def __call__(self, cuts):
        return self.make(cuts.tp - 2.0 * cuts.fp)


@pytest.mark.parametrize("estimator", ["exact", "robust"])
def test_what_an_objective_from_outside_may_give(estimator):
    labels, scores = [[1], [1], [0], [1], [0]], [[0.9], [0.8], [0.6], [0.3], [0.1]]

    def report(make):
        return tune_report(labels, scores, Objective("my:aim", Unhashable(make)), estimator=estimator)[0]

    assert report(lambda gain: Merit(gain, (gain,))).value == (2 if estimator == "exact" else 0)
    finite, floored, order = (
        "a finite number",
        "no number that Merit.floored could reach",
        "at least one array",
    )
    for make, message in (
        (lambda gain: Merit(gain + np.inf, (gain,)), finite),
        (lambda gain: Merit(gain, (gain, gain * nan)), finite),
        (lambda gain: Merit(gain, (1.0,)), finite),
        (lambda gain: Merit(gain, (gain,), gain), floored),
        (lambda gain: Merit(gain, ()), order),
        (lambda gain: gain, order),
    ):
        with pytest.raises(RecipeError, match=message):
            report(make)


def test_scores_that_are_no_probabilities_are_refused():
    with pytest.raises(ValueError, match=r"probabilities in \[0, 1\]"):
        tune([[1.0]], [[-2.5]])
    with pytest.raises(NumericalError, match="NaN"):
        tune([[1.0]], [[nan]])


def test_nothing_to_tune():
    assert tune(np.zeros((3, 0)), np.zeros((3, 0))).shape == (0,)
    assert tune(np.zeros((0, 2)), np.zeros((0, 2))).tolist() == [0.5, 0.5]


def test_a_row_of_an_older_file_and_one_from_json_still_load():
    old = {"name": "a", "threshold": 0.4, "objective": "f1", "known": 9, "positive": 4, "negative": 5}
    old |= {"value": 0.8, "note": None}
    one = TunedThreshold(**old)
    assert (one.estimator, one.cross_fitted, one.interval) == ("exact", None, None)
    assert TunedThreshold(**old, interval=[0.2, 0.6]).interval == (0.2, 0.6)
    with pytest.raises(ValueError, match="unpack"):
        TunedThreshold(**old, interval=[0.2])


def test_the_report_says_what_the_threshold_looks_like_and_is_worth():
    random = np.random.default_rng(1)
    labels = (random.random((40, 6)) < 0.25).astype(np.float32)
    scores = random.random((40, 6)).astype(np.float32)  # nothing to learn
    for estimator in ("exact", "robust"):
        report = tune_report(labels, scores, estimator=estimator)
        assert {one.estimator for one in report} == {estimator}
        if estimator == "exact":  # robust thresholds hardly flatter: half of them is the others' labels
            naive, honest = ([getattr(one, name) for one in report] for name in ("value", "cross_fitted"))
            assert np.mean(naive) > np.mean(honest) + 0.03
        for one in report:
            assert 0 <= one.interval[0] < one.interval[1] <= 1
            entry = evaluate(labels, scores, [one.threshold] * 6)["attributes"][int(one.name[4:]) - 1]
            assert one.value == pytest.approx(entry["f1"])
    (fixed, *_) = tune_report(labels, scores, "fixed:0.3")
    assert (fixed.threshold, fixed.value, fixed.cross_fitted, fixed.interval) == (0.3, None, None, None)


def test_more_labels_make_the_interval_narrower():
    random = np.random.default_rng(2)
    widths = []
    for size in (50, 5000):
        labels = (random.random((size, 1)) < 0.4).astype(np.float32)
        scores = 1 / (1 + np.exp(-random.normal(size=(size, 1)) - 2 * labels))
        (one,) = tune_report(labels, scores)
        widths.append(one.interval[1] - one.interval[0])
    assert widths[1] < widths[0] / 2


def test_an_unknown_estimator_names_the_flag_and_the_nearest():
    with pytest.raises(RecipeError, match=r"--estimator: unknown name 'robst'; did you mean 'robust'\?"):
        tune([[1.0]], [[0.5]], estimator="robst")
    with pytest.raises(RecipeError, match="--estimator"):
        tune_report([[1.0]], [[0.5]], estimator="best")


@pytest.mark.parametrize("estimator", ["robust", "exact"])
def test_the_interval_of_a_threshold_holds_it(estimator: str) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels = (rng.random((30, 3)) < 0.4).astype(np.float32)
        scores = rng.random((30, 3)).astype(np.float32)  # nothing to learn: all present is about best
        for one in tune_report(labels, scores, estimator=estimator, seed=seed):
            assert one.interval is not None
            low, high = one.interval
            assert low <= one.threshold <= high
