"""Options of a training, from the flag to the bundle: each changes it, and a run that was ended goes on exactly."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from toy_data import TINY, write_toy

from mlcls import train
from mlcls.learning import epochs as learning_epochs
from mlcls.workflows import training, validating

FLAGS = [
    "--labels", "labels.txt", *TINY, "--precision", "fp32", "--epochs", "4", "--unfreeze-epoch", "1",
    "--batch-size", "8", "--resamples", "0", "--lr-head", "1e-2", "--lr-finetune", "1e-2", "--patience", "0",
]  # fmt: skip
OPTIONS = {
    "plain": (),
    "ema": ("--ema", "0.9"),
    "soup": ("--soup", "3"),
    "layer decay": ("--layer-decay", "0.5"),
    "gradual": ("--unfreeze", "gradual"),
    "mixup": ("--mixup", "0.4"),
    "cutmix": ("--cutmix", "1"),
    "growing": ("--first-image-size", "16", "--views", "0"),
    "smoothing": ("--label-smoothing", "0.1"),
    "selective": ("--na", "selective", "--na-args", "prior_threshold=1", "likely=0.5"),
    "ramp": ("--loss", "asl", "--loss-args", "ramp_epochs=2"),
    "tta": ("--tta", "flip"),
    "rare": ("--augment-rare", "strong", "--rare-share", "0.6"),
}
# figures that stay the same: an average of these epochs is no worse than the best of them
STILL = ("--monitor", "val_map", "--lr-head", "1e-7", "--lr-finetune", "1e-7")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy(tmp_path, images=48)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlcls.workflows.finishing._draw", lambda *arguments: "")
    monkeypatch.setattr("mlcls.workflows.finishing._export", lambda *arguments: None)


def result(folder: str) -> dict[str, Any]:
    """All that a run leaves, but for how long it took and what it was called."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in Path(folder).glob("*.csv")}
    found["weights"] = Path(folder, "weights.safetensors").read_bytes()
    found["thresholds"] = Path(folder, "thresholds.json").read_bytes()
    metrics = json.loads(Path(folder, "metrics.json").read_text())
    for row in (metrics, *metrics["epochs"]):
        row.pop("seconds")
        row.pop("images_per_second", None)
    metrics.pop("command")
    return {**found, "metrics": metrics}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_changes_the_run_and_a_run_that_was_ended_goes_on_exactly(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = [*FLAGS, *(STILL if option == "soup" else ())]
    flags = [*common, *OPTIONS[option]]
    assert train.main([*flags, "--out", "whole"]) == 0
    for module, name, call in (
        (learning_epochs, "take_step", 7),
        (validating, "evaluate", 1),
    ):
        with monkeypatch.context() as patch:
            _end_at(patch, module, name, call)
            resume = ["--resume"] if Path("ended/checkpoint").exists() else []
            assert train.main([*flags, "--out", "ended", *resume]) == 130
    assert train.main(["--out", "ended", "--resume"]) == 0
    whole, ended = result("whole"), result("ended")
    assert ended == whole
    if option == "plain":
        return
    assert train.main([*common, "--out", "plain"]) == 0
    plain = result("plain")
    changed = "predictions-test.csv" if option == "tta" else "iterations.csv"
    if option in ("ema", "soup"):  # the training itself is the same: what is kept of it differs
        assert whole["iterations.csv"] == plain["iterations.csv"]
        changed = "weights"
    if option == "soup":
        assert len(whole["metrics"]["soup"]) > 1
    assert whole[changed] != plain[changed]


def _end_at(patch: pytest.MonkeyPatch, module: Any, name: str, call: int) -> None:
    """A Ctrl-C at the n-th call of a function."""
    original, count = getattr(module, name), 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments, **named)

    patch.setattr(module, name, counted)


@pytest.mark.parametrize(
    ("size", "first", "message"),
    [
        ("64", "128", "--first-image-size: 128 is larger than the images are (64, --image-size)"),
        ("160", "64", "--first-image-size 64: deit_tiny_patch16_224 does not take images of 64 px"),
    ],
)
def test_a_first_size_that_the_network_does_not_take_is_refused(
    size: str, first: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*FLAGS, "--backbone", "deit_tiny_patch16_224", "--image-size", size, "--first-image-size", first]
    assert train.main([*flags, "--out", "never"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not Path("never").exists()


def test_every_size_that_images_grow_through_is_tried_first(capsys: pytest.CaptureFixture[str]) -> None:
    flags = [
        *FLAGS,
        "--backbone",
        "test_vit.r160_in1k",
        "--backbone-args",
        "dynamic_img_size=true",
        "patch_size=20",
    ]
    flags += ["--image-size", "160", "--first-image-size", "40", "--epochs", "12"]
    assert train.main([*flags, "--out", "never"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "--first-image-size 40: test_vit.r160_in1k does not take images of 64 px" in told


def test_images_that_vanish_before_the_views_are_seen_cost_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*FLAGS, "--tta", "flip", "--image-cache-gb", "0"]
    assert train.main([*flags, "--out", "whole"]) == 0
    with monkeypatch.context() as patch:
        refine = training.refine

        def without_images(*arguments: Any) -> Any:
            Path("images").rename("elsewhere")
            return refine(*arguments)

        patch.setattr(training, "refine", without_images)
        assert train.main([*flags, "--out", "ended"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "no such image" in told
    assert "once it is there again, go on with: python -m mlcls.train --out ended --resume" in told
    Path("elsewhere").rename("images")
    assert train.main(["--out", "ended", "--resume"]) == 0
    assert result("ended") == result("whole")
