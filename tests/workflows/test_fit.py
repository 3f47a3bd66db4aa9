"""Training and prediction from Python: the same run as the command's, from paths, arrays and DataFrames."""

import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rich.console import Console

from mlcls import MlclsError, Predictor, Recipe, fit, read_table
from mlcls.bundle.network import load_classifier
from mlcls.errors import BundleError, ImageError, RecipeError, TableError
from mlcls.images.read import read_image
from mlcls.reports.record import from_json, to_json
from mlcls.scoring.assessment import assess
from mlcls.scoring.metrics import evaluate
from mlcls.scoring.predictions import read_predictions

SMALL = {"backbone": "cnn4", "backbone_args": {"widths": [8, 8, 8, 8]}, "weights": "none", "image_size": 32}
QUICK = {**SMALL, "workers": 0, "epochs": 1, "unfreeze": "all", "unfreeze_epoch": 0, "augment": "none"}


def test_a_dataframe_trains_as_its_table_does(toy: Path, tmp_path: Path) -> None:
    fit(Recipe(**QUICK), labels=toy, out=tmp_path / "a")
    frame = pd.read_csv(toy, sep=" ", keep_default_na=False)
    fit(Recipe(**QUICK), labels=frame, images=toy.parent / "images", out=tmp_path / "b")
    for name in ("weights.safetensors", "predictions-val.csv", "split.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_record_is_what_metrics_json_holds(toy: Path, tmp_path: Path) -> None:
    record = fit(Recipe(**QUICK), labels=toy, out=tmp_path / "o")
    text = (tmp_path / "o" / "metrics.json").read_text(encoding="utf-8")
    assert to_json(record) == text
    assert to_json(from_json(text)) == text


def test_the_record_rests_on_the_saved_predictions(toy: Path, tmp_path: Path) -> None:
    record = fit(Recipe(**QUICK, objective="youden"), labels=toy, out=tmp_path / "o")
    thresholds = np.array([row["threshold"] for row in record.thresholds])
    for subset in ("val", "test"):
        saved = read_predictions(tmp_path / "o" / f"predictions-{subset}.csv")
        again = assess(saved.labels, saved.scores, thresholds, attributes=saved.attributes)
        assert again == record.evaluation[subset]
    best = record.epochs[record.best_epoch]
    val = read_predictions(tmp_path / "o" / "predictions-val.csv")
    assert evaluate(val.labels, val.scores, np.full(3, 0.5))["macro"]["average_precision"] == best.val_map


def test_early_stopping_brings_back_the_best_weights(toy: Path, tmp_path: Path) -> None:
    """A learning rate that destroys: the first epoch stays the best, and its weights are those saved."""
    recipe = Recipe(**{**QUICK, "epochs": 12, "patience": 2, "lr_finetune": 0.5, "schedule": "none"})
    recipe = dataclasses.replace(recipe, monitor="val_loss")
    record = fit(recipe, labels=toy, out=tmp_path / "o")
    losses = [epoch.val_loss if epoch.val_loss is not None else np.inf for epoch in record.epochs]
    assert record.best_epoch == int(np.argmin(losses))
    assert len(losses) == record.best_epoch + 3
    assert "val_loss" in record.stopped_because
    saved = read_predictions(tmp_path / "o" / "predictions-val.csv")
    table = read_table(toy)
    found = Predictor(tmp_path / "o").predict([table.images_dir / name for name in saved.images])
    scores = [[attribute["probability"] for attribute in row["attributes"]] for row in found]
    np.testing.assert_allclose(scores, saved.scores, atol=1e-4)  # two engines


def test_patience_that_runs_out_in_the_first_stage_goes_on_with_the_second(toy: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "epochs": 10, "unfreeze_epoch": 8, "patience": 1, "lr_head": 3.0, "schedule": "none"}
    record = fit(Recipe(**settings, head="linear"), labels=toy, out=tmp_path / "o")
    stages = [epoch.stage for epoch in record.epochs]
    assert stages.index(1) < 8
    assert record.epochs[stages.index(1)].lr == Recipe().lr_finetune


def test_unknown_labels_count_as_absent_only_when_told(toy: Path, tmp_path: Path) -> None:
    ignored = fit(Recipe(**QUICK), labels=toy, out=tmp_path / "a")
    negative = fit(Recipe(**QUICK, na="negative"), labels=toy, out=tmp_path / "b")
    assert ignored.epochs[0].train_loss != negative.epochs[0].train_loss
    weights = [[float(w) for w in record.recipe["pos_weight"].split(",")] for record in (ignored, negative)]
    assert all(b > a for a, b in zip(*weights, strict=True))
    # what is unknown stays so in every figure
    assert negative.data.attributes == ignored.data.attributes
    known = [
        [row["known"] for row in record.evaluation["test"]["attributes"]] for record in (ignored, negative)
    ]
    assert known[0] == known[1]


def test_the_console_shows_the_run_and_is_silent_without(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(Recipe(**QUICK), labels=toy, out=tmp_path / "a")
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
    stream = io.StringIO()
    fit(Recipe(**QUICK), labels=toy, out=tmp_path / "b", console=Console(file=stream, width=120))
    for part in ("square_left", "cnn4", "train loss", "Test subset", "saved in"):
        assert part in stream.getvalue()


def test_a_run_goes_on_without_images_that_vanish_from_nowhere(toy: Path, tmp_path: Path) -> None:
    """An image that is kept nowhere and disappears during training is named; no other takes its place."""
    import shutil

    data = tmp_path / "data"
    shutil.copytree(toy.parent, data)

    class Vanishing(Console):
        def print(self, *args: object, **kwargs: object) -> None:
            for path in (data / "images").glob("img_00*.png"):
                path.unlink(missing_ok=True)

    with pytest.raises(ImageError, match="img_00"):
        fit(
            Recipe(**QUICK, image_cache_gb=0),
            labels=data / "labels.txt",
            out=tmp_path / "o",
            console=Vanishing(file=io.StringIO()),
        )
    assert not (tmp_path / "o" / "bundle.json").exists()


def test_one_attribute_and_few_images(tmp_path: Path, toy: Path) -> None:
    frame = pd.DataFrame({"image": [f"img_{n:03d}.png" for n in range(3)], "red": [1, 0, 1]})
    record = fit(
        Recipe(**QUICK, batch_size=1), labels=frame, images=toy.parent / "images", out=tmp_path / "o"
    )
    assert record.data.images == 3
    assert [row["threshold"] for row in record.thresholds] == [0.5]
    assert "kept at 0.5" in record.thresholds[0]["note"]


def test_a_subset_without_a_known_label_is_refused(tmp_path: Path, toy: Path) -> None:
    frame = pd.DataFrame(
        {
            "image": [f"img_{n:03d}.png" for n in range(4)],
            "red": [1, 0, None, None],
            "part": ["train", "train", "val", "val"],
        }
    )
    with pytest.raises(TableError, match="validation subset has no known label"):
        fit(
            Recipe(**QUICK, split="column:part"),
            labels=frame,
            images=toy.parent / "images",
            out=tmp_path / "o",
        )


def test_a_monitor_that_is_undefined_is_refused(tmp_path: Path, toy: Path) -> None:
    frame = pd.DataFrame({"image": [f"img_{n:03d}.png" for n in range(8)], "red": [1] * 7 + [0]})
    recipe = Recipe(**QUICK, monitor="val_map", split="0.5,0.5,0", seed=1)
    with pytest.raises(RecipeError, match="--monitor val_map"):
        fit(recipe, labels=frame, images=toy.parent / "images", out=tmp_path / "o")


def test_the_network_saved_is_the_network_trained_on_any_family(toy: Path, tmp_path: Path) -> None:
    for backbone in ("test_vit.r160_in1k", "test_convnext.r160_in1k"):
        settings = {**QUICK, "backbone": backbone, "backbone_args": {}, "unfreeze": "last", "image_size": 64}
        out = tmp_path / backbone
        fit(Recipe(**settings), labels=toy, out=out)
        saved = read_predictions(out / "predictions-test.csv")
        found = Predictor(out).predict([toy.parent / "images" / name for name in saved.images])
        scores = [[attribute["probability"] for attribute in row["attributes"]] for row in found]
        np.testing.assert_allclose(scores, saved.scores, atol=1e-5)


# --- Predictor -----------------------------------------------------------------------------------------------------


def test_paths_arrays_and_pil_images_give_the_same_row(toy_bundle: Path, toy: Path) -> None:
    path = toy.parent / "images" / "img_001.png"
    rgb = read_image(path)
    rows = Predictor(toy_bundle).predict(
        [path, rgb, Image.open(path), np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])]
    )
    assert [row["image"] for row in rows] == [str(path), "array 1", "array 2", "array 3"]
    probabilities = [[attribute["probability"] for attribute in row["attributes"]] for row in rows]
    np.testing.assert_allclose(probabilities, np.broadcast_to(probabilities[0], (4, 3)), atol=1e-6)


