"""The commands, as a person calls them: files and fields to the letter, exit codes, one message a mistake."""

import csv
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest
from toy_data import TINY, write_toy

from mlcls import inspect, predict, train, tune_thresholds
from mlcls.__main__ import COMMANDS
from mlcls.__main__ import main as mlcls_main

FILES = {
    "attribute_figures.png",
    "bundle.json",
    "co_occurrence.png",
    "iterations.csv",
    "loss_curve.png",
    "metrics.json",
    "overall_confusion_matrix.png",
    "model.onnx",
    "per_class_confusion_matrices.png",
    "precision_recall.png",
    "precision_recall_curves.png",
    "predictions-test.csv",
    "predictions-val.csv",
    "recipe.toml",
    "reliability.png",
    "report.html",
    "roc_curves.png",
    "split.csv",
    "threshold_curves.png",
    "thresholds.json",
    "train_vs_val_loss.png",
    "training_history.png",
    "unknown_labels.png",
    "weights.safetensors",
}
EVALUATION = {"n", "macro", "micro", "hamming_loss", "exact_match", "undefined", "attributes"}
FIGURES = {"precision", "recall", "f1", "accuracy", "average_precision", "auroc"}
ONE_EPOCH = ["--epochs", "1", "--unfreeze-epoch", "0", "--unfreeze", "all", "--augment", "none"]


