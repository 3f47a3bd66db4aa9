"""The table reader under fire: what is written is read back, and any bytes are a table or a TableError."""

import csv
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from reliability.fuzz_tables import COCO, IMAGES, PARQUET, WAYS, make_folder, mutate, read_bytes, seeds

from mlcls.errors import TableError
from mlcls.labels.frames import _DAMAGED
from mlcls.labels.source import MOST_CELLS, check_cells
from mlcls.labels.split import Split, read_split, write_split
from mlcls.labels.table import read_table

NAN = np.nan
QUICK = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield make_folder(Path(name))


# Tables that are written and read back

SAID = {1.0: ("1", "1.0", "true", "YES", "Present"), 0.0: ("0", "0.0", "False", "no", "absent")}
UNKNOWN = ("NA", "n/a", "NaN", "null", "None", "?", "-1", "")
# words of columns: no label values, no numbers, no names of files, none that another layout is known by
words = st.text("abcdefghé狐 _-.,;|'\"", min_size=1, max_size=8).map(str.strip).filter(
    lambda word: bool(word.strip(" _-.,;|'\"")) and not word.lower().endswith(".jpg")
)  # fmt: skip
NO_COLUMNS = {*(word for several in SAID.values() for word in several), *UNKNOWN, "image", "error", "tags"}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[str], np.ndarray[Any, Any]]:
    """Names of images, of attributes, and labels [N, A] with at least one that is 0."""
    names = draw(st.lists(words, min_size=1, max_size=6, unique_by=lambda word: word.lower()))
    images = [f"{name}.jpg" for name in names]
    attributes = draw(
        st.lists(
            words.filter(lambda word: word.lower() not in {w.lower() for w in NO_COLUMNS}),
            min_size=1,
            max_size=4,
            unique=True,
        )
    )
    cells = st.sampled_from([0.0, 1.0, NAN])
    rows = st.lists(cells, min_size=len(attributes), max_size=len(attributes))
    labels = np.array(draw(st.lists(rows, min_size=len(images), max_size=len(images))), np.float32)
    labels[0, :] = draw(
        st.lists(st.sampled_from([0.0, 1.0]), min_size=len(attributes), max_size=len(attributes))
    )
    labels[0, 0] = 0.0
    return images, attributes, labels


def said(value: float, draw: st.DrawFn) -> str:
    return draw(st.sampled_from(UNKNOWN if np.isnan(value) else SAID[float(value)]))


def images_in(place: Path, images: list[str]) -> Path:
    for image in images:
        (place / "images" / image).parent.mkdir(parents=True, exist_ok=True)
        (place / "images" / image).touch()
    return place


@QUICK
@given(
    st.data(),
    tables(),
    st.sampled_from(",;\t| "),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
    st.booleans(),
)
def test_a_wide_table_is_read_back(data, table, separator, line_break, mark, headed) -> None:
    images, attributes, labels = table
    with tempfile.TemporaryDirectory() as name:
        place = images_in(Path(name), images)
        buffer = io.StringIO()
        writer = csv.writer(buffer, delimiter=separator, lineterminator=line_break, quoting=csv.QUOTE_ALL)
        if headed:
            writer.writerow(["image", *attributes])
        for image, row in zip(images, labels, strict=True):
            writer.writerow([image, *(said(value, data.draw) for value in row)])
        text = buffer.getvalue()
        if data.draw(st.booleans()):
            text = text.removesuffix(line_break)
        (place / "labels.txt").write_bytes((b"\xef\xbb\xbf" if mark else b"") + text.encode())
        found = read_table(place / "labels.txt", attributes=attributes if headed else None)
    assert found.images.tolist() == images
    assert np.array_equal(found.labels, labels, equal_nan=True)
    expected = tuple(attributes) if headed else tuple(f"Attr{i + 1}" for i in range(len(attributes)))
    assert found.attributes == expected