def test_a_pil_image_is_turned_as_its_file_is(toy_bundle: Path, tmp_path: Path) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30] = (250, 30, 30)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=100)
    rows = Predictor(toy_bundle).predict([tmp_path / "turned.jpg", Image.open(tmp_path / "turned.jpg")])
    first, second = ([attribute["probability"] for attribute in row["attributes"]] for row in rows)
    np.testing.assert_allclose(first, second, atol=5e-3)  # two JPEG decoders


def test_what_is_no_image_gets_an_error_in_its_row(toy_bundle: Path) -> None:
    rows = Predictor(toy_bundle).predict(["nowhere.jpg", 7, np.zeros((0, 3), np.uint8)])
    assert all(set(row) == {"image", "error"} for row in rows)
    with pytest.raises(ImageError, match="nowhere"):
        Predictor(toy_bundle).embed(["nowhere.jpg"])


def test_embeddings_are_what_the_head_sees(toy_bundle: Path, toy: Path) -> None:
    paths = sorted((toy.parent / "images").iterdir())[:40]
    predictor = Predictor(toy_bundle, raw=True)
    features = predictor.embed(paths)
    assert features.shape == (40, 96)
    assert features.dtype == np.float32
    head = (
        load_classifier(predictor.bundle).eval().head
    )  # the features through the head are the probabilities
    with torch.no_grad():
        scores = torch.sigmoid(head(torch.from_numpy(features))).numpy()
    found = [[a["probability"] for a in row["attributes"]] for row in predictor.predict(paths)]
    np.testing.assert_allclose(scores, found, atol=1e-5)
    assert predictor.embed([]).shape == (0, 96)


