"""Tables with one column of tags."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlcls.errors import TableError
from mlcls.labels.table import read_table
from mlcls.labels.tags import parse_literal

NAN = np.nan


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder: Path, text: str) -> Path:
    (folder / "tags.csv").write_text(text)
    return folder / "tags.csv"


WANTED = [[0, 1, 1], [1, 0, 0], [0, 0, 0], [NAN, NAN, NAN]]


@pytest.mark.parametrize(
    ("cells", "how"),
    [
        (["sun sea", "air", "", "NA"], "whitespace between tags"),
        (["sun|sea", "air", "", "?"], "| between tags"),
        (["sun ; sea;", "air", "", "null"], "semicolons between tags"),
        (['"sun, sea"', '"air,"', "", "-1"], "commas between tags"),
        (["\"['sun', 'sea']\"", "['air']", "[]", "NaN"], "Python lists"),
        (['"[""sun"", ""sea""]"', "[air]", "[]", "NaN"], "Python lists"),
    ],
)
@pytest.mark.parametrize("metadata", [True, False])
def test_separators_are_found(folder, cells, how, metadata):
    lines = [f"{name}.jpg,{cell}" + ",7" * metadata for name, cell in zip("abcd", cells, strict=True)]
    table = read_table(
        write(folder, "\n".join(["image,tags" + ",age" * metadata, *lines])), tags_column="tags"
    )
    assert table.attributes == ("air", "sea", "sun")
    np.testing.assert_array_equal(table.labels, WANTED)
    assert how in table.report.layout
    assert table.report.metadata == (("age",) if metadata else ())


def test_a_separator_that_is_said(folder):
    text = "image;tags\na.jpg;red car, old/blue\nb.jpg;blue / red car, old\n"
    table = read_table(write(folder, text), tags_column="tags", tags_separator="/")
    assert table.attributes == ("blue", "red car, old")
    np.testing.assert_array_equal(table.labels, [[1, 1], [1, 1]])
    blanks = read_table(
        write(folder, "image,tags\na.jpg,x y\nb.jpg,x\n"), tags_column="tags", tags_separator=" "
    )
    assert blanks.attributes == ("x", "y")


def test_two_separators_are_a_question(folder):
    path = write(folder, 'image,tags\na.jpg,"x,y"\nb.jpg,x;y\n')
    with pytest.raises(
        TableError, match=r"holds ',' and ';'; say which one stands between tags: --tags-separator"
    ):
        read_table(path, tags_column="tags")
    assert read_table(path, tags_column="tags", tags_separator=";").attributes == ("x", "x,y", "y")


def test_without_the_flag_the_error_names_it(folder):
    with pytest.raises(TableError, match=r"no column holds labels; .*--tags-column tags"):
        read_table(write(folder, "image,tags\na.jpg,sun sea\nb.jpg,air\n"))
    with pytest.raises(
        TableError, match=r"no label at all: if it is a column of tags, say --tags-column Attr1"
    ):
        read_table(write(folder, "a.jpg,sun sea\nb.jpg,air\n"))
    assert read_table(write(folder, "a.jpg,sun sea\nb.jpg,air\n"), tags_column="Attr1").attributes == (
        "air",
        "sea",
        "sun",
    )


def test_attributes_choose_among_the_tags(folder):
    path = write(folder, "image,tags\na.jpg,sun sea\nb.jpg,air\n")
    table = read_table(path, tags_column="tags", attributes=["sea", "air"])
    np.testing.assert_array_equal(table.labels, [[1, 0], [0, 1]])
    with pytest.raises(TableError, match="--attributes: no image has the tag 'se'; did you mean 'sea'"):
        read_table(path, tags_column="tags", attributes=["se"])


def test_lists_that_cannot_be_read_are_faults(folder):
    text = "image;tags\na.jpg;['sun', 'sea'\nb.jpg;['air']\nc.jpg;['x' 'y'\n"
    with pytest.raises(TableError) as error:
        read_table(write(folder, text), tags_column="tags")
    assert "2 faults" in str(error.value)
    assert "line 2, column 'tags'" in str(error.value)
    assert "line 4, column 'tags'" in str(error.value)


def test_a_dataframe_of_lists(folder):
    frame = pd.DataFrame(
        {"file": ["a", "b", "c", "d"], "tags": [["sun", "sea"], np.array(["air"]), [], None], "age": 3}
    )
    table = read_table(frame, folder, tags_column="tags")
    np.testing.assert_array_equal(table.labels, [*WANTED[:3], [0, 0, 0]])  # None is an empty cell
    assert table.images.tolist() == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


@pytest.mark.parametrize(
    ("cell", "items"),
    [
        ("[]", []),
        ("['it\\'s', \"a, b\"]", ["it's", "a, b"]),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),
        ("[red car, blue]", ["red car", "blue"]),
        ("['a', 'b',]", ["a", "b"]),
        ("['a'", None),
        ("['a', ['b']]", None),
        ("['a]", None),
    ],
)
def test_list_literals(cell, items):
    assert parse_literal(cell) == items


def test_no_tag_at_all(folder):
    with pytest.raises(TableError, match="holds no tag at all"):
        read_table(write(folder, "image,tags\na.jpg,NA\nb.jpg,\n"), tags_column="tags")


@pytest.mark.parametrize(
    "cell", ["('a', 'b')", "{'a'}", "('a',)", "()", "set()", "(a, b)", "frozenset({'a'})"]
)
def test_tuples_and_sets_are_no_lists(tmp_path, cell):
    for name in "ab":
        (tmp_path / f"{name}.jpg").touch()
    (tmp_path / "t.csv").write_text(f'image;tags\na.jpg;"{cell}"\nb.jpg;"[\'a\']"\n')
    with pytest.raises(TableError) as error:
        read_table(tmp_path / "t.csv", tags_column="tags")
    assert f"line 2, column 'tags': '{cell}' is not a list; write" in str(error.value)


def test_a_tag_may_have_parentheses(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "t.csv").write_text("image;tags\na.jpg;(old) hat,bag (red)\n")
    assert read_table(tmp_path / "t.csv", tags_column="tags").attributes == ("(old) hat", "bag (red)")
