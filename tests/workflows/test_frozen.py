"""What is frozen is computed once, and a training with it is the training without it."""

import dataclasses
import io
import logging
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from mlcls import Recipe, fit
from mlcls.errors import BundleError, OutputError
from mlcls.images.dataset import ImageDataset
from mlcls.learning import features
from mlcls.learning.saved_rows import load_rows, save_rows
from mlcls.models.stages import set_trainable
from mlcls.workflows import arithmetic, frozen, levels
from mlcls.workflows.checks import stage_plans
from mlcls.workflows.data import gather
from mlcls.workflows.epochs import learn
from mlcls.workflows.setup import Setup, preprocessing_for, set_up

QUIET = Console(quiet=True)
RESNET: dict[str, Any] = {
    "backbone": "test_resnet.r160_in1k",
    "weights": "none",
    "image_size": 32,
    "workers": 0,
    "epochs": 5,
    "unfreeze_epoch": 2,
    "augment": "light",
    "precision": "fp32",
    "patience": 0,
    "image_cache_gb": 0,
}


def prepared(toy: Path, **changes: Any) -> Setup:
    recipe = Recipe(labels=str(toy), **{**RESNET, **changes})
    preprocessing = preprocessing_for(recipe)
    return set_up(recipe, gather(recipe, QUIET, preprocessing=preprocessing), preprocessing)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, int]]:
    """How often each (view or epoch, image) of the training subset was loaded; 0.. counts validation as -1."""
    counts: Counter[tuple[int, int]] = Counter()
    whole = ImageDataset.__getitem__

    def counting(self: ImageDataset, key: tuple[int, int]) -> Any:
        counts[key if self.transform is not None else (-1, key[1])] += 1
        return whole(self, key)

    monkeypatch.setattr(ImageDataset, "__getitem__", counting)
    return counts


def test_each_view_of_each_image_passes_the_frozen_part_once_in_both_stages(
    toy: Path, loaded: Counter[tuple[int, int]]
) -> None:
    setup = prepared(toy, views=3, augment="rich")
    assert [feed.rest is not None for feed in setup.feeds] == [True, True]
    learned = learn(setup, QUIET)
    assert len(learned.epochs) == 5
    train, val = len(setup.data.split.train), len(setup.data.split.val)
    assert loaded == {
        **{(view, image): 1 for view in range(3) for image in range(train)},
        **{(-1, image): 1 for image in range(val)},
    }


def test_an_image_passes_the_frozen_part_once_as_it_is_and_once_mirrored(
    toy: Path, loaded: Counter[tuple[int, int]]
) -> None:
    setup = prepared(toy, views=5)
    augment = setup.train.dataset.transform
    learn(setup, QUIET)
    train, val = len(setup.data.split.train), len(setup.data.split.val)
    marker = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    wanted = {(-1, image): 1 for image in range(val)}
    for image in range(train):
        seen = [augment(marker, view, image).tobytes() for view in range(5)]
        wanted |= {(seen.index(one), image): 1 for one in set(seen)}
    assert loaded == wanted
    assert train < len(wanted) - val < 2 * train + 1


def test_one_view_is_enough_where_nothing_is_augmented(toy: Path, loaded: Counter[tuple[int, int]]) -> None:
    setup = prepared(toy, views=4, augment="none")
    learn(setup, QUIET)
    assert set(loaded.values()) <= {1, 2}  # no transform tells training from validation here
    assert sum(loaded.values()) == len(setup.data.split.train) + len(setup.data.split.val)
    assert any("1 view of each image" in note for note in setup.facts.notes)


@pytest.mark.parametrize("share", [0.3, 0.9, 1.2, 1.8, 2.5])
def test_any_budget_of_memory_gives_the_same_training(toy: Path, share: float, tmp_path: Path) -> None:
    """Also one that the training images' views use up, so that nothing is left for validation's."""
    setup = prepared(toy, views=3)
    level = setup.feeds[0].rest
    assert level is not None
    whole = learn(setup, QUIET)
    train = len(setup.data.split.train)
    budget = share * train * 3 * 2 * 256 / 1e9
    small = learn(prepared(toy, views=3, cache_gb=budget), QUIET)
    for name, tensor in whole.best_weights.items():
        assert torch.equal(tensor, small.best_weights[name]), name


