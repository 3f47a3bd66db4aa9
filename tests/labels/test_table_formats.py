"""Every way of writing a table that the contract names, each read from a small real file."""

from pathlib import Path

import numpy as np
import pytest

from mlcls.errors import TableError
from mlcls.labels.table import read_table

NAN = np.nan
WANTED = [[1, 0, NAN], [0, 1, 1], [NAN, NAN, 0]]


def folder_with(tmp_path: Path, *names: str) -> Path:
    """A folder with empty files of these names under images/: reading a table opens no image."""
    for name in names or ("a.jpg", "b.jpg", "c.png"):
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path


def write(folder: Path, content: str | bytes, name: str = "labels.txt") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def same(labels, wanted) -> bool:
    return np.array_equal(labels, np.array(wanted, np.float32), equal_nan=True)


def rows(delimiter: str, *lines: str) -> str:
    return "".join(line.replace(" ", delimiter) + "\n" for line in lines)


BODY = ("a.jpg 1 0 NA", "b.jpg 0 1 1", "c.png NA -1 0")


@pytest.mark.parametrize("delimiter", [" ", "   ", " \t", ",", ", ", " , ", ";", "; ", "\t", "|", " | "])
@pytest.mark.parametrize("header", [True, False])
def test_delimiters(tmp_path, delimiter, header):
    head = ["file hat bag coat"] if header else []
    path = write(folder_with(tmp_path), rows(delimiter, *head, *BODY))
    table = read_table(path)
    assert table.images.tolist() == ["a.jpg", "b.jpg", "c.png"]
    assert same(table.labels, WANTED)
    assert table.labels.dtype == np.float32
    assert table.attributes == (("hat", "bag", "coat") if header else ("Attr1", "Attr2", "Attr3"))
    assert ("no header" in table.report.layout) is not header
    assert "3 attribute columns" in table.report.layout
    assert (table.images_dir / table.images[0]).is_file()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\n", "\r\n").rstrip("\r\n"),
        lambda text: "\n\n" + text.replace("\n", "\n\n  \t\n") + "\n \n",
        lambda text: text.replace(",", " ,\t").replace("\n", "  \n"),
        lambda text: text.replace(",1", '," 1\t"').replace("a.jpg", '" a.jpg\t"').replace("NA", '""'),
        lambda text: "".join(
            ",".join(f'"{cell}"' for cell in line.split(",")) + "\n" for line in text.splitlines()
        ),
    ],
    ids=[
        "bom",
        "crlf",
        "cr",
        "no last newline",
        "crlf without the last",
        "blank lines",
        "blanks around",
        "blanks in quotes",
        "quoted",
    ],
)
def test_line_ends_blanks_and_quotes(tmp_path, change):
    text = rows(",", "file hat bag coat", *BODY)
    table = read_table(write(folder_with(tmp_path), change(text)))
    assert table.images.tolist() == ["a.jpg", "b.jpg", "c.png"]
    assert table.attributes == ("hat", "bag", "coat")
    assert same(table.labels, WANTED)


def test_every_label_word(tmp_path):
    present, absent = ["1", "1.0", "true", "YES", "Present"], ["0", "0.0", "False", "no", "ABSENT"]
    unknown = ["NA", "n/a", "NaN", "NULL", "None", "?", "-1", "-1.0", ""]
    words = present + absent + unknown
    names = [f"{i}.jpg" for i in range(len(words))]
    lines = [f"{name};{word};1" for name, word in zip(names, words, strict=True)]
    table = read_table(write(folder_with(tmp_path, *names), "\n".join(["name;x;y", *lines])))
    assert same(table.labels[:, 0], [1] * 5 + [0] * 5 + [NAN] * 9)


def test_names_with_spaces_in_tables_of_tabs_and_in_quotes(tmp_path):
    folder = folder_with(tmp_path, "my cat.jpg", "sub dir/it, too.jpg")
    tabs = read_table(write(folder, "my cat.jpg\t1\t0\nsub dir/it, too.jpg\t0\t1\n"))
    commas = read_table(write(folder, 'name,x,y\nmy cat.jpg,1,0\n"sub dir/it, too.jpg",0,1\n'))
    blanks = read_table(write(folder, '"my cat.jpg" 1 0\n"sub dir/it, too.jpg" 0 1\n'))
    for table in (tabs, commas, blanks):
        assert table.images.tolist() == ["my cat.jpg", "sub dir/it, too.jpg"]
        assert same(table.labels, [[1, 0], [0, 1]])


