"""metrics.json: fields and order of the contract, exact round trips, damage told by field."""

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcls.errors import BundleError
from mlcls.reports.record import (
    AttributeCount,
    Contradiction,
    DataFacts,
    EpochFigures,
    ModelFacts,
    Record,
    SplitCounts,
    StageFacts,
    from_json,
    to_json,
)

finite = st.floats(allow_nan=False, allow_infinity=False)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
trees = st.dictionaries(st.text(max_size=8), json_values, max_size=3)


def some(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=3).map(tuple)


names = some(st.text(max_size=12))
count = st.integers(0, 10**12)
figures = {
    field.name: st.none() | finite
    for field in dataclasses.fields(EpochFigures)
    if field.name.startswith(("val_", "train_", "images_"))
}
records = st.builds(
    Record,
    mlcls=st.text(max_size=8),
    seed=st.integers(),
    command=st.text(),
    data=st.builds(
        DataFacts,
        rows=count,
        images=count,
        missing=names,
        unreadable=names,
        metadata=names,
        duplicates=some(names),
        conflicts=some(names),
        attributes=some(st.builds(AttributeCount, st.text(), count, count, count)),
        split=st.none() | st.builds(SplitCounts, count, count, count),
        notes=names,
        near_duplicates=some(names),
        near_conflicts=some(names),
        leaks=some(names),
        contradictions=some(st.builds(Contradiction, st.text(), names, names, st.booleans())),
        health=names,
    ),
    model=st.builds(
        ModelFacts,
        backbone=st.text(),
        backbone_args=trees,
        weights=st.text(),
        head=st.text(),
        features=count,
        image_size=count,
        stages=some(
            st.builds(
                StageFacts, name=st.text(), first_epoch=count, trainable=count, frozen=count, modules=names
            )
        ),
    ),
    recipe=trees,
    thresholds=some(trees),
    epochs=some(st.builds(EpochFigures, epoch=count, stage=count, lr=finite, seconds=finite, **figures)),
    best_epoch=st.none() | count,
    stopped_because=st.none() | st.text(),
    seconds=finite,
    evaluation=st.fixed_dictionaries({"val": st.none() | trees, "test": st.none() | trees}),
    soup=st.none() | some(count),
)


@given(records)
@settings(deadline=None, max_examples=60)
def test_what_is_written_is_read_back_exactly(record: Record) -> None:
    text = to_json(record)
    assert from_json(text) == record
    assert to_json(from_json(text)) == text


def test_fields_and_their_order_are_the_contracts(record: Record) -> None:
    tree = json.loads(to_json(record))
    assert list(tree) == [
        "format", "mlcls", "seed", "command", "data", "model", "recipe", "thresholds", "epochs", "best_epoch",
        "stopped_because", "seconds", "evaluation", "calibration", "soup", "members", "ensemble",
    ]  # fmt: skip
    assert list(tree["data"])[:9] == [
        "rows", "images", "missing", "unreadable", "metadata", "duplicates", "conflicts", "attributes", "split",
    ]  # fmt: skip
    assert tree["data"]["attributes"][0] == {"name": "hat", "positive": 234, "negative": 900, "unknown": 100}
    assert tree["data"]["split"] == {"train": 864, "val": 185, "test": 185}
    assert tree["data"]["conflicts"] == [["d.jpg", "e.jpg"], ["f.jpg"]]
    assert list(tree["epochs"][0])[:13] == [
        "epoch", "stage", "lr", "train_loss", "val_loss", "val_map", "val_f1", "val_precision", "val_recall",
        "val_hamming_loss", "val_exact_match", "seconds", "images_per_second",
    ]  # fmt: skip
    assert list(tree["evaluation"]) == ["val", "test"]
    assert tree["evaluation"]["test"] is None


def test_undefined_figures_are_null_wherever_they_stand(
    record: Record, epoch: Callable[..., EpochFigures]
) -> None:
    bad = dataclasses.replace(
        record,
        epochs=(epoch(0, val_map=math.nan, train_loss=math.inf),),
        evaluation={"val": {"macro": {"f1": np.float32(np.nan)}, "list": [-math.inf]}, "test": None},
    )
    text = to_json(bad)
    assert "NaN" not in text
    assert "Infinity" not in text
    tree = json.loads(text)
    assert tree["epochs"][0]["val_map"] is None
    assert tree["epochs"][0]["train_loss"] is None
    assert tree["evaluation"]["val"] == {"macro": {"f1": None}, "list": [None]}


def test_numpy_values_become_plain(record: Record) -> None:
    recipe = {"a": np.int64(3), "b": np.float64(0.1), "c": np.array([1.5, np.nan]), "d": np.bool_(True)}
    tree = json.loads(to_json(dataclasses.replace(record, recipe=recipe)))
    assert tree["recipe"] == {"a": 3, "b": 0.1, "c": [1.5, None], "d": True}


def test_what_json_cannot_hold_is_refused(record: Record) -> None:
    with pytest.raises(TypeError, match="set"):
        to_json(dataclasses.replace(record, recipe={"a": {1, 2}}))
    with pytest.raises(TypeError, match="keys"):
        to_json(dataclasses.replace(record, recipe={1: "a"}))  # type: ignore[dict-item]


def test_names_that_are_not_utf8_survive(record: Record) -> None:
    odd = dataclasses.replace(record, command="bild_\udcfc.jpg 日本語 “\u2028”")
    text = to_json(odd)
    assert from_json(text.encode("utf-8").decode("utf-8")) == odd


def test_later_fields_are_passed_over_and_fields_with_a_default_may_be_absent(record: Record) -> None:
    tree = json.loads(to_json(record))
    tree["later"] = {"x": 1}
    tree["epochs"][0]["later"] = 2
    del tree["data"]["notes"]
    read = from_json(json.dumps(tree))
    assert read == dataclasses.replace(record, data=dataclasses.replace(record.data, notes=()))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda tree: tree.pop("seed"), "'seed' is absent"),
        (lambda tree: tree["data"].pop("rows"), "'data.rows' is absent"),
        (
            lambda tree: tree["epochs"][1].update(lr="fast"),
            r"'epochs\[1\].lr' should be a number, not 'fast'",
        ),
        (lambda tree: tree["epochs"][1].update(epoch=1.5), "whole number"),
        (lambda tree: tree["epochs"][1].update(epoch=True), "whole number"),
        (lambda tree: tree["data"].update(missing="a.jpg"), "'data.missing' should be a list"),
        (lambda tree: tree["data"].update(split=[1]), "'data.split' should be an object"),
        (lambda tree: tree.update(seconds=10**400), "'seconds' should be a number"),
        (lambda tree: tree.update(format=2), "format 2"),
        (lambda tree: tree.update(evaluation=None), "'evaluation' should be an object"),
    ],
)
def test_damage_is_told_by_file_and_field(
    record: Record, damage: Callable[[dict[str, Any]], object], words: str
) -> None:
    tree = json.loads(to_json(record))
    damage(tree)
    with pytest.raises(BundleError, match=words) as caught:
        from_json(json.dumps(tree), "outputs/metrics.json")
    assert str(caught.value).startswith("outputs/metrics.json: ")


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "null", '{"seed": NaN}', "[" * 100_000, '{"seed": Infinity}']
)
def test_what_is_no_record_is_a_bundle_error(text: str) -> None:
    with pytest.raises(BundleError):
        from_json(text)


@given(st.text() | json_values.map(json.dumps))
@settings(deadline=None, max_examples=100)
def test_any_text_is_a_bundle_error_at_worst(text: str) -> None:
    with pytest.raises(BundleError):
        from_json(text)
