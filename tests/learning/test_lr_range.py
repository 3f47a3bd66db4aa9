"""The range test: rates by their formula, everything put back bit by bit, and what a curve speaks for."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlcls.errors import RecipeError
from mlcls.learning.losses import build_loss
from mlcls.learning.lr_range import LrCurve, Suggestion, range_test, smooth, still_stepper, suggest
from mlcls.learning.optimizers import build_optimizer
from mlcls.learning.steps import Batch, Stepper, take_step

BCE = build_loss("bce", pos_weight=None, settings={})


def stepper_for(model: nn.Module, optimizer: torch.optim.Optimizer) -> Stepper:
    return still_stepper(model, BCE, optimizer, device=torch.device("cpu"), precision="fp32", clip_norm=None)


def endless(images: tuple[Tensor, ...]) -> Iterator[list[Batch]]:
    for step in itertools.count():
        rows = torch.arange(step * 5, step * 5 + 5) % len(images[0])
        yield [(images[0][rows], images[1][rows], images[2][rows])]


def with_dropout(tiny: Callable[..., Any]) -> nn.Module:
    model = tiny(norm=True)
    model.head.insert(1, nn.Dropout(0.5))
    return model.train()


def test_the_rate_grows_by_the_same_factor_and_groups_keep_their_ratio(
    tiny: Callable[..., Any], images: Any
) -> None:
    model = tiny()
    optimizer = build_optimizer("sgd", model, 0.3, 0.0, {}, {"body.0.weight": 0.25})
    seen: list[list[float]] = []
    curve = range_test(
        stepper_for(model, optimizer),
        endless(images),
        [images],
        5,
        lr_min=1e-4,
        lr_max=1.0,
        on_step=lambda _: seen.append(sorted({group["lr"] for group in optimizer.param_groups})),
    )
    assert curve.rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert np.array(seen) == pytest.approx(np.outer(curve.rates, [0.25, 1.0]))
    assert sorted({group["lr"] for group in optimizer.param_groups}) == pytest.approx([0.075, 0.3])
    assert not curve.diverged


def test_the_loss_is_that_of_the_probe_after_each_step(tiny: Callable[..., Any], images: Any) -> None:
    model, other = tiny(), tiny()
    optimizer, its = (build_optimizer("sgd", one, 0.1, 0.0, {}) for one in (model, other))
    probe = tuple(tensor[:7] for tensor in images)
    curve = range_test(stepper_for(model, optimizer), endless(images), [probe], 4, lr_min=0.01, lr_max=0.3)
    stepper, expected = stepper_for(other, its), []
    for rate, batches in zip(curve.rates, endless(images), strict=False):
        its.param_groups[0]["lr"] = its.param_groups[-1]["lr"] = rate
        take_step(stepper, batches, [])
        known = ~probe[1].isnan()
        loss = nn.functional.binary_cross_entropy_with_logits(other(probe[0])[known], probe[1][known])
        expected.append(float(loss.detach()))
    assert curve.losses == pytest.approx(expected, rel=1e-5)
    assert len(set(expected)) == 4


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("trained_before", [False, True])
def test_all_is_put_back_bit_by_bit(
    tiny: Callable[..., Any], images: Any, name: str, trained_before: bool
) -> None:
    model = with_dropout(tiny)
    model.body[0].requires_grad_(False)
    model.body.eval()
    optimizer = build_optimizer(name, model, 0.1, 0.01, {})
    stepper = stepper_for(model, optimizer)
    if trained_before:
        take_step(stepper, [images], [])
    torch.manual_seed(5)
    chance, modes = torch.get_rng_state(), [module.training for module in model.modules()]
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state = {
        parameter: {key: torch.as_tensor(value).clone() for key, value in values.items() if value is not None}
        for parameter, values in optimizer.state.items()
    }
    groups = [{**group, "params": None} for group in optimizer.param_groups]
    curve = range_test(stepper, endless(images), [images], 12)
    assert len(curve.rates) > 5
    assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), chance)
    assert [{**group, "params": None} for group in optimizer.param_groups] == groups
    assert set(optimizer.state) == set(state)
    for parameter, values in state.items():
        assert all(
            torch.equal(torch.as_tensor(optimizer.state[parameter][key]), v) for key, v in values.items()
        )
    assert all(parameter.grad is None for parameter in model.parameters())
    # and a second test says the same
    again = range_test(stepper, endless(images), [images], 12)
    assert (again.rates.tolist(), again.losses.tolist()) == (curve.rates.tolist(), curve.losses.tolist())


def test_it_is_put_back_when_it_is_interrupted(tiny: Callable[..., Any], images: Any) -> None:
    model = with_dropout(tiny)
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    optimizer = build_optimizer("sgd", model, 0.1, 0.0, {})

    def stop(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        range_test(stepper_for(model, optimizer), endless(images), [images], on_step=stop)
    assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())


def test_it_ends_where_the_loss_diverges(tiny: Callable[..., Any], images: Any) -> None:
    model = tiny()
    optimizer = build_optimizer("sgd", model, 0.1, 0.0, {})
    curve = range_test(stepper_for(model, optimizer), endless(images), [images], 60, lr_min=1e-3, lr_max=1e6)
    assert curve.diverged
    assert 10 < len(curve.rates) < 60
    assert np.isfinite(curve.losses).all()
    assert curve.losses[-1] > 4 * curve.losses[:-1].min() or len(curve.losses) < 60


def test_it_falls_where_a_network_learns_and_says_nothing_where_it_cannot(
    tiny: Callable[..., Any], images: Any
) -> None:
    learnable = (images[0], (images[0].float().mean((2, 3)) > 127).float(), images[2])
    model = tiny()
    optimizer = build_optimizer("adamw", model, 0.1, 0.0, {})
    curve = range_test(stepper_for(model, optimizer), endless(learnable), [learnable], 60)
    found = suggest(curve)
    assert found.steepest is not None
    assert 1e-3 < found.steepest < 1.0
    model = tiny()
    nn.init.zeros_(model.head[1].weight)
    nn.init.constant_(model.head[1].bias, -40.0)
    nothing = (images[0], torch.zeros(20, 3), images[2])  # all said already
    optimizer = build_optimizer("adamw", model, 0.1, 0.0, {})
    curve = range_test(stepper_for(model, optimizer), endless(nothing), [nothing], 60, lr_max=0.01)
    assert suggest(curve) == Suggestion(None, None)


RATES = np.geomspace(1e-6, 1.0, 100)


def curve_of(function: Callable[[Any], Any], noise: float = 0.0, seed: int = 0) -> LrCurve:
    losses = function(np.log10(RATES)) + noise * np.random.default_rng(seed).standard_normal(100)
    return LrCurve(RATES, losses, False)


def falling(x: Any) -> Any:
    """Falls fastest at 1e-3, is lowest at 1e-2, and is ever steeper beyond."""
    return 0.7 - 0.3 / (1 + np.exp(-5 * (x + 3))) + np.where(x > -2, 3 * (x + 2) ** 2, 0)


def test_what_dropout_leaves_out_is_the_same_after_each_step(tiny: Callable[..., Any], images: Any) -> None:
    model = with_dropout(tiny)
    optimizer = build_optimizer("sgd", model, 0.1, 0.0, {})
    stepper = stepper_for(model, optimizer)
    curve = range_test(stepper, endless(images), [images], 8, lr_min=1e-30, lr_max=1e-29)  # no weight moves
    assert len(set(curve.losses.tolist())) == 1


@pytest.mark.parametrize("height", [1.0, 1e6])
def test_how_far_it_diverges_does_not_matter(height: float) -> None:
    found = suggest(curve_of(lambda x: falling(x) + np.where(x > -1.8, height, 0)))
    assert found.steepest is not None
    assert found.tenth is not None
    assert abs(np.log10(found.steepest) + 3) < 0.25
    assert abs(np.log10(found.tenth) + 3) < 0.4


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_the_steepest_descent_and_a_tenth_of_the_lowest(noise: float) -> None:
    found = suggest(curve_of(falling, noise))
    assert found.steepest is not None
    assert found.tenth is not None
    assert abs(np.log10(found.steepest) + 3) < 0.25
    assert abs(np.log10(found.tenth) + 3) < 0.4


@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.full_like(x, 0.7),
        lambda x: 0.7 + np.where(x > -2, (x + 2) ** 2, 0),
        lambda x: 0.7 + 0.1 * x,
        lambda x: 0.7 - 0.001 / (1 + np.exp(-5 * (x + 3))),
    ],
)
def test_a_curve_that_does_not_fall_speaks_for_nothing(function: Callable[[Any], Any]) -> None:
    assert suggest(curve_of(function)) == Suggestion(None, None)


def test_noise_alone_is_seldom_taken_for_a_fall() -> None:
    found = [suggest(curve_of(lambda x: np.full_like(x, 0.7), 0.1, seed)) for seed in range(100)]
    assert sum(one.steepest is not None for one in found) <= 5


def test_lines_around_each_point_see_a_line() -> None:
    losses, slopes, _ = smooth(curve_of(lambda x: 0.2 - 0.1 * x))
    assert losses == pytest.approx(0.2 - 0.1 * np.log10(RATES), abs=1e-9)
    assert slopes == pytest.approx(np.full(100, -0.1), abs=1e-9)


@pytest.mark.parametrize("n", [0, 1, 9])
def test_of_few_steps_nothing_is_said(n: int) -> None:
    curve = LrCurve(RATES[:n], np.linspace(1, 0, n), True)
    assert suggest(curve) == Suggestion(None, None)
    assert all(np.isnan(part).all() and len(part) == n for part in smooth(curve))


def test_wrong_numbers_and_a_probe_without_labels_are_refused(tiny: Callable[..., Any], images: Any) -> None:
    model = tiny()
    stepper = stepper_for(model, build_optimizer("sgd", model, 0.1, 0.0, {}))
    for number, low, high in ((1, 1e-6, 1.0), (9, 1.0, 1.0), (9, 0.0, 1.0), (9, 1e-3, np.inf)):
        with pytest.raises(RecipeError, match="rising rates above 0"):
            range_test(stepper, endless(images), [images], number, lr_min=low, lr_max=high)
    unknown = (images[0], torch.full_like(images[1], torch.nan), images[2])
    with pytest.raises(RecipeError, match="needs a known label"):
        range_test(stepper, endless(images), [unknown], 5)
