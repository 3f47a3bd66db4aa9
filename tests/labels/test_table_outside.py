"""Nothing that a table names, and no link in its folder, leads out of the images folder."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlcls.errors import TableError
from mlcls.labels.table import combine_tables, read_table

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")


def images(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A table's folder with two images, and a file outside of it."""
    images(tmp_path / "data" / "images", "a.jpg", "deep/b.jpg")
    images(tmp_path, "secret.jpg", "images-2/c.jpg")
    return tmp_path / "data"


def table(place: Path, *names: str) -> Path:
    path = place / "labels.csv"
    path.write_text("image,hat\n" + "".join(f"{name},{i % 2}\n" for i, name in enumerate(names)))
    return path


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("../../secret.jpg", "link.jpg"),
        ("../../secret.jpg", "link"),  # the table leaves the extension out
        ("../../images-2/c.jpg", "link.jpg"),  # beside it, and its name begins with that of the folder
        ("ABSOLUTE", "link.jpg"),
        ("deep/../../../secret.jpg", "link.jpg"),
    ],
)
def test_a_link_that_leads_out_is_refused(place: Path, target: str, name: str) -> None:
    target = str(place.parent / "secret.jpg") if target == "ABSOLUTE" else target
    (place / "images" / "link.jpg").symlink_to(target)
    with pytest.raises(TableError, match=r"line 3: 'link.jpg' leads out of the images folder through a link"):
        read_table(table(place, "a.jpg", name))


def test_a_link_to_a_link_that_leads_out_is_refused(place: Path) -> None:
    (place / "images" / "deep" / "second.jpg").symlink_to("../../../secret.jpg")
    (place / "images" / "first.jpg").symlink_to("deep/second.jpg")
    with pytest.raises(TableError, match=r"'first.jpg' leads out of"):
        read_table(table(place, "a.jpg", "first.jpg"))


def test_a_folder_that_leads_out_is_refused(place: Path) -> None:
    (place / "images" / "more").symlink_to("../../images-2")
    with pytest.raises(
        TableError, match=r"line 3: 'more' leads out of the images folder through a link, to "
    ):
        read_table(table(place, "a.jpg", "more/c.jpg"))


def test_links_that_stay_inside_are_images_like_others(place: Path) -> None:
    (place / "images" / "link.jpg").symlink_to("deep/b.jpg")
    (place / "images" / "more").symlink_to("deep")
    found = read_table(table(place, "a.jpg", "link.jpg", "more/b.jpg"))
    assert found.images.tolist() == ["a.jpg", "link.jpg", "more/b.jpg"]


def test_the_images_folder_may_be_a_link_itself(place: Path) -> None:
    (place / "images" / "link.jpg").symlink_to("deep/b.jpg")
    (place.parent / "elsewhere").symlink_to("data/images")
    found = read_table(table(place, "a.jpg", "link.jpg"), place.parent / "elsewhere")
    assert found.images.tolist() == ["a.jpg", "link.jpg"]


def test_a_link_that_no_row_names_is_nobody_s_fault(place: Path) -> None:
    (place / "images" / "link.jpg").symlink_to("../../secret.jpg")
    assert read_table(table(place, "a.jpg", "deep/b.jpg")).images.tolist() == ["a.jpg", "deep/b.jpg"]


def test_links_in_a_circle_and_to_nothing_are_missing_and_hide_no_other(place: Path) -> None:
    (place / "images" / "0.jpg").symlink_to("0.jpg")
    (place / "images" / "1.jpg").symlink_to("nowhere.jpg")
    images(place / "images", *(f"{i}.jpg" for i in range(2, 12)))
    found = read_table(table(place, *(f"{i}.jpg" for i in range(12))), max_missing=0.5)
    assert found.report.missing == ("0.jpg", "1.jpg")
    assert len(found.images) == 10


def test_devices_and_pipes_are_no_images(place: Path) -> None:
    os.mkfifo(place / "images" / "pipe.jpg")
    (place / "images" / "zero.jpg").symlink_to("/dev/zero")
    found = read_table(table(place, "a.jpg", "pipe.jpg", "zero.jpg"), max_missing=0.9)
    assert found.report.missing == ("pipe.jpg", "zero.jpg")


def test_devices_and_pipes_are_no_tables(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "labels.csv")
    for path in (tmp_path / "labels.csv", Path("/dev/zero")):
        with pytest.raises(TableError, match=r"a device or a pipe; --labels expects the label table, a file"):
            read_table(path)


