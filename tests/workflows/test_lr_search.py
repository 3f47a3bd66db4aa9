"""`train --find-lr`: a suggestion a stage, a picture, and nothing else."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from toy_data import TINY

from mlcls import Recipe
from mlcls.errors import RecipeError
from mlcls.train import main
from mlcls.workflows.lr_search import find_lr

HERE = {
    "backbone": "test_resnet.r160_in1k",
    "weights": "none",
    "image_size": 32,
    "workers": 0,
    "split": "0.6,0.2,0.2",
}


def recipe(toy: Path, **settings: Any) -> Recipe:
    return Recipe(labels=str(toy), **{**HERE, "augment": "light", "batch_size": 8, **settings})


def test_each_stage_is_tested_at_its_own_flag_and_rate(toy: Path, tmp_path: Path) -> None:
    # a warm-up lowers the rate at once: that is no part of the test
    made = recipe(toy, lr_head=3e-3, lr_finetune=2e-4, schedule_args={"warmup_epochs": 1})
    found = find_lr(made, tmp_path / "lr.png", steps=12)
    assert [(one.stage, one.flag, one.now) for one in found] == [
        ("head", "--lr-head", 3e-3),
        ("head + last", "--lr-finetune", 2e-4),
    ]
    for one in found:
        assert 10 <= len(one.curve.rates) <= 12
        assert one.curve.rates[0] == pytest.approx(1e-6)
    # the head has learned by the time of the second test
    assert found[1].curve.losses[0] < found[0].curve.losses[0]
    assert cv2.imread(str(tmp_path / "lr.png")).shape[1] > 1000


def test_it_says_the_same_twice_and_pixels_as_well_as_what_is_frozen(toy: Path, tmp_path: Path) -> None:
    one, again, pixels = (
        find_lr(recipe(toy, views=views, unfreeze="none"), tmp_path / "lr.png", steps=12)
        for views in (2, 2, 0)
    )
    assert np.array_equal(one[0].curve.losses, again[0].curve.losses)
    assert np.allclose(one[0].curve.losses[:8], pixels[0].curve.losses[:8], rtol=0.05)


def test_accumulated_batches_and_a_whole_network(toy: Path, tmp_path: Path) -> None:
    made = recipe(toy, accumulate=3, unfreeze="all", unfreeze_epoch=0, augment="none", lr_head=1e-3)
    (found,) = find_lr(made, tmp_path / "lr.png", steps=40)
    assert found.flag == "--lr-finetune"
    assert found.suggestion.steepest is not None
    assert 1e-5 < found.suggestion.steepest < 1.0


def test_the_command_says_a_line_a_stage_and_writes_the_picture_alone(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--labels", str(toy), *TINY, "--split", "0.6,0.2,0.2", "--batch-size", "8"]
    assert main([*flags, "--find-lr", "lr.png"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("the recipe has") == 2
    assert "nothing was trained" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["lr.png"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--find-lr", "lr.jpg"], "--find-lr lr.jpg: expected a name that ends in .png"),
        (["--find-lr", "nowhere/lr.png"], "there is no folder nowhere"),
        (["--find-lr", "lr.png", "--resume"], "leave --resume out"),
        (["--find-lr", "lr.png", "--overwrite"], "leave --overwrite out"),
        (["--find-lr", "lr.png", "--optimizer", "adamv"], "--optimizer: unknown name 'adamv'"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str],
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["--labels", str(toy), *TINY, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_layers_with_rates_of_their_own_are_named_by_the_highest(toy: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = find_lr(recipe(toy, layer_decay=0.7, lr_finetune=5e-4), tmp_path / "lr.png", steps=10)
    assert found[1].now == 5e-4


def test_the_other_options_of_a_training_count(toy: Path, tmp_path: Path) -> None:
    plain, mixed, counted = (
        find_lr(recipe(toy, unfreeze="none", **options), tmp_path / "lr.png", steps=10)[0].curve.losses[0]
        for options in (
            {},
            {"mixup": 1.0, "label_smoothing": 0.2},
            {"na": "selective", "na_args": {"prior_threshold": 1.0, "likely": 0.0}},
        )
    )
    assert len({plain, mixed, counted}) == 3


def test_it_says_so_where_mixing_leaves_no_label_known(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    lines = ["image_name a b"]
    for number in range(12):
        picture = chance.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
        lines.append(
            f"{number}.png {number // 2 % 2} NA" if number % 2 else f"{number}.png NA {number // 2 % 2}"
        )
    table = tmp_path / "labels.txt"
    table.write_text("\n".join(lines), encoding="utf-8")
    subsets = ["train"] * 2 + ["val"] * 5 + ["test"] * 5
    rows = "".join(f"{number}.png,{subset}\n" for number, subset in enumerate(subsets))
    (tmp_path / "split.csv").write_text("image,subset\n" + rows, encoding="utf-8")
    made = recipe(table, images=str(tmp_path), split=f"file:{tmp_path / 'split.csv'}", mixup=1.0)
    with pytest.raises(RecipeError, match="no batch has a known label"):
        find_lr(made, tmp_path / "lr.png", steps=10)
