"""COCO json as a label table."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlcls.errors import TableError
from mlcls.labels.table import read_table


def content() -> dict:
    return {
        "info": {},
        "images": [
            {"id": 7, "file_name": "a.jpg"},
            {"id": 8, "file_name": "sub/b.png"},
            {"id": 9, "file_name": "c.jpg"},
        ],
        "categories": [{"id": 0, "name": "things"}, {"id": 1, "name": "hat"}, {"id": 5, "name": "bag"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 5, "bbox": [0, 0, 1, 1]},
            {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 0, 1, 1]},
            {"id": 3, "image_id": 7, "category_id": 1},
            {"id": 4, "image_id": 8, "category_id": 1},
        ],
    }


@pytest.fixture
def write(tmp_path):
    for name in ("a.jpg", "sub/b.png", "c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def write(coco, name="coco.json"):
        (tmp_path / name).write_text(coco if isinstance(coco, str) else json.dumps(coco))
        return tmp_path / name

    return write


def test_a_category_is_present_where_annotated_and_absent_elsewhere(write):
    table = read_table(write(content()))
    assert table.images.tolist() == ["a.jpg", "sub/b.png", "c.jpg"]
    assert table.attributes == ("hat", "bag")
    np.testing.assert_array_equal(table.labels, [[1, 1], [1, 0], [0, 0]])
    assert table.report.left_out == ("things",)
    assert table.report.rows == 3
    assert table.report.layout.startswith("COCO json")


def test_attributes_choose_categories(write):
    table = read_table(write(content()), attributes=["bag", "things"])
    assert table.attributes == ("bag", "things")
    np.testing.assert_array_equal(table.labels, [[1, 0], [0, 0], [0, 0]])
    with pytest.raises(TableError, match="no category 'bags'; did you mean 'bag'"):
        read_table(write(content()), attributes=["bags"])


def test_images_beside_the_json_or_in_its_images_folder(write, tmp_path):
    path = write(content())
    (tmp_path / "images").mkdir()
    assert read_table(path).images_dir == tmp_path  # images/ is there and empty
    for name in ("a.jpg", "c.jpg", "sub"):
        (tmp_path / name).rename(tmp_path / "images" / name)
    assert read_table(path).images_dir == tmp_path / "images"


def test_every_fault_is_named(write):
    coco = content()
    coco["images"] += [
        {"id": 7, "file_name": "d.jpg"},
        {"file_name": "e.jpg"},
        3,
        {"id": 11, "file_name": " "},
        {"id": 12, "file_name": "../f.jpg"},
    ]
    coco["categories"].append({"id": 6, "name": "hat"})
    coco["annotations"] += [{"image_id": 70, "category_id": 1}, {"image_id": 7, "category_id": None}]
    coco["annotations"] += [{"image_id": 7, "category_id": 99}]
    with pytest.raises(TableError) as error:
        read_table(write(coco))
    for words in (
        "9 faults",
        "images entry 4: 'id' 7 stands twice",
        "images entry 5: expected an object with 'id' and 'file_name'",
        "images entry 6: expected",
        "images entry 7: 'file_name' is empty",
        "images entry 8: '../f.jpg' leads out",
        "categories entry 4: 'name' 'hat' stands twice",
        "annotations entry 5: image_id 70 is not among the images",
        "annotations entry 6: expected",
        "annotations entry 7: category_id 99 is not among the categories",
    ):
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1, column 1: not JSON"),
        ('{"images": [,]}', "line 1, column 13: not JSON"),
        ("[1]", "no list 'images'"),
        ('{"images": [], "annotations": {}, "categories": []}', "no list 'annotations'"),
        ('{"images": [], "annotations": [], "categories": []}', "'images' is empty"),
        ("[" * 100_000, "not JSON that can be read"),
        ('{"images": ' + "1" * 5000 + "}", "not JSON that can be read"),
    ],
)
def test_what_is_no_coco_json(write, text, words):
    with pytest.raises(TableError, match=words.replace("[", r"\[")):
        read_table(write(text))


@pytest.mark.parametrize("flag", ["image_column", "names", "tags_column", "subset_column", "group_column"])
def test_flags_for_columns_are_refused(write, flag):
    with pytest.raises(TableError, match="a COCO json has no columns"):
        read_table(write(content()), **{flag: "a"})


def test_no_image_has_a_category(write):
    with pytest.raises(TableError, match="no annotation gives an image a category"):
        read_table(write(content() | {"annotations": []}))


values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.floats() | st.sampled_from(["a.jpg", "hat", "..", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "file_name", "name", "image_id", "category_id"]), inner)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {part: values | st.lists(values) for part in ("images", "annotations", "categories")}
    )
)
def test_any_json_gives_a_table_or_a_table_error(write, coco):
    try:
        table = read_table(write(coco), max_missing=1)
    except TableError:
        return
    assert table.labels.shape == (len(table.images), len(table.attributes))
