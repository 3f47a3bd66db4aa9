"""Rows on a shelf: found by other stores to the last bit, and never trusted further than their checksum."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlcls.learning import shelf as shelves
from mlcls.learning.features import FeatureStore, Layout, make_store
from mlcls.learning.shelf import Shelf, ShelvedRows

IMAGES, WIDTH, VIEWS = 10, 3, 2


class Source:
    """Rows that tell where they come from, and how often chunks of them were computed."""

    def __init__(self) -> None:
        self.chunks: list[tuple[int, tuple[int, ...]]] = []

    def __call__(self, view: int, chunks: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        for chunk in chunks:
            self.chunks.append((view, tuple(chunk.tolist())))
            yield torch.stack([torch.tensor([float(index), float(view), 0.1]) for index in chunk])


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., tuple[FeatureStore, Source]]:
    """A store as each process makes its own, on one shelf."""

    def make(
        key: str = "rows",
        limit: int = 10**6,
        dtype: torch.dtype = torch.bfloat16,
        used: set[str] | None = None,
    ) -> tuple[FeatureStore, Source]:
        source, layout = Source(), Layout(IMAGES, 4, lambda view: np.roll(np.arange(IMAGES), 3 + view))
        shelf = Shelf(tmp_path / "shelf", limit)
        rows = ShelvedRows(
            shelf,
            lambda view: f"{key}-{view}",
            layout.count,
            4,
            WIDTH * dtype.itemsize,
            set() if used is None else used,
        )
        store = make_store(
            layout, WIDTH, source, views=VIEWS, dtype=dtype, memory=10**6, folder=tmp_path, shelf=rows
        )
        return store, source

    return make


def all_rows(store: FeatureStore) -> Tensor:
    return torch.cat([next(store.obtain(view, [np.arange(IMAGES)])) for view in range(VIEWS)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_one_computes_the_next_finds_to_the_last_bit(
    dtype: torch.dtype, opened: Callable[..., tuple[FeatureStore, Source]]
) -> None:
    first, source = opened(dtype=dtype)
    rows = all_rows(first)
    assert len(source.chunks) == 6
    second, source = opened(dtype=dtype)
    assert torch.equal(all_rows(second), rows)
    assert source.chunks == []
    assert second.seconds == 0  # nothing that a checkpoint would have to save
    third, source = opened("other", dtype=dtype)
    assert torch.equal(all_rows(third), rows)
    assert len(source.chunks) == 6


def test_a_part_is_found_and_the_rest_computed(opened: Callable[..., tuple[FeatureStore, Source]]) -> None:
    first, source = opened()
    list(first.obtain(1, [np.array([4, 5])]))
    (chunk,) = source.chunks
    second, source = opened()
    rows = all_rows(second)
    assert len(source.chunks) == 5
    assert chunk not in source.chunks
    assert rows[:, 0].tolist() == 2 * list(range(IMAGES))


def test_two_that_fill_the_same_view_by_turns_agree(
    opened: Callable[..., tuple[FeatureStore, Source]],
) -> None:
    (one, of_one), (two, of_two) = opened(), opened()
    batches = [np.array([batch]) for batch in range(IMAGES)]
    for a, b in zip(one.obtain(0, batches), two.obtain(0, batches[::-1]), strict=True):
        assert len(a) == len(b) == 1
    assert len(of_one.chunks) == 3
    assert len(of_two.chunks) == 2  # the other's first chunk stood there when it began
    third, source = opened()
    assert torch.equal(next(third.obtain(0, [np.arange(IMAGES)])), next(one.obtain(0, [np.arange(IMAGES)])))
    assert source.chunks == []


@pytest.mark.parametrize("damage", ["row", "entry", "short", "empty"])
def test_what_is_damaged_is_computed_again(
    damage: str, tmp_path: Path, opened: Callable[..., tuple[FeatureStore, Source]]
) -> None:
    """As after the machine went down, when a file has its length and not its data."""
    rows = all_rows(opened()[0])
    path = tmp_path / "shelf" / "rows-0.shelf"
    data = bytearray(path.read_bytes())
    if damage == "row":
        data[-1] ^= 1
    elif damage == "entry":
        data[0:8] = bytes(8)
    path.write_bytes(data[:-1] if damage == "short" else b"" if damage == "empty" else data)
    again, source = opened()
    assert torch.equal(all_rows(again), rows)
    assert len(source.chunks) == (1 if damage in ("row", "entry") else 3)
    third, source = opened()
    assert torch.equal(all_rows(third), rows)
    assert source.chunks == []  # mended


def test_a_shelf_that_is_removed_meanwhile_costs_nothing(
    tmp_path: Path, opened: Callable[..., tuple[FeatureStore, Source]]
) -> None:
    store, _ = opened()
    coming = store.obtain(0, [np.array([index]) for index in range(IMAGES)])
    next(coming)
    (tmp_path / "shelf" / "rows-0.shelf").unlink()
    assert [int(rows[0, 0]) for rows in coming] == list(range(1, IMAGES))


def test_a_shelf_that_cannot_be_written_costs_nothing(
    tmp_path: Path, opened: Callable[..., tuple[FeatureStore, Source]]
) -> None:
    (tmp_path / "shelf").write_text("a file")
    assert all_rows(opened()[0])[:, 0].tolist() == 2 * list(range(IMAGES))


def test_a_full_disk_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, opened: Callable[..., tuple[FeatureStore, Source]]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shelves.durable, "write_all", full)
    assert all_rows(opened()[0])[:, 0].tolist() == 2 * list(range(IMAGES))
    monkeypatch.undo()
    store, source = opened()
    all_rows(store)
    assert len(source.chunks) == 6  # no half chunk counts


SIZE = 8 * 3 + IMAGES * WIDTH * 2


def test_the_files_used_least_recently_make_room(
    tmp_path: Path, opened: Callable[..., tuple[FeatureStore, Source]]
) -> None:
    folder = tmp_path / "shelf"
    for number, key in enumerate(("a", "b")):
        all_rows(opened(key)[0])
        for view in range(VIEWS):
            os.utime(folder / f"{key}-{view}.shelf", (number, number))
    all_rows(opened("a", 5 * SIZE)[0])  # used again
    (folder / "left.half").write_bytes(b"")  # of a run that was killed
    os.utime(folder / "left.half", (0, 0))
    all_rows(opened("c", 5 * SIZE)[0])
    assert {path.name[0] for path in folder.iterdir()} == {"a", "b", "c"}
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 5 * SIZE
    assert not (folder / "b-0.shelf").exists()


def test_a_run_keeps_what_it_uses_itself(
    tmp_path: Path, opened: Callable[..., tuple[FeatureStore, Source]]
) -> None:
    used: set[str] = set()
    all_rows(opened("a", 3 * SIZE, used=used)[0])
    all_rows(opened("b", 3 * SIZE, used=used)[0])
    assert sorted(path.name for path in (tmp_path / "shelf").iterdir()) == [
        "a-0.shelf",
        "a-1.shelf",
        "b-0.shelf",
    ]


def test_half_of_what_is_free_on_the_disk_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Callable[..., tuple[FeatureStore, Source]]
) -> None:
    monkeypatch.setattr(shelves.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2 * SIZE - 2))
    all_rows(opened()[0])
    assert list((tmp_path / "shelf").iterdir()) == []