def test_blank_lines_for_longer_than_a_block(tmp_path):
    table = read_table(write(folder_with(tmp_path), "\n" * 300_000 + "name,x\na.jpg,1\nb.jpg,0\n"))
    assert table.attributes == ("x",)
    assert table.report.rows == 2


def test_a_quoted_cell_may_hold_quotes_and_line_breaks(tmp_path):
    text = 'name,caption,x\na.jpg,"a ""big""\nhat, red",1\nb.jpg,plain,0\nc.png,"x",maybe\n'
    with pytest.raises(TableError, match="line 5, column 'x': 'maybe'"):
        read_table(write(folder_with(tmp_path), text), attributes=["x"])
    table = read_table(write(folder_with(tmp_path), text.replace("maybe", "1")))
    assert table.attributes == ("x",)
    assert table.report.metadata == ("caption",)
    assert same(table.labels, [[1], [0], [1]])


def test_quotes_that_enclose_nothing_are_characters(tmp_path):
    text = 'name,size,x\na.jpg,5" wide,1\nb.jpg,7" wide,0\n'
    table = read_table(write(folder_with(tmp_path), text))
    assert table.images.tolist() == ["a.jpg", "b.jpg"]
    assert same(table.labels, [[1], [0]])


def test_a_column_called_na(tmp_path):
    folder = folder_with(tmp_path)
    table = read_table(write(folder, "image,N/A,hat\na.jpg,1,0\nb.jpg,NA,1\n"))
    assert table.attributes == ("N/A", "hat")
    assert same(table.labels, [[1, 0], [NAN, 1]])
    alone = read_table(write(folder, "image,N/A\na.jpg,1\nb.jpg,0\n"))
    assert alone.attributes == ("N/A",)
    assert same(alone.labels, [[1], [0]])


def test_the_first_row_is_data_when_its_image_exists(tmp_path):
    folder = folder_with(tmp_path, "hat.jpg", "b.jpg")
    assert read_table(write(folder, "hat NA ?\nb 1 0\n")).images.tolist() == ["hat.jpg", "b.jpg"]
    with pytest.raises(TableError, match="line 1, column 'Attr2': 'maybe' is not a label"):
        read_table(write(folder, "hat 1 maybe\nb 1 0\n"))


def test_names_for_a_table_without_header(tmp_path):
    path = write(folder_with(tmp_path), rows(" ", *BODY))
    assert read_table(path, names=["x", "y", "z"]).attributes == ("x", "y", "z")
    assert read_table(path, names="file,x,y,z", attributes=["z", "x"]).attributes == ("z", "x")
    with pytest.raises(TableError, match=r"--names: 2 names for 4 columns; expected 3 .* or 4"):
        read_table(path, names=["x", "y"])
    headed = write(tmp_path, rows(" ", "file hat bag coat", *BODY), "headed.txt")
    with pytest.raises(TableError, match="line 1: a header"):
        read_table(headed, names=["x", "y", "z"])


def test_metadata_columns_are_left_alone(tmp_path):
    text = "id,age,hat,mood,genres,fold\na.jpg,31,1,0,['x'],1\nb.jpg,1,0,maybe,[],2\nc.png,77,NA,1,['y'],3\n"
    table = read_table(write(folder_with(tmp_path), text.replace("maybe", "?")))
    assert table.attributes == ("hat", "mood")
    assert table.report.metadata == ("age", "genres", "fold")
    assert same(table.labels, [[1, 0], [0, NAN], [NAN, 1]])
    with pytest.raises(TableError, match="line 3, column 'mood': 'maybe' is not a label"):
        read_table(write(tmp_path, text))  # two of three are labels, so the third is a fault
    with pytest.raises(TableError, match="column 'age': '31' is not a label"):
        read_table(write(tmp_path, text), attributes=["age", "hat"])
    chosen = read_table(write(tmp_path, text), attributes=["hat"])
    assert chosen.attributes == ("hat",)
    assert chosen.report.metadata == ("age", "mood", "genres", "fold")


