"""Several models, ensembles and views on the command line: what is averaged, on which images, at which thresholds."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_data import TINY

from mlcls import compare, evaluate, inspect, predict, train, tune_thresholds
from mlcls.bundle.ensemble import ensemble_manifest, mean_probabilities, stage_members
from mlcls.bundle.files import load_bundle, write_thresholds
from mlcls.bundle.predictor import Predictor
from mlcls.bundle.staging import staged_bundle
from mlcls.scoring.assessment import assess
from mlcls.scoring.predictions import Predictions, read_predictions, write_predictions
from mlcls.scoring.thresholds import tune_report

SMALL = [
    "--backbone",
    "cnn4",
    "--weights",
    "none",
    "--image-size",
    "48",
    "--workers",
    "0",
    "--augment",
    "none",
]
ONE_STAGE = ["--epochs", "2", "--unfreeze-epoch", "0", "--unfreeze", "all"]


@pytest.fixture(scope="module")
def second(toy: Path, toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another network, of another size, on the same split; its attributes in another order."""
    out = tmp_path_factory.mktemp("second") / "second"
    flags = ["--attributes", "square_left", "red", "bright", "--split", f"file:{toy_bundle / 'split.csv'}"]
    assert train.main(["--labels", str(toy), "--out", str(out), *SMALL, *ONE_STAGE, *flags]) == 0
    return out


