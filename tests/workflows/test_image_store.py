"""From a recipe to pixels: each row's own, decoded by the first run and by no later one, and the console says so."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from toy_data import write_toy

from mlcls.images import cache, survey
from mlcls.images.load import load_image
from mlcls.images.pack_writer import finish_commits
from mlcls.images.preprocess import Preprocessing
from mlcls.recipe import Recipe
from mlcls.workflows.alike import same_files
from mlcls.workflows.data import LabelledImages, gather, gather_unsplit

PREPROCESSING = Preprocessing(32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLCLS_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def table(folder: Path) -> Path:
    return write_toy(folder / "t", 30)


def gathered(
    table: Path, preprocessing: Preprocessing | None = PREPROCESSING, **settings: object
) -> tuple[LabelledImages, str]:
    console = Console(file=io.StringIO(), width=200)
    recipe = Recipe(labels=str(table), **settings)  # type: ignore[arg-type]
    data = gather(recipe, console, preprocessing=preprocessing)
    finish_commits()
    return data, console.file.getvalue()  # type: ignore[attr-defined]


def check_pixels(data: LabelledImages) -> None:
    assert data.store is not None
    for rows in (data.split.train, data.split.val, data.split.test):
        selected = data.store.select(rows)
        for index, path in enumerate(data.paths(rows)):
            assert np.array_equal(selected(index), load_image(path, PREPROCESSING))


def test_a_second_run_decodes_nothing(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, said = gathered(table)
    assert "images: 30 decoded and kept (0 MB)" in said.splitlines()
    check_pixels(first)
    for room, name in ((survey, "decode_for"), (survey, "glance"), (cache, "load_image")):
        monkeypatch.setattr(room, name, None)  # whoever calls it fails
    second, said = gathered(table)
    assert "images: 30 from the cache, none decoded" in said.splitlines()
    assert second.store is not None
    assert second.store.cached
    assert second.facts == first.facts
    assert np.array_equal(second.groups, first.groups)
    assert [second.store(row).tobytes() for row in range(30)] == [
        first.store(row).tobytes() for row in range(30)
    ]  # type: ignore[misc]
    unsplit = gather_unsplit(
        Recipe(labels=str(table)), Console(quiet=True), lambda table: None, preprocessing=PREPROCESSING
    )
    assert unsplit.store is not None
    assert unsplit.store.cached


def test_a_table_that_grew_decodes_what_is_new(table: Path) -> None:
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:21]))
    gathered(table)
    table.write_text("".join(lines))
    data, said = gathered(table)
    assert "images: 20 from the cache, 10 decoded and kept (0 MB)" in said.splitlines()
    check_pixels(data)
    assert "images: 30 from the cache, none decoded" in gathered(table)[1].splitlines()


def test_pixels_stay_with_their_rows_where_an_image_is_left_out(table: Path) -> None:
    whole = gathered(table)[0]
    (table.parent / "images" / "img_007.png").write_bytes(b"no image")
    for _ in range(2):
        data, said = gathered(table)
        assert data.facts.unreadable == ("img_007.png",)
        assert len(data.table.images) == 29
        assert "images: 29 from the cache, none decoded" in said.splitlines()
        check_pixels(data)
        assert data.store is not None
        assert whole.store is not None
        assert np.array_equal(data.store(7), whole.store(8))


def test_without_a_cache_nothing_is_written_and_pixels_are_the_same(table: Path, folder: Path) -> None:
    data, said = gathered(table, image_cache_gb=0)
    assert not (folder / "cache").exists()
    assert "cache" not in said
    assert not any(line.startswith("images:") for line in said.splitlines())
    check_pixels(data)


def test_too_small_a_cache_says_what_does_not_fit(table: Path) -> None:
    data, said = gathered(table, image_cache_gb=5e-5)
    lines = said.splitlines()
    assert "images: 11 decoded and kept (0 MB), 19 decoded and not kept" in lines
    assert any("note: 19 images have no room in the cache" in line for line in lines)
    assert any(
        "it may take 5e-05 GB (--image-cache-gb) and leaves 2 GB of the disk free" in line for line in lines
    )
    check_pixels(data)


def test_a_cache_that_cannot_be_written_costs_a_sentence(table: Path, folder: Path) -> None:
    (folder / "cache").write_text("a file")
    data, said = gathered(table)
    notes = [line for line in said.splitlines() if "note: decoded images cannot be kept in" in line]
    assert len(notes) == 1
    assert "MLCLS_CACHE" in notes[0]
    check_pixels(data)


def test_inspecting_keeps_no_pixels_and_takes_what_is_known(table: Path, folder: Path) -> None:
    data, said = gathered(table, None)
    assert data.store is None
    assert not list(folder.glob("cache/images/*/*"))
    assert not any(line.startswith("images:") for line in said.splitlines())
    trained = gathered(table)[0]
    again, said = gathered(table, None)
    assert "images: 30 from the cache, none decoded" in said.splitlines()
    assert again.facts == trained.facts == data.facts


@settings(deadline=None, max_examples=60)
@given(kinds=st.lists(st.integers(0, 5), max_size=20))
def test_equal_digests_are_groups(kinds: list[int]) -> None:
    digests = np.zeros((len(kinds), 32), dtype=np.uint8)
    digests[:, 31] = kinds
    groups: dict[int, list[int]] = {}
    for row, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(row)
    assert same_files(digests) == tuple(tuple(rows) for rows in groups.values() if len(rows) > 1)
