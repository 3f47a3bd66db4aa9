"""Long tables: a row an image and label."""

from pathlib import Path

import numpy as np
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


def write(folder: Path, text: str) -> Path:
    (folder / "long.csv").write_text(text)
    return folder / "long.csv"


def test_open_images_long_table(folder):
    text = (
        "ImageID,Source,LabelName,Confidence\n"
        "a,verification,/m/dog,1\na,verification,/m/cat,0\nb,verification,/m/cat,1\nb,human,/m/cat,1\n"
        "c,x,/m/dog,0\nc,y,/m/dog,1\n"
    )
    table = read_table(write(folder, text))
    assert table.attributes == ("/m/cat", "/m/dog")
    assert table.images.tolist() == ["a.jpg", "b.jpg", "c.png"]
    assert same(table.labels, [[0, 1], [1, NAN], [NAN, NAN]])
    assert table.report.rows == 6
    assert table.report.metadata == ("Source",)
    assert table.report.repeated == ()  # many rows an image are the rule here
    assert table.report.conflict_attributes == {"c.png": ("/m/dog",)}
    assert read_table(write(folder, text), attributes=["/m/dog"]).labels.shape == (3, 1)
    with pytest.raises(TableError, match=r"line 3, column 'Confidence': '0\.5' is neither 0"):
        read_table(write(folder, text.replace("cat,0", "cat,0.5")))


def test_a_long_tables_groups(folder):
    text = "id,LabelName,Confidence,who\na,x,1,p\na,y,0,\nb,x,1,q\nb,y,1,q\n"
    table = read_table(write(folder, text), group_column="who")
    assert table.groups.tolist() == ["p", "q"]
    with pytest.raises(TableError, match=r"line 3: 'a' has 'z' for --group-column here and 'p' in line 2"):
        read_table(write(folder, text.replace("0,\n", "0,z\n")), group_column="who")


def test_only_columns_are_offered_where_no_image_is_found(tmp_path):
    (tmp_path / "t.csv").write_text("ImageID,Source,LabelName,Confidence\nx,verification,/m/00x,1\n")
    with pytest.raises(TableError, match=r"names the images \(Source\)$"):
        read_table(tmp_path / "t.csv")
