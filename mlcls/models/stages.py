"""Stages of a backbone: which modules are its last ones, how deep a parameter lies, what trains and in which mode."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from timm.models import group_parameters
from torch import nn

from mlcls.errors import RecipeError
from mlcls.models.classifier import Classifier

_WORDS = ("none", "last", "all", "gradual")  # of `--unfreeze`; gradual is a way through several of the others
MOST_STEPS = 5  # of gradual unfreezing, as many as a ResNet has: of more blocks, each step takes several


def last_stage(backbone: nn.Module) -> tuple[str, ...]:
    """The names of the modules of a backbone's last stage, with what follows it (a norm, a conv_head).

    Everything that is registered after the second-last module of timm's `feature_info` (in a ResNet: layer4;
    in a ViT: the last block and the norm). Where timm has no such list, the last group of its
    `group_matcher(coarse=True)`; where it has neither, the last child with parameters.

    Raises:
        RecipeError: the backbone has no parameters.
    """
    for late_parts in _LATE_PARTS:
        for parameters in late_parts(backbone)[:1]:
            if names := _covering_modules(backbone, parameters):
                return tuple(names)
    raise RecipeError("--unfreeze last: the backbone has no module with parameters; use --unfreeze none")


def unfreezing_order(backbone: nn.Module, most: int = MOST_STEPS) -> tuple[str, ...]:
    """What trains in each step of gradual unfreezing (Howard and Ruder 2018, section 3.3), as `set_trainable` takes it.

    The first step is `last_stage`, the last one "all", and each holds those before it: in a ResNet "layer4",
    "layer3,layer4" and so on. The parts are those that `last_stage` knows.

    Args:
        backbone: any timm backbone.
        most: steps at most, from 2 on; where there are more parts (the blocks of a ViT), a step takes several.
    """
    every = {name for name, _ in backbone.named_parameters()}
    found = next((sets for late_parts in _LATE_PARTS if (sets := late_parts(backbone))), [])
    steps = [",".join(_covering_modules(backbone, parameters)) for parameters in found if parameters != every]
    steps = [*dict.fromkeys(step for step in steps if step), "all"]
    if len(steps) <= most:
        return tuple(steps)
    return tuple(steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most))


def layer_depths(model: Classifier) -> dict[str, int]:
    """How deep each parameter of a classifier lies: 0 for the stem, the most for the head.

    The layers are the groups of timm's `group_matcher` (in a ResNet its stem and each block); one that holds nothing
    but a norm belongs to the layer before it. Where timm has no matcher, the children of the backbone in the order of
    their registration, containers of numbered parts taken part by part.

    Returns:
        depth by the parameter's name in `model`.
    """
    layers = _layers(model.backbone)
    depths = {f"backbone.{name}": depth for depth, names in enumerate(layers) for name in names}
    return depths | {f"head.{name}": len(layers) for name, _ in model.head.named_parameters()}


def layer_scales(model: Classifier, decay: float) -> dict[str, float]:
    """The learning rate of each parameter over that of the head: `decay` for every layer between (Clark et al. 2020).

    Args:
        decay: above 0, at most 1.

    Returns:
        a factor by the parameter's name in `model`, 1 in the head.
    """
    depths = layer_depths(model)
    top = max(depths.values(), default=0)
    return {name: decay ** (top - depth) for name, depth in depths.items()}


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
    if name in _WORDS:
        raise RecipeError(f"--unfreeze: '{name}' stands alone, not among module names")
    modules = {key: module for key, module in backbone.named_modules() if key and _has_parameters(module)}
    if name in modules:
        return name
    near = difflib.get_close_matches(name, [*_WORDS, *modules], n=1)
    top = ", ".join(key for key in modules if "." not in key)
    reason = "has no parameters" if name in dict(backbone.named_modules()) else "is no module of the backbone"
    hint = (
        f"did you mean '{near[0]}'?" if near else f"expected {', '.join(_WORDS)}, or modules such as: {top}"
    )
    raise RecipeError(f"--unfreeze: '{name}' {reason}; {hint}")


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _after_features(backbone: nn.Module) -> list[set[str]]:
    """Names of the parameters after the second-last feature module, the third-last, ...; [] where timm does not say."""
    features = [_module_name(info) for info in getattr(backbone, "feature_info", None) or ()]
    order = {name: i for i, (name, _) in enumerate(backbone.named_modules())}
    if len(features) < 2 or any(name not in order for name in features):
        return []
    end = max(i for name, i in order.items() if _within(name, features[-1]))
    found: list[set[str]] = []
    for boundary in reversed(features[:-1]):
        start = max(i for name, i in order.items() if _within(name, boundary))
        after = {name: i for name, i in order.items() if i > start}
        # A last feature without parameters (a VGG's last pooling) belongs to the stage before it.
        if any(_own_parameters(backbone, name) for name, i in after.items() if i <= end):
            parameters = {parameter for name in after for parameter in _own_parameters(backbone, name)}
            if not found or parameters > found[-1]:
                found.append(parameters)
    return found


def _module_name(info: Mapping[str, Any]) -> str:
    return str(info.get("module", ""))


def _within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


def _own_parameters(backbone: nn.Module, name: str) -> list[str]:
    return [f"{name}.{key}" for key, _ in backbone.get_submodule(name).named_parameters(recurse=False)]


def _last_groups(backbone: nn.Module) -> list[set[str]]:
    """Names of the parameters of timm's last coarse group, its last two, ...; a norm alone is no group."""
    matcher = getattr(backbone, "group_matcher", None)
    if matcher is None:
        return []
    shapes = {name: parameter.ndim for name, parameter in backbone.named_parameters()}
    groups = group_parameters(backbone, matcher(coarse=True))
    found: list[set[str]] = []
    chosen: set[str] = set()
    for group in sorted(groups, reverse=True):
        chosen |= set(groups[group])
        if any(shapes[name] > 1 for name in groups[group]):
            found.append(set(chosen))
    return found


def _last_children(backbone: nn.Module) -> list[set[str]]:
    """Names of the parameters of the last child, the last two, ...; those without parameters do not count."""
    found: list[set[str]] = []
    for name, child in reversed(list(backbone.named_children())):
        if own := {f"{name}.{key}" for key, _ in child.named_parameters()}:
            found.append(own | (found[-1] if found else set()))
    return found


# what a backbone's last parts are, the first that knows; each set holds the one before it
_LATE_PARTS = (_after_features, _last_groups, _last_children)


def _layers(backbone: nn.Module) -> list[list[str]]:
    """The parameters' names by layer, from the stem on."""
    matcher = getattr(backbone, "group_matcher", None)
    if matcher is None:
        groups = _parts(backbone)
    else:
        by_depth = group_parameters(backbone, matcher(coarse=False))
        groups = [by_depth[depth] for depth in sorted(by_depth)]
    matrices = {name for name, parameter in backbone.named_parameters() if parameter.ndim > 1}
    layers: list[list[str]] = []
    for names in groups:
        if layers and matrices.isdisjoint(names):
            layers[-1] += names
        elif names:
            layers.append(list(names))
    return layers


def _parts(backbone: nn.Module) -> list[list[str]]:
    """The parameters' names by child, those of the backbone itself first; a numbered container child by child."""
    parts = [[name for name, _ in backbone.named_parameters(recurse=False)]]
    for name, child in backbone.named_children():
        numbered = isinstance(child, nn.Sequential | nn.ModuleList)
        for key, part in child.named_children() if numbered else [("", child)]:
            inside = f"{name}.{key}" if key else name
            parts.append([f"{inside}.{parameter}" for parameter, _ in part.named_parameters()])
    return parts


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
