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

from mlcls.learning.features import FeatureStore, Layout, feature_batches, first_visits, make_store

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
    return make_store(Layout(images, 4), 3, source, views=views, memory=memory, folder=folder)


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


@settings(deadline=None, max_examples=60)
@given(
    shown=st.lists(st.lists(st.integers(0, 1), min_size=10, max_size=10), min_size=1, max_size=4),
    asked=st.lists(
        st.tuples(
            st.integers(0, 9), st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), max_size=4)
        ),
        max_size=6,
    ),
)
def test_an_image_that_a_view_shows_as_an_earlier_one_did_has_one_row_for_both(
    shown: list[list[int]],
    asked: list[tuple[int, list[list[int]]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """`shown` is what each view makes of each image; whoever asks in whatever order gets the rows of just that."""
    passed: list[tuple[int, int]] = []
    busy: list[int] = []

    def compute(view: int, chunks: Sequence[Indices]) -> Iterator[Tensor]:
        assert not busy  # one pass over the images at a time
        busy.append(view)
        for number, chunk in enumerate(chunks, 1):
            passed.extend((image, shown[view][image]) for image in chunk.tolist())
            if number == len(chunks):
                busy.clear()
            yield torch.tensor([[float(image), shown[view][image], 0.5] for image in chunk.tolist()])
        busy.clear()

    def origin(view: int) -> NDArray[np.int32]:
        first = [next(v for v in range(view + 1) if shown[v][i] == shown[view][i]) for i in range(10)]
        return np.array(first, dtype=np.int32)

    def order(view: int) -> Indices:
        return np.random.default_rng(view).permutation(10)

    layout = Layout(10, 4, order, origin)
    views = len(shown)
    folder = tmp_path_factory.getbasetemp()
    store = make_store(layout, 3, compute, views=views, memory=10**6, folder=folder)
    for epoch, batches in asked:
        view = epoch % views
        positions = [np.array(batch, dtype=np.int64) for batch in batches]
        for rows, images in zip(store.obtain(view, positions), batches, strict=True):
            assert rows[:, 0].tolist() == images
            assert rows[:, 1].tolist() == [shown[view][image] for image in images]
    assert len(set(passed)) == len(passed)
    for view in range(views):
        assert layout.count(view) == sum(len(layout.chunk(view, number)) for number in range(3))


def test_nothing_is_computed_before_it_is_needed(tmp_path: Path) -> None:
    source = Source()
    store = store_of(source, tmp_path)
    rows = store.obtain(0, [np.array([7, 5]), np.array([1, 2, 0, 9])])
    next(rows)
    assert source.computed == [(0, image) for image in (4, 5, 6, 7)]  # the chunk that the two stand in
    rows.close()  # type: ignore[attr-defined]
    list(store.obtain(0, [np.array([9, 5])]))
    assert source.computed[4:] == [(0, 8), (0, 9)]  # a pass that ends early leaves what it has computed


@settings(deadline=None, max_examples=60)
@given(visited=st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=6))
def test_first_visits_come_first_and_the_others_by_index(visited: list[list[int]]) -> None:
    order = first_visits([np.array(batch, dtype=np.int64) for batch in visited], 10).tolist()
    seen = list(dict.fromkeys(image for batch in visited for image in batch))
    assert order == seen + [image for image in range(10) if image not in seen]


@settings(deadline=None, max_examples=60)
@given(
    orders=st.lists(st.permutations(range(10)), min_size=1, max_size=3),
    asked=st.lists(
        st.tuples(
            st.integers(0, 9), st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), max_size=4)
        ),
        max_size=6,
    ),
)
def test_images_always_pass_in_the_same_company(
    orders: list[list[int]],
    asked: list[tuple[int, list[list[int]]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whoever asks for what: each chunk is computed once, whole, in the order of its view."""
    passed: list[tuple[int, tuple[int, ...]]] = []

    def compute(view: int, chunks: Sequence[Indices]) -> Iterator[Tensor]:
        for chunk in chunks:
            passed.append((view, tuple(chunk.tolist())))
            yield torch.zeros(len(chunk), 3)

    views = len(orders)
    layout = Layout(10, 4, lambda view: np.array(orders[view], dtype=np.int64))
    folder = tmp_path_factory.getbasetemp()
    store = make_store(layout, 3, compute, views=views, memory=10**6, folder=folder)
    for epoch, batches in asked:
        list(store.obtain(epoch % views, [np.array(batch, dtype=np.int64) for batch in batches]))
    assert len(set(passed)) == len(passed)
    for view, images in passed:
        order = tuple(orders[view])
        assert images in (order[:4], order[4:8], order[8:])


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
        make_store(Layout(10**9, 4), 10**6, Source(), views=1, memory=0, folder=tmp_path)
    assert caught.value.errno == errno.ENOSPC