@pytest.fixture(scope="module")
def elsewhere(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of another split."""
    out = tmp_path_factory.mktemp("elsewhere") / "elsewhere"
    flags = ["--split", "0.5,0.25,0.25", "--seed", "5"]
    assert train.main(["--labels", str(toy), "--out", str(out), *SMALL, *ONE_STAGE, *flags]) == 0
    return out


def saved(folder: Path, subset: str) -> Predictions:
    """A bundle's predictions in the first one's order of attributes."""
    found = read_predictions(folder / f"predictions-{subset}.csv")
    order = [found.attributes.index(name) for name in ("red", "bright", "square_left")]
    names = tuple(found.attributes[place] for place in order)
    return Predictions(found.images, names, found.scores[:, order], found.labels[:, order])


def mean_of(folders: list[Path], subset: str) -> Predictions:
    parts = [saved(folder, subset) for folder in folders]
    assert len({part.images for part in parts}) == 1
    scores = mean_probabilities([part.scores for part in parts])
    return Predictions(parts[0].images, parts[0].attributes, scores, parts[0].labels)


@pytest.fixture(scope="module")
def ensemble(toy_bundle: Path, second: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that averages the two."""
    out, folders = tmp_path_factory.mktemp("ensemble") / "out", [toy_bundle, second]
    members, names = [load_bundle(folder) for folder in folders], ["fold-0", "fold-1"]
    with staged_bundle(out, ensemble_manifest(members, names, seed=0)) as staging:
        stage_members(staging, members, names)
        for name in ("metrics.json", "split.csv"):
            shutil.copy(toy_bundle / name, staging)
        for subset in ("val", "test"):
            write_predictions(staging / f"predictions-{subset}.csv", mean_of(folders, subset))
        val = mean_of(folders, "val")
        write_thresholds(
            staging / "thresholds.json", tune_report(val.labels, val.scores, "f1", val.attributes)
        )
    return out


def rows_of(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[Any, str]:
    capsys.readouterr()
    assert predict.main([*flags, "--format", "json"]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def evaluated(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[dict[str, Any], str]:
    capsys.readouterr()
    assert evaluate.main([*flags, "--format", "json"]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def test_predict_averages_models_named_together_or_one_by_one(
    toy: Path, toy_bundle: Path, second: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = ["--image", *sorted(map(str, (toy.parent / "images").iterdir()))[:4]]
    both, said = rows_of(capsys, "--model", str(toy_bundle), str(second), *images)
    again, _ = rows_of(capsys, "--model", str(toy_bundle), "--model", str(second), *images)
    assert both == again
    assert "thresholds: tuned on the mean of the 2 models' saved predictions of the" in said
    alone = [rows_of(capsys, "--model", str(model), *images)[0] for model in (toy_bundle, second)]
    for row, one, two in zip(both, *alone, strict=True):
        assert list(row) == list(one)
        other = {cell["name"]: cell["probability"] for cell in two["attributes"]}
        for cell, first in zip(row["attributes"], one["attributes"], strict=True):
            assert list(cell) == list(first)
            assert cell["name"] == first["name"]
            mean = (first["probability"] + other[cell["name"]]) / 2
            assert cell["probability"] == pytest.approx(mean, abs=1e-6)
            assert cell["present"] == (cell["probability"] >= cell["threshold"])


def test_evaluate_scores_the_mean_of_saved_predictions_at_thresholds_of_their_own(
    toy_bundle: Path, second: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry, said = evaluated(capsys, "--model", str(toy_bundle), str(second))
    test, val = mean_of([toy_bundle, second], "test"), mean_of([toy_bundle, second], "val")
    recipe = json.loads((toy_bundle / "metrics.json").read_text())["recipe"]
    tuned = tune_report(
        val.labels, val.scores, recipe["objective"], val.attributes, estimator=recipe["estimator"]
    )
    limits = np.array([row.threshold for row in tuned])
    expected = assess(test.labels, test.scores, limits, attributes=test.attributes, resamples=1000, seed=0)
    assert entry["n"] == len(test.images)
    assert entry["macro"] == pytest.approx(expected["macro"])
    assert [row["threshold"] for row in entry["attributes"]] == pytest.approx(limits.tolist())
    count = len(test.images)
    assert (
        entry["source"] == f"{count} images, those of the test subset that all have (of {count} and {count})"
    )
    assert any("thresholds: tuned on the mean" in note for note in entry["notes"])
    assert "thresholds: tuned on the mean" in said
    predictor = Predictor([toy_bundle, second])
    assert predictor.thresholds.tolist() == [row["threshold"] for row in entry["attributes"]]


def test_evaluate_takes_the_images_that_all_have(
    toy_bundle: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry, said = evaluated(capsys, "--model", str(toy_bundle), str(elsewhere))
    one, two = saved(toy_bundle, "test"), saved(elsewhere, "test")
    common = [image for image in one.images if image in two.images]
    assert 0 < len(common) < len(one.images)
    assert entry["n"] == len(common)
    assert f"{len(common)} images, those of the test subset that all have (of 12 and 15)" == entry["source"]
    assert "thresholds: the mean of the 2 models' own, on the scale of logits" in said


def test_evaluate_on_a_table_and_on_the_saved_predictions_agree(
    toy: Path, toy_bundle: Path, second: Path, ensemble: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ["--labels", str(toy), "--subset", "test"]
    for models in ([str(toy_bundle), str(second)], [str(ensemble)]):
        there, _ = evaluated(capsys, "--model", *models, "--resamples", "0")
        here, _ = evaluated(capsys, "--model", *models, *table, "--resamples", "0")
        assert here["n"] == there["n"]
        assert here["macro"] == pytest.approx(there["macro"], abs=1e-6)


def test_an_image_that_one_run_learned_from_is_no_test_image(
    toy: Path, toy_bundle: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ["--model", str(toy_bundle), str(elsewhere)]
    there, _ = evaluated(capsys, *models, "--resamples", "0")
    here, _ = evaluated(capsys, *models, "--labels", str(toy), "--subset", "test", "--resamples", "0")
    assert here["n"] == there["n"]
    whole, _ = evaluated(capsys, *models, "--labels", str(toy), "--resamples", "0")
    splits = [(folder / "split.csv").read_text().splitlines()[1:] for folder in (toy_bundle, elsewhere)]
    learned = {line.split(",")[0] for lines in splits for line in lines if line.endswith(",train")}
    assert any(
        note.startswith(f"{len(learned)} of these 60 images bear names of training")
        for note in whole["notes"]
    )


def test_an_ensemble_is_evaluated_compared_and_tuned_as_any_bundle(
    toy: Path, toy_bundle: Path, ensemble: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.html"
    entry, _ = evaluated(capsys, "--model", str(ensemble), "--report", str(report))
    assert entry["source"] == "the test subset"
    assert "<html" in report.read_text(encoding="utf-8")
    assert compare.main([str(toy_bundle), str(ensemble), "--format", "json", "--resamples", "10"]) == 0
    assert len(json.loads(capsys.readouterr().out)["models"]) == 2
    own = Path(shutil.copytree(ensemble, tmp_path / "own"))
    assert tune_thresholds.main(["--model", str(own), "--objective", "recall:0.9"]) == 0
    assert {row.objective for row in load_bundle(own).thresholds} == {"recall:0.9"}
    assert {row.objective for row in load_bundle(own).members[0].thresholds} == {"f1"}
    assert tune_thresholds.main(["--model", str(own), "--labels", str(toy), "--dry-run"]) == 0
    image = ["--image", str(toy.parent / "images" / "img_001.png")]
    rows, _ = rows_of(capsys, "--model", str(own), *image)
    limits = [cell["threshold"] for cell in rows[0]["attributes"]]
    assert limits == [row.threshold for row in load_bundle(own).thresholds]


def test_no_validation_image_is_new_to_all_members_of_an_ensemble(
    toy: Path, ensemble: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ["--model", str(ensemble), "--labels", str(toy), "--resamples", "0"]
    assert evaluate.main([*table, "--subset", "val"]) == 2
    assert "saved predictions, out of fold; leave --labels out" in capsys.readouterr().err
    entry, _ = evaluated(capsys, *table)
    notes = " ".join(entry["notes"])
    assert "48 of these 60 images bear names of training images" in notes
    assert "validation images: where" not in notes


def test_a_report_of_several_models_says_nothing_of_one_ones_training(
    toy_bundle: Path, second: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.html"
    models = ["--model", str(toy_bundle), str(second)]
    assert evaluate.main([*models, "--report", str(report), "--resamples", "20"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "the mean of 2 models (test_resnet.r160_in1k, cnn4) on" in out
    page = report.read_text(encoding="utf-8")
    assert "cnn4" in page
    assert "Figures of each epoch" not in page
    assert "Loss on training and on validation images" not in page


def test_inspect_verifies_the_members_too(
    ensemble: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect.main(["--model", str(ensemble)]) == 0
    out = capsys.readouterr().out
    count = sum(path.is_file() for path in ensemble.rglob("*"))
    assert f"{count} files, all as they were written" in out
    for fact in ("2, in", "test_resnet.r160_in1k, head", "cnn4, head", "48 x 48 px", "32 x 32 px"):
        assert fact in out
    own = Path(shutil.copytree(ensemble, tmp_path / "own"))
    with (own / "members" / "fold-1" / "weights.safetensors").open("ab") as file:
        file.write(b" ")
    (own / "members" / "fold-0" / "split.csv").unlink()
    assert inspect.main(["--model", str(own)]) == 2
    err = capsys.readouterr().err
    assert "fold-1/weights.safetensors: damaged" in err
    assert "fold-0/split.csv: missing" in err


def test_views_are_predicted_and_evaluated(
    toy: Path, toy_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = ["--image", str(toy.parent / "images" / "img_001.png")]
    plain, said = rows_of(capsys, "--model", str(toy_bundle), *image, "--tta", "none")
    assert said == ""
    seen, said = rows_of(capsys, "--model", str(toy_bundle), *image, "--tta", "flip,zoom")
    assert "--tta flip,zoom: calibration and thresholds were made with --tta none" in said
    assert seen != plain
    found = Predictor(toy_bundle, tta="flip,zoom").predict(image[1:])
    assert seen == found
    table = ["--model", str(toy_bundle), "--labels", str(toy), "--resamples", "0"]
    one, _ = evaluated(capsys, *table, "--tta", "rot90")
    two, _ = evaluated(capsys, *table)
    assert one["macro"] != two["macro"]


@pytest.mark.parametrize(
    ("command", "flags", "said"),
    [
        (
            "predict",
            ["--tta", "flop", "--image", "x.png"],
            "--tta: unknown view 'flop'; did you mean 'flip'?",
        ),
        ("evaluate", ["--tta", "flop"], "--tta flop: nothing is predicted without --labels"),
        ("predict", ["--raw", "--image", "x.png"], "--raw: the mean of several networks' own scores"),
    ],
)
def test_mistakes_get_one_message(
    command: str, flags: list[str], said: str, ensemble: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = {"predict": predict.main, "evaluate": evaluate.main}[command]
    assert main(["--model", str(ensemble), *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("error: ") == 1


def test_models_that_cannot_be_averaged_are_refused_by_name(
    toy: Path, toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    flags = ["--attributes", "red", "bright", "--epochs", "1", "--unfreeze", "none"]
    assert train.main(["--labels", str(toy), "--out", str(other), *TINY, *flags]) == 0
    for command, more in ((predict.main, ["--image", "x.png"]), (evaluate.main, [])):
        capsys.readouterr()
        assert command(["--model", str(toy_bundle), str(other), *more]) == 2
        assert re.search(r"other: lacks the attributes square_left of", capsys.readouterr().err)
        assert command(["--model", str(toy_bundle), str(toy_bundle), *more]) == 2
        assert "is named twice" in capsys.readouterr().err
