"""What is wrong with a table is told all at once, by line and column, and never as another exception."""

import os
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlcls.errors import RecipeError, TableError
from mlcls.labels.faults import Faults
from mlcls.labels.lines import read_blocks
from mlcls.labels.table import read_table


@pytest.fixture
def write(tmp_path):
    for name in "abcdefgh":
        (tmp_path / f"{name}.jpg").touch()

    def write(content, name="labels.csv") -> Path:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path / name

    return write


def fails(path, **flags) -> str:
    with pytest.raises(TableError) as error:
        read_table(path, **flags)
    return str(error.value)


def test_every_fault_in_one_report(write):
    path = write(
        "file,hat,bag\n"
        "a.jpg,1,0\n"
        "\n"
        "b.jpg,1\n"  # 4
        "c.jpg,maybe,0\n"  # 5
        "d.jpg,1,0,1\n"  # 6
        "../e.jpg,0,1\n"  # 7
        ",0,1\n"  # 8
        "f.jpg,2,x\n"  # 9
        "g.jpg,1,1\n"
        "h.jpg,1,1\n"
    )
    told = fails(path).splitlines()
    assert told[0] == f"{path}: 7 faults"
    assert told[1:8] == [
        "  line 4: 2 cells, where the other rows have 3",
        "  line 5, column 'hat': 'maybe' is not a label",
        "  line 6: 4 cells, where the other rows have 3",
        "  line 7: '../e.jpg' leads out of the images folder; write names relative to --images",
        "  line 8: the image's name is empty",
        "  line 9, column 'hat': '2' is not a label",
        "  line 9, column 'bag': 'x' is not a label",
    ]
    assert "1 or 0, true or false" in told[-1]


def test_twenty_faults_and_how_many_more(write):
    lines = [f"a.jpg,{'maybe' if i % 2 else 1},1" for i in range(100)] + ["a.jpg,1"] * 30 + ["../x,1,1"] * 25
    told = fails(write("\n".join(["file,hat,bag", *lines])))
    assert f"{50 + 30 + 25} faults" in told
    assert "... and 85 more" in told
    shown = [line for line in told.splitlines() if line.startswith("  line")]
    assert len(shown) == 20
    assert shown[0].startswith("  line 3,")
    assert shown[-1].startswith("  line 41,")


def test_lines_are_counted_far_into_a_large_file(write):
    rows = [f"{'abcdefgh'[i % 8]}.jpg, 1,0" for i in range(60_000)]
    rows[45_678] = "a.jpg, 1,0,0"
    rows[51_234] = "b.jpg, 1,nay"
    text = "\n".join(["file, hat, bag", *rows])
    told = fails(write(text))
    assert "2 faults" in told
    assert "line 45680: 4 cells" in told
    assert "line 51236, column 'bag': 'nay'" in told
    told = fails(write(text.replace("file, hat", '"fi\nle", "ha\nt"', 1).replace("\n", "\r\n")))
    assert "line 45682: 4 cells" in told
    assert "line 51238, column 'bag': 'nay'" in told


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the table is empty"),
        (b"\xef\xbb\xbf", "the table is empty"),
        (b"\n \n\t\n", "the table is empty"),
        (b"file,hat\n", "no rows"),
        (b"a.jpg\nb.jpg\n", "line 1: one cell a row \\('a.jpg'\\)"),
        (
            b"file,hat\na.jpg,1\nb\xe9.jpg,1\n",
            r"line 3: byte 0xe9 is not UTF-8 \(save the table as CSV in UTF-8\)",
        ),
        (b"file,hat\na.jpg,1\nb\0.jpg,1\n", "line 3: a NUL byte"),
        ("file,hat\na.jpg,1\n".encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04" + bytes(100), "a spreadsheet"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "an image, not a table"),
        (bytes(range(1, 256)) * 40, "line"),
        (b'file,hat\na.jpg,1\n"b.jpg,1\nc.jpg,1\n', "line 3: a quotation mark"),
        (b'file,hat\n"a.jpg",1\nb.jpg,"1" 0\n', "line 3: a quotation mark"),
        (b'"', "line 1: one cell"),
        (b'"file,hat\na.jpg,1\n', "line 1: a quotation mark"),
        (b'file,hat\na.jpg,1\nb.jpg,"1\nc.jpg,"0"\n', "line 3: a quotation mark"),
        (b"file,hat,hat\na.jpg,1,0\n", "the header has the column 'hat' 2 times"),
        (b"file,hat\na.jpg,1,0\nb.jpg,1,1\n", "line 1: the header has 2 cells and the rows have 3"),
        (b"file,age\na.jpg,31\nb.jpg,55\n", "no column holds labels \\(columns: 'file', 'age'\\)"),
    ],
)
def test_files_that_are_no_table(write, content, words):
    path = write(content)
    with pytest.raises(TableError, match=words) as error:
        read_table(path)
    assert str(path) in str(error.value)


