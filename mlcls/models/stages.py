"""Stages of a backbone: which modules are its last stage, what trains, and what stays in eval mode."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from timm.models import group_parameters
from torch import nn

from mlcls.errors import RecipeError
from mlcls.models.classifier import Classifier


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a classifier, by its module name, with its numbers of trainable and frozen parameters."""

    name: str
    trainable: int
    frozen: int


def last_stage(backbone: nn.Module) -> tuple[str, ...]:
    """The names of the modules of a backbone's last stage, with what follows it (a norm, a conv_head).

    Everything that is registered after the second-last module of timm's `feature_info` (in a ResNet: layer4;
    in a ViT: the last block and the norm). Where timm has no such list, the last group of its
    `group_matcher(coarse=True)`; where it has neither, the last child with parameters.

    Raises:
        RecipeError: the backbone has no parameters.
    """
    parameters = _after_second_last_feature(backbone) or _last_group(backbone)
    names = _covering_modules(backbone, parameters)
    if not names:
        names = [name for name, child in backbone.named_children() if any(True for _ in child.parameters())][
            -1:
        ]
    if not names:
        raise RecipeError("--unfreeze last: the backbone has no module with parameters; use --unfreeze none")
    return tuple(names)


def set_trainable(model: Classifier, unfreeze: str | Sequence[str]) -> tuple[str, ...]:
    """Set for every parameter whether it trains. The head always does.

    Args:
        model: changed in place (`requires_grad` only; see `train_mode` for what runs in which mode).
        unfreeze: "none" (the head alone), "all", "last" (see `last_stage`), or module names of the backbone,
            as a list or joined by commas; "last" may stand among them.

    Returns:
        The trainable modules by their names in `model`: "head" and, say, "backbone.layer4".

    Raises:
        RecipeError: an unknown module; the message suggests the nearest.
    """
    names = _unfrozen_names(model.backbone, unfreeze)
    for parameter in model.backbone.parameters():
        parameter.requires_grad_("" in names)
    for parameter in model.head.parameters():
        parameter.requires_grad_(True)
    for name in names:
        for parameter in model.backbone.get_submodule(name).parameters():
            parameter.requires_grad_(True)
    return ("head", *(f"backbone.{name}".rstrip(".") for name in names))


def train_mode(model: Classifier) -> None:
    """Set training mode where the model trains, and eval mode where it is frozen.

    A frozen BatchNorm in training mode would go on moving its running statistics, and a frozen dropout or
    drop-path would go on dropping. A module without parameters (a dropout between two stages, a BatchNorm
    without affine) goes with the whole that it belongs to, and where that is frozen in part, with what stands
    before it. To be called after `set_trainable` and before each epoch (validation sets eval mode).
    """
    model.train()
    _set_modes(model.backbone, before=False)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """How many numbers train and how many are frozen: (trainable, frozen)."""
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trainable, sum(p.numel() for p in model.parameters()) - trainable


def describe_stages(model: Classifier) -> tuple[Stage, ...]:
    """The parts of a classifier in order, by the names that `--unfreeze` takes, the head last as "head".

    A container of numbered stages (`blocks`, `stages`) is listed stage by stage. Parameters that belong to
    the backbone itself (a ViT's cls_token) are under the name "".
    """
    own = list(model.backbone.parameters(recurse=False))
    stages = [Stage("", *_split_count(own))] if own else []
    for name, child in model.backbone.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            parts = [(f"{name}.{key}", part) for key, part in child.named_children()]
        else:
            parts = [(name, child)]
        stages += [Stage(key, *count_parameters(part)) for key, part in parts if sum(count_parameters(part))]
    return (*stages, Stage("head", *count_parameters(model.head)))


def _split_count(parameters: Iterable[nn.Parameter]) -> tuple[int, int]:
    sizes = [(p.numel(), p.requires_grad) for p in parameters]
    return sum(n for n, trains in sizes if trains), sum(n for n, trains in sizes if not trains)