@pytest.mark.parametrize(
    ("unfreeze", "width", "worth"),
    [
        ("layer1,layer2,layer3,layer4", 3 * 32 * 32, True),
        ("layer1,layer2,layer3,layer4", 3 * 32 * 32 + 1, False),
    ],
)
def test_a_frozen_stem_whose_output_is_larger_than_the_image_is_computed_again(
    unfreeze: str, width: int, worth: bool, toy: Path
) -> None:
    classifier = prepared(toy).classifier
    set_trainable(classifier, unfreeze)
    assert frozen._is_worth(SimpleNamespace(width=width), classifier, 32) is worth  # type: ignore[arg-type]
    set_trainable(classifier, "none")  # most of the network is frozen: worth any row
    assert frozen._is_worth(SimpleNamespace(width=10 * width), classifier, 32)  # type: ignore[arg-type]


def test_without_views_every_epoch_augments_afresh(toy: Path, loaded: Counter[tuple[int, int]]) -> None:
    setup = prepared(toy, views=0, epochs=3)
    assert [feed.rest for feed in setup.feeds] == [None, None]
    learn(setup, QUIET)
    assert {epoch for epoch, _ in loaded} == {-1, 0, 1, 2}
    assert all(loaded[0, image] == 1 for image in range(len(setup.data.split.train)))
    assert loaded[-1, 0] == 3


def test_a_stage_that_trains_everything_gets_pixels_after_one_that_does_not(
    toy: Path, loaded: Counter[tuple[int, int]]
) -> None:
    setup = prepared(toy, views=4, unfreeze="all", epochs=4)
    assert [feed.rest is None for feed in setup.feeds] == [False, True]
    learn(setup, QUIET)
    assert {epoch for epoch, _ in loaded} == {-1, 0, 1, 2, 3}
    assert loaded[-1, 0] == 1 + 2  # validation: once for the head stage, then in each epoch


