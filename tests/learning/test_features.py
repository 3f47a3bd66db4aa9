"""The store of what the frozen part computed: each row once, in whatever order it is asked for."""

import errno
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from mlcls.learning.features import FeatureStore, feature_batches, make_store

Indices = NDArray[np.int64]


class Source:
    """Rows that tell where they come from (image, view), and how often each was computed."""

    def __init__(self) -> None:
        self.computed: list[tuple[int, int]] = []
        self.chunks: list[int] = []

    def __call__(self, view: int, chunks: Sequence[Indices]) -> Iterator[Tensor]:
        for chunk in chunks:
            self.computed += [(view, int(index)) for index in chunk]
            self.chunks.append(len(chunk))
            yield torch.stack([torch.tensor([float(index), float(view), 0.5]) for index in chunk])


def store_of(
    source: Source, folder: Path, *, images: int = 10, views: int = 2, memory: int = 10**6
) -> FeatureStore:
    return make_store(images, 3, source, views=views, chunk=4, memory=memory, folder=folder)


@settings(deadline=None, max_examples=60)
@given(
    epochs=st.lists(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), max_size=6), max_size=6),
    views=st.integers(1, 3),
)
def test_every_batch_holds_its_own_images_rows_and_each_row_is_computed_once(
    epochs: list[list[list[int]]], views: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = Source()
    store = store_of(source, tmp_path_factory.getbasetemp(), views=views)
    labels = np.arange(20, dtype=np.float32).reshape(10, 2)
    for epoch, batches in enumerate(epochs):
        positions = [np.array(batch, dtype=np.int64) for batch in batches]
        seen = list(feature_batches(store, epoch, positions, labels))
        assert len(seen) == len(batches)
        for (features, known, indices), wanted in zip(seen, positions, strict=True):
            assert indices.tolist() == wanted.tolist()
            assert features[:, 0].tolist() == wanted.tolist()
            assert set(features[:, 1].tolist()) == {epoch % views}
            assert np.array_equal(known.numpy(), labels[wanted])
    assert len(set(source.computed)) == len(source.computed)
    assert all(size <= 4 for size in source.chunks)


def test_nothing_is_computed_before_it_is_needed(tmp_path: Path) -> None:
    source = Source()
    store = store_of(source, tmp_path)
    rows = store.obtain(0, [np.array([7, 3]), np.array([1, 2, 0, 9])])
    next(rows)
    assert source.computed == [(0, 7), (0, 3), (0, 1), (0, 2)]  # one chunk of four
    rows.close()  # type: ignore[attr-defined]
    list(store.obtain(0, [np.array([9, 3])]))
    assert source.computed[4:] == [(0, 9)]  # a pass that ends early leaves what it has computed


def test_views_beyond_the_memory_lie_in_files_and_hold_the_same(tmp_path: Path) -> None:
    for memory, in_memory in ((10**6, 2), (70, 1), (0, 0), (-100, 0)):
        store = store_of(Source(), tmp_path, memory=memory)
        assert store.memory == in_memory * 10 * 3 * 2
        assert store.views == len(store.filled) == 2
        for view in (0, 1):
            (rows,) = store.obtain(view, [np.arange(10)])
            assert rows.dtype == torch.bfloat16
            assert rows[:, 0].tolist() == list(range(10))
            assert rows[:, 1].tolist() == [view] * 10
    assert list(tmp_path.iterdir()) == []  # the files have no name


def test_more_than_half_of_the_free_disk_is_no_room(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="GB would be needed") as caught:
        make_store(10**9, 10**6, Source(), views=1, chunk=4, memory=0, folder=tmp_path)
    assert caught.value.errno == errno.ENOSPC