def _set_modes(module: nn.Module, before: bool) -> bool:
    """Set the modes of `module` and below, by whether what precedes it trains; returns whether its end does."""
    trains = {p.requires_grad for p in module.parameters()}
    if len(trains) < 2:
        mode = trains.pop() if trains else before
        module.train(mode)
        return mode
    module.training = True
    for child in module.children():
        before = _set_modes(child, before)
    return before


def _unfrozen_names(backbone: nn.Module, unfreeze: str | Sequence[str]) -> tuple[str, ...]:
    """Module names of the backbone; ("",) is the whole of it."""
    asked = [n.strip() for n in unfreeze.split(",")] if isinstance(unfreeze, str) else list(unfreeze)
    if asked in (["none"], []):
        return ()
    if asked == ["all"]:
        return ("",)
    names: list[str] = []
    for name in asked:
        names += last_stage(backbone) if name == "last" else [_checked_name(backbone, name)]
    return tuple(dict.fromkeys(names))


def _checked_name(backbone: nn.Module, name: str) -> str:
    if name in ("all", "none"):
        raise RecipeError(f"--unfreeze: '{name}' stands alone, not among module names")
    modules = {key: module for key, module in backbone.named_modules() if key and _has_parameters(module)}
    if name in modules:
        return name
    near = difflib.get_close_matches(name, modules, n=1)
    top = ", ".join(key for key in modules if "." not in key)
    reason = "has no parameters" if name in dict(backbone.named_modules()) else "is no module of the backbone"
    hint = f"did you mean '{near[0]}'?" if near else f"expected none, last, all, or modules such as: {top}"
    raise RecipeError(f"--unfreeze: '{name}' {reason}; {hint}")


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _after_second_last_feature(backbone: nn.Module) -> set[str]:
    """Names of the parameters after the second-last feature module; empty where timm does not say."""
    features = [_module_name(info) for info in getattr(backbone, "feature_info", None) or ()]
    order = {name: i for i, (name, _) in enumerate(backbone.named_modules())}
    if len(features) < 2 or any(name not in order for name in features):
        return set()
    end = max(i for name, i in order.items() if _within(name, features[-1]))
    for boundary in reversed(features[:-1]):
        start = max(i for name, i in order.items() if _within(name, boundary))
        after = {name: i for name, i in order.items() if i > start}
        # A last feature without parameters (a VGG's last pooling) belongs to the stage before it.
        if any(_own_parameters(backbone, name) for name, i in after.items() if i <= end):
            return {parameter for name in after for parameter in _own_parameters(backbone, name)}
    return set()


def _module_name(info: Mapping[str, Any]) -> str:
    return str(info.get("module", ""))


def _within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


def _own_parameters(backbone: nn.Module, name: str) -> list[str]:
    return [f"{name}.{key}" for key, _ in backbone.get_submodule(name).named_parameters(recurse=False)]


def _last_group(backbone: nn.Module) -> set[str]:
    """Names of the parameters of timm's last coarse groups, down to one that holds more than a norm."""
    matcher = getattr(backbone, "group_matcher", None)
    if matcher is None:
        return set()
    groups = group_parameters(backbone, matcher(coarse=True))
    shapes = {name: parameter.ndim for name, parameter in backbone.named_parameters()}
    chosen: set[str] = set()
    for group in sorted(groups, reverse=True):
        chosen.update(groups[group])
        if any(shapes[name] > 1 for name in groups[group]):
            return chosen
    return set()


def _covering_modules(module: nn.Module, parameters: set[str], prefix: str = "") -> list[str]:
    """The fewest modules below `module` that hold just these parameters, less those of mixed modules."""
    names: list[str] = []
    for key, child in module.named_children():
        name = prefix + key
        own = [f"{name}.{parameter}" for parameter, _ in child.named_parameters()]
        if own and parameters.issuperset(own):
            names.append(name)
        elif not parameters.isdisjoint(own):
            names += _covering_modules(child, parameters, f"{name}.")
    return names
