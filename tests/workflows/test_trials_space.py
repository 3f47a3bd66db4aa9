"""The space of trials: what may be varied, what is refused, and the published trials in it."""

import dataclasses
from pathlib import Path

import pytest

from mlcls.errors import RecipeError
from mlcls.models.heads import HEADS
from mlcls.recipe import Recipe
from mlcls.workflows.search.search_space import (
    HEADS_DROPOUT,
    Choices,
    Range,
    apply_values,
    baseline_trial,
    built_in_space,
    check_metric,
    published_trials,
    read_space,
    space_values,
)


def space_of(tmp_path: Path, toml: str, **settings: object) -> dict[str, Range | Choices]:
    path = tmp_path / "space.toml"
    path.write_text(toml, encoding="utf-8")
    return read_space(path, Recipe(weights="none", **settings), given=tuple(settings))  # type: ignore[arg-type]


def test_a_file_says_ranges_and_choices_of_fields_and_of_numbers_within_them(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        "[lr_finetune]\nlow = 1e-5\nhigh = 1e-3\nlog = true\n[optimizer]\nchoices = ['adam', 'sgd']\n"
        "[batch_size]\nlow = 8\nhigh = 30\nstep = 8\n[schedule_args.warmup_epochs]\nlow = 0.0\nhigh = 2.5\n"
        '["augment_args.jitter_p"]\nlow = 0.0\nhigh = 1.0\n',
    )
    assert space == {
        "lr_finetune": Range(1e-5, 1e-3, log=True),
        "optimizer": Choices(("adam", "sgd")),
        "batch_size": Range(8, 24, step=8, whole=True),
        "schedule_args.warmup_epochs": Range(0.0, 2.5),
        "augment_args.jitter_p": Range(0.0, 1.0),
    }
    assert isinstance(space["batch_size"], Range)
    assert isinstance(space["batch_size"].low, int)


def test_every_fault_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        space_of(
            tmp_path,
            "[lr_finetun]\nlow = 1\nhigh = 2\n[dropout]\nlow = 0.1\nhigh = 1.5\n[optimizer]\nchoices = ['adam', 'adan']"
            "\n[epochs]\nlow = 5\n[weight_decay]\nlow = 0\nhigh = 1\nlog = true\n[seed]\nlow = 0\nhigh = 3\n"
            "[labels]\nchoices = ['a', 'b']\n[head]\nlow = 1\nhigh = 2\n[schedule_args]\nlow = 1\nhigh = 2\n"
            "[schedule]\nchoices = ['step', 'step']\n[mixup]\nlow = 0.5\nhigh = 0.5\nsteps = 2"
            "\n[ema]\nlow = 0.9\nhigh = 0.5\n[log]\nchoices = ['csv', 'none']\n",
        )
    lines = str(caught.value).splitlines()
    for number, field, what in (
        (1, "lr_finetun", "did you mean 'lr_finetune'"),
        (4, "dropout", "expected less than 1"),
        (7, "optimizer", "did you mean 'adam"),
        (9, "epochs", "high: expected a number, which is absent"),
        (11, "weight_decay", "expected above 0"),
        (15, "seed", "cannot be varied"),
        (18, "labels", "cannot be varied"),
        (20, "head", "choices"),
        (23, "schedule_args", "[schedule_args.NAME]"),
        (26, "schedule", "no two alike"),
        (28, "mixup", "'steps' is not one of"),
        (32, "ema", "expected low below high"),
        (35, "log", "cannot be varied"),
    ):
        named = [line for line in lines if f"line {number}: {field}:" in line]
        assert len(named) == 1, (number, field)
        assert what in named[0]


@pytest.mark.parametrize(
    ("toml", "what"),
    [
        ("", "varies nothing"),
        ("[lr_finetune", "not a TOML file"),
        ("lr_finetune = 3", "expected a table"),
        ("[schedule_args.warmup]\nlow = 1\nhigh = 2", "warmup"),
        ("[batch_size]\nlow = 8\nhigh = 16.5", "whole numbers"),
        ("[batch_size]\nlow = 8\nhigh = 16\nlog = true\nstep = 2", "no log beside it"),
        ("[optimizer]\nchoices = ['adam']", "two values or more"),
        ("[optimizer]\nchoices = ['adam', 'sgd']\nlow = 1", "stand alone"),
        ("[lr_head]\nlow = nan\nhigh = 1.0", "expected a number"),
    ],
)
def test_a_space_that_cannot_be_used_is_refused(tmp_path: Path, toml: str, what: str) -> None:
    with pytest.raises(RecipeError, match=what):
        space_of(tmp_path, toml)


