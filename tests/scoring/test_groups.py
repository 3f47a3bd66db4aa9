"""groups.csv: what was written comes back, and damage is told by line."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcls.errors import BundleError, OutputError
from mlcls.scoring.groups import read_groups, shared_groups, write_groups


@given(st.lists(st.integers(0, 4), min_size=0, max_size=12))
def test_images_that_belong_together_still_do_after_reading(tmp_path_factory, numbers: list[int]) -> None:
    path = tmp_path_factory.mktemp("groups") / "groups.csv"
    images = [f'a "{i}",\n.png' for i in range(len(numbers))]
    groups = np.array(numbers, dtype=np.int64)
    write_groups(path, images, groups)
    read = read_groups(path, images)
    assert read.shape == groups.shape
    assert ((read[:, None] == read) == (groups[:, None] == groups)).all()


def test_an_image_that_stands_alone_is_not_written(tmp_path: Path) -> None:
    write_groups(tmp_path / "g.csv", ["a", "b", "c"], np.array([7, 3, 7]))
    assert (tmp_path / "g.csv").read_text() == "image,group\na,0\nc,0\n"


@pytest.mark.parametrize(
    ("content", "line"), [("", None), ("a,1\n", 1), ("image,group\na,x\n", 2), ("image,group\na\n", 2)]
)
def test_a_damaged_file_is_told_by_line(tmp_path: Path, content: str, line: int | None) -> None:
    (tmp_path / "g.csv").write_text(content)
    if line is None:
        assert read_groups(tmp_path / "g.csv", ["a"]).tolist() == [0]
        return
    with pytest.raises(BundleError, match=f"line {line}: expected an image and the number"):
        read_groups(tmp_path / "g.csv", ["a"])


def test_a_file_that_is_not_there_and_one_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        read_groups(tmp_path / "g.csv", ["a"])
    with pytest.raises(OutputError, match="cannot be written"):
        write_groups(tmp_path / "no" / "g.csv", ["a"], np.array([0]))


def test_groups_of_one_are_no_groups() -> None:
    assert shared_groups(None) is None
    assert shared_groups(np.array([3, 1, 2])) is None


def test_equal_groups_have_equal_numbers_whatever_they_were_called() -> None:
    first, second = shared_groups(np.array([3, 1, 3, 9])), shared_groups(np.array([0, 7, 0, 2]))
    assert first is not None
    assert second is not None
    assert first.tolist() == second.tolist() == [0, 1, 0, 2]