@QUICK
@given(tables())
def test_a_frame_and_its_parquet_are_read_back(table) -> None:
    images, attributes, labels = table
    frame = pd.DataFrame({"image": images} | {a: labels[:, i] for i, a in enumerate(attributes)})
    with tempfile.TemporaryDirectory() as name:
        place = images_in(Path(name), images)
        frame.to_parquet(place / "labels.parquet")
        for source in (frame, place / "labels.parquet"):
            found = read_table(source, place / "images", attributes=attributes)
            assert found.images.tolist() == images
            assert np.array_equal(found.labels, labels, equal_nan=True)


@QUICK
@given(tables())
def test_a_long_table_is_read_back(table) -> None:
    images, attributes, labels = table
    with tempfile.TemporaryDirectory() as name:
        place = images_in(Path(name), images)
        with open(place / "labels.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerow(["ImageID", "Source", "LabelName", "Confidence"])
            for row, column in np.argwhere(~np.isnan(labels)):
                writer.writerow([images[row], "x", attributes[column], int(labels[row, column])])
        found = read_table(place / "labels.csv", attributes=attributes)
    rows = [images.index(image) for image in found.images]
    assert np.array_equal(found.labels, labels[rows], equal_nan=True)
    assert np.isnan(np.delete(labels, rows, axis=0)).all()  # what no row says is unknown


@QUICK
@given(tables())
def test_coco_and_tags_are_read_back(table) -> None:
    """Both know present and absent alone."""
    images, attributes, labels = table
    present = np.nan_to_num(labels)
    with tempfile.TemporaryDirectory() as name:
        place = images_in(Path(name), images)
        coco = {
            "images": [{"id": i, "file_name": image} for i, image in enumerate(images)],
            "annotations": [
                {"image_id": int(r), "category_id": int(c)} for r, c in np.argwhere(present == 1)
            ],
            "categories": [{"id": i, "name": attribute} for i, attribute in enumerate(attributes)],
        }
        (place / "coco.json").write_text(json.dumps(coco), encoding="utf-8")
        tags = [str([a for a, has in zip(attributes, row, strict=True) if has]) for row in present]
        frame = pd.DataFrame({"image": images, "tags": tags})
        frame.to_csv(place / "tags.csv", index=False, quoting=csv.QUOTE_ALL)
        found = read_table(place / "coco.json", attributes=attributes)
        assert found.images.tolist() == images
        assert np.array_equal(found.labels, present)
        seen = sorted(a for a, shown in zip(attributes, present.any(axis=0), strict=True) if shown)
        if not seen:
            with pytest.raises(TableError, match="no tag at all"):
                read_table(place / "tags.csv", tags_column="tags")
            return
        found = read_table(place / "tags.csv", tags_column="tags")
    assert found.images.tolist() == images
    assert found.attributes == tuple(seen)
    assert np.array_equal(found.labels, present[:, [attributes.index(name) for name in seen]])


@QUICK
@given(st.lists(st.tuples(words, st.integers(0, 2)), min_size=2, max_size=8, unique_by=lambda pair: pair[0]))
def test_a_split_is_read_back(rows) -> None:
    rows = [(rows[0][0], 0), (rows[1][0], 1), *rows[2:]]
    images = [name for name, _ in rows]
    parts = [
        np.array([i for i, (_, part) in enumerate(rows) if part == wanted], np.intp) for wanted in range(3)
    ]
    with tempfile.TemporaryDirectory() as name:
        write_split(Path(name) / "split.csv", images, Split(*parts))
        found = read_split(Path(name) / "split.csv", images)
    assert all(np.array_equal(a, b) for a, b in zip(parts, (found.train, found.val, found.test), strict=True))


# Any bytes


@settings(QUICK, max_examples=150)
@given(st.integers(0, len(WAYS) - 1), st.binary(max_size=300))
@example(COCO, b"[" * 100_000)
@example(COCO, b'{"images":' * 20_000)
@example(COCO, b'{"images":[{"id":' + b"9" * 5000 + b',"file_name":"a.jpg"}]}')
@example(COCO, b'{"images":[{"id":NaN,"file_name":"\\ud800.jpg"}],"annotations":[],"categories":[]}')
@example(0, b'"' * 5000)
@example(0, b"a.jpg 1\n" + b"\xff" * 3000)
def test_any_bytes(folder: Path, way: int, content: bytes) -> None:
    assert read_bytes(bytes([way]) + content, folder) in ("table", "refused")


PIECES = st.sampled_from(
    [*(",", ";", "|", " ", "\t", "\n", "\r\n", '"', '""', "'", "[", "]", "\\", "\0", "\ufeff", "\u2028", "é"),
     *("1", "0", "-1", "NA", "yes", "image", "hat", "tags", "LabelName", "Confidence", "a.jpg", "b.jpg", "..", "x")]
)  # fmt: skip


@settings(QUICK, max_examples=150)
@given(st.integers(0, len(WAYS) - 1), st.lists(PIECES, max_size=40).map("".join))
def test_any_text_that_looks_like_a_table(folder: Path, way: int, content: str) -> None:
    assert read_bytes(bytes([way]) + content.encode(), folder) in ("table", "refused")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["a.jpg", "hat", "..", "\0", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "file_name", "name"]), inner),
    max_leaves=6,
)  # fmt: skip
entries = st.lists(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("id", "file_name", "name", "image_id", "category_id"), plain)
    )
    | plain,
    max_size=3,
)


