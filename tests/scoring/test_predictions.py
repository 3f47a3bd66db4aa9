"""Predictions written to a real file and read back, whole or with one thing wrong."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcls.errors import BundleError, OutputError
from mlcls.scoring.predictions import Predictions, read_predictions, write_predictions

nan = np.nan
TEXT = st.text(st.sampled_from(',"\r\n\x00 ;é'), max_size=4) | st.text(
    st.characters(codec="utf-8"), max_size=8
)


def predictions(images, attributes, scores, labels):
    shape = (len(images), len(attributes))
    return Predictions(
        tuple(images),
        tuple(attributes),
        np.array(scores, dtype=np.float32).reshape(shape),
        np.array(labels, dtype=np.float32).reshape(shape),
    )


def assert_equal(found, expected):
    assert found.images == expected.images
    assert found.attributes == expected.attributes
    assert found.scores.dtype == found.labels.dtype == np.float32
    assert found.scores.tobytes() == expected.scores.tobytes()
    np.testing.assert_array_equal(found.labels, expected.labels)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("predictions")


@settings(deadline=None, max_examples=150)
@given(data=st.data(), images=st.lists(TEXT, max_size=5), attributes=st.lists(TEXT, max_size=3))
def test_any_name_and_any_float_survive(folder, data, images, attributes):
    size = len(images) * len(attributes)
    scores = data.draw(st.lists(st.floats(0, 1, width=32), min_size=size, max_size=size))
    labels = data.draw(st.lists(st.sampled_from([0.0, 1.0, nan]), min_size=size, max_size=size))
    written = predictions(images, attributes, scores, labels)
    write_predictions(folder / "p.csv", written)
    assert_equal(read_predictions(folder / "p.csv"), written)


@pytest.mark.parametrize(
    "name", ["", " ", "a,b", 'a"b', '"', "a\rb", "a\nb", "a\r\nb", "\x00", "é", "\x85", "\u2028"]
)
def test_a_name_with_any_sign_survives(tmp_path, name):
    written = predictions([name, "b.jpg"], ["hat", name + "_probability"], [0.1] * 4, [0, 1, nan, 1])
    write_predictions(tmp_path / "p.csv", written)
    assert_equal(read_predictions(tmp_path / "p.csv"), written)


def test_a_hundred_thousand_floats_survive(tmp_path):
    bits = np.random.default_rng(0).integers(
        0, 0x3F800001, 100_000, dtype=np.uint32
    )  # every exponent up to 1.0
    scores = bits.view(np.float32).reshape(-1, 10)
    names = [f"{row}.jpg" for row in range(len(scores))]
    written = predictions(names, [f"a{column}" for column in range(10)], scores, np.zeros_like(scores))
    write_predictions(tmp_path / "p.csv", written)
    assert_equal(read_predictions(tmp_path / "p.csv"), written)


def test_the_file_is_what_the_contract_says(tmp_path):
    path = tmp_path / "predictions-val.csv"
    write_predictions(
        path, predictions(["a.jpg", "b, c.jpg"], ["hat", "x_probability"], [0.1, 1, 0, 1e-7], [0, 1, nan, 1])
    )
    assert path.read_bytes() == (
        b"image,hat,hat_probability,x_probability,x_probability_probability\n"
        b"a.jpg,0,0.1,1,1.0\n"
        b'"b, c.jpg",NA,0.0,1,1e-07\n'
    )
    with open(path, newline="") as file:
        assert list(csv.reader(file))[2][0] == "b, c.jpg"


def test_a_file_saved_again_by_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes(b'\xef\xbb\xbfimage,hat,hat_probability\r\n"a.jpg",1,0.5\r\n\r\n')
    assert_equal(read_predictions(path), predictions(["a.jpg"], ["hat"], [0.5], [1]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("name,hat,hat_probability\n", "line 1, column 1: expected 'image', found 'name'"),
        ("image,hat\n", "line 1: expected two columns for each attribute"),
        ("image,hat,hat_score\n", "line 1, column 3: expected 'hat_probability', found 'hat_score'"),
        ("image,hat,hat_probability\na,1\n", "line 2: expected 3 cells as in the header, found 2"),
        (
            "image,hat,hat_probability\na,1,.5\nb,2,.5\n",
            "line 3, column 'hat': expected 0, 1 or NA, found '2'",
        ),
        (
            "image,hat,hat_probability,cap,cap_probability\na,1,.5,x,.5\n",
            "line 2, column 'cap': expected 0, 1 or",
        ),
        ("image,hat,hat_probability\na,,.5\n", "line 2, column 'hat': expected 0, 1 or NA, found ''"),
        (
            "image,hat,hat_probability\na,1,x\n",
            "column 'hat_probability': expected a probability from 0 to 1",
        ),
        ("image,hat,hat_probability\na,1,nan\n", "line 2, column 'hat_probability': expected a probability"),
        ("image,hat,hat_probability\na,1,1.5\n", "from 0 to 1, found 1.5"),
        ('image,hat,hat_probability\n"a\nb",1,.5\nc,1,-1\n', "line 4, column 'hat_probability'"),
        ('image,hat,hat_probability\n"a"b,1,.5\n', "line 2: "),
    ],
)
def test_a_damaged_file_is_named_with_line_and_column(tmp_path, text, message):
    path = tmp_path / "predictions-val.csv"
    path.write_text(text)
    with pytest.raises(BundleError) as error:
        read_predictions(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(BundleError, match="no such file"):
        read_predictions(tmp_path / "none.csv")
    with pytest.raises(BundleError, match="cannot be read"):
        read_predictions(tmp_path)
    (tmp_path / "latin.csv").write_bytes(b"image\n\xe9.jpg\n")
    with pytest.raises(BundleError, match="is not UTF-8 text"):
        read_predictions(tmp_path / "latin.csv")
    with pytest.raises(OutputError, match="cannot be written"):
        write_predictions(tmp_path / "no" / "p.csv", predictions([], [], [], []))


def test_arrays_that_do_not_fit_their_names_are_refused():
    with pytest.raises(ValueError, match=r"must both be \(1, 2\)"):
        Predictions(("a",), ("x", "y"), np.zeros((1, 1), np.float32), np.zeros((1, 2), np.float32))
