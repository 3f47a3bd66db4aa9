"""Optimizers: which parameters move, which of them decay, which mistakes are named."""

import pytest
import timm
import torch
from torch import nn

from mlcls.errors import RecipeError
from mlcls.learning.optimizers import OPTIMIZERS, build_optimizer, parameter_groups

every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 5), nn.BatchNorm1d(5), nn.LayerNorm([5]), nn.Linear(5, 2, bias=False), nn.PReLU()
    )


def names_by_decay(module: nn.Module, weight_decay: float = 0.3) -> dict[float, set[str]]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = parameter_groups(module, weight_decay)
    return {group["weight_decay"]: {names[id(p)] for p in group["params"]} for group in groups}


def test_biases_norms_and_single_dimensions_do_not_decay() -> None:
    found = names_by_decay(network())
    assert found[0.3] == {"0.weight", "3.weight"}
    assert found[0.0] == {"0.bias", "1.weight", "1.bias", "2.weight", "2.bias", "4.weight"}


def test_a_norm_over_two_dimensions_and_a_bias_of_two_do_not_decay() -> None:
    module = nn.Sequential(nn.LayerNorm([3, 4]), nn.Linear(4, 2))
    module.register_parameter("bias", nn.Parameter(torch.zeros(2, 2)))
    assert names_by_decay(module)[0.3] == {"1.weight"}


def test_frozen_parameters_are_left_out() -> None:
    module = network()
    module[0].requires_grad_(False)
    module[3].requires_grad_(False)
    # nothing that decays is left: one group, not an empty one
    assert names_by_decay(module) == {0.0: {"1.weight", "1.bias", "2.weight", "2.bias", "4.weight"}}
    module.requires_grad_(False)
    assert parameter_groups(module, 0.3) == []


def test_what_timm_exempts_does_not_decay_inside_a_larger_module() -> None:
    model = nn.ModuleDict(
        {"backbone": timm.create_model("test_vit", num_classes=0), "head": nn.Linear(64, 2)}
    )
    found = names_by_decay(model)
    assert {"backbone.pos_embed", "backbone.cls_token"} <= found[0.0]
    assert {"backbone.patch_embed.proj.weight", "head.weight"} <= found[0.3]


@every_optimizer
def test_it_lowers_a_quadratic(name: str) -> None:
    module = nn.Linear(3, 1)
    optimizer = build_optimizer(name, module, 0.05, 0.0, {})
    first = None
    for _ in range(50):
        optimizer.zero_grad()
        loss = (module(torch.eye(3)) - 2.0).square().sum()
        first = loss.item() if first is None else first
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * first


@every_optimizer
def test_decay_shrinks_weights_and_leaves_biases(name: str) -> None:
    module = nn.Linear(3, 2)
    nn.init.ones_(module.weight)
    nn.init.ones_(module.bias)
    optimizer = build_optimizer(name, module, 0.1, 0.5, {})
    module.weight.grad, module.bias.grad = torch.zeros(2, 3), torch.zeros(2)
    optimizer.step()
    assert (module.weight < 1).all()
    assert (module.bias == 1).all()


@every_optimizer
def test_a_frozen_parameter_stays(name: str) -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    module[0].requires_grad_(False)
    kept = module[0].weight.clone()
    optimizer = build_optimizer(name, module, 0.1, 0.5, {})
    module(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    assert torch.equal(module[0].weight, kept)


def test_settings_reach_the_optimizer() -> None:
    module = nn.Linear(2, 2)
    adam = build_optimizer("adam", module, 0.1, 0.0, {"betas": [0.5, 0.9], "eps": 1e-3, "momentum": 0.1})
    assert (adam.defaults["betas"], adam.defaults["eps"]) == ((0.5, 0.9), 1e-3)
    sgd = build_optimizer("sgd", module, 0.1, 0.0, {"momentum": 0.5, "nesterov": True, "betas": [0.5, 0.9]})
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.5, True)
    other = build_optimizer("torch.optim:RMSprop", module, 0.1, 0.2, {"alpha": 0.7})
    assert other.defaults["alpha"] == 0.7
    assert [group["weight_decay"] for group in other.param_groups] == [0.2, 0.0]


@pytest.mark.parametrize(
    ("name", "lr", "weight_decay", "own", "message"),
    [
        ("adamw2", 0.1, 0.0, {}, "did you mean 'adamw'"),
        ("sgd", 0.1, 0.0, {"momentun": 0.9}, "no setting 'momentun'; did you mean 'momentum'"),
        ("adam", 0.1, 0.0, {"betas": [0.9]}, "expected two numbers"),
        ("adam", 0.1, 0.0, {"betas": [2.0, 0.9]}, "--optimizer adam: Invalid beta"),
        ("adam", 0.1, 0.0, {"betas": 0.9}, "betas is 0.9, expected a list"),
        ("sgd", 0.1, 0.0, {"nesterov": 1}, "nesterov is 1, expected true or false"),
        ("sgd", 0.0, 0.0, {}, "expected a learning rate above 0"),
        ("sgd", 0.1, -1.0, {}, "--weight-decay"),
    ],
)
def test_mistakes_are_named(name: str, lr: float, weight_decay: float, own: dict, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build_optimizer(name, nn.Linear(2, 2), lr, weight_decay, own)
    assert message in str(caught.value)


def test_nothing_to_train_is_named() -> None:
    with pytest.raises(RecipeError, match="--unfreeze: every parameter is frozen"):
        build_optimizer("sgd", nn.Linear(2, 2).requires_grad_(False), 0.1, 0.0, {})


@every_optimizer
def test_a_layer_with_half_the_rate_moves_half_as_far(name: str) -> None:
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3))
    scales = {"0.weight": 0.5, "2.weight": 0.25}  # the others have 1
    optimizer = build_optimizer(name, module, 0.1, 0.3, {}, scales)
    for parameter in module.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.full_like(parameter, 2.0)
    optimizer.step()
    moved = {key: float((1 - p).detach().mean()) for key, p in module.named_parameters()}
    assert moved["0.weight"] == pytest.approx(0.5 * moved["1.weight"], rel=1e-4)
    assert moved["2.weight"] == pytest.approx(0.25 * moved["2.bias"], rel=1e-4)


def test_groups_by_rate_hold_each_trainable_parameter_once() -> None:
    module = network()
    module[3].requires_grad_(False)
    scales = {"0.weight": 0.5, "0.bias": 0.5, "1.weight": 1.0}
    groups = build_optimizer("adamw", module, 0.2, 0.3, {}, scales).param_groups
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    found = {
        (group["lr"], group["weight_decay"]): {names[id(p)] for p in group["params"]} for group in groups
    }
    assert found == {
        (0.1, 0.3): {"0.weight"},
        (0.1, 0.0): {"0.bias"},
        (0.2, 0.0): {"1.weight", "1.bias", "2.weight", "2.bias", "4.weight"},
    }


def test_without_scales_groups_are_as_ever() -> None:
    module = network()
    plain, scaled = (build_optimizer("adamw", module, 0.2, 0.3, {}, scales) for scales in (None, {}))
    assert len(plain.param_groups) == len(scaled.param_groups) == 2
    for one, other in zip(plain.param_groups, scaled.param_groups, strict=True):
        assert (one["lr"], one["weight_decay"]) == (other["lr"], other["weight_decay"])
        assert all(p is q for p, q in zip(one["params"], other["params"], strict=True))
