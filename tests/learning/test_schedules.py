"""Schedules: the learning rate of every step, against its formula."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from mlcls.errors import RecipeError
from mlcls.learning.plain_state import from_plain, restore_optimizer, to_plain
from mlcls.learning.schedules import SCHEDULES, Schedule, build_schedule

every_schedule = pytest.mark.parametrize("name", SCHEDULES)
LR = 0.8


def build(name: str, steps_per_epoch: int = 4, epochs: int = 5, **own: Any) -> tuple[SGD, Schedule]:
    optimizer = SGD(
        [{"params": [nn.Parameter(torch.zeros(2))]}, {"params": [nn.Parameter(torch.zeros(1))]}], lr=LR
    )
    return optimizer, build_schedule(
        name, optimizer, steps_per_epoch=steps_per_epoch, epochs=epochs, settings=own
    )


def rates(name: str, losses: list[float | None], taken: int = 4, **own: Any) -> list[float]:
    """The learning rate that each step of 4 an epoch has, and the one after the last; `taken` of the 4 are taken."""
    optimizer, schedule = build(name, epochs=len(losses), **own)
    seen = []
    for loss in losses:
        for step in range(4):
            seen.append(optimizer.param_groups[0]["lr"])
            if step < taken:
                optimizer.step()
                schedule.after_step()
        schedule.after_epoch(loss)
    assert optimizer.param_groups[0]["lr"] == optimizer.param_groups[1]["lr"]
    return [*seen, optimizer.param_groups[0]["lr"]]


def test_none_stays() -> None:
    assert rates("none", [None] * 3) == [LR] * 13


def test_step_drops_at_epochs() -> None:
    expected = [LR] * 8 + [LR / 2] * 8 + [LR / 4] * 5
    assert rates("step", [None] * 5, step_size=2, gamma=0.5) == pytest.approx(expected)


def test_cosine_falls_step_by_step_to_its_floor() -> None:
    expected = [0.1 + (LR - 0.1) * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(21)]
    assert rates("cosine", [None] * 5, min_lr=0.1) == pytest.approx(expected)


def test_cosine_after_a_warm_up() -> None:
    rise = [LR * (0.1 + 0.9 * step / 6) for step in range(6)]
    fall = [LR * (1 + math.cos(math.pi * step / 14)) / 2 for step in range(15)]
    found = rates("cosine", [None] * 5, warmup_epochs=1.5, warmup_factor=0.1)
    assert found == pytest.approx(rise + fall, abs=1e-9)


def test_step_and_warm_up_multiply() -> None:
    rise = [0.1 + 0.9 * step / 8 for step in range(8)] + [1.0] * 9
    drops = [1.0] * 4 + [0.5] * 4 + [0.25] * 4 + [0.125] * 4 + [0.0625]
    expected = [LR * a * b for a, b in zip(rise, drops, strict=True)]
    found = rates("step", [None] * 4, step_size=1, gamma=0.5, warmup_epochs=2, warmup_factor=0.1)
    assert found == pytest.approx(expected)


def test_plateau_drops_when_the_loss_has_not_fallen_for_longer_than_its_patience() -> None:
    losses = [1.0, 0.9, 0.9, 0.95, 0.9, 0.5]
    found = rates("plateau", losses, factor=0.5, patience=1)
    # best at epoch 1; epoch 3 is the second without a fall, then the count begins anew
    assert found == [LR] * 16 + [LR / 2] * 9


def test_plateau_ignores_epochs_without_a_figure() -> None:
    assert rates("plateau", [1.0, None, math.nan, None, math.nan, None], factor=0.5, patience=1) == [LR] * 25


def test_plateau_waits_for_the_warm_up_and_keeps_its_floor() -> None:
    found = rates(
        "plateau", [1.0] * 6, factor=0.5, patience=0, min_lr=LR / 3, warmup_epochs=2, warmup_factor=0.5
    )
    assert found[:8] == pytest.approx([LR * (0.5 + 0.5 * step / 8) for step in range(8)])
    # the first loss after the warm-up is the best so far, the next is no better
    assert found[8:] == pytest.approx([LR] * 4 + [LR / 2] * 4 + [LR / 3] * 9)


@every_schedule
def test_skipped_steps_are_caught_up_at_the_epochs_end(name: str) -> None:
    own = {"step": {"step_size": 1}}.get(name, {})
    losses: list[float | None] = [1.0] * 5
    whole = rates(name, losses, warmup_epochs=1, **own)
    part = rates(name, losses, taken=2, warmup_epochs=1, **own)
    assert part[::4] == pytest.approx(whole[::4])


@every_schedule
def test_an_epoch_without_a_step_changes_nothing(name: str) -> None:
    optimizer, schedule = build(name, warmup_epochs=1)
    first = optimizer.param_groups[0]["lr"]
    schedule.after_epoch(1.0)
    schedule.after_epoch(None)
    assert optimizer.param_groups[0]["lr"] == first


@every_schedule
def test_a_warm_up_rises_from_its_factor_to_the_whole(name: str) -> None:
    found = rates(name, [1.0] * 3, warmup_epochs=1, warmup_factor=0.25)
    assert found[:5] == pytest.approx([LR * part for part in (0.25, 0.4375, 0.625, 0.8125, 1.0)])


@every_schedule
def test_a_stage_no_longer_than_its_warm_up_only_warms_up(name: str) -> None:
    found = rates(name, [1.0], warmup_epochs=3, warmup_factor=0.5)
    assert found == pytest.approx([LR * (0.5 + 0.5 * step / 4) for step in range(5)])


@every_schedule
def test_past_its_end_it_stays(name: str) -> None:
    optimizer, schedule = build(name, epochs=1)
    for _ in range(4):
        optimizer.step()
        schedule.after_step()
    last = optimizer.param_groups[0]["lr"]
    for _ in range(3):
        optimizer.step()
        schedule.after_step()
    assert optimizer.param_groups[0]["lr"] == last


@every_schedule
def test_its_state_can_be_kept_and_brought_back(name: str) -> None:
    own = {"warmup_epochs": 0.5, "step_size": 1, "gamma": 0.3, "factor": 0.3, "patience": 0}
    optimizer, schedule = build(name, **own)

    def epoch(optimizer: SGD, schedule: Schedule) -> float:
        for _ in range(4):
            optimizer.step()
            schedule.after_step()
        schedule.after_epoch(1.0)
        return float(optimizer.param_groups[0]["lr"])

    for _ in range(2):
        epoch(optimizer, schedule)
    again, resumed = build(name, **own)
    again.load_state_dict(optimizer.state_dict())
    for part, kept in zip(resumed.parts, [part.state_dict() for part in schedule.parts], strict=True):
        part.load_state_dict(kept)
    assert [epoch(again, resumed) for _ in range(3)] == [epoch(optimizer, schedule) for _ in range(3)]


@pytest.mark.parametrize(
    ("name", "own", "message"),
    [
        ("cosin", {}, "did you mean 'cosine'"),
        ("step", {"step_siz": 3}, "no setting 'step_siz'; did you mean 'step_size'"),
        ("none", {"speed": 3}, "no setting 'speed'; it takes none"),
        ("step", {"step_size": 0}, "step_size is 0"),
        ("step", {"step_size": 2.5}, "step_size is 2.5, expected a whole number"),
        ("step", {"gamma": 0.0}, "gamma is 0.0"),
        ("plateau", {"factor": 1.0}, "factor is 1.0"),
        ("plateau", {"patience": -1}, "patience is -1"),
        ("plateau", {"min_lr": -1.0}, "min_lr is -1.0"),
        ("cosine", {"min_lr": 0.9}, "min_lr is 0.9, expected 0 to the rate 0.8"),
        ("cosine", {"warmup_epochs": -1}, "warmup_epochs is -1"),
        ("cosine", {"warmup_epochs": "two"}, "warmup_epochs is 'two', expected a number"),
        ("cosine", {"warmup_factor": 0.0}, "warmup_factor is 0.0"),
    ],
)
def test_mistakes_are_named(name: str, own: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match="--schedule") as caught:
        build(name, **own)
    assert message in str(caught.value)


def test_a_setting_of_another_schedule_is_left_out() -> None:
    assert rates("none", [None], step_size=1, min_lr=0.1, factor=0.5) == [LR] * 5


RATIOS = (1.0, 0.5, 1e-9)


def layered(name: str, **own: Any) -> tuple[SGD, Schedule]:
    """An optimizer with a rate for each layer, as layer-wise decay makes it, and its schedule of 4 steps x 5 epochs."""
    groups = [{"params": [nn.Parameter(torch.zeros(2))], "lr": LR * ratio} for ratio in RATIOS]
    optimizer = SGD(groups, lr=LR)
    return optimizer, build_schedule(name, optimizer, steps_per_epoch=4, epochs=5, settings=own)


@pytest.mark.parametrize("warmup", [0.0, 1.5])
@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("none", {}),
        ("step", {"step_size": 2, "gamma": 0.3}),
        ("plateau", {"patience": 0, "factor": 0.1, "min_lr": 0.05}),
        ("cosine", {}),
        ("cosine", {"min_lr": 0.05}),  # above the lowest rate
    ],
)
def test_rates_by_layer_keep_their_ratios_and_the_highest_is_as_ever(
    name: str, own: dict[str, Any], warmup: float
) -> None:
    optimizer, schedule = layered(name, warmup_epochs=warmup, **own)
    alone = rates(name, [1.0] * 5, warmup_epochs=warmup, **own)
    seen = []
    for step in range(20):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.after_step()
        if step % 4 == 3:
            schedule.after_epoch(1.0)
    seen.append([group["lr"] for group in optimizer.param_groups])
    for found, highest in zip(seen, alone, strict=True):
        assert found == pytest.approx([highest * ratio for ratio in RATIOS], rel=1e-9, abs=1e-19)
    assert name == "none" or min(alone) < 0.5 * LR


@pytest.mark.parametrize("own", [{}, {"min_lr": 0.05}, {"min_lr": 0.05, "warmup_epochs": 1.5}])
def test_rates_by_layer_go_on_from_a_checkpoint(own: dict[str, Any]) -> None:
    tensors: dict[str, torch.Tensor] = {}
    optimizer, schedule = layered("cosine", **own)
    expected = []
    for step in range(20):
        if step == 9:
            plain = to_plain([part.state_dict() for part in schedule.parts], "schedule", tensors)
            rows = to_plain(optimizer.state_dict(), "optimizer", tensors)
        optimizer.step()
        schedule.after_step()
        expected.append([group["lr"] for group in optimizer.param_groups])
    optimizer, schedule = layered("cosine", **own)
    restore_optimizer(optimizer, from_plain(rows, tensors))
    for part, kept in zip(schedule.parts, from_plain(plain, tensors), strict=True):
        part.load_state_dict(kept)
    for step in range(9, 20):
        optimizer.step()
        schedule.after_step()
        assert [group["lr"] for group in optimizer.param_groups] == expected[step]