def test_rows_of_nothing_are_blank(write):
    table = read_table(write("file,hat,bag\na.jpg,1,0\n,,\n , ,\n\nb.jpg,0,1\n,\n"))
    assert table.images.tolist() == ["a.jpg", "b.jpg"]
    assert "line 3" in fails(write("file,hat,bag\na.jpg,1,0\n,1,0\n,,\n"))


def test_tables_put_one_behind_the_other_with_their_marks(write):
    table = read_table(write("\ufeffa.jpg,1\n\ufeffb.jpg,0\n"))
    assert table.images.tolist() == ["a.jpg", "b.jpg"]


def test_every_line_that_is_not_utf_8(write):
    told = fails(write(b"file,note,hat\na.jpg,\xe9,1\nb.jpg,x,0\nc.jpg,\xfc,1\nd.jpg,,x\n"))
    assert "3 faults" in told
    assert "line 2: byte 0xe9 is not UTF-8" in told
    assert "line 4: byte 0xfc is not UTF-8" in told
    assert "line 5, column 'hat'" in told


def test_a_file_that_is_not_there(tmp_path):
    assert "no such file; give the label table with --labels" in fails(tmp_path / "no.csv")
    assert "a folder" in fails(tmp_path)
    assert "cannot be read" in fails("nul\0.csv")
    assert "--images: no folder" in fails("x.csv", images_dir=tmp_path / "none")
    for suffix in ("json", "parquet"):
        assert "no such file" in fails(tmp_path / f"no.{suffix}")
        (tmp_path / f"folder.{suffix}").mkdir()
        assert "a folder" in fails(tmp_path / f"folder.{suffix}")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind here")
def test_a_file_that_may_not_be_read(write):
    path = write("a.jpg,1\n")
    path.chmod(0)
    assert "cannot be read" in fails(path)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"minus_one": "maybe"}, "--minus-one: 'maybe' is not a meaning; say absent or unknown"),
        ({"tags_separator": ","}, "--tags-separator: which column"),
        ({"max_missing": 2}, "max_missing: 2"),
        ({"attributes": ["x", "x"]}, "--attributes: 'x' stands twice"),
        ({"names": ""}, "--names: an empty name"),
        ({"names": []}, "--names: no name"),
    ],
)
def test_flags_that_cannot_be(write, flags, words):
    with pytest.raises(RecipeError) as error:
        read_table(write("a.jpg,1\n"), **flags)
    assert words in str(error.value)


