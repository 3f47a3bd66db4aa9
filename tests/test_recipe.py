"""The recipe: one field, one flag, one TOML key; every fault in one message; written and read back unchanged."""

import dataclasses
import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcls.errors import RecipeError
from mlcls.recipe import (
    Recipe,
    build_recipe,
    flag_of,
    read_recipe,
    recipe_names,
    recipe_summary,
    recipe_toml,
    recipe_values,
)


def test_the_default_recipe_is_the_default_of_every_field() -> None:
    assert build_recipe("default") == Recipe()


@pytest.mark.parametrize("name", recipe_names())
def test_a_named_recipe_holds_settings_and_says_what_it_is(name: str) -> None:
    build_recipe(name)
    assert len(recipe_summary(name)) > 20


def test_flags_stand_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("epochs = 7\nbatch_size = 9\nbackbone_args = {widths = [8, 16], depth = 1}\n")
    recipe = build_recipe(str(path), batch_size="4", backbone_args=["depth=2"])
    assert (recipe.epochs, recipe.batch_size, recipe.patience) == (7, 4, 5)
    assert recipe.backbone_args == {"widths": [8, 16], "depth": 2}


def test_all_faults_stand_in_one_message() -> None:
    with pytest.raises(RecipeError) as error:
        Recipe(epochs=0, dropout=1.5, na="maybe", lr_head=float("nan"))
    for flag in ("--epochs: expected at least 1", "--dropout: expected less than 1", "--na", "--lr-head"):
        assert flag in str(error.value)


def test_an_unknown_key_is_named_with_its_line_and_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("seed = 1\nepoch = 3\n")
    with pytest.raises(
        RecipeError, match=r"mine\.toml, line 2: 'epoch' is not a setting; did you mean 'epochs'"
    ):
        build_recipe(str(path))


@pytest.mark.parametrize("content", [b"epochs = ", b"\xff\xfe\x00", b"= 3"])
def test_a_file_that_is_no_toml_is_an_error_of_its_own(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match="not a TOML file"):
        read_recipe(str(path))


def test_an_unknown_recipe_gets_a_suggestion() -> None:
    with pytest.raises(RecipeError, match="did you mean 'two-stage'"):
        build_recipe("two_stage")


@pytest.mark.parametrize(
    ("given_names", "expected"),
    [
        ("a,b", ("a", "b")),
        (["a,b"], ("a", "b")),
        (["a", "b c"], ("a", "b c")),
        (("a, b", "c"), ("a, b", "c")),
    ],
)
def test_names_are_given_with_commas_or_one_by_one(given_names: object, expected: tuple[str, ...]) -> None:
    assert Recipe(attributes=given_names).attributes == expected


def test_key_values_become_what_they_show() -> None:
    recipe = Recipe(backbone_args=["widths=(8,16)", "pooling=max", "bias=true", "rate=0.5"])
    assert recipe.backbone_args == {"widths": [8, 16], "pooling": "max", "bias": True, "rate": 0.5}


def test_flags_have_the_fields_names() -> None:
    assert flag_of("batch_size") == "--batch-size"


@given(
    epochs=st.integers(1, 10_000),
    lr=st.floats(0, 10, allow_nan=False),
    title=st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    attributes=st.none() | st.lists(st.text("abc,é'\"", min_size=1), min_size=2).map(tuple),
    arguments=st.dictionaries(
        st.text("abcdef", min_size=1), st.integers() | st.booleans() | st.lists(st.integers()), max_size=3
    ),
)
def test_a_recipe_is_read_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    epochs: int,
    lr: float,
    title: str,
    attributes: object,
    arguments: object,
) -> None:
    recipe = Recipe(epochs=epochs, lr_head=lr, title=title, attributes=attributes, loss_args=arguments)
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(recipe_toml(recipe, "a comment"), encoding="utf-8")
    assert build_recipe(str(path)) == recipe
    assert tomllib.loads(path.read_text(encoding="utf-8"))["epochs"] == epochs


def test_values_are_plain() -> None:
    values = recipe_values(Recipe(attributes=("a", "b")))
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert list(values) == [field.name for field in dataclasses.fields(Recipe)]
