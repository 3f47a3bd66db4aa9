"""Runs that share what the frozen part computed train as they would alone, and share nothing that differs."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from mlcls import Recipe, fit
from mlcls.images.dataset import ImageDataset
from mlcls.learning.shelf import Shelf
from mlcls.workflows.data import gather
from mlcls.workflows.epochs import learn
from mlcls.workflows.setup import Setup, preprocessing_for, set_up
from mlcls.workflows.shelf import digest_of_module, open_shelf

QUIET = Console(quiet=True)
RESNET: dict[str, Any] = {
    "backbone": "test_resnet.r160_in1k",
    "weights": "none",
    "image_size": 32,
    "workers": 0,
    "epochs": 4,
    "unfreeze_epoch": 2,
    "augment": "light",
    "precision": "fp32",
    "patience": 0,
    "image_cache_gb": 0,
    "views": 2,
    "resamples": 0,
}


def prepared(toy: Path, shelf: Shelf | None, **changes: Any) -> Setup:
    recipe = Recipe(labels=str(toy), **{**RESNET, **changes})
    preprocessing = preprocessing_for(recipe)
    return set_up(recipe, gather(recipe, QUIET, preprocessing=preprocessing), preprocessing, shelf=shelf)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return open_shelf(tmp_path / "shelf")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often an image was loaded, of each subset."""
    counts: Counter[str] = Counter()
    whole = ImageDataset.__getitem__

    def counting(self: ImageDataset, key: tuple[int, int]) -> Any:
        counts["val" if self.transform is None else "train"] += 1
        return whole(self, key)

    monkeypatch.setattr(ImageDataset, "__getitem__", counting)
    return counts


@pytest.mark.parametrize(
    "changes",
    [
        {"lr_head": 1e-2, "lr_finetune": 1e-3},
        {"batch_size": 24, "dropout": 0.1, "weight_decay": 0.1},
        {"optimizer": "sgd", "schedule": "step", "loss": "focal", "cache_gb": 0.0},
        {"head": "linear", "mixup": 0.2, "label_smoothing": 0.1},
    ],
)
def test_another_trial_loads_no_image_and_learns_the_same_as_alone(
    toy: Path, shelf: Shelf, loaded: Counter[str], changes: dict[str, Any]
) -> None:
    learn(prepared(toy, shelf), QUIET)
    before = loaded.total()
    assert before > 0
    second = learn(prepared(toy, shelf, **changes), QUIET)
    assert loaded.total() == before
    alone = learn(prepared(toy, None, **changes), QUIET)
    assert loaded.total() > before
    for name, tensor in alone.best_weights.items():
        assert torch.equal(second.best_weights[name], tensor), name
    assert np.array_equal(second.val.scores, alone.val.scores)
    losses = [row.train_loss for row in alone.epochs]
    assert [row.train_loss for row in second.epochs] == losses


def taken(setup: Setup) -> tuple[int, int]:
    """Rows that the stages' first epochs take from the shelf, of training and of validation."""
    counts = {"train": 0, "val": 0}
    for feed in setup.feeds:
        list(feed.train(0))
        list(feed.val())
        for name, store in feed.stores.items():
            assert store.shelf is not None or name.startswith("train")
            counts[name[:-1]] += 0 if store.shelf is None else store.shelf.taken
    return counts["train"], counts["val"]


@pytest.mark.parametrize(
    ("changes", "shared"),
    [
        ({"seed": 1, "split": "SAME"}, (False, True)),
        ({"augment": "rich"}, (False, True)),
        ({"augment_args": {"hflip_p": 0.3}}, (False, True)),
        ({"augment_rare": "rich", "rare_share": 0.9}, (False, True)),
        ({"sampler": "balanced"}, (False, True)),
        ({"precision": "bf16"}, (False, True)),
        ({"image_size": 40}, (False, False)),
        ({"fit": "crop"}, (False, False)),
        ({"unfreeze": "layer3"}, (False, False)),
        ({"split": "0.5,0.2,0.3"}, (False, False)),
        ({"batch_size": 7, "epochs": 3, "views": 3}, (True, True)),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_what_a_row_depends_on_parts_runs(
    toy: Path, shelf: Shelf, tmp_path: Path, changes: dict[str, Any], shared: tuple[bool, bool]
) -> None:
    first = prepared(toy, shelf)
    assert taken(first) == (0, 0)
    train, val = len(first.data.split.train), len(first.data.split.val)
    if changes.get("split") == "SAME":
        from mlcls.labels.split import write_split

        write_split(tmp_path / "split.csv", first.data.table.images.tolist(), first.data.split)
        changes = {**changes, "split": f"file:{tmp_path / 'split.csv'}"}
        # the same weights, which with --weights none the seed draws
        changes["weights"] = str(tmp_path / "weights.pth")
        torch.save(first.classifier.backbone.state_dict(), tmp_path / "weights.pth")
    found = taken(prepared(toy, shelf, **changes))
    assert found == (2 * train if shared[0] else 0, 2 * val if shared[1] else 0)


def test_other_weights_or_other_images_share_nothing(toy: Path, shelf: Shelf) -> None:
    first = prepared(toy, shelf)
    taken(first)
    assert taken(prepared(toy, shelf, weights="none", seed=1)) == (0, 0)
    again = prepared(toy, shelf)
    digest = digest_of_module(again.classifier)
    with torch.no_grad():
        next(again.classifier.buffers()).add_(1e-3)
    assert digest_of_module(again.classifier) != digest
    recipe = Recipe(labels=str(toy), **RESNET)
    preprocessing = preprocessing_for(recipe)
    data = gather(recipe, QUIET, preprocessing=preprocessing)
    data.digests[data.split.train[0], 0] ^= 1
    train, val = taken(set_up(recipe, data, preprocessing, shelf=shelf))
    assert train == 0
    assert val > 0


def test_another_number_of_threads_computes_for_itself(
    toy: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(prepared(toy, shelf))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert taken(prepared(toy, shelf)) == (0, 0)


def test_an_augmentation_from_outside_is_not_shared(
    toy: Path, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_augmentation.py").write_text(
        "import albumentations as A\ndef own(preprocessing, settings):\n    return [A.HorizontalFlip(p=0.5)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):
        train, _ = taken(prepared(toy, shelf, augment="own_augmentation:own"))
        assert train == 0


def test_a_bundle_is_the_same_to_its_bytes(
    toy: Path, shelf: Shelf, tmp_path: Path, loaded: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlcls.workflows.finishing._draw", lambda *arguments: "")
    learn(prepared(toy, shelf, epochs=3, unfreeze_epoch=1), QUIET)
    recipe = Recipe(**{**RESNET, "lr_head": 1e-2, "epochs": 3, "unfreeze_epoch": 1})
    loads = []
    for name, place in (("alone", None), ("shared", shelf)):
        before = loaded["train"]
        fit(recipe, labels=toy, out=tmp_path / name, shelf=place)
        loads.append(loaded["train"] - before)
    assert loads[0] > 0
    assert loads[1] == 0
    for file in ("weights.safetensors", "predictions-val.csv", "thresholds.json"):
        assert (tmp_path / "alone" / file).read_bytes() == (tmp_path / "shared" / file).read_bytes()


def test_the_shelf_of_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLCLS_CACHE", str(tmp_path))
    assert open_shelf(gigabytes=0.5) == Shelf(tmp_path / "features", 500_000_000)
    assert list(tmp_path.iterdir()) == []
