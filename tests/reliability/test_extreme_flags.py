"""Numbers that are none, or out of range, in every flag: refused in a sentence that names the flag."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcls import compare, evaluate, inspect, predict, train, tune_thresholds
from mlcls.errors import RecipeError
from mlcls.images.dataset import ImageDataset, training_batches
from mlcls.kinds import auto_integer, integer, number
from mlcls.recipe import Recipe, build_recipe, flag_of, recipe_toml

NUMERIC = [f for f in dataclasses.fields(Recipe) if f.metadata["kind"] in (integer, number, auto_integer)]
PAIRS = [f for f in dataclasses.fields(Recipe) if isinstance(getattr(Recipe(), f.name), dict)]
NO_NUMBER = [
    "nan", "inf", "-inf", "1e999", "-1e999", "1e400", "0x10", "many", "[]", "\0", "9" * 5000, "-1", "-0.5",
    float("nan"), float("inf"), 10**400, -1, True, (),
]  # fmt: skip
Command = Callable[[list[str]], int]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no `outputs` stands already


@pytest.mark.parametrize("field", NUMERIC, ids=lambda field: field.name)
def test_what_is_no_number_in_range_is_refused_with_its_flag(field: "dataclasses.Field[Any]") -> None:
    for value in NO_NUMBER:
        with pytest.raises(RecipeError, match=rf"^{flag_of(field.name)}: expected ") as refused:
            Recipe(**{field.name: value})
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("field", PAIRS, ids=lambda field: field.name)
@pytest.mark.parametrize(
    "value",
    [5, 0.5, None, True, float("nan"), [1, 2], "x", "=1", "x=1e999", "x=-1e999", "x=(1,1e999)", "x=None",
     "x={1,2}", "x=1j", "x=b'1'", {"x": float("nan")}, {"x": [1, float("inf")]}, {"x": {"y": None}}],
)  # fmt: skip
def test_settings_that_no_recipe_can_hold_are_refused_before_training(
    field: "dataclasses.Field[Any]", value: Any
) -> None:
    with pytest.raises(RecipeError, match=rf"^{flag_of(field.name)}: expected "):
        Recipe(**{field.name: value})


@pytest.mark.parametrize("text", ["{[]:1}", "(" * 500 + ")" * 500, "-" * 50_000 + "1", "\0", "1e", "'"])
def test_a_setting_that_python_cannot_read_is_text(text: str) -> None:
    assert Recipe(loss_args=[f"x={text}"]).loss_args == {"x": text}


@pytest.mark.parametrize("name", ["title", "labels", "images", "backbone", "attributes", "loss_args"])
def test_text_that_no_file_in_utf8_can_hold_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=rf"^{flag_of(name)}: expected"):
        Recipe(**{name: "a=\udcff"})


def test_a_width_alone_is_one_block() -> None:
    from mlcls.models.classifier import build_classifier

    assert build_classifier("cnn4", "linear", 1, backbone_args={"widths": 8}, image_size=32).features == 8
    with pytest.raises(RecipeError, match="expected whole numbers of at least 1"):
        build_classifier("cnn4", "linear", 1, backbone_args={"widths": 0}, image_size=32)


def test_more_processes_than_cores_are_no_warning() -> None:
    dataset = ImageDataset(lambda index: np.zeros((8, 8, 3), np.uint8), np.zeros((4, 1), np.float32))
    assert training_batches(dataset, batch_size=2, seed=0, workers=500).count() == 2


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(name=st.sampled_from([field.name for field in dataclasses.fields(Recipe)]), value=anything)
@settings(deadline=None, max_examples=300)
def test_any_value_gives_a_recipe_that_can_be_written_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: Any
) -> None:
    recipe = None
    with contextlib.suppress(RecipeError):
        recipe = Recipe(**{name: value})
    if recipe is None:
        return
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(recipe_toml(recipe, "a comment"), encoding="utf-8")
    assert build_recipe(str(path)) == recipe


@pytest.mark.parametrize("toml", ["epochs = 1e999", "lr_head = nan", "epochs = -1", "batch_size = 0.5",
                                  "loss_args = {gamma = nan}", "seed = 9223372036854775808",
                                  "loss_args = {gamma = 2020-01-01}"])  # fmt: skip
def test_numbers_of_a_recipe_file_are_held_to_the_same(toml: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(toml)
    with pytest.raises(RecipeError, match=f"^{flag_of(toml.split(' ')[0])}: expected "):
        build_recipe(str(path))


@pytest.mark.parametrize(
    "toml", [f"epochs = {'9' * 5000}", "names = " + "[" * 100_000, "a = " + "{b = " * 100_000]
)
def test_what_no_toml_parser_reads_is_a_sentence(toml: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(toml)
    with pytest.raises(RecipeError, match="not a TOML file"):
        build_recipe(str(path))


def refused(
    command: Command, flags: list[str], expected: str, capsys: pytest.CaptureFixture[str], code: int = 2
) -> None:
    assert command(flags) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("error: ") == 1
    assert "Traceback" not in captured.err
    assert expected in captured.err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--epochs 0", "--epochs: expected at least 1, got 0"),
        ("--epochs -3", "--epochs: expected at least 1, got -3"),
        ("--epochs 1e999", "--epochs: expected a whole number"),
        ("--epochs 1.5", "--epochs: expected a whole number"),
        ("--batch-size 0", "--batch-size: expected at least 1, got 0"),
        ("--batch-size NaN", "--batch-size: expected a whole number"),
        ("--image-size 0", "--image-size: expected at least 8"),
        ("--image-size 1e999", "--image-size: expected a whole number"),
        ("--workers -1", "--workers: expected at least 0"),
        ("--workers 1000000", "--workers: expected less than 1,025"),
        ("--image-size 1099511627776", "--image-size: expected less than 8,193"),
        ("--lr-finetune 1e38", "--lr-finetune: expected less than 1e+06"),
        ("--cache-gb 1e308", "--cache-gb: expected less than 1e+09"),
        ("--image-cache-gb 1e308", "--image-cache-gb: expected less than 1e+09"),
        ("--resamples 1000000000000", "--resamples: expected less than 100,001"),
        ("--lr-head NaN", "--lr-head: expected a finite number"),
        ("--lr-head 1e999", "--lr-head: expected a finite number"),
        ("--lr-finetune -1", "--lr-finetune: expected at least 0"),
        ("--lr-head 0 --epochs 1", "--lr-head"),
        ("--weight-decay=-inf", "--weight-decay: expected a finite number"),
        ("--dropout 1", "--dropout: expected less than 1"),
        ("--views -1", "--views: expected at least 0"),
        ("--cache-gb nan", "--cache-gb: expected a finite number"),
        ("--pos-weight-cap 0.5", "--pos-weight-cap: expected at least 1"),
        ("--accumulate 0", "--accumulate: expected at least 1"),
        ("--max-pixels 0", "--max-pixels: expected at least 1"),
        ("--resamples -1", "--resamples: expected at least 0"),
        ("--seed -1", "--seed: expected at least 0"),
        ("--split nan,nan,nan", "--split: the fractions nan,nan,nan must lie between 0 and 1"),
        ("--split 1e999,0,0", "--split: the fractions"),
        ("--split=-0.5,1,0.5", "--split: the fractions"),
        ("--split 1,0,0", "leave train or val empty"),
        ("--split 0,0.5,0.5", "leave train or val empty"),
        ("--split 1e-320,1,0", "one is too small; expected 0, or at least 1e-09"),
        ("--split 0.5,0.5", "--split: '0.5,0.5' is not understood"),
        ("--objective fbeta:nan", "--objective: 'fbeta:nan' cannot be used"),
        ("--objective fbeta:0", "--objective"),
        ("--objective precision:1.5", "--objective"),
        ("--objective cost:1e999,1", "--objective"),
        ("--objective cost:-1,1", "--objective"),
        ("--objective fixed:nan", "--objective"),
        ("--loss focal --loss-args gamma=-1", "gamma is -1"),
        ("--loss focal --loss-args gamma=1e999", "--loss-args: expected text, true, false, finite numbers"),
        ("--loss asl --loss-args clip=1", "clip is 1"),
        ("--optimizer-args eps=-1", "--optimizer adamw"),
        ("--optimizer-args betas=(2,2)", "--optimizer adamw"),
        ("--schedule-args warmup_epochs=-1", "warmup_epochs is -1"),
        ("--schedule step --schedule-args step_size=0", "step_size is 0"),
        ("--schedule step --schedule-args gamma=0", "gamma is 0"),
        ("--augment-args hflip_p=7", "--augment-args hflip_p"),
        ("--augment-args crop_scale=(0,0)", "--augment-args crop_scale"),
        ("--device cuda:99999", "--device"),
        ("--device cuda:-1", "--device"),
    ],
)
def test_train_refuses_in_a_sentence_and_writes_nothing(
    flags: str, expected: str, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o"
    base = ["--labels", str(toy), "--out", str(out), "--backbone", "cnn4", "--weights", "none"]
    refused(train.main, [*base, *flags.split()], expected, capsys)
    assert not out.exists()


def test_a_weight_that_float32_cannot_hold_is_refused(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--labels", str(toy), "--out", str(tmp_path / "o"), "--backbone", "cnn4", "--weights", "none"]
    assert train.main([*flags, "--image-size", "8", "--pos-weight", "1e39,1,1"]) == 2
    assert "error: --pos-weight: expected auto, none, or 3 positive numbers" in capsys.readouterr().err


def test_a_message_steers_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(train.main, ["--labels", str(tmp_path / "\x1b[31m\r\u202e")], r"\x1b[31m\r\u202e", capsys)


@pytest.mark.parametrize("name", ["o\udcff", "o\0"])
def test_an_out_folder_whose_name_no_recipe_can_hold(
    name: str, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--labels", str(toy), "--out", str(tmp_path / name), "--backbone", "cnn4", "--weights", "none"]
    refused(train.main, flags, "the name is no UTF-8", capsys)


@pytest.mark.parametrize(
    ("command", "flags", "expected"),
    [
        (predict.main, "--image x.png --threshold nan", "--threshold: expected a number from 0 to 1"),
        (predict.main, "--image x.png --threshold 1e999", "--threshold: expected a number from 0 to 1"),
        (predict.main, "--image x.png --threshold -0.1", "--threshold: expected a number from 0 to 1"),
        (evaluate.main, "--resamples -1", "--resamples: expected a whole number from 0"),
        (evaluate.main, "--resamples nan", "--resamples: expected a whole number from 0"),
        (evaluate.main, "--resamples 1e999", "--resamples: expected a whole number from 0"),
        (evaluate.main, f"--resamples {'9' * 30}", "--resamples: expected a whole number from 0"),
        (evaluate.main, "--resamples 1000000", "--resamples: expected a whole number from 0 to 100,000"),
        (evaluate.main, "--report a\0b.html", r"--report 'a\x00b.html': expected the name of a file"),
        (compare.main, "a b --resamples 0", "--resamples: expected a whole number from 1 to 100,000"),
        (inspect.main, "--preview .", "--preview '.': expected the name of a file"),
        (inspect.main, "--preview x.jpg", "--preview x.jpg: expected a name that ends in .png"),
        (predict.main, "--images a\0b", r"--images a\x00b: there is no such folder"),
        (compare.main, "a b --seed -1", "--seed: expected a whole number from 0"),
        (tune_thresholds.main, "--objective fixed:nan", "--objective: 'fixed:nan' cannot be used"),
        (tune_thresholds.main, "--objective fixed:-1", "--objective: 'fixed:-1' cannot be used"),
        (tune_thresholds.main, "--objective fbeta:1e999", "--objective: 'fbeta:1e999' cannot be used"),
    ],
)
def test_the_other_commands_refuse_in_a_sentence(
    command: Command, flags: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(command, flags.split(), expected, capsys)
