"""A few made-up images on which a cut network must agree with the whole one."""

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from mlcls.models.classifier import Classifier
from mlcls.models.stages import train_mode

# Largest difference, relative to the largest value. The same operations on the same numbers agree to the last bits
# on a CPU; a folded BatchNorm rounds otherwise, and a BatchNorm over three images that are much alike magnifies the
# last bit. Other devices choose their algorithms anew, some with TF32's 10 bits.
_EXACT = 1e-4
_ROUNDED = 5e-3
_DEVICE = 2e-2
_SEED = 0


@dataclass(frozen=True, slots=True)
class Probe:
    """pixels: uint8 [3, 3, size, size], on the classifier's device."""

    pixels: Tensor
    size: int

    def run(self, graph: fx.GraphModule) -> "Values":
        """What a graph from the pixels on gives for two images, for three, and under autocast."""
        with torch.no_grad():
            two, three = graph.forward(self.pixels[:2]), graph.forward(self.pixels)
            try:
                with torch.autocast(self.pixels.device.type):
                    half = graph.forward(self.pixels[:2])
            except (RuntimeError, TypeError):  # the device has no autocast, or the network does not bear it
                half = None
        return Values(two, three, half)


@dataclass(frozen=True, slots=True)
class Values:
    """What was computed for two images, for three, and for two under autocast (None: it cannot be)."""

    two: tuple[Any, ...]
    three: tuple[Any, ...]
    half: tuple[Any, ...] | None


@contextmanager
def probing(model: Classifier, size: int) -> Generator[Probe]:
    """Within it autocast is off; afterwards random numbers go on as if nothing had been drawn."""
    device = model.mean.device
    on_cpu = device.type == "cpu"
    kept = torch.random.fork_rng([] if on_cpu else [device], device_type="cuda" if on_cpu else device.type)
    with kept, _without_autocast(device):
        yield Probe(_pixels(size, device), size)


def check_cut(
    probe: Probe, whole: Classifier, rest: nn.Module, trunk: nn.Module, rows: Tensor, two: Tensor
) -> bool:
    """Check that halves agree with the whole, in eval mode and as it trains, and that a row is of one image.

    Args:
        probe: the images.
        whole: uncut; its modes and buffers change.
        rest, trunk: the halves, around the modules of `whole`.
        rows: of the images, packed without folding.
        two: the same of the first two images by themselves.

    Returns:
        Whether `rest` writes into what it unpacks.

    Raises:
        ValueError: they do not agree.
    """
    exact, rounded = (_EXACT, _ROUNDED) if rows.device.type == "cpu" else (_DEVICE, _DEVICE)
    given = rows.clone()
    with torch.no_grad():
        whole.eval()
        expected = whole(probe.pixels)
        rest.eval()
        _compare(rest(given), expected, exact, "logits")
        turned = trunk(probe.pixels.flip(0)).flip(0)
        _compare(two, rows[:2], rounded, "activations of images among others")
        _compare(turned, rows, rounded, "activations of images in another order")
        _compare(rest(turned), expected, rounded, "logits of the trunk's own rows")
        train_mode(whole)
        torch.manual_seed(_SEED)
        expected = whole(probe.pixels)
        rest.train()
        torch.manual_seed(_SEED)
        writes = not torch.equal(given, rows)
        given = rows.clone()
        _compare(rest(given), expected, rounded, "logits in training mode")
    return writes or not torch.equal(given, rows)


def check_bridge(
    between: nn.Module, lower: nn.Module, upper: nn.Module, model: Classifier, size: int
) -> None:
    """Check that `between(lower(pixels))` is `upper(pixels)`.

    Raises:
        ValueError: it is not.
    """
    with probing(model, size) as probe:
        tolerance = _ROUNDED if probe.pixels.device.type == "cpu" else _DEVICE
        _compare(between(lower(probe.pixels)), upper(probe.pixels), tolerance, "rows over the bridge")


def _compare(got: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    if got.shape != expected.shape:
        raise ValueError(f"{what}: shape {tuple(got.shape)} instead of {tuple(expected.shape)}")
    if not bool(expected.isfinite().all()):
        raise ValueError(f"{what}: not finite, so that nothing can be compared")
    difference = float((got - expected).abs().max())
    scale = float(expected.abs().max())
    if not difference <= tolerance * scale:
        raise ValueError(f"{what}: a difference of {difference:.3g} where values reach {scale:.3g}")


def _pixels(size: int, device: torch.device) -> Tensor:
    """Three images unlike each other: patches of colour under noise, from dark to bright; channels_last."""
    generator = torch.Generator().manual_seed(_SEED)
    patches = F.interpolate(torch.rand(3, 3, 4, 4, generator=generator), size=(size, size))
    noise = torch.rand(3, 3, size, size, generator=generator)
    brightness = torch.tensor([0.4, 0.7, 1.0]).view(3, 1, 1, 1)
    pixels = (255 * brightness * (0.7 * patches + 0.3 * noise)).to(torch.uint8)
    return pixels.to(device, memory_format=torch.channels_last)


def _without_autocast(device: torch.device) -> Any:
    on = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if on else nullcontext()