def test_subset_and_group_columns_are_never_attributes(tmp_path):
    text = "file,hat,fold,patient\na.jpg,1,0,1\nb.jpg,0,1,1\nc.png,1,1,NA\n"
    path = write(folder_with(tmp_path), text)
    table = read_table(path, subset_column="fold", group_column="patient")
    assert table.attributes == ("hat",)
    assert table.subsets.tolist() == ["0", "1", "1"]
    assert table.groups[:2].tolist() == ["1", "1"]
    assert table.groups[2] not in ("1", "", "NA")
    assert table.report.metadata == ()
    both = read_table(path, subset_column="fold", group_column="fold")
    assert both.groups.tolist() == both.subsets.tolist() == ["0", "1", "1"]


def test_an_image_column_that_is_not_the_first(tmp_path):
    path = write(folder_with(tmp_path), ",hat,file\n0,1,a.jpg\n1,0,b.jpg\n")
    table = read_table(path, image_column="file")
    assert table.images.tolist() == ["a.jpg", "b.jpg"]
    assert table.attributes == ("hat",)  # the column of row numbers has no name
    with pytest.raises(
        TableError, match=r"--image-column where another column names the images \(hat, file\)|file"
    ):
        read_table(path)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ({"image_column": "fil"}, "--image-column: the table has no column 'fil'; did you mean 'file'?"),
        ({"attributes": ["ha"]}, "--attributes: the table has no column 'ha'; did you mean 'hat'?"),
        (
            {"subset_column": "folds"},
            "--split column:folds: the table has no column 'folds'; did you mean 'fold'?",
        ),
        (
            {"group_column": "x"},
            "--group-column: the table has no column 'x'; expected one of: file, hat, fold",
        ),
        ({"tags_column": "hats"}, "--tags-column: the table has no column 'hats'; did you mean 'hat'?"),
        ({"attributes": ["file"]}, "names the images"),
        ({"group_column": "file"}, "names the images"),
    ],
)
def test_columns_that_do_not_exist(tmp_path, flag, words):
    path = write(folder_with(tmp_path), "file,hat,fold\na.jpg,1,x\nb.jpg,0,y\n")
    with pytest.raises(TableError) as error:
        read_table(path, **flag)
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_minus_one(tmp_path):
    celeba = "name Bald Hat\na.jpg -1 1\nb.jpg 1 -1\nc.png -1.0 1\n"
    path = write(folder_with(tmp_path), celeba)
    with pytest.raises(TableError, match=r"-1 .* \(3 times\) and 0 does not.*--minus-one absent.*unknown"):
        read_table(path)
    assert same(read_table(path, minus_one="absent").labels, [[0, 1], [1, 0], [0, 1]])
    assert same(read_table(path, minus_one="unknown").labels, [[NAN, 1], [1, NAN], [NAN, 1]])
    chexpert = write(tmp_path, "name Bald Hat\na.jpg -1 1\nb.jpg 1 0\n", "x.txt")
    assert same(read_table(chexpert).labels, [[NAN, 1], [1, 0]])
    assert same(read_table(chexpert, minus_one="absent").labels, [[0, 1], [1, 0]])


def test_celebas_own_file(tmp_path):
    text = "3\nBald Hat \na.jpg -1  1\nb.jpg  1 -1\nc.png -1  1\n"
    table = read_table(write(folder_with(tmp_path), text), minus_one="absent")
    assert table.attributes == ("Bald", "Hat")
    assert same(table.labels, [[0, 1], [1, 0], [0, 1]])
    with pytest.raises(TableError, match="line 1: the line says that 4 rows follow, the table has 3"):
        read_table(write(tmp_path, text.replace("3\n", "4\n", 1)), minus_one="absent")


def test_a_delimiter_at_the_end_of_each_row(tmp_path):
    table = read_table(write(folder_with(tmp_path), "a.jpg,1,0,\nb.jpg,0,1,\n"))
    assert table.attributes == ("Attr1", "Attr2")
    headed = read_table(write(tmp_path, "f,x,y,\na.jpg,1,0,\nb.jpg,0,1,\n"))
    assert headed.attributes == ("x", "y")
