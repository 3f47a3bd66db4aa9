"""Paths in one buffer: as they were given, by index, in any selection, through pickle and in little memory."""

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcls.images.paths import PathList

NAMES = ["a.jpg", "", "b/ä 写真.png", "/elsewhere/c.png", "\udce9 not utf-8.jpg", "a.jpg"]


def test_an_item_is_folder_and_name() -> None:
    paths = PathList("photos", NAMES)
    expected = [
        "photos/a.jpg",
        "photos/",
        "photos/b/ä 写真.png",
        "/elsewhere/c.png",
        "photos/\udce9 not utf-8.jpg",
    ]
    assert list(paths) == [*expected, "photos/a.jpg"]
    assert len(paths) == 6
    assert list(pickle.loads(pickle.dumps(paths))) == list(paths)
    assert list(PathList("", ["x/y.png"])) == ["x/y.png"]
    assert list(PathList("f", [])) == []
    for outside in (6, -1):
        with pytest.raises(IndexError):
            paths[outside]


@settings(deadline=None, max_examples=100)
@given(names=st.lists(st.text(max_size=8), min_size=1, max_size=12), data=st.data())
def test_any_names_come_back_in_any_selection(names: list[str], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(names) - 1)))
    selected = PathList("", names).select(np.array(rows, dtype=np.intp))
    assert list(selected) == [names[row] for row in rows]


def test_many_paths_take_their_text_and_eight_bytes_each() -> None:
    count = 20_000
    tracemalloc.start()
    paths = PathList("folder", (f"{number:012d}.jpg" for number in range(count)))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert paths[count - 1] == f"folder/{count - 1:012d}.jpg"
    assert kept < count * 26