OUTSIDE = (
    "../secret.jpg", "images/../../secret.jpg", "deep/../../../secret.jpg", "..", "../", "/etc/hostname",
    "//server/share/x.jpg", "\\\\server\\share\\x.jpg", "..\\..\\secret.jpg", "C:\\x.jpg", "c:x.jpg",
)  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out_are_refused_in_every_kind_of_table(place: Path, name: str) -> None:
    quoted = '"' + name + '"'
    (place / "long.csv").write_text(
        f"ImageID,Source,LabelName,Confidence\n{quoted},x,hat,1\na.jpg,x,hat,0\ndeep/b.jpg,x,hat,1\n"
    )
    (place / "tags.csv").write_text(f"image,tags\na.jpg,hat\n{quoted},bag\n")
    coco = {
        "images": [{"id": 0, "file_name": "a.jpg"}, {"id": 1, "file_name": name}],
        "annotations": [{"image_id": 0, "category_id": 0}],
        "categories": [{"id": 0, "name": "hat"}],
    }
    (place / "coco.json").write_text(json.dumps(coco))
    refused = r"is an absolute path|leads out of the images folder"
    frame = pd.DataFrame({"image": ["a.jpg", name], "hat": [0, 1]})
    frame.to_parquet(place / "table.parquet")
    for path in ("long.csv", "coco.json", "table.parquet"):
        with pytest.raises(TableError, match=refused):
            read_table(place / path, place / "images")
    with pytest.raises(TableError, match=refused):
        read_table(place / "tags.csv", tags_column="tags")
    with pytest.raises(TableError, match=refused):
        read_table(frame, place / "images")
    with pytest.raises(TableError, match=refused):
        read_table(table(place, "a.jpg", quoted))


def objects(columns: tuple[str, ...], *rows: list[object]) -> pd.DataFrame:
    """A DataFrame of Python's own objects: pandas' strings refuse some that these take."""
    return pd.DataFrame(list(rows), columns=pd.Index(columns, dtype=object), dtype=object)


@pytest.mark.parametrize("character", ["\0", "\x1b", "\x7f", "\ud800"])
def test_names_that_no_file_or_terminal_should_be_given(place: Path, character: str) -> None:
    name = f"a{character}]0;.jpg"
    with pytest.raises(
        TableError, match=r"row 2: '[^\0\x1b\x7f\ud800]*' holds \\[xu]\w+, which no image's name"
    ):
        read_table(objects(("image", "hat"), ["a.jpg", 0], [name, 1]), place / "images")
    with pytest.raises(TableError, match=r"the column '[^\0\x1b\x7f\ud800]*' holds"):
        read_table(objects(("image", f"h{character}t"), ["a.jpg", 0]), place / "images")
    coco = {
        "images": [{"id": 0, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 0, "category_id": 0}],
        "categories": [{"id": 0, "name": f"h{character}t"}],
    }
    (place / "coco.json").write_text(json.dumps(coco))
    with pytest.raises(TableError, match=r"the attribute '[^\0\x1b\x7f\ud800]*' holds"):
        read_table(place / "coco.json")


def test_line_breaks_and_letters_of_all_kinds_are_fine(place: Path) -> None:
    names = ["two\nlines.jpg", "tab\t.jpg", "grün.jpg", "狐.jpg", "\U0001f98a.jpg", "no\u00a0break.jpg"]
    images(place / "images", *names)
    found = read_table(pd.DataFrame({"image": names, "two\nlines": [0, 1] * 3}), place / "images")
    assert found.images.tolist() == names
    assert found.attributes == ("two\nlines",)


def test_tables_of_their_own_are_held_to_the_same(place: Path) -> None:
    """Joined tables name images from the folder that holds both; a row of one still reaches into no other's."""
    first = read_table(table(place, "a.jpg", "deep/b.jpg"))
    other = place.parent / "val"
    images(other / "images", "a.jpg")
    second = read_table(table(other, "a.jpg"))
    joined = combine_tables({"train": first, "val": second})
    assert sorted(joined.images) == ["data/images/a.jpg", "data/images/deep/b.jpg", "val/images/a.jpg"]
    with pytest.raises(TableError, match="leads out"):
        read_table(table(other, "a.jpg", "../../data/images/a.jpg"))
    assert np.array_equal(joined.labels, np.array([[0], [1], [0]], np.float32))
