"""Averages of weights: the formula, bits that come back, a run that goes on, and what goes into a soup."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from mlcls.errors import RecipeError
from mlcls.learning.averaging import (
    STEPS,
    Ema,
    Ingredient,
    Weights,
    average_weights,
    greedy_soup,
    keep_best,
)
from mlcls.models.classifier import build_classifier
from mlcls.models.frontier import find_cut
from mlcls.models.stages import set_trainable, train_mode


def move(model: nn.Module, step: int) -> None:
    """Move all that trains, and its statistics, by what `step` alone decides; a frozen part stays."""
    chance = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=chance))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.training:
            module.running_mean.add_(torch.randn(module.running_mean.shape, generator=chance))
            module.num_batches_tracked.add_(1)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: Weights, other: Weights) -> bool:
    return set(one) == set(other) and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_the_average_is_the_formula_with_its_warm_up(tiny: Callable[..., nn.Module]) -> None:
    model = tiny(norm=True)
    ema = Ema(model, 0.4)
    ema.restart()
    expected = {name: tensor.double() for name, tensor in weights_of(model).items()}
    for step in range(8):
        move(model, step)
        ema.update()
        decay = min(0.4, (1 + step) / (10 + step))  # binds until (1 + n) / (10 + n) is 0.4, at n = 5
        for name, tensor in weights_of(model).items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor.double()
    found = ema.state()
    assert int(found.pop(STEPS)) == 8
    counts = [name for name in found if name.endswith("num_batches_tracked")]
    assert len(counts) == 2
    assert all(int(found.pop(name)) == 8 for name in counts)  # counted, not averaged
    for name, tensor in found.items():
        assert torch.allclose(tensor.double(), expected[name], atol=1e-5), name


def test_without_warm_up_it_is_timms(tiny: Callable[..., nn.Module]) -> None:
    model = tiny(norm=True)
    ema, timms = Ema(model, 0.05), ModelEmaV3(model, decay=0.05)
    ema.restart()
    for step in range(4):
        move(model, step)
        ema.update()
        timms.update(model)
    with ema.swapped_in():
        for name, tensor in timms.module.state_dict().items():
            assert torch.allclose(model.state_dict()[name], tensor, atol=1e-6), name


def test_what_is_frozen_is_not_followed_until_a_stage_trains_it(tiny: Callable[..., nn.Module]) -> None:
    model = tiny()
    model.body.requires_grad_(False)
    ema = Ema(model, 0.9)
    ema.restart()
    assert set(ema.state()) == {"head.1.weight", "head.1.bias", STEPS}
    move(model, 0)
    ema.update()
    model.body.requires_grad_(True)
    ema.restart()
    state = ema.state()
    assert int(state.pop(STEPS)) == 0
    assert same(
        state, model.state_dict()
    )  # from the weights as they are, nothing of the last stage's average


def test_statistics_of_what_is_frozen_are_not_followed(tiny: Callable[..., nn.Module]) -> None:
    model = tiny(norm=True)
    model.body.requires_grad_(False)
    model.body.eval()
    ema = Ema(model, 0.9)
    ema.restart()
    assert {name for name in ema.state() if "running" in name} == {
        "head.0.running_mean",
        "head.0.running_var",
    }
    assert not any(name.startswith("body") for name in ema.state())


def test_swapped_in_the_model_is_the_average_and_afterwards_itself_bit_by_bit(
    tiny: Callable[..., nn.Module],
) -> None:
    model = tiny(norm=True)
    ema = Ema(model, 0.9)
    ema.restart()
    for step in range(3):
        move(model, step)
        ema.update()
    before, places = weights_of(model), [tensor.data_ptr() for tensor in model.state_dict().values()]
    assert ema.raw_weights() == {}
    with ema.swapped_in():
        average = ema.state()
        del average[STEPS]
        assert same(weights_of(model), average)
        assert not same(weights_of(model), before)
        assert same(ema.raw_weights(), before)  # what a checkpoint in the middle of a validation keeps
        assert [tensor.data_ptr() for tensor in model.state_dict().values()] == places
        with pytest.raises(RuntimeError, match="not while the model holds it"):
            ema.update()
    assert same(weights_of(model), before)
    with pytest.raises(KeyboardInterrupt), ema.swapped_in():
        raise KeyboardInterrupt
    assert same(weights_of(model), before)
    assert same({**ema.state()}, {**average, STEPS: torch.tensor(3)})


def test_the_part_above_the_frontier_sees_the_averages() -> None:
    torch.manual_seed(0)
    model = build_classifier("test_resnet", "mlp", 2, image_size=32)
    set_trainable(model, "last")
    train_mode(model)
    cut = find_cut(model, 32, fold=False)
    assert cut is not None
    ema = Ema(model, 0.5)
    ema.restart()
    for step in range(3):
        move(model, step)
        ema.update()
    pixels = torch.randint(
        0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    model.eval()
    cut.rest.eval()
    with torch.no_grad():
        rows = cut.trunk(pixels)
        raw = cut.rest(rows)
        with ema.swapped_in():
            averaged = cut.rest(rows)
            assert torch.allclose(averaged, model(pixels), rtol=1e-3, atol=1e-3)
        assert not torch.allclose(averaged, raw, atol=1e-2)
        assert torch.equal(cut.rest(rows), raw)


def test_a_run_that_goes_on_from_a_state_ends_with_the_same_bits(
    tiny: Callable[..., nn.Module], images: tuple[Tensor, ...]
) -> None:
    def steps(model: nn.Module, ema: Ema, numbers: range) -> None:
        for number in numbers:
            torch.manual_seed(number)
            loss = model(images[0].contiguous(memory_format=torch.channels_last)[number::3]).square().mean()
            loss.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.1 * parameter.grad
                    parameter.grad = None
            ema.update()

    def begin() -> tuple[nn.Module, Ema]:
        model = tiny(norm=True).to(memory_format=torch.channels_last)
        ema = Ema(model, 0.8)
        ema.restart()
        return model, ema

    model, ema = begin()
    steps(model, ema, range(9))
    first, its_ema = begin()
    steps(first, its_ema, range(4))
    kept = safetensors.torch.save({name: tensor.contiguous() for name, tensor in its_ema.state().items()})
    second, loaded = begin()
    second.load_state_dict(first.state_dict())
    loaded.restart()
    loaded.load_state(safetensors.torch.load(kept))
    steps(second, loaded, range(4, 9))
    assert same(ema.state(), loaded.state())
    assert same(model.state_dict(), second.state_dict())


def test_a_state_of_another_stage_and_a_wrong_use_are_refused(tiny: Callable[..., nn.Module]) -> None:
    model = tiny()
    ema = Ema(model, 0.9)
    with pytest.raises(RuntimeError, match="within a stage"):
        ema.update()
    ema.restart()
    state = ema.state()
    model.body.requires_grad_(False)
    ema.restart()
    with pytest.raises(KeyError, match=r"body\.0\.bias"):
        ema.load_state(state)
    for decay in (1.0, -0.1, math.nan):
        with pytest.raises(RecipeError, match="--ema"):
            Ema(model, decay)


def values(*numbers: float) -> Tensor:
    return torch.tensor(numbers)


def test_a_mean_of_what_differs_from_the_same_first_weights() -> None:
    first = {"a": values(1.0, 1.0), "b": values(4.0), "c": values(7.0), "n": torch.tensor(3)}
    several: list[Weights] = [
        {"a": values(2.0, 3.0), "n": torch.tensor(5)},
        {"a": values(0.0, 0.0), "b": values(8.0)},
    ]
    found = average_weights(several, first)
    assert found["a"].tolist() == [1.0, 1.5]
    assert found["b"].tolist() == [6.0]  # the first of them kept it as it was
    assert "c" not in found
    assert found["n"].item() == 5
    assert found["n"].dtype == torch.int64


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=6))
def test_a_mean_is_the_rounded_mean(rows: list[list[float]]) -> None:
    several = [{"w": torch.tensor(row)} for row in rows]
    found = average_weights(several, several[0])["w"]
    expected = np.mean(np.array(rows, dtype=np.float64), axis=0)
    assert np.allclose(found.numpy(), expected, rtol=2e-7, atol=1e-9)
    if len(rows) == 1:
        assert torch.equal(found, several[0]["w"])
        assert found.data_ptr() != several[0]["w"].data_ptr()


def ingredient(epoch: int, figure: float, value: float = 0.0) -> Ingredient:
    return Ingredient(epoch, figure, {"w": values(value)})


@pytest.mark.parametrize(("higher", "epochs"), [(True, [2, 0, 3]), (False, [1, 0, 3])])
def test_the_best_are_kept_and_of_equals_the_earlier(higher: bool, epochs: list[int]) -> None:
    kept: list[Ingredient] = []
    for epoch, figure in enumerate([0.5, 0.2, 0.9, 0.5, math.nan, math.inf, 0.5]):
        kept = keep_best(kept, ingredient(epoch, figure), 3, higher_is_better=higher)
    assert [one.epoch for one in kept] == epochs


def soup_of(*pool: Ingredient, **options: Any) -> tuple[Any, list[float]]:
    tried = []

    def score(weights: Weights) -> float:
        tried.append(float(weights["w"]))
        return options.get("score", lambda value: -abs(value))(tried[-1])

    return greedy_soup(pool, {"w": values(9.0)}, score), tried


def test_an_ingredient_goes_in_where_the_average_is_not_worse_with_it() -> None:
    found, tried = soup_of(
        ingredient(4, 0.9, 1.0), ingredient(2, 0.8, 6.0), ingredient(7, 0.7, -1.0), ingredient(1, 0.6, 0.0)
    )
    assert tried == [1.0, 3.5, 0.0, 0.0]  # the last one is no better, and no worse
    assert found.epochs == (4, 7, 1)
    assert (float(found.weights["w"]), found.score) == (0.0, 0.0)


def test_a_soup_of_one_is_the_best_epoch_and_undefined_scores_stay_out() -> None:
    found, _ = soup_of(
        ingredient(4, 0.9, 1.0), ingredient(2, 0.8, 0.0), score=lambda v: -v if v == 1.0 else math.nan
    )
    assert found.epochs == (4,)
    assert float(found.weights["w"]) == 1.0
    with pytest.raises(ValueError, match="needs an ingredient"):
        soup_of()
