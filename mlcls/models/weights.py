"""Weights from a file: read without pickle's dangers, fitted to a backbone, and told what was left out."""

import pickle
import struct
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mlcls.errors import WeightsError

# Where training programs keep the weights within a checkpoint, averaged ones first (timm's own order).
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_PREFIXES = ("_orig_mod.", "module.")  # torch.compile's and DistributedDataParallel's
_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")

# What torch.load, the restricted unpickler and safetensors raise on bytes that are no checkpoint.
_DAMAGED = (
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError),
    *(AssertionError, ArithmeticError, MemoryError, struct.error),
)
# What timm's conversion functions raise on weights of another model.
_NOT_CONVERTIBLE = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError)


@dataclass(frozen=True, slots=True)
class WeightsReport:
    """What a backbone was given: from where ("none", "pretrained" or a file), how many tensors, which not."""

    source: str
    loaded: int
    left_out: tuple[str, ...]


def load_weights(backbone: nn.Module, weights: str | Path) -> WeightsReport:
    """Load a file's weights into a backbone; "none" leaves it as it is.

    A classifier in the file, of whatever size, is left out and reported. A bundle's `weights.safetensors`
    works too: its head is left out. Where the names or shapes differ as timm knows how to convert
    (position embeddings of another image size, another program's names), timm's conversion is used.

    Args:
        backbone: a timm model without classifier; changed in place.
        weights: "none", or a .safetensors, .pth, .pt, .bin, .ckpt or .tar file.

    Raises:
        WeightsError: no such file, not readable, or tensors are missing, superfluous or of another shape.
    """
    if str(weights) == "none":
        return WeightsReport("none", 0, ())
    path = Path(weights)
    return fit_tensors(backbone, read_weights(path), str(path))


def fit_tensors(backbone: nn.Module, tensors: dict[str, Tensor], source: str) -> WeightsReport:
    """Load tensors by name into a backbone, as `load_weights` does with those of a file.

    Args:
        backbone: a timm model without classifier; changed in place.
        tensors: the state dict of such a model, with or without a classifier.
        source: what `--weights` said, for the report and the message.

    Raises:
        WeightsError: tensors are missing, superfluous or of another shape.
    """
    tensors, left_out = _without_head(tensors, backbone)
    fitting, more = _without_classifier(tensors, backbone)
    problems = _problems(fitting, backbone)
    if problems:
        converted = _converted_by_timm(tensors, backbone)
        if converted is not None:
            fitting, more = _without_classifier(converted, backbone)
            if not _problems(fitting, backbone):
                problems = []
    if problems:
        raise WeightsError(
            f"--weights {source}: they do not fit the backbone: {'; '.join(problems)}. "
            "Give the --backbone and --backbone-args that they were made for, or other weights"
        )
    try:
        backbone.load_state_dict(fitting, strict=False)  # what may be missing was judged above
    except RuntimeError as error:
        raise WeightsError(
            f"--weights {source}: tensors that cannot be copied into weights: {error}"
        ) from error
    return WeightsReport(source, len(fitting), tuple(sorted([*left_out, *more])))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, unwrapped from a training checkpoint; nothing in it is executed.

    Raises:
        WeightsError: the file is absent, of another kind, damaged, or holds Python objects beside tensors.
    """
    if not path.is_file():
        inside = path / "weights.safetensors"
        hint = f"; did you mean {inside}?" if inside.is_file() else ""
        raise WeightsError(
            f"--weights {path}: there is no such file; expected 'pretrained', 'none', or a .safetensors "
            f"or .pth file{hint}"
        )
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        try:
            content: Any = load_file(path)
        except (SafetensorError, *_DAMAGED) as error:  # LookupError: numbers of a kind that PyTorch has not
            raise WeightsError(f"--weights {path}: not a readable safetensors file ({error})") from error
    elif suffix in _TORCH_SUFFIXES:
        content = _read_torch(path)
    else:
        raise WeightsError(
            f"--weights {path}: cannot tell the kind of file by '{suffix}'; "
            f"expected .safetensors or one of {', '.join(_TORCH_SUFFIXES)}"
        )
    tensors = _unwrapped(content)
    if not tensors:
        raise WeightsError(f"--weights {path}: the file holds no tensors by name (a state dict)")
    return tensors


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # of the pickle's protocol: what is damaged is told below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"--weights {path}: the file is damaged, or holds Python objects beside tensors, which are never "
            "loaded because they can run code; save the model's state_dict alone, best as .safetensors"
        ) from error
    except _DAMAGED as error:
        raise WeightsError(f"--weights {path}: not a readable PyTorch file ({error})") from error


def _unwrapped(content: Any) -> dict[str, Tensor]:
    """The state dict in a file's content, without the names that wrappers of a model put in front."""
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        return {}
    tensors: dict[str, Tensor] = {}
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            bare = name
            while bare.startswith(_PREFIXES):
                bare = bare.partition(".")[2]
            tensors[bare] = value
    return tensors


def _without_head(tensors: dict[str, Tensor], backbone: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """Of a whole classifier of mlcls (`backbone.`, `head.`) the backbone's tensors, and the others' names."""
    prefix = "backbone."
    if not any(n.startswith(prefix) for n in tensors) or any(
        n.startswith(prefix) for n in backbone.state_dict()
    ):
        return tensors, []
    kept = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    return kept, [name for name in tensors if not name.startswith(prefix)]


def _without_classifier(
    tensors: Mapping[str, Tensor], backbone: nn.Module
) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors less those of a classifier, and their names.

    A classifier's tensors belong to the module that timm calls so, or to a child that has no parameters in
    this backbone (its classifier is taken off). Other tensors that the backbone lacks stay, as a problem:
    weights of a deeper ResNet would otherwise pass for those of a shallower one.
    """
    named = getattr(backbone, "pretrained_cfg", {}).get("classifier") or ()
    classifiers = tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))
    own = backbone.state_dict().keys()
    inhabited = {name.partition(".")[0] for name in own}
    left_out = [
        name
        for name in tensors
        if name not in own and (name.startswith(classifiers) or name.partition(".")[0] not in inhabited)
    ]
    return {name: t for name, t in tensors.items() if name not in left_out}, left_out


def _problems(tensors: Mapping[str, Tensor], backbone: nn.Module) -> list[str]:
    """In words, what keeps the tensors from fitting the backbone; empty when they fit."""
    own = backbone.state_dict()
    # Files older than PyTorch 0.4.1 lack this counter, which only a BatchNorm without momentum uses.
    missing = [n for n in own if n not in tensors and not n.endswith("num_batches_tracked")]
    superfluous = [name for name in tensors if name not in own]
    reshaped = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(t.shape)}"
        for name, t in own.items()
        if name in tensors and tensors[name].shape != t.shape
    ]
    kinds = {"missing": missing, "superfluous": superfluous, "of another shape": reshaped}
    return [
        f"{len(names)} tensors {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in kinds.items()
        if names
    ]


def _converted_by_timm(tensors: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor] | None:
    """The tensors through the conversion that timm keeps beside the model's class, if there is one."""
    module = sys.modules[type(backbone).__module__]
    convert: Callable[..., Any] | None = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return None
    try:
        converted = convert(dict(tensors), backbone)
    except _NOT_CONVERTIBLE:
        return None  # the file is not of this family: the plain comparison says what does not fit
    return dict(converted) if isinstance(converted, Mapping) else None