def test_a_field_given_as_a_flag_too_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--batch-size is given too"):
        space_of(tmp_path, "[batch_size]\nlow = 8\nhigh = 16\n", batch_size=4)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nothing\.toml"):
        read_space(tmp_path / "nothing.toml", Recipe())


def test_the_built_in_space_leaves_out_what_no_stage_uses_and_what_is_given() -> None:
    assert {"lr_head", "lr_finetune"} <= set(built_in_space(Recipe()))
    assert "lr_head" not in built_in_space(Recipe(unfreeze_epoch=0, unfreeze="all"))
    assert "lr_finetune" not in built_in_space(Recipe(unfreeze="none"))
    assert "batch_size" not in built_in_space(Recipe(), given=("batch_size", "labels"))
    with pytest.raises(RecipeError, match="nothing is left to vary"):
        built_in_space(Recipe(), given=tuple(built_in_space(Recipe())))


def test_the_published_trials_are_those_of_the_table_and_lie_in_the_space() -> None:
    recipe = Recipe()
    space = built_in_space(recipe)
    planned = published_trials(recipe, space)
    table = [
        ("Trial 1", "adam", 5e-4, 1e-4, 0.5, "step", 32, 15),
        ("Trial 2", "adam", 1e-4, 1e-5, 0.4, "plateau", 32, 15),
        ("Trial 3", "adam", 1e-4, 7e-4, 0.5, "cosine", 32, 28),
        ("Trial 4", "adamw", 1e-4, 5e-4, 0.45, "cosine", 64, 38),
        ("Trial 5", "adamw", 1e-4, 6e-4, 0.48, "cosine", 80, 43),
    ]
    assert len(planned) == len(table)
    for one, row in zip(planned, table, strict=True):
        tried = apply_values(recipe, {**one.fields, **one.values})
        assert row == (
            one.name, tried.optimizer, tried.lr_finetune, tried.weight_decay, tried.dropout, tried.schedule,
            tried.batch_size, tried.epochs,
        )  # fmt: skip
        for name, value in one.values.items():
            held = space[name]
            assert value in held.values if isinstance(held, Choices) else held.low <= value <= held.high
    fixed = published_trials(recipe, built_in_space(recipe, ("batch_size",)), ("batch_size", "epochs"))
    assert all("batch_size" not in one.values and not one.fields for one in fixed)


def test_the_recipe_as_given_is_a_trial_where_its_values_are_in_the_space() -> None:
    recipe = Recipe()
    planned = baseline_trial(recipe, built_in_space(recipe))
    assert planned is not None
    assert apply_values(recipe, planned.values) == dataclasses.replace(recipe, dropout=0.5)
    assert baseline_trial(dataclasses.replace(recipe, batch_size=17), built_in_space(recipe)) is None
    assert baseline_trial(recipe, {"schedule_args.gamma": Range(0.1, 0.5)}) is None


def test_the_first_dropout_of_each_head_is_what_the_head_itself_takes() -> None:
    for name, head in HEADS.items():
        rates = [module.p for module in head(4, 2, None).modules() if hasattr(module, "p")]
        assert HEADS_DROPOUT[name] == (rates[0] if rates else 0.0)
    assert set(HEADS_DROPOUT) == set(HEADS)


def test_values_with_a_dot_change_one_number_of_their_field() -> None:
    recipe = Recipe(schedule_args={"gamma": 0.5})
    changed = apply_values(
        recipe, {"schedule_args.step_size": 3, "schedule_args.warmup_epochs": 1, "dropout": 0.1}
    )
    assert changed.schedule_args == {"gamma": 0.5, "step_size": 3, "warmup_epochs": 1}
    assert changed.dropout == 0.1
    assert recipe.schedule_args == {"gamma": 0.5}


def test_trials_with_other_losses_are_not_compared_by_their_loss() -> None:
    with pytest.raises(RecipeError, match=r"loss_args\.gamma.*--metric val_map"):
        check_metric("val_loss", {"loss_args.gamma": Range(0, 2)})
    check_metric("val_map", {"loss_args.gamma": Range(0, 2)})
    check_metric("val_loss", built_in_space(Recipe()))
    with pytest.raises(RecipeError, match="varies tta, which comes after the last one; use --metric val_map"):
        check_metric("val_f1", {"tta": Choices(("none", "flip"))})
    check_metric("val_map", {"tta": Choices(("none", "flip")), "soup": Range(0, 5, whole=True)})


def test_a_space_is_kept_in_plain_values() -> None:
    values = space_values(built_in_space(Recipe()))
    assert values["optimizer"] == {"choices": ["adam", "adamw"]}
    assert values["batch_size"] == {"low": 16, "high": 96, "log": False, "step": 16, "whole": True}