FRAGMENTS = st.sampled_from(
    [
        *"a.jpg b 1 0 NA , ; | \" .. / -1 name ['x'] é LabelName Confidence [ ' \x1a".encode().split(b" "),
        b" ",
        b"\t",
        b"\n",
        b"\r",
        b"\r\n",
        b"\xff",
        b"\0",
        b"\xef\xbb\xbf",
    ]
)


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200) | st.lists(FRAGMENTS, max_size=60).map(b"".join),
    st.sampled_from(
        [{}, {"tags_column": "name"}, {"minus_one": "absent", "group_column": "name"}, {"names": ["x"]}]
    ),
    st.sampled_from(["t.csv", "t.json", "t"]),
)
def test_any_bytes_give_a_table_or_a_table_error(write, content, flags, name):
    try:
        table = read_table(write(content, name), max_missing=1, **flags)
    except TableError:
        return
    assert table.labels.shape == (len(table.images), len(table.attributes))
    assert len(set(table.images.tolist())) == len(table.images) > 0
    assert np.isin(table.labels[~np.isnan(table.labels)], [0, 1]).all()


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["a,1", '"b,\n""",0', "", '"c\n\nd",é', "日,x", "long" * 20 + ",1"]), min_size=1
    ),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.integers(1, 90),
)
def test_blocks_of_any_size_are_the_same_rows(write, rows, end, size):
    path = write("".join(row + "\n" for row in rows).replace("\n", end))
    faults = Faults("t")
    blocks = list(read_blocks(path, quoting=True, faults=faults, size=size))
    assert not faults.total
    assert b"".join(block for _, block in blocks).decode() == "".join(row + "\n" for row in rows)
    line = 1
    for start, block in blocks:
        assert start == line
        assert block.count(b'"') % 2 == 0  # a row is never cut inside its quotation marks
        assert block.endswith(b"\n")
        line += block.count(b"\n")


NAME = st.text(string.ascii_letters + string.digits + "éß日_-. ,;'|()", min_size=1, max_size=8).filter(
    lambda name: (
        name == name.strip() and name.strip(".") and name.lower() not in ("na", "nan", "null", "none")
    )
)
WORDS = {1.0: ["1", "yes", "True", "1.0"], 0.0: ["0", "no", "ABSENT"], None: ["NA", "?", "", "-1"]}


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_table_written_is_read_back(tmp_path, data):
    draw = data.draw
    names = [f"{name}.jpg" for name in draw(st.lists(NAME, min_size=1, max_size=6, unique_by=str.lower))]
    columns = draw(st.lists(NAME, min_size=1, max_size=4, unique_by=str.lower))
    values = [[draw(st.sampled_from([1.0, 0.0, None])) for _ in columns] for _ in names]
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))

    def cell(text: str) -> str:
        return f'"{text}"' if any(mark in text for mark in ' ,;"|') or draw(st.booleans()) else text

    lines = [["the image", *(f"{name} x" for name in columns)]]
    for name, row in zip(names, values, strict=True):
        lines.append([name, *(draw(st.sampled_from(WORDS[value])) for value in row)])
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    text = end.join(delimiter.join(map(cell, line)) for line in lines) + draw(st.sampled_from([end, ""]))
    (folder / "t").write_bytes(text.encode())
    # a column without a known label is no attribute by itself
    attributes = [f"{name} x" for name in columns]
    table = read_table(folder / "t", minus_one="unknown", attributes=attributes)
    assert table.images.tolist() == names
    assert table.attributes == tuple(f"{name} x" for name in columns)
    wanted = np.array([[np.nan if value is None else value for value in row] for row in values], np.float32)
    np.testing.assert_array_equal(table.labels, wanted)


CELEBA = "image,a,b,is_checked\na.jpg,1,-1,1\nb.jpg,-1,1,0\n"


def test_columns_of_1_and_minus_1_beside_one_of_0_are_noted(write):
    table = read_table(write(CELEBA))
    assert table.report.notes == (
        "a, b hold 1 and -1 but no 0: -1 was read as unknown; "
        "if it means absent there, say --minus-one absent",
    )
    for meaning in ("absent", "unknown"):
        assert read_table(write(CELEBA), minus_one=meaning).report.notes == ()
    assert read_table(write(CELEBA), attributes=["is_checked"]).report.notes == ()
    assert read_table(write("image,a,b\na.jpg,1,0\nb.jpg,-1,1\nc.jpg,0,-1\n")).report.notes == ()
    assert "0 does not: say what -1 means" in fails(write(CELEBA), attributes=["a", "b"])


