"""Activations as rows: the values at a cut, an image to a row, and back with the memory layout they had."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device, torch.memory_format, torch.layout)


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one tensor stands in the packed rows.

    first, last: its columns.
    rows: how many entries of its first dimension an image has (1, or the windows of a Swin).
    sizes: of its other dimensions.
    order: its other dimensions in the order in which they lie in memory (channels_last: 2, 3, 1).
    dtype: of the tensor where nothing is cast.
    half: whether autocast makes it in half precision.
    """

    first: int
    last: int
    rows: int
    sizes: tuple[int, ...]
    order: tuple[int, ...]
    dtype: torch.dtype
    half: bool = False


@dataclass(frozen=True, slots=True)
class Packed:
    """A value that comes out of the packed rows, by the number of its slot."""

    slot: int


@dataclass(frozen=True, slots=True)
class Count:
    """The number of images, or a multiple of it."""

    multiple: int


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that does not depend on the images."""

    value: Any


@dataclass(frozen=True, slots=True)
class Several:
    """A tuple, a list or a torch.Size, of sources."""

    kind: type
    items: "tuple[Source, ...]"


Source = Packed | Count | Constant | Several
"""Where a value that crosses a cut comes from, behind it."""


def find_source(two: Any, three: Any, slots: list[Slot]) -> Source:
    """Where a value comes from, by what it was for two images and for three.

    Args:
        two, three: the value for a batch of two and for a batch of three.
        slots: of the values before; a tensor that has to be packed is added.

    Raises:
        ValueError: it depends on the images in a way that rows cannot hold.
    """
    if isinstance(two, Tensor) and isinstance(three, Tensor):
        if two.shape == three.shape and two.dtype == three.dtype and torch.equal(two, three):
            return Constant(three)
        slots.append(_slot(two, three, slots[-1].last if slots else 0))
        return Packed(len(slots) - 1)
    if type(two) is not type(three):
        raise ValueError(f"a {type(two).__name__} for two images is a {type(three).__name__} for three")
    if isinstance(two, tuple | list) and len(two) == len(three):
        items = tuple(find_source(a, b, slots) for a, b in zip(two, three, strict=True))
        if type(two) not in (tuple, list, torch.Size):
            raise ValueError(f"a {type(two).__name__} crosses the cut")
        return Several(type(two), items)
    if isinstance(two, _PLAIN) and two == three:
        return Constant(two)
    if isinstance(two, int) and not isinstance(two, bool) and two * 3 == three * 2:
        return Count(two // 2)
    raise ValueError(f"a {type(two).__name__} depends on the images: {two!r}, {three!r}"[:200])


def packed_in(source: Source) -> tuple[int, ...]:
    """The numbers of the slots that a value holds."""
    if isinstance(source, Several):
        return tuple(slot for item in source.items for slot in packed_in(item))
    return (source.slot,) if isinstance(source, Packed) else ()


def tensors_in(values: Sequence[Any], sources: Sequence[Source]) -> list[Tensor]:
    """The tensors to be packed among values, in the order of their slots."""
    found: list[Tensor] = []
    for value, source in zip(values, sources, strict=True):
        if isinstance(source, Several):
            found += tensors_in(value, source.items)
        elif isinstance(source, Packed):
            found.append(value)
    return found


def with_half(slots: Sequence[Slot], sources: Sequence[Source], values: Sequence[Any] | None) -> list[Slot]:
    """The slots, told what autocast makes in half precision; `values` are what it made, None where it cannot."""
    if values is None:
        return list(slots)
    tensors = tensors_in(values, sources)
    return [replace(slot, half=t.dtype.itemsize < 4) for slot, t in zip(slots, tensors, strict=True)]


def pack(values: Sequence[Tensor], slots: Sequence[Slot]) -> Tensor:
    """The tensors, each [B * rows, *sizes] -> one row an image, [B, K]; the tensor's own memory where it can be."""
    rows = [
        value.permute(0, *slot.order).reshape(value.shape[0] // slot.rows, slot.last - slot.first)
        for value, slot in zip(values, slots, strict=True)
    ]
    return rows[0].contiguous() if len(rows) == 1 else torch.cat(rows, 1)


def unpack(packed: Tensor, slots: Sequence[Slot], *, fresh: bool) -> list[Tensor]:
    """Rows [B, K] of any float dtype -> the tensors, with the strides that they had.

    Without autocast they get the dtype that they had; under autocast those that it makes in half precision
    are in its dtype.

    Args:
        fresh: never return memory of `packed` itself, because it will be written to.
    """
    kind = packed.device.type
    half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    tensors = []
    for slot in slots:
        dtype = half if half is not None and slot.half else slot.dtype
        # contiguous after a cast costs nothing; between the columns of others it is what the layer would do
        part = packed[:, slot.first : slot.last].to(dtype, copy=fresh).contiguous()
        ordered = part.view(packed.shape[0] * slot.rows, *(slot.sizes[dim - 1] for dim in slot.order))
        back = sorted(range(len(slot.order)), key=slot.order.__getitem__)
        tensors.append(ordered.permute(0, *(dim + 1 for dim in back)))
    return tensors


def _slot(two: Tensor, three: Tensor, first: int) -> Slot:
    if not (two.is_floating_point() and three.is_floating_point()):
        raise ValueError(f"a tensor of {two.dtype} depends on the images")
    if three.ndim == 0 or two.shape[1:] != three.shape[1:] or len(two) * 3 != len(three) * 2:
        raise ValueError(f"tensors of shape {tuple(two.shape)} and {tuple(three.shape)} have no batch first")
    strides = three.stride()
    # sorted() keeps the order of equal strides, so that dimensions of size 1 get back what they had, too
    order = sorted(range(1, three.ndim), key=lambda dim: -strides[dim])
    rows = len(two) // 2
    width = rows * three[0].numel()
    return Slot(first, first + width, rows, tuple(three.shape[1:]), tuple(order), three.dtype)
