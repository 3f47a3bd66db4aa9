"""Rows that were computed in hours outlive the process: saved while others come, found again, damage and all."""

import errno
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from mlcls import durable
from mlcls.learning import features, saved_rows
from mlcls.learning.features import FeatureStore, Layout, make_store
from mlcls.learning.saved_rows import load_rows, save_rows

Indices = NDArray[np.int64]
IMAGES, WIDTH = 22, 5


def order_of(view: int) -> Indices:
    return np.random.default_rng(view).permutation(IMAGES)


def values(view: int, images: Indices) -> Tensor:
    """What belongs in the rows of these images."""
    return torch.stack(
        [torch.randn(WIDTH, generator=torch.Generator().manual_seed(97 * view + int(i))) for i in images]
    )


def make(folder: Path, **changes: Any) -> tuple[FeatureStore, list[tuple[int, int]]]:
    """An empty store, and a list that tells what it computes."""
    computed: list[tuple[int, int]] = []

    def compute(view: int, chunks: Sequence[Indices]) -> Iterator[Tensor]:
        for chunk in chunks:
            computed.extend((view, int(image)) for image in chunk)
            yield values(view, chunk)

    layout = changes.pop("layout", None) or Layout(IMAGES, 4, order_of)
    settings = {"views": 3, "memory": 10**6, "dtype": torch.bfloat16, "folder": folder, **changes}
    return make_store(layout, settings.pop("width", WIDTH), compute, **settings), computed


def take(store: FeatureStore, view: int, images: Sequence[int]) -> Tensor:
    (rows,) = store.obtain(view, [np.array(images, dtype=np.int64)])
    return rows


def save(store: FeatureStore, folder: Path) -> list[Any]:
    """As a manifest would keep it."""
    facts: list[Any] = json.loads(json.dumps(save_rows(store, folder, "train0")))
    return facts


