"""A predictor in a program: copied, pickled, and handed images in other ways than a list."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlcls.bundle.predictor import Predictor
from mlcls.errors import RecipeError

Photos = Callable[[int], list[str]]


@pytest.mark.parametrize("engine", ["onnx", "torch"])
@pytest.mark.parametrize("again", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_predicts_the_same(
    engine: str, again: Callable[[Predictor], Predictor], onnx_bundle: Path, photos: Photos
) -> None:
    first = Predictor(onnx_bundle, engine=engine, threshold=0.3, raw=True)
    second = again(first)
    assert second.engine == engine
    assert second.predict(photos(2)) == first.predict(photos(2))


def test_arrays_and_series_of_paths_are_several_images(onnx_bundle: Path, photos: Photos) -> None:
    predictor, paths = Predictor(onnx_bundle), photos(2)
    for images in (np.array(paths), np.array(paths, dtype=object), pd.Series(paths, index=[7, 9])):
        assert [row["image"] for row in predictor.predict(images)] == paths


def test_a_pil_image_cut_off_is_a_row_that_says_so(onnx_bundle: Path, photos: Photos) -> None:
    paths = photos(2)
    data = Path(paths[0]).read_bytes()
    rows = Predictor(onnx_bundle).predict([Image.open(io.BytesIO(data[: len(data) // 2])), paths[1]])
    assert "the PIL image cannot be decoded" in rows[0]["error"]
    assert "error" not in rows[1]


@pytest.mark.parametrize(
    "wrong", [{"threshold": "0.5"}, {"threshold": [0.5]}, {"engine": None}, {"engine": ["onnx"]}]
)
def test_an_argument_of_another_type_is_one_message(wrong: dict[str, Any], onnx_bundle: Path) -> None:
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        Predictor(onnx_bundle, **wrong)
