"""Backbones: any timm model by name, with its arguments checked, and the image settings it wants."""

import difflib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from timm.models import (
    PretrainedCfg,
    build_model_with_cfg,
    get_arch_pretrained_cfgs,
    get_pretrained_cfg,
    is_model,
)
from torch import nn

import mlcls.models.cnn  # noqa: F401  (registers cnn4 with timm)
from mlcls.errors import RecipeError
from mlcls.models.pretrained import load_pretrained
from mlcls.models.weights import WeightsReport, load_weights

# What a person must not set through --backbone-args, and what to do instead. timm would read files that are
# named here (a stranger's bundle holds backbone arguments too), or return something else than features. All that
# timm's own factory and builder take, and do not hand on to the network's constructor, is refused as well, so that
# an argument of a later timm is.
RESERVED_ARGS = {
    "pretrained": "use --weights",
    "pretrained_cfg": "use --weights",
    "pretrained_cfg_overlay": "use --weights",
    "pretrained_strict": "use --weights",
    "pretrained_model_args": "use --weights",
    "checkpoint_path": "use --weights FILE",
    "cache_dir": "set the environment variable HF_HOME",
    "img_size": "use --image-size",
    "num_classes": "the head has one output an attribute",
    "in_chans": "images are read as RGB",
    "features_only": "the head needs pooled features",
    "scriptable": "it changes timm's settings for the whole process",
    "exportable": "it changes timm's settings for the whole process",
    "no_jit": "it changes timm's settings for the whole process",
    "device": "use --device",
    "dtype": "use --precision",
}

_OF_THE_FACTORY = frozenset(
    name
    for function in (timm.create_model, build_model_with_cfg)
    for name, parameter in inspect.signature(function).parameters.items()
    if parameter.kind is not inspect.Parameter.VAR_KEYWORD
)

# What timm's constructors, and what they made, raise for arguments that they do not know or cannot use.
_CONSTRUCTOR_ERRORS = (
    *(TypeError, ValueError, AssertionError, RuntimeError, LookupError, AttributeError),
    *(ArithmeticError, NameError),  # NameError: a branch for a value that nobody wrote
)