@settings(QUICK, max_examples=150)
@given(st.fixed_dictionaries({"images": entries, "annotations": entries, "categories": entries}))
def test_any_json_in_the_place_of_coco(folder: Path, content: dict[str, Any]) -> None:
    assert read_bytes(bytes([COCO]) + json.dumps(content).encode(), folder) in ("table", "refused")


@settings(QUICK, max_examples=200)
@given(st.randoms(use_true_random=False))
def test_tables_with_a_few_changes(folder: Path, chance: Any) -> None:
    pool = seeds()
    case = mutate(chance.choice(pool), pool, chance)
    assert read_bytes(case, folder) in ("table", "refused")


# What fuzzing found


@pytest.mark.parametrize("key", [b"pandas_type", b"numpy_type", b"columns", b"index_columns", b'"kind"'])
def test_what_pandas_wrote_of_itself_into_parquet_and_was_changed(folder: Path, key: bytes) -> None:
    """Without a key that pandas looks up, it raises a KeyError; with another type's name, a TypeError."""
    frame = pd.DataFrame({"image": ["a.jpg", "b.jpg"], "hat": [1, 0]})
    data = io.BytesIO()
    frame.to_parquet(data)
    changed = data.getvalue().replace(key, key[:-2] + b"X" + key[-1:])
    assert read_bytes(bytes([PARQUET]) + data.getvalue(), folder) == "table"
    assert read_bytes(bytes([PARQUET]) + changed, folder) in ("table", "refused")
    assert issubclass(KeyError, _DAMAGED)
    other = data.getvalue().replace(b'"object"', b'"kbject"')
    assert read_bytes(bytes([PARQUET]) + other, folder) in ("table", "refused")


def test_labels_that_no_memory_holds_are_refused(folder: Path) -> None:
    check_cells(MOST_CELLS // 1000, 1000, "t.csv")
    with pytest.raises(
        TableError, match=r"t.csv: 1,000,000 rows and 500,000 attributes are 2,000 GB of labels"
    ):
        check_cells(1_000_000, 500_000, "t.csv")


def test_more_tags_and_images_than_any_matrix_holds(tmp_path: Path) -> None:
    """A megabyte or two of text that would become terabytes."""
    make_folder(tmp_path)
    rows = "".join(f"a{i},t{i}\n" for i in range(70_000))
    (tmp_path / "tags.csv").write_text("image,tags\n" + rows)
    with pytest.raises(TableError, match="more than this program takes"):
        read_table(tmp_path / "tags.csv", tags_column="tags")
    long = "".join(f"a{i},x,t{i},1\n" for i in range(70_000))
    (tmp_path / "long.csv").write_text("ImageID,Source,LabelName,Confidence\n" + long)
    with pytest.raises(TableError, match="more than this program takes"):
        read_table(tmp_path / "long.csv")


def test_the_cases_are_what_they_are_called(folder: Path) -> None:
    """So that the fuzzing is not all of refusals."""
    outcomes = [read_bytes(case, folder) for case in seeds()]
    assert outcomes.count("table") >= len(outcomes) - 2, outcomes
    assert all((folder / "images" / name).is_file() for name in IMAGES)