def load(path: Path) -> dict:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in {path}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def message(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.err.count("error: ") == 1, captured.err
    return captured.err


# --- train ---------------------------------------------------------------------------------------------------------


def test_a_bundle_holds_exactly_the_files_of_the_contract(toy_bundle: Path) -> None:
    assert {path.name for path in toy_bundle.iterdir()} == FILES


def test_the_manifest_names_what_prediction_needs(toy_bundle: Path) -> None:
    manifest = load(toy_bundle / "bundle.json")
    assert manifest["attributes"] == ["red", "bright", "square_left"]
    assert manifest["preprocessing"]["image_size"] == 32
    assert set(manifest["files"]) == FILES - {"bundle.json", "thresholds.json"}
    assert set(manifest) >= {"format", "backbone", "backbone_args", "head", "versions", "digest"}
    assert 0 <= manifest["onnx"]["parity"] <= 1e-4


def test_metrics_json_has_the_fields_of_the_contract(toy_bundle: Path) -> None:
    metrics = load(toy_bundle / "metrics.json")
    top = "format mlcls seed command data model recipe thresholds epochs best_epoch stopped_because seconds evaluation"
    top += " calibration soup members ensemble"
    assert list(metrics) == top.split()
    data = metrics["data"]
    assert data["rows"] == data["images"] == 60
    assert set(data) >= {
        "rows",
        "images",
        "missing",
        "unreadable",
        "metadata",
        "duplicates",
        "conflicts",
        "attributes",
        "split",
    }
    assert sum(data["split"].values()) == 60
    for attribute in data["attributes"]:
        assert attribute["positive"] + attribute["negative"] + attribute["unknown"] == 60
    assert [epoch["epoch"] for epoch in metrics["epochs"]] == [0, 1, 2, 3]
    assert [epoch["stage"] for epoch in metrics["epochs"]] == [0, 0, 1, 1]
    assert [epoch["lr"] for epoch in metrics["epochs"]][::2] == [2e-3, 1e-3]
    fields = "epoch stage lr train_loss val_loss val_map val_f1 val_precision val_recall val_hamming_loss"
    assert set(metrics["epochs"][0]) >= {*fields.split(), "val_exact_match", "seconds", "images_per_second"}
    best = max(metrics["epochs"], key=lambda epoch: (epoch["val_map"], -epoch["val_loss"]))
    assert metrics["best_epoch"] == best["epoch"]
    assert metrics["recipe"]["monitor"] == "val_map"
    for subset in ("val", "test"):
        entry = metrics["evaluation"][subset]
        assert set(entry) >= EVALUATION
        assert entry["n"] == data["split"][subset]
        assert set(entry["macro"]) >= FIGURES
        assert set(entry["micro"]) >= FIGURES
        for attribute in entry["attributes"]:
            assert {"name", "known", "positive", "threshold", "confusion"} | FIGURES <= set(attribute)
            assert sum(attribute["confusion"].values()) == attribute["known"]


def test_tables_of_the_bundle(toy_bundle: Path) -> None:
    header, *iterations = rows(toy_bundle / "iterations.csv")
    assert header == ["iteration_number", "epoch", "training_loss"]
    assert [int(row[0]) for row in iterations] == list(range(len(iterations)))
    assert {row[1] for row in iterations} == {"0", "1", "2", "3"}
    header, *split = rows(toy_bundle / "split.csv")
    assert header == ["image", "subset"]
    assert {row[1] for row in split} == {"train", "val", "test"}
    header, *predictions = rows(toy_bundle / "predictions-val.csv")
    names = ("red", "bright", "square_left")
    assert header == ["image", *(column for name in names for column in (name, f"{name}_probability"))]
    assert {cell for row in predictions for cell in row[1::2]} <= {"0", "1", "NA"}
    assert sorted(row[0] for row in predictions) == sorted(row[0] for row in split if row[1] == "val")


def test_recipe_toml_is_complete_and_repeats_the_run(toy_bundle: Path, tmp_path: Path) -> None:
    recipe = tomllib.loads((toy_bundle / "recipe.toml").read_text(encoding="utf-8"))
    assert "auto" not in {value for value in recipe.values() if isinstance(value, str)}
    out = tmp_path / "again"
    assert train.main(["--recipe", str(toy_bundle / "recipe.toml"), "--out", str(out)]) == 0
    assert (out / "weights.safetensors").read_bytes() == (toy_bundle / "weights.safetensors").read_bytes()
    for name in (
        "predictions-val.csv",
        "predictions-test.csv",
        "thresholds.json",
        "split.csv",
        "iterations.csv",
    ):
        assert (out / name).read_bytes() == (toy_bundle / name).read_bytes()


def test_workers_change_nothing(toy: Path, tmp_path: Path) -> None:
    tiny = [flag for flag in TINY if flag not in ("--workers", "0")]
    weights = []
    for workers in ("0", "2"):
        out = tmp_path / workers
        flags = [*tiny, "--workers", workers, "--epochs", "1", "--unfreeze-epoch", "1"]
        assert train.main(["--labels", str(toy), "--out", str(out), *flags]) == 0
        weights.append((out / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_an_earlier_split_is_repeated(toy: Path, toy_bundle: Path, tmp_path: Path) -> None:
    split = f"file:{toy_bundle / 'split.csv'}"
    flags = ["--split", split, "--seed", "7", *ONE_EPOCH]
    assert train.main(["--labels", str(toy), "--out", str(tmp_path / "o"), *TINY, *flags]) == 0
    assert (tmp_path / "o" / "split.csv").read_bytes() == (toy_bundle / "split.csv").read_bytes()


def test_tables_of_their_own_keep_names_with_their_folder(tmp_path: Path) -> None:
    tables = [write_toy(tmp_path / name, 24, seed) for seed, name in enumerate(("train", "valid", "test"))]
    flags = ["--labels", str(tables[0]), "--val-labels", str(tables[1]), "--test-labels", str(tables[2])]
    assert train.main([*flags, "--out", str(tmp_path / "o"), *TINY, *ONE_EPOCH]) == 0
    split = rows(tmp_path / "o" / "split.csv")[1:]
    assert {(row[0].split("/")[0], row[1]) for row in split} == {
        ("train", "train"),
        ("valid", "val"),
        ("test", "test"),
    }
    assert len(split) == 72


def test_the_settings_of_training_take_effect(toy: Path, tmp_path: Path) -> None:
    flags = """--loss asl --loss-args gamma_neg=2 --optimizer sgd --schedule step --schedule-args step_size=1
    --sampler balanced --pos-weight 1,2.5,0.5 --na negative --head fc --dropout 0.1 --fit pad --augment rich
    --epochs 2 --unfreeze layer4 --unfreeze-epoch 1 --batch-size 7 --weight-decay 0.01 --seed 3 --patience 1
    --monitor val_map --objective cost:1,5 --split 0.5,0.5,0 --device cpu --precision fp32 --title Squares
    --lr-head 0.01 --lr-finetune 0.001 --clip-norm 1 --accumulate 2"""
    out = tmp_path / "o"
    assert train.main(["--labels", str(toy), "--out", str(out), *TINY, *flags.split()]) == 0
    metrics = load(out / "metrics.json")
    assert metrics["evaluation"]["test"] is None
    assert not (out / "predictions-test.csv").exists()
    assert metrics["recipe"]["pos_weight"] == "1.0,2.5,0.5"
    assert metrics["recipe"]["title"] == "Squares"
    assert [epoch["lr"] for epoch in metrics["epochs"]] == [0.01, 0.001]
    assert metrics["model"]["stages"][1]["modules"] == ["head", "backbone.layer4"]
    assert {threshold["objective"] for threshold in metrics["thresholds"]} == {"cost:1,5"}
    assert metrics["data"]["split"] == {"train": 30, "val": 30, "test": 0}


@pytest.mark.parametrize(
    "name", ["full-finetune", "two-stage", "linear-probe", "scheduled", "from-scratch", "default"]
)
def test_each_recipe_trains(name: str, toy: Path, tmp_path: Path) -> None:
    flags = [
        "--labels",
        str(toy),
        "--out",
        str(tmp_path / "o"),
        "--image-size",
        "32",
        "--workers",
        "0",
        "--epochs",
        "1",
    ]
    if name == "from-scratch":
        flags += ["--backbone-args", "widths=8,8,8,8"]
    else:
        flags += ["--backbone", "test_resnet.r160_in1k", "--weights", "none"]
    assert train.main(["--recipe", name, *flags]) == 0


def test_recipes_are_listed_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--recipe", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("default ")
    assert len(lines) == 7


# --- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--labels", "nowhere.txt"], "nowhere.txt"),
        (["--labels", "demo:digit"], "did you mean 'digits'"),
        (["--epoch", "3"], "did you mean --epochs"),
        (["--epochs", "many"], "--epochs: expected a whole number"),
        (["--soup", "1"], "--soup: a soup of one epoch is that epoch"),
        (["--na", "selective", "--mixup", "0.2"], "--na selective: not together with --mixup"),
        (["--loss", "bse"], "--loss: unknown name 'bse'; did you mean 'bce'"),
        (["--fit", "os.path:join"], "--fit: unknown name 'os.path:join'"),
        (["--recipe", "two_stage"], "did you mean 'two-stage'"),
        (["--resume", "--overwrite"], "--resume --overwrite"),
        (["--finish"], "--resume --finish"),
        (["--split", "0.5,0.6,0"], "--split"),
        (["--objective", "precision"], "--objective"),
        (["--backbone", "resnet19"], "--backbone"),
        (["--unfreeze", "layer9"], "--unfreeze"),
        (["--pos-weight", "1,2"], "--pos-weight"),
        (["--device", "gpu"], "--device"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--augment-args", "hflips=1"], "--augment-args"),
        (["--loss-args", "gama=1"], "gama"),
        (["--attributes", "red,brigth"], "brigth"),
        (["--optimizer-args", "zz=1"], "zz"),
        (["--lr-finetune", "0"], "--lr-finetune"),
        (["--unfreeze", "layer9", "--epochs", "1"], "layer9"),
        (["--seed", str(2**64)], "--seed"),
        (["--schedule-args", "zz=1"], "zz"),
        (["--split", "file:nowhere.csv"], "nowhere.csv"),
        (["--split", "column:"], "--split column:"),
        (["--backbone-args", "zz=1"], "--backbone-args"),
        (["--images", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_gets_one_message_and_nothing_is_written(
    flags: list[str], expected: str, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o"
    base = ["--labels", str(toy), "--out", str(out), *TINY]
    assert train.main([*base, *flags]) == 2
    assert expected in message(capsys)
    assert not out.exists()


def test_several_wrong_names_are_told_at_once(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        "--labels",
        str(toy),
        "--out",
        str(tmp_path / "o"),
        "--loss",
        "bse",
        "--head",
        "mpl",
        "--fit",
        "squish",
    ]
    assert train.main(flags) == 2
    text = message(capsys)
    assert all(flag in text for flag in ("--loss", "--head", "--fit"))


def test_a_finished_bundle_is_kept_unless_told(
    toy: Path, toy_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (toy_bundle / "bundle.json").read_bytes()
    assert train.main(["--labels", str(toy), "--out", str(toy_bundle), *TINY]) == 2
    assert "--overwrite" in message(capsys)
    assert (toy_bundle / "bundle.json").read_bytes() == before


def test_files_of_ones_own_are_not_replaced_unasked(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.toml").write_text("epochs = 1\n")
    flags = ["--recipe", str(tmp_path / "recipe.toml"), "--labels", str(toy), "--out", str(tmp_path), *TINY]
    assert train.main(flags) == 2
    assert "recipe.toml" in message(capsys)
    assert (tmp_path / "recipe.toml").read_text() == "epochs = 1\n"


def test_overwrite_replaces_a_bundle(toy: Path, toy_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    shutil.copytree(toy_bundle, out)
    flags = [
        "--labels",
        str(toy),
        "--out",
        str(out),
        "--overwrite",
        "--split",
        "0.5,0.5,0",
        *TINY,
        *ONE_EPOCH,
    ]
    assert train.main(flags) == 0
    assert {path.name for path in out.iterdir()} == FILES - {"predictions-test.csv"}


def test_broken_and_missing_images_are_left_out_counted_and_named(tmp_path: Path) -> None:
    table = write_toy(tmp_path / "t", 60)
    (tmp_path / "t/images/img_003.png").write_bytes(b"no image")
    (tmp_path / "t/images/img_004.png").unlink()
    assert train.main(["--labels", str(table), "--out", str(tmp_path / "o"), *TINY, *ONE_EPOCH]) == 0
    data = load(tmp_path / "o" / "metrics.json")["data"]
    assert (data["rows"], data["images"]) == (60, 58)
    assert data["unreadable"] == ["img_003.png"]
    assert data["missing"] == ["img_004.png"]


def test_too_many_broken_images_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_toy(tmp_path / "t", 20)
    for number in range(3):
        (tmp_path / f"t/images/img_{number:03d}.png").write_bytes(b"no image")
    assert train.main(["--labels", str(table), "--out", str(tmp_path / "o"), *TINY, *ONE_EPOCH]) == 2
    text = message(capsys)
    assert "img_000.png" in text
    assert "tenth" in text


def test_identical_images_stay_together_and_contradictions_are_named(tmp_path: Path) -> None:
    table = write_toy(tmp_path / "t", 40)
    shutil.copy(tmp_path / "t/images/img_000.png", tmp_path / "t/images/copy.png")
    first = table.read_text().splitlines()[1].split()
    opposite = [{"1": "0", "0": "1"}.get(cell, cell) for cell in first[1:]]
    table.write_text(table.read_text() + " ".join(["copy.png", *opposite]) + "\n")
    assert train.main(["--labels", str(table), "--out", str(tmp_path / "o"), *TINY, *ONE_EPOCH]) == 0
    data = load(tmp_path / "o" / "metrics.json")["data"]
    assert [sorted(group) for group in data["duplicates"]] == [["copy.png", "img_000.png"]]
    assert [sorted(group) for group in data["conflicts"]] == [["copy.png", "img_000.png"]]
    subsets = dict(rows(tmp_path / "o" / "split.csv")[1:])
    assert subsets["copy.png"] == subsets["img_000.png"]


def test_a_loss_that_is_not_finite_ends_with_exit_code_3_and_names_images(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_loss.py").write_text("def nan(logits, targets):\n    return logits * float('nan')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    flags = ["--loss", "broken_loss:nan", "--batch-size", "2", *ONE_EPOCH]
    assert train.main(["--labels", str(toy), "--out", str(tmp_path / "o"), *TINY, *flags]) == 3
    text = message(capsys)
    assert "not finite" in text
    assert "img_0" in text


def after_an_epoch(folder: Path, action: str) -> None:
    """A module `late.py` with a loss that does something else than compute from its 20th step on."""
    (folder / "late.py").write_text(
        "import torch.nn.functional as F\n\ncalls = 0\n\n\n"
        "def loss(logits, targets):\n    global calls\n    calls += logits.requires_grad\n"
        f"    if calls > 20:\n        {action}\n"
        "    return F.binary_cross_entropy_with_logits(logits, targets, reduction='none')\n"
    )


@pytest.mark.parametrize(
    ("action", "code", "expected"),
    [
        ("return logits * float('nan')", 3, "not finite"),
        ("raise MemoryError", 3, "out of memory"),
        ("raise OSError(5, 'the drive is gone')", 3, "the drive is gone"),
        ('raise RuntimeError("DefaultCPUAllocator: can\'t allocate memory")', 3, "out of memory"),
    ],
)
def test_what_was_learned_before_a_failure_is_kept(
    action: str, code: int, expected: str, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_an_epoch(tmp_path, action)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "late", raising=False)
    flags = [
        "--loss",
        "late:loss",
        "--batch-size",
        "4",
        "--epochs",
        "9",
        "--unfreeze-epoch",
        "0",
        "--augment",
        "none",
    ]
    assert train.main(["--labels", str(toy), "--out", str(tmp_path / "o"), *TINY, *flags]) == code
    metrics = load(tmp_path / "o" / "metrics.json")
    assert expected in metrics["stopped_because"]
    assert metrics["best_epoch"] < len(metrics["epochs"])
    assert predict.main(["--model", str(tmp_path / "o"), "--images", str(toy.parent)]) == 0


def test_a_fault_of_the_program_is_not_hidden(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_an_epoch(tmp_path, "raise RuntimeError('a bug')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "late", raising=False)
    flags = ["--loss", "late:loss", "--batch-size", "4", "--epochs", "9", "--unfreeze-epoch", "0"]
    with pytest.raises(RuntimeError, match="a bug"):
        train.main(["--labels", str(toy), "--out", str(tmp_path / "o"), *TINY, *flags])


def test_bfloat16_changes_training_but_not_what_predict_shows(toy: Path, tmp_path: Path) -> None:
    flags = ["--precision", "bf16", *ONE_EPOCH]
    assert train.main(["--labels", str(toy), "--out", str(tmp_path / "o"), *TINY, *flags]) == 0
    saved = rows(tmp_path / "o" / "predictions-test.csv")[1:]
    paths = [str(toy.parent / "images" / row[0]) for row in saved]
    csv_file = str(tmp_path / "p.csv")
    assert predict.main(["--model", str(tmp_path / "o"), "--image", *paths, "--out", csv_file]) == 0
    found = rows(tmp_path / "p.csv")[1:]
    np.testing.assert_allclose(
        [[float(cell) for cell in row[2::2]] for row in saved],
        [[float(cell) for cell in row[2:-1:2]] for row in found],
        atol=1e-6,
    )


# --- predict -------------------------------------------------------------------------------------------------------


@pytest.fixture
def images(toy: Path) -> list[str]:
    return [str(toy.parent / "images" / f"img_{number:03d}.png") for number in (5, 2)]


def test_json_has_a_row_an_image_in_the_order_asked(
    toy_bundle: Path, images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [flag for image in [*images, "nowhere.jpg"] for flag in ("--image", image)]
    assert predict.main(["--model", str(toy_bundle), "--format", "json", *flags]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [row["image"] for row in found] == [*images, "nowhere.jpg"]
    assert set(found[2]) == {"image", "error"}
    for row in found[:2]:
        assert [attribute["name"] for attribute in row["attributes"]] == ["red", "bright", "square_left"]
        for attribute in row["attributes"]:
            assert list(attribute) == ["name", "probability", "threshold", "present"]
            assert attribute["present"] == (attribute["probability"] >= attribute["threshold"])
        assert row["present"] == [a["name"] for a in row["attributes"] if a["present"]]


def test_csv_has_the_columns_of_the_contract(toy_bundle: Path, images: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    flags = ["--model", str(toy_bundle), "--image", *images, str(tmp_path / "broken.jpg")]
    assert predict.main([*flags, "--out", str(tmp_path / "o.csv")]) == 1
    header, *found = rows(tmp_path / "o.csv")
    names = ("red", "bright", "square_left")
    assert header == [
        "image",
        *(column for name in names for column in (name, f"{name}_probability")),
        "error",
    ]
    assert [row[0] for row in found] == [*images, str(tmp_path / "broken.jpg")]
    assert all(row[1] in "01" and 0 <= float(row[2]) <= 1 and not row[-1] for row in found[:2])
    assert found[2][1:-1] == [""] * 6
    assert "broken.jpg" in found[2][-1]


def test_the_table_says_present_and_absent(
    toy_bundle: Path, images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main(["--model", str(toy_bundle), "--image", images[0], "--threshold", "0"]) == 0
    out = capsys.readouterr().out
    assert f"Image : {images[0]}" in out
    assert out.count("[PRESENT]") == 3
    assert "Attributes present : ['red', 'bright', 'square_left']" in out


def test_prediction_equals_what_training_saved(toy_bundle: Path, toy: Path, tmp_path: Path) -> None:
    """One preprocessing, one network: the test subset predicted from its files gives the saved probabilities."""
    saved = rows(toy_bundle / "predictions-test.csv")[1:]
    paths = [str(toy.parent / "images" / row[0]) for row in saved]
    flags = ["--model", str(toy_bundle), "--image", *paths, "--out", str(tmp_path / "o.csv")]
    assert predict.main(flags) == 0
    found = rows(tmp_path / "o.csv")[1:]
    np.testing.assert_allclose(
        [[float(cell) for cell in row[2::2]] for row in saved],
        [[float(cell) for cell in row[2:-1:2]] for row in found],
        atol=1e-6,
    )


def test_raw_scores_are_the_networks_own_with_the_same_decisions(
    toy_bundle: Path, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", str(toy_bundle), "--images", str(toy.parent / "images"), "--format", "json"]
    found = []
    for more in ([], ["--raw"]):
        capsys.readouterr()
        assert predict.main([*flags, *more]) == 0
        found.append(json.loads(capsys.readouterr().out))
    line = load(toy_bundle / "bundle.json")["calibration"]
    assert any(slope != 1 for slope in line["slope"])
    for calibrated, raw in zip(*found, strict=True):
        assert raw["present"] == calibrated["present"]
        for i, (one, other) in enumerate(zip(raw["attributes"], calibrated["attributes"], strict=True)):
            logit = np.log(one["probability"] / (1 - one["probability"]))
            expected = 1 / (1 + np.exp(-(line["slope"][i] * logit + line["intercept"][i])))
            assert other["probability"] == pytest.approx(expected, abs=1e-6)
            assert one["present"] == (one["probability"] >= one["threshold"])


def test_a_folder_is_predicted_by_name(
    toy_bundle: Path, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main(["--model", str(toy_bundle), "--images", str(toy.parent), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 60
    assert [row["image"] for row in found] == sorted(row["image"] for row in found)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "--image"),
        (["--image", "x.jpg", "--model", "nowhere"], "nowhere"),
        (["--images", "nowhere"], "nowhere"),
        (["--image", "x.jpg", "--threshold", "2"], "--threshold"),
        (["--image", "x.jpg", "--format", "yaml"], "--format"),
    ],
)
def test_mistakes_in_predicting(
    flags: list[str], expected: str, toy_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main(["--model", str(toy_bundle), *flags]) == 2
    assert expected in message(capsys)


def test_an_unfinished_bundle_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoint").mkdir()
    assert predict.main(["--model", str(tmp_path), "--image", "x.jpg"]) == 2
    assert "no finished bundle" in message(capsys)


@pytest.mark.parametrize(("engine", "file"), [("onnx", "model.onnx"), ("torch", "weights.safetensors")])
def test_a_damaged_bundle_is_refused(
    engine: str, file: str, toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(toy_bundle, tmp_path / "o")
    network = tmp_path / "o" / file
    data = bytearray(network.read_bytes())
    data[len(data) // 2] ^= 1
    network.write_bytes(bytes(data))
    flags = ["--model", str(tmp_path / "o"), "--image", "x.jpg", "--engine", engine]
    assert predict.main(flags) == 2
    assert "damaged" in message(capsys)


# --- tune-thresholds -----------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(toy_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_bundle, tmp_path / "bundle"))


def test_tuning_replaces_the_thresholds_and_nothing_else(bundle: Path, toy_bundle: Path) -> None:
    shutil.rmtree(bundle.parent / "images", ignore_errors=True)
    assert tune_thresholds.main(["--model", str(bundle), "--objective", "fixed:0.25"]) == 0
    tuned = load(bundle / "thresholds.json")["attributes"]
    assert [row["threshold"] for row in tuned] == [0.25] * 3
    for name in FILES - {"thresholds.json"}:
        assert (bundle / name).read_bytes() == (toy_bundle / name).read_bytes()
    assert {path.name for path in bundle.iterdir()} == FILES
    assert predict.main(["--model", str(bundle), "--image", "x.jpg"]) == 1  # the bundle is intact


def test_a_dry_run_writes_nothing(bundle: Path, toy_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune_thresholds.main(["--model", str(bundle), "--objective", "recall:0.9", "--dry-run"]) == 0
    assert "red" in capsys.readouterr().out
    assert (bundle / "thresholds.json").read_bytes() == (toy_bundle / "thresholds.json").read_bytes()


def test_thresholds_can_be_tuned_on_another_table(bundle: Path, tmp_path: Path) -> None:
    table = write_toy(tmp_path / "other", 30, seed=5)
    assert (
        tune_thresholds.main(["--model", str(bundle), "--objective", "youden", "--labels", str(table)]) == 0
    )
    tuned = load(bundle / "thresholds.json")["attributes"]
    lines = [line.split() for line in table.read_text().splitlines()[1:]]
    assert [row["known"] for row in tuned] == [sum(line[i] != "NA" for line in lines) for i in (1, 2, 3)]
    assert {row["objective"] for row in tuned} == {"youden"}


@pytest.mark.parametrize("estimator", ["exact", "robust"])
def test_an_attribute_unknown_throughout_the_other_table_has_no_threshold_of_its_own(
    bundle: Path, tmp_path: Path, estimator: str
) -> None:
    table = write_toy(tmp_path / "other", 20, seed=5)
    lines = [line.split() for line in table.read_text().splitlines()]
    table.write_text(
        "\n".join(" ".join([a, b, "NA" if n else c, d]) for n, (a, b, c, d) in enumerate(lines)) + "\n"
    )
    flags = ["--model", str(bundle), "--labels", str(table), "--estimator", estimator]
    assert tune_thresholds.main(flags) == 0
    tuned = load(bundle / "thresholds.json")["attributes"][1]
    assert (tuned["name"], tuned["known"], tuned["cross_fitted"]) == ("bright", 0, None)
    if estimator == "exact":
        assert tuned["threshold"] == 0.5
        assert tuned["note"] == "kept at 0.5: no known positives, at least 3 are needed"
    else:
        assert tuned["note"].startswith("the threshold that is best for all attributes together")


def test_tuning_at_the_end_of_training_is_what_the_command_does(bundle: Path, toy_bundle: Path) -> None:
    assert tune_thresholds.main(["--model", str(bundle)]) == 0
    assert (bundle / "thresholds.json").read_bytes() == (toy_bundle / "thresholds.json").read_bytes()


def test_a_flag_of_the_table_without_a_table_is_a_mistake(
    bundle: Path, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune_thresholds.main(["--model", str(bundle), "--images", str(toy.parent)]) == 2
    assert "--images" in message(capsys)


def test_mistakes_in_tuning(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune_thresholds.main(["--model", str(bundle), "--objective", "f2"]) == 2
    assert "--objective" in message(capsys)
    table = tmp_path / "labels.txt"
    table.write_text("image red\n")
    assert tune_thresholds.main(["--model", str(bundle), "--labels", str(table)]) == 2
    message(capsys)


# --- inspect -------------------------------------------------------------------------------------------------------


def test_inspect_shows_the_data_and_writes_a_preview(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preview = tmp_path / "preview.png"
    assert inspect.main(["--labels", str(toy), "--preview", str(preview), "--image-size", "64"]) == 0
    out = capsys.readouterr().out
    for name in ("red", "bright", "square_left"):
        assert name in out
    sheet = cv2.imread(str(preview))
    assert sheet is not None
    assert sheet.std() > 10


def test_inspect_and_train_refuse_the_same_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_toy(tmp_path / "t", 10)
    table.write_text(table.read_text() + "img_000.png 1 0\nimg_001.png 1 0 maybe\n")
    messages = []
    for command, flags in ((inspect, []), (train, ["--out", str(tmp_path / "o")])):
        assert command.main(["--labels", str(table), *flags]) == 2
        messages.append(message(capsys))
    assert messages[0] == messages[1]
    assert "line 12" in messages[0]
    assert "line 13" in messages[0]


# --- processes -----------------------------------------------------------------------------------------------------


def test_every_command_runs_as_a_module_and_by_name() -> None:
    for name in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", f"mlcls.{name}", "--help"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "--" in done.stdout
        assert not done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "mlcls"], capture_output=True, text=True, timeout=60, check=True
    )
    assert all(name in done.stdout for name in COMMANDS)


def test_unknown_commands_get_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert mlcls_main(["trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err


def test_json_can_be_piped(toy_bundle: Path, images: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlcls.predict", "--model", str(toy_bundle), "--image", images[0], "--format", "json"],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, check=True,
    )  # fmt: skip
    assert len(json.loads(done.stdout)) == 1
    assert "\x1b" not in done.stdout + done.stderr
