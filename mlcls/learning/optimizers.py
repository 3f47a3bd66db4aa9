"""Optimizers: which parameters are trained, which of them decay, and by what rule they move."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from mlcls.errors import RecipeError
from mlcls.learning.settings import settings_for
from mlcls.naming import look_up

Groups = list[dict[str, Any]]
"""Parameter groups as torch.optim takes them."""

_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)


def adam(groups: Groups, lr: float, *, betas: Sequence[float] = (0.9, 0.999), eps: float = 1e-8) -> Optimizer:
    """Adam (Kingma and Ba 2015); weight decay is added to the gradient."""
    return torch.optim.Adam(groups, lr=lr, betas=_pair(betas), eps=eps, fused=_fused(groups))


def adamw(
    groups: Groups, lr: float, *, betas: Sequence[float] = (0.9, 0.999), eps: float = 1e-8
) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019); weight decay shrinks the weights beside the gradient step."""
    return torch.optim.AdamW(groups, lr=lr, betas=_pair(betas), eps=eps, fused=_fused(groups))


def sgd(groups: Groups, lr: float, *, momentum: float = 0.9, nesterov: bool = False) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=_fused(groups))


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adam": adam, "adamw": adamw, "sgd": sgd}


def parameter_groups(
    module: nn.Module, weight_decay: float, layer_rates: Mapping[str, float] | None = None
) -> Groups:
    """The parameters that require a gradient, in a group that decays and one that does not.

    Biases, the parameters of norms, all other parameters of one dimension, and what a module itself exempts
    with a method `no_weight_decay` (as timm's transformers do for their position embeddings) do not decay.

    Args:
        module: frozen parameters (`requires_grad` False) are left out.
        weight_decay: of the groups that decay, at least 0.
        layer_rates: learning rate by the parameter's name, of all parameters that train. None: that of the optimizer.

    Returns:
        One or two dicts `{"params": [...], "weight_decay": float}`, in the order of the module's parameters; with
        `layer_rates` as many for each of the rates, with an entry `"lr"` too. An empty list where all is frozen.
    """
    exempt = _exempt_names(module)
    groups: dict[float | None, tuple[list[nn.Parameter], list[nn.Parameter]]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            rate = None if layer_rates is None else layer_rates[name]
            decaying, others = groups.setdefault(rate, ([], []))
            (others if parameter.ndim <= 1 or name in exempt else decaying).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay} | ({} if rate is None else {"lr": rate})
        for rate, (decaying, others) in groups.items()
        for parameters, decay in ((decaying, weight_decay), (others, 0.0))
        if parameters
    ]


def build_optimizer(
    name: str,
    module: nn.Module,
    lr: float,
    weight_decay: float,
    settings: Mapping[str, Any],
    layer_scales: Mapping[str, float] | None = None,
) -> Optimizer:
    """The optimizer called `name` over the trainable parameters of `module`.

    Args:
        name: a key of `OPTIMIZERS`, or `package.module:function`, called as
            `function(groups, lr, **settings)`; a class of torch.optim is such a function.
        module: already on its device, frozen where it is to stay.
        lr: learning rate of every group, above 0.
        weight_decay: see `parameter_groups`.
        settings: what the function takes as keywords. One that only another optimizer takes is left out.
        layer_scales: factors of `lr`, above 0, by the parameter's name in `module`; what it does not name has 1.

    Raises:
        RecipeError: an unknown name, a setting that nothing takes or out of range, nothing to train.
    """
    what = f"--optimizer {name}"
    function = look_up(OPTIMIZERS, name, "--optimizer")
    keywords = settings_for(function, settings, OPTIMIZERS, what, positional=2)
    if not weight_decay >= 0:
        raise RecipeError(f"--weight-decay: {weight_decay}, expected at least 0")
    if not lr > 0:
        raise RecipeError(f"--lr-head, --lr-finetune: {lr}, expected a learning rate above 0")
    rates = None
    if layer_scales is not None:
        rates = {key: lr * layer_scales.get(key, 1.0) for key, _ in module.named_parameters()}
    groups = parameter_groups(module, weight_decay, rates)
    if not groups:
        raise RecipeError("--unfreeze: every parameter is frozen, nothing is left to train")
    try:
        return function(groups, lr, **keywords)
    except (TypeError, ValueError) as error:  # torch.optim checks its own ranges
        raise RecipeError(f"{what}: {error}") from error


def _exempt_names(module: nn.Module) -> set[str]:
    """Full names of the parameters that do not decay whatever their dimensions."""
    names: set[str] = set()
    for prefix, part in module.named_modules():
        inside = f"{prefix}." if prefix else ""
        own = [name for name, _ in part.named_parameters(recurse=False)]
        norm = isinstance(part, _NORMS)
        names.update(inside + name for name in own if norm or name == "bias")
        declared = getattr(part, "no_weight_decay", None)
        if callable(declared):
            names.update(inside + name for name in declared())
    return names


def _fused(groups: Groups) -> bool | None:
    """Whether one kernel updates all parameters: on CUDA; None leaves the choice to PyTorch."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    return True if parameters and all(parameter.is_cuda for parameter in parameters) else None


def _pair(betas: Sequence[float]) -> tuple[float, float]:
    if len(betas) != 2:
        raise ValueError(f"betas are {list(betas)}, expected two numbers")
    return float(betas[0]), float(betas[1])
