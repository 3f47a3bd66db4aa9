"""Early stopping: what counts as better, and when patience runs out."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcls.errors import RecipeError
from mlcls.learning.stopping import MONITORS, EarlyStopping, Mode


@pytest.mark.parametrize(("mode", "sign"), [("min", 1.0), ("max", -1.0)])
def test_it_stops_after_patience_epochs_without_a_better_one(mode: Mode, sign: float) -> None:
    stopping = EarlyStopping(2, mode)
    seen = []
    for value in (3.0, 2.0, 2.0, 1.0, 1.5, 1.2):
        improved = stopping.update(sign * value)
        seen.append((improved, stopping.should_stop))
    assert seen == [
        (True, False),
        (True, False),
        (False, False),
        (True, False),
        (False, False),
        (False, True),
    ]
    assert stopping.best == sign * 1.0


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_no_figure_is_never_better_but_is_waited_for(value: float | None) -> None:
    stopping = EarlyStopping(2, "max")
    assert not stopping.update(value)
    assert stopping.best is None
    assert not stopping.should_stop
    assert not stopping.update(value)
    assert stopping.should_stop
    assert stopping.update(0.1)
    assert not stopping.should_stop


def test_a_new_stage_waits_anew_and_keeps_the_best() -> None:
    stopping = EarlyStopping(1, "min")
    stopping.update(1.0)
    stopping.update(2.0)
    assert stopping.should_stop
    stopping.restart()
    assert not stopping.should_stop
    assert stopping.best == 1.0
    assert not stopping.update(1.5)
    assert stopping.should_stop


def test_no_patience_never_stops_and_a_negative_one_is_refused() -> None:
    stopping = EarlyStopping(0, "min")
    for _ in range(100):
        stopping.update(None)
    assert not stopping.should_stop
    with pytest.raises(RecipeError, match="--patience: -1"):
        EarlyStopping(-1, "min")


@pytest.mark.parametrize("mode", sorted(set(MONITORS.values())))
@settings(deadline=None, max_examples=100)
@given(values=st.lists(st.none() | st.floats(), max_size=30), patience=st.integers(1, 5))
def test_the_best_is_the_first_extreme(mode: Mode, values: list[float | None], patience: int) -> None:
    stopping = EarlyStopping(patience, mode)
    improved = [index for index, value in enumerate(values) if stopping.update(value)]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    pick = min if mode == "min" else max
    if not finite:
        assert stopping.best is None
        assert improved == []
    else:
        assert stopping.best == pick(finite)
        assert improved[-1] == values.index(pick(finite))
    last = improved[-1] if improved else -1
    assert stopping.should_stop == (len(values) - 1 - last >= patience)


def test_of_equal_values_the_one_with_the_lower_loss_is_better() -> None:
    stopping = EarlyStopping(2, "max")
    losses = [0.5, 0.4, 0.4, None, 0.3, 0.9]
    improved = [stopping.update(1.0, loss) for loss in losses]
    assert improved == [True, True, False, False, True, False]
    assert (stopping.best, stopping.loss) == (1.0, 0.3)
    assert not stopping.update(0.9, 0.1)
    assert stopping.update(1.1, 2.0)