def test_one_image_alone_is_a_list_of_one(toy_bundle: Path, toy: Path) -> None:
    path = toy.parent / "images" / "img_001.png"
    predictor = Predictor(toy_bundle)
    expected = predictor.predict([path])[0]["attributes"]
    for image in (path, str(path), read_image(path), Image.open(path)):
        rows = predictor.predict(image)
        assert [row["attributes"] for row in rows] == [expected]
    assert predictor.embed(path).shape == (1, 96)
    batch = np.stack([read_image(path)] * 3)
    assert len(predictor.predict(batch)) == 3
    with pytest.raises(RecipeError, match="from 0 to 1"):
        Predictor(toy_bundle, threshold=7)


def test_one_threshold_for_all(toy_bundle: Path, toy: Path) -> None:
    row = Predictor(toy_bundle, threshold=1.0).predict([toy.parent / "images" / "img_001.png"])[0]
    assert row["present"] == []
    assert {attribute["threshold"] for attribute in row["attributes"]} == {1.0}


def test_no_bundle_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=re.escape(f"mlcls train --out {tmp_path / 'o'}")):
        Predictor(tmp_path / "o")


def test_every_error_is_of_one_tree() -> None:
    from mlcls import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert all(issubclass(kind, MlclsError) for kind in kinds)


def test_a_picture_that_cannot_be_drawn_does_not_cost_the_training(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr("mlcls.workflows.finishing.draw_thresholds", broken)
    with pytest.raises(RuntimeError, match="no font"):
        fit(Recipe(**QUICK), labels=toy, out=tmp_path / "o")
    assert Predictor(tmp_path / "o").predict(sorted((toy.parent / "images").iterdir())[:1])[0]["attributes"]


def test_an_estimator_or_objective_that_cannot_judge_is_refused_before_training(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aims_of_mine.py").write_text(
        "import numpy as np\nfrom mlcls.scoring.objectives import Merit\n"
        "def never(cuts):\n    gone = np.full(len(cuts.tp), np.nan)\n    return Merit(gone, (gone,))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RecipeError, match="must give a finite number") as refused:
        fit(
            Recipe(**QUICK, objective="aims_of_mine:never", estimator="os:getcwd"),
            labels=toy,
            out=tmp_path / "o",
        )
    assert "--estimator: unknown name 'os:getcwd'" in str(refused.value)
