"""The bytes of a file of tensors: the library reads from them what went in."""

import hypothesis.strategies as st
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings

from mlcls.learning.streamed import DTYPES, PIECE, pieces_of


def tensor_of(dtype: torch.dtype, shape: list[int], seed: int) -> torch.Tensor:
    numbers = torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(seed))
    return numbers.to(dtype)


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
        st.tuples(st.sampled_from(list(DTYPES)), st.lists(st.integers(0, 5), max_size=4), st.integers(0, 99)),
        max_size=6,
    )
)
def test_the_library_reads_what_went_in(drawn: dict[str, tuple[torch.dtype, list[int], int]]) -> None:
    tensors = {name: tensor_of(*one) for name, one in drawn.items() if name != "__metadata__"}
    data = b"".join(pieces_of(tensors))
    found = safetensors.torch.load(data)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_large_tensors_come_as_they_lie_and_small_ones_together() -> None:
    large = torch.arange(PIECE // 4 + 3, dtype=torch.float32)
    turned = torch.arange(6.0).reshape(2, 3).t()
    image = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    tensors = {"b": large, "a": turned, "c": image, "scalar": torch.tensor(7)}
    pieces = list(pieces_of(tensors))
    assert [len(piece) for piece in pieces][1] == large.nbytes
    assert len(pieces) == 3
    found = safetensors.torch.load(b"".join(pieces))
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_a_dtype_that_has_no_name_there_is_refused() -> None:
    with pytest.raises(KeyError):
        list(pieces_of({"a": torch.zeros(2, dtype=torch.complex64)}))
