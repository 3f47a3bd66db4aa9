"""Activations as rows: nothing lost, nothing mixed, the memory laid out as it was."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlcls.models.packing import (
    Constant,
    Count,
    Packed,
    Several,
    Slot,
    find_source,
    pack,
    packed_in,
    tensors_in,
    unpack,
    with_half,
)


def laid_out(sizes: tuple[int, ...], order: tuple[int, ...], images: int, rows: int) -> Tensor:
    """Numbers of every value once, whose dimensions lie in memory in some order, the images outermost."""
    inverse = sorted(range(len(order)), key=order.__getitem__)
    dense = torch.arange(images * rows * torch.Size(sizes).numel(), dtype=torch.float32)
    return dense.view(images * rows, *(sizes[dim] for dim in order)).permute(0, *(i + 1 for i in inverse))


@st.composite
def layouts(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    sizes = draw(st.lists(st.integers(1, 4), max_size=4).map(tuple))
    order = draw(st.permutations(range(len(sizes))).map(tuple))
    return sizes, order, draw(st.integers(1, 3))


@settings(deadline=None, max_examples=60)
@given(st.lists(layouts(), min_size=1, max_size=3), st.integers(1, 4))
def test_what_is_packed_is_unpacked(shapes: list[Any], images: int) -> None:
    slots: list[Slot] = []
    sources = [
        find_source(laid_out(sizes, order, 2, rows), laid_out(sizes, order, 3, rows), slots)
        for sizes, order, rows in shapes
    ]
    assert sources == [Packed(i) for i in range(len(shapes))]
    values = [laid_out(sizes, order, images, rows) for sizes, order, rows in shapes]
    packed = pack(values, slots)
    assert packed.shape == (images, sum(value.numel() for value in values) // images)
    assert packed.is_contiguous()
    for value, back in zip(values, unpack(packed, slots, fresh=False), strict=True):
        assert torch.equal(back, value)
        wide = [dim for dim in range(value.ndim) if value.shape[dim] > 1]
        assert [back.stride(dim) for dim in wide] == [value.stride(dim) for dim in wide]
    for i in range(images):  # each row is of one image
        alone = [value.view(images, -1, *value.shape[1:])[i] for value in values]
        assert torch.equal(pack(alone, slots)[0], packed[i])


def test_one_tensor_is_neither_copied_nor_laid_out_anew() -> None:
    maps = torch.rand(3, 4, 5, 6).to(memory_format=torch.channels_last)
    slots: list[Slot] = []
    find_source(maps[:2], maps, slots)
    packed = pack([maps], slots)
    assert packed.data_ptr() == maps.data_ptr()
    (back,) = unpack(packed, slots, fresh=False)
    assert back.data_ptr() == maps.data_ptr()
    assert back.stride() == maps.stride()
    (own,) = unpack(packed, slots, fresh=True)
    assert own.data_ptr() != maps.data_ptr()
    assert torch.equal(own, maps)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_map_of_one_pixel_keeps_its_strides(memory_format: torch.memory_format) -> None:
    maps = torch.rand(3, 4, 1, 1).contiguous(memory_format=memory_format)
    maps = (
        maps if memory_format == torch.contiguous_format else torch.empty_strided((3, 4, 1, 1), (4, 1, 4, 4))
    )
    slots: list[Slot] = []
    find_source(maps[:2], maps, slots)
    (back,) = unpack(pack([maps], slots), slots, fresh=False)
    assert back.stride() == maps.stride()


def test_rows_of_any_float_dtype_are_computed_with_in_the_tensors_own() -> None:
    value = torch.rand(3, 4)
    slots: list[Slot] = []
    find_source(value[:2], value, slots)
    (slot,) = with_half(slots, [Packed(0)], [value[:2].bfloat16()])
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        (back,) = unpack(value.to(dtype), [slot], fresh=False)
        assert back.dtype == torch.float32
        assert torch.equal(back, value.to(dtype).float())
    with torch.autocast("cpu", torch.bfloat16):
        assert unpack(value, [slot], fresh=False)[0].dtype == torch.bfloat16
        assert unpack(value, slots, fresh=False)[0].dtype == torch.float32  # not what autocast makes in half


@pytest.mark.parametrize(
    ("two", "three", "source"),
    [
        (7, 7, Constant(7)),
        (2, 3, Count(1)),
        (98, 147, Count(49)),
        ("nearest", "nearest", Constant("nearest")),
        (torch.float32, torch.float32, Constant(torch.float32)),
        (0.5, 0.5, Constant(0.5)),
        (True, True, Constant(True)),
        (None, None, Constant(None)),
        (torch.Size([2, 4]), torch.Size([3, 4]), Several(torch.Size, (Count(1), Constant(4)))),
        ((4, [8, 1]), (4, [12, 1]), Several(tuple, (Constant(4), Several(list, (Count(4), Constant(1)))))),
    ],
)
def test_what_shapes_come_from(two: Any, three: Any, source: Any) -> None:
    slots: list[Slot] = []
    assert find_source(two, three, slots) == source
    assert not slots


def test_tensors_among_others() -> None:
    two, three = ((torch.rand(n, 4), n, torch.rand(n, 5)) for n in (2, 3))
    slots: list[Slot] = []
    source = find_source(two, three, slots)
    assert source == Several(tuple, (Packed(0), Count(1), Packed(1)))
    assert packed_in(source) == (0, 1)
    assert [(slot.first, slot.last) for slot in slots] == [(0, 4), (4, 9)]
    first, second = tensors_in([three], [source])
    assert first is three[0]
    assert second is three[2]


def test_a_tensor_that_is_the_same_for_any_images_is_a_constant() -> None:
    table = torch.arange(6).view(2, 3)
    slots: list[Slot] = []
    source = find_source(table, table.clone(), slots)
    assert isinstance(source, Constant)
    assert torch.equal(source.value, table)
    assert not slots


@pytest.mark.parametrize(
    ("two", "three"),
    [
        (4, 9),  # the square of the number of images
        (0.5, 0.25),
        (True, False),
        ("a", "b"),
        (2, torch.tensor(3)),
        ((1, 2), (1, 2, 3)),
        (torch.ones(4, 2), torch.ones(4, 3)),  # the images are not first
        (torch.ones(2, 2), torch.ones(3, 3)),
        (torch.tensor(1.0), torch.tensor(2.0)),
        (torch.ones(5, 4), 2 * torch.ones(5, 4)),
        (torch.arange(2), torch.arange(3)),  # numbers that are no activations
        (torch.ones(2, 1, dtype=torch.bool), torch.ones(3, 1, dtype=torch.bool)),
        (torch.ones(2, 1, dtype=torch.complex64), torch.ones(3, 1, dtype=torch.complex64)),
        (
            torch.return_types.max((torch.ones(2), torch.ones(2))),
            torch.return_types.max((torch.ones(3), torch.ones(3))),
        ),
    ],
)
def test_what_cannot_be_packed(two: Any, three: Any) -> None:
    with pytest.raises(ValueError, match=r"image|batch|crosses"):
        find_source(two, three, [])