def test_a_column_of_minus_1_alone_is_noted_and_asked_about(write):
    table = read_table(write("image,a,b\na.jpg,-1,1\nb.jpg,-1,0\n"))
    assert table.attributes == ("b",)
    assert table.report.notes[0].startswith("a holds -1 and no known label")
    assert "say what -1 means" in fails(write("image,a\na.jpg,-1\nb.jpg,-1\n"))
    assert read_table(write("image,a\na.jpg,-1\nb.jpg,-1\n"), minus_one="absent").attributes == ("a",)


def test_a_column_without_a_known_label_is_metadata_unless_asked_for(write):
    path = write("image,hat,note,bag\na.jpg,1,,NA\nb.jpg,0,,?\n")
    report = read_table(path).report
    assert read_table(path).attributes == ("hat",)
    assert (report.metadata, report.unknown) == (("note", "bag"), ("note", "bag"))
    assert read_table(path, attributes=["hat", "bag"]).attributes == ("hat", "bag")
    assert "no label is known: 'hat' is unknown in every row" in fails(write("image,hat\na.jpg,NA\nb.jpg,\n"))


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("file,image,hat", "image"),
        ("file,hat,error", "error"),
        ("file,hat,hat_probability", "hat_probability"),
    ],
)
def test_attributes_that_predictions_could_not_tell_apart_are_refused(write, header, name):
    path = write(f"{header}\na.jpg,1,0\nb.jpg,0,1\n")
    told = fails(path)
    assert f"the attribute '{name}' is called as" in told
    assert "give it another name in the table, or choose the attributes with --attributes" in told
    other = next(column for column in header.split(",")[1:] if column != name)
    assert read_table(path, attributes=[other]).attributes == (other,)


def test_a_column_called_as_the_stand_in_of_an_empty_header_cell_is_read(write):
    path = write("image,column 2,hat,\na.jpg,1,0,0\nb.jpg,0,1,1\n")
    table = read_table(path)
    assert table.attributes == ("column 2", "hat")
    assert table.report.metadata == ("column 4",)


def test_the_missing_column_of_a_split_is_named_without_two_colons(write):
    told = fails(write("image,hat,part\na.jpg,1,train\n"), subset_column="fold")
    assert "--split column:fold: the table has no column 'fold'" in told


def test_cells_that_are_no_labels_come_with_a_remedy_told_once(write):
    path = write("image,hat,fold,age\na.jpg,1,0,1\nb.jpg,0,1,0\nc.jpg,0,2,9\n")
    told = fails(path)
    assert told.count("--attributes") == told.count("--split column:NAME") == 1
    assert "--attributes" not in fails(path, attributes=["fold"])


@pytest.mark.parametrize("header", ["", "image hat bag\n", "image - hat bag\n"])
def test_names_that_whitespace_tears_are_recognised(write, header, tmp_path):
    text = f"{header}P 0.JPG 0 0\nP 1.JPG 0 1\nP 2.JPG 1 1\n"
    told = fails(write(text, "t.txt"))
    assert f"line {2 if header else 1}: 'P 0.JPG' is read as 2 cells" in told
    assert "quote names that hold spaces, or put commas between cells; where another column" in told
    (tmp_path / "P 0.JPG").touch()
    assert fails(write(text, "t.txt")).endswith("quote names that hold spaces, or put commas between cells")


def test_images_of_another_column_than_the_first_are_no_torn_names(write):
    path = write("id file hat\n7 a.jpg 1\n8 b.jpg 0\n", "t.txt")
    assert read_table(path, image_column="file").attributes == ("hat",)
    path = write("id mask hat\na m0.png 1\nb m1.png 0\n", "t.txt")
    assert read_table(path).images.tolist() == ["a.jpg", "b.jpg"]