@pytest.mark.parametrize(
    ("memory", "dtype"),
    [(10**6, torch.bfloat16), (300, torch.bfloat16), (0, torch.float16), (0, torch.float32)],
)
def test_what_was_saved_is_not_computed_again_and_the_same_to_the_last_bit(
    tmp_path: Path, memory: int, dtype: torch.dtype
) -> None:
    store, _ = make(tmp_path, memory=memory, dtype=dtype)
    take(store, 0, range(IMAGES))
    take(store, 2, [3])
    save(store, tmp_path)
    take(store, 1, order_of(1)[:9].tolist())
    take(store, 2, range(IMAGES))
    facts = save(store, tmp_path)
    assert [fact["file"] for fact in facts] == [
        f"train0-{view}-{n}.rows" for n, view in enumerate((0, 2, 1, 2))
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(fact["file"] for fact in facts)

    again, computed_again = make(tmp_path, memory=memory, dtype=dtype)
    assert load_rows(again, tmp_path, facts) == []
    for view, images in ((0, range(IMAGES)), (1, order_of(1)[:12]), (2, range(IMAGES))):
        rows = take(again, view, list(images))
        assert rows.dtype == dtype
        assert torch.equal(rows, take(store, view, list(images)))
        assert torch.equal(rows, values(view, np.array(images)).to(dtype))
    assert computed_again == []
    take(again, 1, range(IMAGES))
    assert sorted(computed_again) == sorted((1, int(image)) for image in order_of(1)[12:])


def test_a_save_writes_what_is_new_alone_and_never_into_a_file_that_stands(tmp_path: Path) -> None:
    store, _ = make(tmp_path)
    assert save(store, tmp_path) == []
    take(store, 0, order_of(0)[:4].tolist())
    first = save(store, tmp_path)
    assert first[0]["chunks"] == [[0, 0]]
    before = (tmp_path / first[0]["file"]).read_bytes()
    assert save(store, tmp_path) == first
    take(store, 0, order_of(0)[[5, 13, 17]].tolist())
    second = save(store, tmp_path)
    assert [fact["chunks"] for fact in second] == [[[0, 0]], [[1, 1], [3, 4]]]
    assert (tmp_path / first[0]["file"]).read_bytes() == before
    again, _ = make(tmp_path)
    load_rows(again, tmp_path, second[1:])
    take(again, 0, range(IMAGES))
    third = save(again, tmp_path)  # goes on counting where the other process had ended
    assert [fact["file"] for fact in third] == ["train0-0-1.rows", "train0-0-2.rows"]
    assert third[0] == second[1]


def test_it_tells_how_long_the_rows_took_that_are_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(features.time, "monotonic", lambda: clock[0])

    def slow(seconds: float, lower: FeatureStore | None = None) -> Any:
        def compute(view: int, chunks: Sequence[Indices]) -> Iterator[Tensor]:
            rows = iter(lower.obtain(view, chunks)) if lower else iter([values(view, c) for c in chunks])
            for row in rows:
                clock[0] += seconds
                yield row

        return compute

    settings: Any = {"views": 2, "memory": 10**6, "folder": tmp_path}
    low = make_store(Layout(IMAGES, 4), WIDTH, slow(8.0), **settings)
    up = make_store(Layout(IMAGES, 4), WIDTH, slow(0.5, low), below=low, **settings)
    take(up, 0, [0, 1, 21])
    assert (low.unsaved_seconds, up.unsaved_seconds) == (16.0, 1.0)
    save_rows(low, tmp_path, "low")
    assert (low.unsaved_seconds, up.unsaved_seconds) == (0.0, 1.0)
    take(low, 0, [4])
    take(up, 0, [4])
    assert (low.unsaved_seconds, up.unsaved_seconds) == (8.0, 1.5)


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_any_damage_is_found_and_what_it_held_is_computed_again(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    store, _ = make(folder)
    take(store, 0, range(IMAGES))
    take(store, 1, [0, 1])
    facts = save(store, folder)
    path = folder / data.draw(st.sampled_from([fact["file"] for fact in facts]))
    whole = path.read_bytes()
    kind = data.draw(st.sampled_from(["flip", "cut", "grow", "gone", "folder"]))
    if kind == "flip":
        bit = data.draw(st.integers(0, 8 * len(whole) - 1))
        path.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
    elif kind == "cut":
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    elif kind == "grow":
        path.write_bytes(whole + b"\0")
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
    again, computed = make(folder)
    assert load_rows(again, folder, facts) == [path.name]
    for view, images in ((0, list(range(IMAGES))), (1, [0, 1])):
        assert torch.equal(take(again, view, images), values(view, np.array(images)).to(torch.bfloat16))
    assert {view for view, _ in computed} == {int(path.name.split("-")[1])}


@pytest.mark.parametrize(
    "other",
    [
        {"width": WIDTH + 1},
        {"dtype": torch.float32},
        {"layout": Layout(IMAGES, 4)},
        {"layout": Layout(IMAGES, 5, order_of)},
        {"layout": Layout(IMAGES - 2, 4)},
    ],
    ids=["width", "dtype", "order", "chunk", "images"],
)
def test_rows_of_another_store_are_not_taken(tmp_path: Path, other: dict[str, Any]) -> None:
    store, _ = make(tmp_path)
    take(store, 0, range(IMAGES))
    facts = save(store, tmp_path)
    again, _ = make(tmp_path, **other)
    assert load_rows(again, tmp_path, facts) == ["train0-0-0.rows"]
    assert not again.filled.any()


def test_a_manifest_that_was_tampered_with_names_no_file_outside_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    store, _ = make(tmp_path)
    take(store, 0, range(IMAGES))
    (fact,) = save(store, folder)
    whole = (folder / fact["file"]).read_bytes()
    (tmp_path / "out.rows").write_bytes(whole)
    (folder / "link.rows").symlink_to(tmp_path / "out.rows")
    (folder / "train0.json").write_bytes(whole)
    wrong: list[Any] = [
        *[{**fact, "file": file} for file in ("../out.rows", str(tmp_path / "out.rows"), "link.rows")],
        *[{**fact, "file": file} for file in ("train0.json", "x\0.rows", "", None, ["a"])],
        *[{**fact, "view": view} for view in (3, -1, "0", 0.5, None, 10**30)],
        *[{**fact, "chunks": chunks} for chunks in ([], [[0, 6]], [[2, 1]], [[0, 3], [3, 5]], [[-1, 2]], 7)],
        *[{**fact, "chunks": chunks} for chunks in ([[0]], [["0", 5]], [[0.0, 5.0]], None, [[0, 10**30]])],
        *[{**fact, "number": number} for number in (-1, "0", None, 10**30)],
        *[{**fact, "sha256": digest} for digest in ("", None, 3)],
        *[{key: fact[key] for key in fact if key != lacking} for lacking in fact],
        None,
        7,
        [],
        "train0-0-0.rows",
    ]
    again, _ = make(tmp_path)
    assert len(load_rows(again, folder, wrong)) == len(wrong)
    assert load_rows(again, folder, 7) == ["7"]
    assert load_rows(again, folder, {"file": "x"}) == ["x"]
    assert not again.filled.any()
    assert load_rows(again, folder, [*wrong, fact]) != []
    assert again.filled[0].all()


def test_what_lies_in_the_place_of_a_new_file_is_not_written_through(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine", encoding="utf-8")
    (tmp_path / "train0-0-0.rows").symlink_to(elsewhere)
    store, _ = make(tmp_path)
    take(store, 0, range(IMAGES))
    facts = save(store, tmp_path)
    assert elsewhere.read_text(encoding="utf-8") == "mine"
    assert load_rows(make(tmp_path)[0], tmp_path, facts) == []


@pytest.mark.parametrize("where", ["write_all", "flush", "remove", "room"])
@pytest.mark.parametrize("after", [0, 1])
def test_a_disk_that_is_full_leaves_nothing_and_the_next_save_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, after: int
) -> None:
    store, _ = make(tmp_path)
    take(store, 0, range(IMAGES))
    first = save(store, tmp_path)
    take(store, 1, range(IMAGES))
    take(store, 2, range(IMAGES))
    calls = [0]
    if where == "room":
        monkeypatch.setattr(saved_rows, "check_room", _full)
    else:
        real = getattr(durable, where)

        def failing(target: IO[bytes] | Path, *rest: Any) -> None:
            calls[0] += 1
            if calls[0] == after + 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(target, *rest)

        monkeypatch.setattr(durable, where, failing)
    with pytest.raises(OSError, match="No space"):
        save_rows(store, tmp_path, "train0")
    assert [path.name for path in tmp_path.iterdir()] == [first[0]["file"]]
    monkeypatch.undo()
    facts = save(store, tmp_path)
    assert [fact["view"] for fact in facts] == [0, 1, 2]
    again, computed = make(tmp_path)
    assert load_rows(again, tmp_path, facts) == []
    for view in range(3):
        take(again, view, range(IMAGES))
    assert computed == []


def _full(folder: Path, size: int) -> None:
    assert size == 2 * IMAGES * (8 + 2 * WIDTH)
    raise OSError(errno.ENOSPC, "No space left on device")


def test_saving_while_rows_come_misses_none_and_keeps_none_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_rows, "PIECE", 30)  # a few rows at a time
    store, _ = make(tmp_path, memory=300)
    over = threading.Event()

    def keep_saving() -> None:
        while not over.is_set():
            save_rows(store, tmp_path, "train0")

    thread = threading.Thread(target=keep_saving)
    thread.start()
    try:
        for view in range(3):
            alone = list(np.arange(IMAGES)[:, None])
            for rows, image in zip(store.obtain(view, alone), alone, strict=True):
                assert torch.equal(rows, values(view, image).to(torch.bfloat16))
    finally:
        over.set()
        thread.join()
    facts = save(store, tmp_path)
    chunks = [(fact["view"], n) for fact in facts for a, b in fact["chunks"] for n in range(a, b + 1)]
    assert sorted(chunks) == [(view, number) for view in range(3) for number in range(6)]
    again, computed = make(tmp_path)
    assert load_rows(again, tmp_path, facts) == []
    for view in range(3):
        assert torch.equal(
            take(again, view, range(IMAGES)), values(view, np.arange(IMAGES)).to(torch.bfloat16)
        )
    assert computed == []
