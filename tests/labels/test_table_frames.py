"""Label tables that are a DataFrame or a Parquet file."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlcls.errors import TableError
from mlcls.labels.table import read_table

NAN = np.nan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three empty images under images/."""
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.jpg", "c.png"):
        (tmp_path / "images" / name).touch()
    return tmp_path


def same(labels, wanted) -> bool:
    return np.array_equal(labels, np.array(wanted, np.float32), equal_nan=True)


FRAME = pd.DataFrame(
    {
        "image": ["a.jpg", "b.jpg", "c.png"],
        "flag": pd.array([True, None, False], dtype="boolean"),
        "number": [1, 0, 0],
        "real": [1.0, np.nan, 0.0],
        "word": ["yes", None, "absent"],
        "nullable": pd.array([1, pd.NA, 0], dtype="Int64"),
        "kind": pd.Categorical(["yes", "no", None]),
        "caption": ["one", "two", "three"],
    }
)
FRAME_LABELS = [[1, 1, 1, 1, 1, 1], [NAN, 0, NAN, NAN, NAN, 0], [0, 0, 0, 0, 0, NAN]]


def test_a_dataframe(folder, monkeypatch):
    table = read_table(FRAME, folder / "images")
    assert table.attributes == ("flag", "number", "real", "word", "nullable", "kind")
    assert same(table.labels, FRAME_LABELS)
    assert table.report.metadata == ("caption",)
    assert table.report.source == "DataFrame"
    monkeypatch.chdir(folder)
    assert same(read_table(FRAME.set_index("image")).labels, FRAME_LABELS)
    with pytest.raises(TableError, match=r"DataFrame: row 2, column 'word': 'maybe' is not a label"):
        read_table(FRAME.assign(word=["yes", "maybe", "no"]))


def test_rows_are_counted_over_chunks(folder):
    frame = pd.DataFrame({"image": ["a.jpg"] * 70_000, "x": ["1"] * 70_000})
    assert read_table(frame, folder / "images").report.rows == 70_000
    frame.loc[66_666, "x"] = "maybe"
    with pytest.raises(TableError, match="row 66667, column 'x': 'maybe'"):
        read_table(frame, folder / "images")


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (pd.DataFrame(), "fewer than two columns"),
        (pd.DataFrame({"image": [], "x": []}), "no rows"),
        (pd.DataFrame([["a.jpg", 1, 0]], columns=["image", "x", "x"]), "the column 'x' 2 times"),
        (pd.DataFrame({"image": ["a.jpg", None], "x": 1}), "row 2: the image's name is empty"),
        (pd.DataFrame({"image": ["a.jpg", "b.jpg"], "x": [1, -1]}), "--minus-one"),
        (pd.DataFrame({"image": ["a.jpg", "../b"], "x": [1, 0]}), "row 2: '../b' leads out"),
    ],
)
def test_dataframes_that_are_no_label_table(folder, frame, words):
    with pytest.raises(TableError, match=words):
        read_table(frame, folder / "images")
    with pytest.raises(TableError, match="--names is for a table without a header"):
        read_table(FRAME, folder / "images", names=["x"])


def test_parquet(folder):
    pytest.importorskip("pyarrow")
    FRAME.to_parquet(folder / "t.parquet")
    table = read_table(folder / "t.parquet")
    assert same(table.labels, FRAME_LABELS)
    assert "Parquet" in table.report.layout
    (folder / "t.parquet").rename(folder / "noname")
    assert same(read_table(folder / "noname").labels, FRAME_LABELS)
    FRAME.set_index("image").to_parquet(folder / "i.parquet")
    assert same(read_table(folder / "i.parquet").labels, FRAME_LABELS)
    (folder / "broken.parquet").write_bytes((folder / "i.parquet").read_bytes()[:-40])
    with pytest.raises(TableError, match="not a Parquet file"):
        read_table(folder / "broken.parquet")
