"""Names found on the disk, missing and repeated images, and tables joined into one."""

import numpy as np
import pytest

from mlcls.errors import TableError
from mlcls.labels.table import combine_tables, read_table

NAN = np.nan


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def table_of(folder, text, name="t.txt", **flags):
    (folder / name).write_text(text)
    return read_table(folder / name, **flags)


def test_names_without_extension(tmp_path):
    touch(tmp_path, "a.jpg", "sub/b.PNG", "c.v2.jpeg", "d", "e.jpg", "e.txt", "f.tif", "g.webp")
    names = ["a", "sub/b", "c.v2", "d", "e", "f", "g"]
    table = table_of(tmp_path, "".join(f"{name} 1 0\n" for name in names))
    assert table.images.tolist() == ["a.jpg", "sub/b.PNG", "c.v2.jpeg", "d", "e.jpg", "f.tif", "g.webp"]


def test_a_name_that_fits_two_images(tmp_path):
    touch(tmp_path, "a.jpg", "a.png", "b.jpg")
    with pytest.raises(
        TableError, match=r"line 2: 'a' fits several images: a\.jpg, a\.png; write the extension"
    ):
        table_of(tmp_path, "b 1\na 1\n")


@pytest.mark.parametrize(
    "name",
    ["../a.jpg", "sub/../../a.jpg", "/a.jpg", "C:/a.jpg", "c:a.jpg", "..\\a.jpg", "\\\\host\\a.jpg", ".."],
)
def test_names_that_lead_out_are_refused(tmp_path, name):
    touch(tmp_path, "a.jpg", "images/b.jpg")
    with pytest.raises(TableError, match=r"line 2: .* (leads out of the images folder|is an absolute path)"):
        table_of(tmp_path, f"b.jpg 1 0\n{name} 1 0\n")


def test_ways_to_write_a_path(tmp_path):
    touch(tmp_path, "images/sub/a.jpg", "images/b.jpg", "images/images/c.jpg", "images/c.jpg")
    names = ["sub\\a.jpg", "./b.jpg", "images/c.jpg"]
    table = table_of(tmp_path, "".join(f"{name} 1 0\n" for name in names))
    assert table.images.tolist() == ["sub/a.jpg", "b.jpg", "images/c.jpg"]
    with_own_folder = table_of(tmp_path, "images/b.jpg 1 0\nimages/sub/a 1 0\n")  # no images/images/b.jpg
    assert with_own_folder.images.tolist() == ["b.jpg", "sub/a.jpg"]


def test_where_the_images_are_looked_for(tmp_path):
    touch(tmp_path, "a.jpg", "elsewhere/a.jpg")
    assert table_of(tmp_path, "a 1 0\n").images_dir == tmp_path
    (tmp_path / "images").mkdir()
    with pytest.raises(TableError, match=r"1 of 1 rows have no image in .*images"):
        table_of(tmp_path, "a 1 0\n")
    assert (
        table_of(tmp_path, "a 1 0\n", images_dir=tmp_path / "elsewhere").images_dir == tmp_path / "elsewhere"
    )


def test_missing_images_within_the_limit_are_left_out(tmp_path):
    touch(tmp_path, *(f"{i}.jpg" for i in range(20)))
    text = "".join(f"{i}.jpg {i % 2} g{i}\n" for i in range(22))
    table = table_of(tmp_path, text, names=["x", "who"], group_column="who", subset_column="who")
    assert len(table.images) == len(table.labels) == len(table.groups) == len(table.subsets) == 20
    assert table.report.missing == ("20.jpg", "21.jpg")
    assert table.report.rows == 22
    with pytest.raises(TableError, match=r"2 of 22 rows have no image in .*\('20\.jpg', '21\.jpg'\)"):
        table_of(tmp_path, text, names=["x", "who"], group_column="who", max_missing=0.05)
    with pytest.raises(TableError, match="1 of 1 rows"):  # none at all is never within the limit
        table_of(tmp_path, "z.jpg 1 0\n", max_missing=1)


