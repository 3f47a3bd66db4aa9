"""The bundle's network with its trained weights, through PyTorch."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import safetensors
import safetensors.torch
from torch import Tensor, nn
from torch.nn.modules import module as registration

from mlcls.bundle.files import WEIGHTS, Bundle, read_verified
from mlcls.bundle.unfinished import MANIFEST
from mlcls.errors import BundleError, RecipeError
from mlcls.models.classifier import Classifier, build_classifier
from mlcls.models.heads import HEADS

# What safetensors raises on bytes that are none of its own, or hold numbers of a kind that PyTorch has not.
_DAMAGED = (
    *(safetensors.SafetensorError, LookupError, ValueError, TypeError),
    *(RuntimeError, AssertionError, ArithmeticError),
)
# How far a network may exceed its weights while it is built: weights that two modules share count twice, and many
# modules have none.
_SPARE_NUMBERS, _SPARE_MODULES = 1 << 20, 10_000


def load_classifier(bundle: Bundle) -> Classifier:
    """The bundle's network with its weights, on the CPU, in the mode `torch` builds it (training).

    Raises:
        BundleError: the weights are damaged or do not fit the network that `bundle.json` describes.
    """
    manifest, preprocessing = bundle.manifest, bundle.preprocessing
    if manifest["head"] not in HEADS:  # a bundle may come from a stranger: it names no code to import
        raise BundleError(f"{bundle.folder / MANIFEST}: unknown head '{manifest['head']}'")
    data = read_verified(bundle, WEIGHTS)
    try:
        weights = safetensors.torch.load(data)
    except _DAMAGED as error:
        raise BundleError(f"{bundle.folder / WEIGHTS}: not a readable safetensors file ({error})") from error
    try:
        with _no_larger_than(weights, bundle):
            classifier = build_classifier(
                manifest["backbone"],
                manifest["head"],
                len(bundle.attributes),
                backbone_args=manifest["backbone_args"],
                weights="none",
                dropout=manifest["dropout"],
                image_size=preprocessing.image_size,
                mean=preprocessing.mean,
                std=preprocessing.std,
            )
    except (KeyError, TypeError, ValueError, AttributeError, RecipeError) as error:
        raise BundleError(f"{bundle.folder / MANIFEST}: its network cannot be built: {error}") from error
    try:
        classifier.load_state_dict(weights)
    except RuntimeError as error:
        raise BundleError(
            f"{bundle.folder / WEIGHTS}: does not fit the network of bundle.json: {error}"
        ) from error
    return classifier


@contextmanager
def _no_larger_than(weights: Mapping[str, Tensor], bundle: Bundle) -> Iterator[None]:
    """Refuse, while it is built, a network that the weights cannot be for: a few bytes may describe one of terabytes.

    PyTorch tells of each parameter and each module as a module gets it: before the parameter's memory is written to.

    Raises:
        BundleError: the network in the making has many more numbers, or modules, than the file of its weights.
    """
    numbers = 2 * sum(tensor.numel() for tensor in weights.values()) + _SPARE_NUMBERS
    modules = 20 * len(weights) + _SPARE_MODULES
    thread = threading.get_ident()
    seen = {"numbers": 0, "modules": 0}

    def check() -> None:
        if seen["numbers"] > numbers or seen["modules"] > modules:
            raise BundleError(
                f"{bundle.folder / MANIFEST}: describes a network that is larger than its weights in {WEIGHTS}"
            )

    def count_parameter(owner: nn.Module, name: str, parameter: Tensor | None) -> None:
        if parameter is not None and threading.get_ident() == thread:
            seen["numbers"] += parameter.numel()
            check()

    def count_module(owner: nn.Module, name: str, module: nn.Module | None) -> None:
        if threading.get_ident() == thread:
            seen["modules"] += 1
            check()

    hooks = (
        registration.register_module_parameter_registration_hook(count_parameter),
        registration.register_module_module_registration_hook(count_module),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