def data_config(backbone: str, backbone_args: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The image settings that timm has for a backbone; creates no model and needs no network.

    Args:
        backbone: timm's name, with or without the tag of its weights (`resnet18`, `resnet18.a1_in1k`).
        backbone_args: arguments for its constructor; those that other flags set are refused here already.

    Returns:
        `image_size` (int, pixels a side), `interpolation` (str), `crop_pct` (float), `mean` and `std`
        (tuples of 3 floats on the scale 0..1).

    Raises:
        RecipeError: timm has no such model; the arguments name something that another flag sets.
    """
    _check_args(backbone_args or {})
    resolved = resolve_data_config(pretrained_cfg=_settings(backbone).to_dict())
    return {
        "image_size": int(max(resolved["input_size"][-2:])),
        "interpolation": str(resolved["interpolation"]),
        "crop_pct": float(resolved["crop_pct"]),
        "mean": tuple(float(v) for v in resolved["mean"]),
        "std": tuple(float(v) for v in resolved["std"]),
    }


def create_backbone(
    backbone: str, backbone_args: Mapping[str, Any], image_size: int, weights: str | Path
) -> tuple[nn.Module, WeightsReport]:
    """A timm model without classifier, and what was loaded into it.

    A model with a fixed input size (ViT, Swin, ...) is built for `image_size`; timm resamples its position
    embeddings when it loads weights.

    Args:
        backbone: timm's name.
        backbone_args: keyword arguments for its constructor.
        image_size: pixels a side of the square images that it will see.
        weights: "pretrained", "none", or a .safetensors or .pth file.

    Raises:
        RecipeError: no such model, or its constructor refuses the arguments or the image size.
        WeightsError: the weights cannot be had or do not fit.
    """
    _check_args(backbone_args)
    settings = _settings(backbone)
    kwargs = dict(backbone_args)
    if settings.fixed_input_size and tuple(settings.input_size[-2:]) != (image_size, image_size):
        kwargs["img_size"] = image_size

    def create(num_classes: int, **more: Any) -> nn.Module:
        model: nn.Module = timm.create_model(backbone, num_classes=num_classes, **kwargs, **more)
        return model

    try:
        model = create(num_classes=0)
    except _CONSTRUCTOR_ERRORS as error:
        raise _construction_error(backbone, kwargs, error) from error
    if str(weights) == "pretrained":
        return model, load_pretrained(model, backbone, create, settings)
    return model, load_weights(model, weights)


def feature_size(backbone: nn.Module, image_size: int, what: str) -> int:
    """The number D of features that a new backbone really gives for an image, found by one forward pass.

    timm's `num_features` differs from it where a model has layers between its last stage and the classifier.

    Raises:
        RecipeError: the backbone cannot process an image of that size, or gives something else than [B, D].
    """
    backbone.eval()
    try:
        with torch.no_grad():
            features = backbone(torch.zeros(1, 3, image_size, image_size))
    except _CONSTRUCTOR_ERRORS as error:  # arguments that the constructor took may be of no use
        raise RecipeError(
            f"--image-size {image_size}: the backbone '{what}' cannot process it ({_one_line(error)}); "
            "use the backbone's own size (leave the flag out), or other --backbone-args"
        ) from error
    finally:
        backbone.train()
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        raise RecipeError(
            f"--backbone {what}: it gives no pooled features [B, D], which the head needs; "
            "leave global_pool out of --backbone-args, or choose another backbone"
        )
    return int(features.shape[1])


def _settings(backbone: str) -> PretrainedCfg:
    """timm's record of a model: where its weights are, image size, mean, std."""
    if ":" in backbone or "/" in backbone:
        raise RecipeError(
            f"--backbone: '{backbone}' is a place, not a model; give timm's name of the model, "
            "as in --backbone resnet18, and its file with --weights FILE"
        )
    if not backbone or not is_model(backbone):
        near = difflib.get_close_matches(backbone, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(repr(n) for n in near)}?" if near else "see timm.list_models()"
        raise RecipeError(f"--backbone: timm {timm.__version__} has no model '{backbone}'; {hint}")
    architecture, _, tag = backbone.partition(".")
    known = get_arch_pretrained_cfgs(architecture)
    if tag and backbone not in known:
        tags = ", ".join(name for name in known if "." in name) or "none"
        raise RecipeError(
            f"--backbone: timm {timm.__version__} has no weights '{tag}' of '{architecture}'; it has: {tags}"
        )
    return get_pretrained_cfg(backbone) or PretrainedCfg()


def _check_args(backbone_args: Mapping[str, Any]) -> None:
    for name in backbone_args:
        if name in RESERVED_ARGS or name in _OF_THE_FACTORY:
            remedy = RESERVED_ARGS.get(name, "it is timm's own, not the network's: leave it out")
            raise RecipeError(f"--backbone-args: '{name}' cannot be set here; {remedy}")


def _construction_error(backbone: str, kwargs: Mapping[str, Any], error: Exception) -> RecipeError:
    given = ", ".join(f"{key}={value}" for key, value in kwargs.items() if key != "img_size")
    if "img_size" in kwargs and (not given or "img_size" in str(error)):
        return RecipeError(
            f"--image-size {kwargs['img_size']}: the backbone '{backbone}' cannot be built for it "
            f"({_one_line(error)}); leave the flag out, or choose a size that it allows"
        )
    if given:
        return RecipeError(
            f"--backbone-args: '{backbone}' cannot be built with {given} ({_one_line(error)}); "
            "give arguments of its timm constructor, as in --backbone-args drop_path_rate=0.1"
        )
    return RecipeError(
        f"--backbone: timm {timm.__version__} cannot build '{backbone}' ({_one_line(error)}); choose another"
    )


def _one_line(error: Exception) -> str:
    """What an exception of a library says, on one line and not too long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