@pytest.mark.parametrize(
    ("files", "name", "words"),
    [
        (["A.JPG"], "a.jpg", "has 'A.JPG' for 'a.jpg': upper and lower case differ"),
        (["train/a.jpg"], "a.jpg", "say --images .*train"),
        (["a.jpg"], "photos/a.jpg", "without its folder"),
        (["b.jpg"], "a.jpg", "see --images, the folder"),
        (["b.jpg"], "17", r"--image-column where another column names the images \(x\)"),
    ],
)
def test_missing_images_have_a_likely_cause(tmp_path, files, name, words):
    touch(tmp_path, *files)
    with pytest.raises(TableError, match=words):
        table_of(tmp_path, f"file,x\n{name},1\n")


def test_repeated_rows_are_merged(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    text = "name,x,y,z,g\na.jpg,1,NA,NA,p\nb.jpg,1,1,1,q\na,NA,0,NA,\nb.jpg,1,0,NA,q\nc,0,0,0,\na.jpg,1,NA,NA,p\n"
    table = table_of(tmp_path, text, group_column="g")
    assert table.images.tolist() == ["a.jpg", "b.jpg", "c.jpg"]
    np.testing.assert_array_equal(table.labels, [[1, 0, NAN], [1, NAN, 1], [0, 0, 0]])
    assert table.report.rows == 6
    assert table.report.repeated == ("a.jpg", "b.jpg")
    assert table.report.conflicts == ("b.jpg",)
    assert table.report.conflict_attributes == {"b.jpg": ("y",)}
    assert table.groups[:2].tolist() == ["p", "q"]
    with pytest.raises(
        TableError, match=r"line 7: 'a\.jpg' has 'q' for --group-column here and 'p' in line 2"
    ):
        table_of(tmp_path, text[:-2] + "q\n", group_column="g")


def test_rows_without_a_group_share_none(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    table = table_of(tmp_path, "name,x,g\na,1,NA\nb,0,\nc,1,p\nd,1,p\n", group_column="g")
    assert len(set(table.groups.tolist())) == 3


def make_tables(tmp_path, **text):
    tables = {}
    for subset, content in text.items():
        touch(tmp_path / subset, "a.jpg", "b.jpg", "c.jpg")
        tables[subset] = table_of(tmp_path / subset, content)
    return tables


def test_tables_of_their_own_keep_their_folders(tmp_path):
    tables = make_tables(
        tmp_path,
        val="f,y,x\nb.jpg,1,0\n",
        train="f,x,y,note\na.jpg,1,0,hm\nb.jpg,NA,1,hm\nb.jpg,0,0,hm\n",
        test="f,x,y\na.jpg,1,1\nzz.jpg,1,1\n" + "b.jpg,0,0\n" * 10,
    )
    both = combine_tables(tables)
    assert both.images.tolist() == ["train/a.jpg", "train/b.jpg", "val/b.jpg", "test/a.jpg", "test/b.jpg"]
    assert both.subsets.tolist() == ["train", "train", "val", "test", "test"]
    assert both.attributes == ("x", "y")
    np.testing.assert_array_equal(both.labels, [[1, 0], [0, NAN], [0, 1], [1, 1], [0, 0]])
    assert all((both.images_dir / name).is_file() for name in both.images)
    assert both.report.rows == 3 + 1 + 12
    assert both.report.missing == ("test/zz.jpg",)
    assert both.report.repeated == ("train/b.jpg", "test/b.jpg")
    assert both.report.conflict_attributes == {"train/b.jpg": ("y",)}
    assert both.report.metadata == ("note",)
    assert both.report.shared == ()


def test_an_image_of_several_tables_stays_in_the_last(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    tables = {
        "train": table_of(tmp_path, "a 1 0\nb 1 0\nc 0 0\n"),
        "val": table_of(tmp_path, "b 1 1\nd 1 1\n"),
        "test": table_of(tmp_path, "a 0 1\nb 0 1\n"),
    }
    both = combine_tables(tables)
    assert both.images.tolist() == ["c.jpg", "d.jpg", "a.jpg", "b.jpg"]
    assert both.subsets.tolist() == ["train", "val", "test", "test"]
    np.testing.assert_array_equal(both.labels, [[0, 0], [1, 1], [0, 1], [0, 1]])
    assert both.report.shared == ("a.jpg", "b.jpg")
    assert both.images_dir == tmp_path


def test_other_attributes_are_an_error(tmp_path):
    tables = make_tables(tmp_path, train="f,x,y\na.jpg,1,0\n", val="f,x,z\na.jpg,1,0\n")
    with pytest.raises(TableError, match=r"--val-labels .*: x, z; expected those of .*: x, y"):
        combine_tables(tables)
    with pytest.raises(TableError, match="expected some of train, val, test"):
        combine_tables({"valid": tables["val"]})


def test_what_a_table_of_tags_or_a_long_table_does_not_mention(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg")
    tags = {
        "train": table_of(tmp_path, "f,tags\na,x y\nb,x\n", tags_column="tags"),
        "test": table_of(tmp_path, "f,tags\nb,y\n", tags_column="tags"),
    }
    np.testing.assert_array_equal(combine_tables(tags).labels, [[1, 1], [0, 1]])
    long = "f,LabelName,Confidence\n"
    tables = {
        "train": table_of(tmp_path, long + "a,x,1\na,y,0\n"),
        "val": table_of(tmp_path, long + "b,y,1\n"),
    }
    np.testing.assert_array_equal(combine_tables(tables).labels, [[1, 0], [NAN, 1]])


def test_groups_reach_across_tables(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    text = "f,x,g\n{},1,{}\nc,0,\n"
    tables = {
        "train": table_of(tmp_path, text.format("a", "p"), group_column="g"),
        "test": table_of(tmp_path, "f,x\nb,1\n"),
    }
    groups = combine_tables(tables).groups
    assert groups[0] == "p"
    assert len(set(groups.tolist())) == 3
    assert combine_tables({"train": tables["test"]}).groups is None


@pytest.mark.parametrize(
    ("train", "val", "test", "told"),
    [
        ("c", "ab", "ab", "--val-labels also stands in --test-labels; leave --test-labels out"),
        (
            "ab",
            "c",
            "abd",
            "--labels also stands in --test-labels; leave --test-labels out, or give --labels",
        ),
        ("ab", "ab", "", "--labels also stands in --val-labels; leave --val-labels out, or give --labels"),
        (
            "ab",
            "ac",
            "bd",
            "--labels also stands in --val-labels or --test-labels; leave --val-labels and --t",
        ),
    ],
)
def test_a_table_whose_images_all_stand_in_later_ones_is_refused(tmp_path, train, val, test, told):
    touch(tmp_path, *(f"{name}.jpg" for name in "abcd"))
    texts = {"train": train, "val": val, "test": test}
    tables = {
        subset: table_of(tmp_path, "".join(f"{name} 1 0\n" for name in names))
        for subset, names in texts.items()
        if names
    }
    with pytest.raises(TableError) as error:
        combine_tables(tables)
    assert str(error.value).startswith(f"every image of {told}")


def test_notes_of_all_tables_stand_in_the_report(tmp_path):
    text = "f,x,y\n{0}.jpg,1,0\n{1}.jpg,-1,1\n"
    tables = make_tables(tmp_path, train=text.format("a", "b"), val=text.format("a", "b"))
    notes = combine_tables(tables).report.notes
    assert [note.split(":")[:2] for note in notes] == [
        ["--labels", " x holds 1 and -1 but no 0"],
        ["--val-labels", " x holds 1 and -1 but no 0"],
    ]


def test_an_attribute_of_the_first_table_may_be_unknown_throughout_another(tmp_path):
    tables = make_tables(tmp_path, train="f,x,y\na.jpg,1,0\nb.jpg,0,1\n", val="f,x,y\na.jpg,1,NA\nb.jpg,0,\n")
    both = combine_tables(tables)
    np.testing.assert_array_equal(both.labels, [[1, 0], [0, 1], [1, NAN], [0, NAN]])
    assert both.report.unknown == ("y",)


@pytest.mark.parametrize("name", ["/data/images/a.jpg", "C:\\images\\a.jpg"])
def test_an_absolute_path_is_called_one(tmp_path, name):
    touch(tmp_path, "a.jpg")
    with pytest.raises(TableError, match="is an absolute path; names are relative to the images folder"):
        table_of(tmp_path, f"{name} 1 0\n")