@pytest.mark.parametrize("unfreeze", ["none", "last", "layer3.0"])
def test_a_cut_training_is_the_uncut_one_to_within_the_rounding_of_what_is_kept(
    toy: Path, unfreeze: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many views as epochs see the same augmentations; kept in float32, losses and weights are those of no cut."""
    monkeypatch.setattr(levels, "KEPT", torch.float32)
    whole = learn(prepared(toy, views=0, unfreeze=unfreeze), QUIET)
    cut = learn(prepared(toy, views=5, unfreeze=unfreeze), QUIET)
    for one, other in zip(whole.epochs, cut.epochs, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-4)
        assert other.val_loss == pytest.approx(one.val_loss, rel=1e-4)
    assert whole.best_epoch == cut.best_epoch
    for name, tensor in whole.best_weights.items():
        if tensor.is_floating_point():
            assert torch.allclose(cut.best_weights[name], tensor, rtol=1e-3, atol=1e-4), name
    np.testing.assert_allclose(cut.val.scores, whole.val.scores, atol=1e-4)


def test_kept_in_bfloat16_it_is_near(toy: Path) -> None:
    whole = learn(prepared(toy, views=0), QUIET)
    cut = learn(prepared(toy, views=5), QUIET)
    for one, other in zip(whole.epochs, cut.epochs, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=0.02)


def test_the_validation_scores_are_those_of_the_whole_network(toy: Path, tmp_path: Path) -> None:
    setup = prepared(toy, views=2)
    learned = learn(setup, QUIET)
    setup.classifier.load_state_dict(learned.best_weights)
    setup.classifier.eval()
    with torch.no_grad():
        logits = torch.cat([setup.classifier(pixels) for pixels, _, _ in setup.val])
    np.testing.assert_allclose(learned.val.scores, torch.sigmoid(logits).numpy(), atol=1e-5)


def test_where_there_is_no_room_it_says_so_and_trains_all_the_same(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device", "/cache")

    monkeypatch.setattr(levels, "make_store", full)
    setup = prepared(toy, epochs=2, unfreeze_epoch=1)
    assert [feed.rest for feed in setup.feeds] == [None, None]
    (note,) = [note for note in setup.facts.notes if "no room" in note]
    assert "--views" in note
    assert len(learn(setup, QUIET).epochs) == 2


@pytest.fixture
def company_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that depend on the images that they are computed with, as roundings may, and so that no two are equal."""
    whole = levels.run_frozen

    def run_frozen(module: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        place = torch.arange(len(inputs))[:, None]
        return whole(module, inputs) + inputs.float().mean() / 50 + place

    monkeypatch.setattr(levels, "run_frozen", run_frozen)


def rows_of(setup: Setup, stage: int, epoch: int, start: int = 0) -> list[torch.Tensor]:
    return [rows for rows, _, _ in setup.feeds[stage].train(epoch, start)]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) > 0 and all(map(torch.equal, one, other))


@pytest.mark.parametrize("batch_size", [5, 12])
@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
@pytest.mark.usefixtures("company_counts")
def test_a_row_is_the_same_to_the_last_bit_whoever_asks_for_it_and_when(
    toy: Path, sampler: str, batch_size: int
) -> None:
    """As a run that goes on asks for them: from the middle of an epoch, for a view whose first epoch is long past."""
    changes = {"views": 2, "sampler": sampler, "batch_size": batch_size, "unfreeze": "last"}
    run = prepared(toy, **changes)
    assert [len(feed.stores) for feed in run.feeds] == [2, 2]
    whole = {(stage, epoch): rows_of(run, stage, epoch) for stage in (0, 1) for epoch in range(4)}
    val = {stage: [rows for rows, _, _ in run.feeds[stage].val()] for stage in (0, 1)}
    again = prepared(toy, **changes)
    assert same(rows_of(again, 1, 3), whole[1, 3])  # the lower level first
    assert same(rows_of(again, 0, 2, start=2), whole[0, 2][2:])
    assert same(rows_of(again, 0, 0, start=1), whole[0, 0][1:])
    assert same(rows_of(again, 0, 3), whole[0, 3])
    assert same([rows for rows, _, _ in again.feeds[0].val()], val[0])
    for (stage, epoch), rows in whole.items():
        assert same(rows_of(again, stage, epoch), rows)
        assert rows_of(again, stage, epoch, start=len(rows)) == []
    assert same([rows for rows, _, _ in again.feeds[1].val()], val[1])
    alone = prepared(toy, **changes)
    assert same(rows_of(alone, 0, 1, start=1), whole[0, 1][1:])


@pytest.mark.usefixtures("company_counts")
def test_what_is_kept_on_disk_takes_the_place_of_computing(
    toy: Path, tmp_path: Path, loaded: Counter[tuple[int, int]]
) -> None:
    changes = {"views": 2, "unfreeze": "last"}
    run = prepared(toy, **changes)
    whole = {stage: rows_of(run, stage, 0) for stage in (0, 1)}
    val = [rows for rows, _, _ in run.feeds[0].val()]
    stores = {name: store for feed in run.feeds for name, store in feed.stores.items()}
    assert sorted(stores) == ["train0", "train1", "val0", "val1"]
    facts = {name: save_rows(store, tmp_path, name) for name, store in stores.items()}
    passed = loaded.total()
    again = prepared(toy, cache_gb=0, **changes)  # where they lie does not matter
    for feed in again.feeds:
        for name, store in feed.stores.items():
            assert load_rows(store, tmp_path, facts[name]) == []
    assert {stage: same(rows_of(again, stage, 0), whole[stage]) for stage in (0, 1)} == {0: True, 1: True}
    assert same([rows for rows, _, _ in again.feeds[0].val()], val)
    assert loaded.total() == passed


def test_half_precision_ends_where_the_frozen_part_does(toy: Path) -> None:
    setup = prepared(toy, precision="bf16", batch_size=4, unfreeze="last")
    for feed in setup.feeds:
        for _ in feed.train(0):
            assert not torch.is_autocast_enabled("cpu")


def feeds_again(setup: Setup, folder: Path, kept: list[bool], **changes: Any) -> list[frozen.Feed]:
    """As a run that goes on builds them."""
    recipe = dataclasses.replace(setup.recipe, **changes)
    plans = stage_plans(recipe)
    cuts = frozen.find_cuts(setup.classifier, plans, 32, recipe.views)
    return frozen.build_feeds(recipe, cuts, plans, setup.train, setup.val, folder, kept=kept)[0]


@pytest.mark.parametrize("kept", [[True, True], [True, False], [False, True], [False, False]])
def test_a_run_that_goes_on_cuts_what_it_had_cut(toy: Path, tmp_path: Path, kept: list[bool]) -> None:
    feeds = feeds_again(prepared(toy), tmp_path, kept)
    assert [feed.rest is not None for feed in feeds] == kept
    assert [bool(feed.stores) for feed in feeds] == kept


def test_a_run_that_goes_on_without_room_for_what_it_kept_says_how_much_it_needs(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = prepared(toy)
    usage = SimpleNamespace(free=10)
    monkeypatch.setattr(features.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OutputError, match=r"--resume needs .* GB.*make room in .*raise --cache-gb"):
        feeds_again(setup, tmp_path, [True, True], cache_gb=0)
    assert feeds_again(setup, tmp_path, [False, False], cache_gb=0)[0].rest is None


def test_a_run_that_goes_on_with_a_network_that_cannot_be_cut_any_more_says_so(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = prepared(toy)
    monkeypatch.setattr(frozen, "find_cut", lambda *_, **__: None)
    with pytest.raises(BundleError, match=r"cannot be cut for stage 1 .*--overwrite"):
        feeds_again(setup, tmp_path, [True, True])


def test_a_network_that_cannot_be_cut_trains_whole(
    toy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "mlcls")
    monkeypatch.setattr(frozen, "find_cut", lambda *_, **__: None)
    setup = prepared(toy, epochs=2, unfreeze_epoch=1)
    assert [feed.rest for feed in setup.feeds] == [None, None]
    assert len(learn(setup, QUIET).epochs) == 2


def test_the_same_recipe_gives_the_same_bytes(toy: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        fit(Recipe(**RESNET), labels=toy, out=tmp_path / name)
    for file in ("weights.safetensors", "predictions-val.csv", "predictions-test.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_any_number_of_workers_gives_the_same_bytes(toy: Path) -> None:
    alone, two = (learn(prepared(toy, workers=workers, epochs=3), QUIET) for workers in (0, 2))
    for name, tensor in alone.best_weights.items():
        assert torch.equal(tensor, two.best_weights[name]), name


@pytest.mark.parametrize(
    ("fp32", "bf16", "chosen"),
    [(1.0, 0.5, "bf16"), (1.0, 0.9, "fp32"), (1.0, 2.0, "fp32"), (0.01, 0.001, "fp32")],
)
def test_the_faster_arithmetic_is_chosen_where_it_is_clearly_faster(
    fp32: float, bf16: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(arithmetic.time, "perf_counter", lambda: clock[0])

    def step(precision: str) -> None:
        clock[0] += {"fp32": fp32, "bf16": bf16}[precision]

    precision, ratio = arithmetic.faster_precision(step)
    assert precision == chosen
    assert ratio is None if fp32 < arithmetic.SHORT else ratio == pytest.approx(bf16 / fp32)


def test_the_measured_arithmetic_is_told_and_written_into_the_recipe(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLCLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(frozen, "bf16_is_native", lambda: True)
    monkeypatch.setattr(
        frozen, "faster_precision", lambda step: (step("fp32"), step("bf16"), ("bf16", 0.5))[2]
    )
    told = io.StringIO()
    recipe = Recipe(**{**RESNET, "precision": "auto", "epochs": 2})
    fit(recipe, labels=toy, out=tmp_path / "o", console=Console(file=told, width=120))
    assert 'precision = "bf16"' in (tmp_path / "o" / "recipe.toml").read_text(encoding="utf-8")
    assert "bfloat16: a step in bfloat16 takes 0.50 times as long as in float32 here" in told.getvalue()


def test_what_was_measured_is_not_measured_again(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLCLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(frozen, "bf16_is_native", lambda: True)
    monkeypatch.setattr(frozen, "faster_precision", lambda step: ("bf16", 0.5))
    assert prepared(toy, precision="auto").recipe.precision == "bf16"
    monkeypatch.setattr(frozen, "faster_precision", lambda step: ("fp32", 2.0))
    again = prepared(toy, precision="auto")
    assert again.recipe.precision == "bf16"
    assert any("takes 0.50 times as long" in note for note in again.facts.notes)
    assert prepared(toy, precision="auto", unfreeze="none").recipe.precision == "fp32"  # another step
    (tmp_path / "cache" / "precision.json").write_text("{not json", encoding="utf-8")
    assert prepared(toy, precision="auto").recipe.precision == "fp32"
