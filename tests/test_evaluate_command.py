"""`evaluate`: the saved predictions or another table, one entry of figures, a report; mistakes in one message."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from toy_data import TINY, write_toy

from mlcls import evaluate, train, tune_thresholds


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def evaluated(capsys: pytest.CaptureFixture[str], *flags: str) -> dict:
    capsys.readouterr()
    assert evaluate.main([*flags, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_saved_test_predictions_give_the_figures_of_the_run(
    toy_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = evaluated(capsys, "--model", str(toy_bundle))
    saved = load(toy_bundle / "metrics.json")["evaluation"]["test"]
    assert entry["subset"] == "test"
    assert {key: entry[key] for key in saved} == saved


def test_validation_when_asked_for(toy_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = evaluated(capsys, "--model", str(toy_bundle), "--subset", "val")
    saved = load(toy_bundle / "metrics.json")["evaluation"]["val"]
    assert {key: entry[key] for key in saved} == saved


def test_another_table_is_predicted(toy: Path, toy_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run's own table, its test images alone, gives the figures of the saved test predictions."""
    flags = ["--model", str(toy_bundle), "--labels", str(toy), "--subset", "test"]
    entry = evaluated(capsys, *flags)
    saved = load(toy_bundle / "metrics.json")["evaluation"]["test"]
    assert entry["n"] == saved["n"]
    for figure, value in saved["macro"].items():
        assert entry["macro"][figure] == pytest.approx(value, abs=1e-6)


def test_images_that_the_run_knows_are_told(
    toy: Path, toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.html"
    flags = ["--model", str(toy_bundle), "--labels", str(toy)]
    assert evaluate.main([*flags, "--report", str(report)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    split = load(toy_bundle / "metrics.json")["data"]["split"]
    told = f"{split['train']} of these 60 images bear names of training images"
    assert told in out
    assert f"{split['val']} of these 60 images bear names of validation images" in out
    assert "test subset" not in out
    page = report.read_text(encoding="utf-8")
    assert told in page
    assert "There is no test subset" not in page
    entry = evaluated(capsys, *flags)
    assert entry["subset"] is None
    assert entry["notes"][0].startswith(told)


def test_pictures_are_read_from_the_folder_that_a_person_names_alone(
    toy: Path, toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, flags = tmp_path / "report.html", ["--model", str(toy_bundle), "--report"]
    assert evaluate.main([*flags, str(report)]) == 0
    assert "data:image/jpeg" not in report.read_text(encoding="utf-8")
    assert "with --images DIR it shows the pictures" in capsys.readouterr().err
    assert evaluate.main([*flags, str(report), "--images", str(toy.parent / "images")]) == 0
    assert "data:image/jpeg" in report.read_text(encoding="utf-8")
    assert evaluate.main([*flags, str(report), "--images", str(tmp_path / "nowhere")]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_names_match_without_the_folders_that_several_tables_put_before_them(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run on two tables knows images as data/..., the table of the test alone names them without."""
    lines = toy.read_text().splitlines()
    for name, rows in (("train", lines[1:41]), ("test", lines[41:])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "labels.txt").write_text("\n".join([lines[0], *rows]) + "\n")
        for row in rows:
            shutil.copy(toy.parent / "images" / row.split()[0], folder)
    out = tmp_path / "out"
    tables = ["--labels", str(tmp_path / "train" / "labels.txt")]
    tables += ["--test-labels", str(tmp_path / "test" / "labels.txt")]
    assert train.main([*tables, "--out", str(out), *TINY, "--epochs", "1", "--unfreeze", "none"]) == 0
    entry = evaluated(
        capsys, "--model", str(out), "--labels", str(tmp_path / "test" / "labels.txt"), "--subset", "test"
    )
    assert entry["n"] == 20
    assert entry["macro"]["auroc"] == pytest.approx(
        load(out / "metrics.json")["evaluation"]["test"]["macro"]["auroc"], abs=1e-6
    )


def test_rows_that_are_left_out_are_told(
    toy: Path, toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(toy.parent, tmp_path / "data")
    (data / "images" / "img_003.png").unlink()
    (data / "images" / "img_004.png").write_bytes((data / "images" / "img_004.png").read_bytes()[:60])
    entry = evaluated(capsys, "--model", str(toy_bundle), "--labels", str(data / "labels.txt"))
    assert entry["n"] == 58
    assert "1 missing and left out: img_003.png" in entry["notes"]
    assert "1 unreadable and left out: img_004.png" in entry["notes"]


def test_a_table_without_the_bundles_attributes_is_refused_before_its_images_are_read(
    toy: Path, toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "labels.txt"
    table.write_text(toy.read_text().replace("bright", "brigth"))
    flags = ["--model", str(toy_bundle), "--labels", str(table), "--images", str(toy.parent / "images")]
    assert evaluate.main(flags) == 2
    error = capsys.readouterr().err
    assert "lacks the bundle's attributes bright; did you mean 'brigth'" in error
    assert "checking images" not in error
    table.write_text("\n".join(toy.read_text().splitlines()[1:]) + "\n")
    assert evaluate.main(flags) == 2
    assert "--names red bright square_left" in capsys.readouterr().err


def test_a_table_of_other_images(
    toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_toy(tmp_path / "other", images=12, seed=7)
    text = other.read_text()
    other.write_text(text.replace("img_", "new_"))
    for path in (tmp_path / "other" / "images").iterdir():
        path.rename(path.with_name(path.name.replace("img_", "new_")))
    report = tmp_path / "report.html"
    assert evaluate.main(["--model", str(toy_bundle), "--labels", str(other), "--report", str(report)]) == 0
    out = capsys.readouterr().out
    assert "training images" not in out
    assert "macro" in out
    page = report.read_text(encoding="utf-8")
    assert "<html" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_new_thresholds_change_the_decisions_not_the_ranking(
    toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(toy_bundle, tmp_path / "model")
    before = evaluated(capsys, "--model", str(model))
    assert tune_thresholds.main(["--model", str(model), "--objective", "fixed:0.999"]) == 0
    capsys.readouterr()
    after = evaluated(capsys, "--model", str(model))
    assert after["macro"]["auroc"] == before["macro"]["auroc"]
    assert all(row["threshold"] == 0.999 for row in after["attributes"])
    assert after["macro"]["recall"] == 0


def test_without_resamples_there_are_no_intervals(
    toy_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = evaluated(capsys, "--model", str(toy_bundle), "--resamples", "0")
    assert not entry.get("intervals")
    assert entry["macro"]["auroc"] is not None


def test_intervals_hold_their_figures(toy_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = evaluated(capsys, "--model", str(toy_bundle))
    assert entry["intervals"]["resamples"] == 1000
    for figure, bounds in entry["intervals"]["macro"].items():
        low, high = bounds
        assert low <= entry["macro"][figure] <= high
        assert np.isfinite([low, high]).all()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model", "nowhere"], "there is no such folder"),
        (["--group-column", "patient"], "--group-column: speaks of a table; name it with --labels"),
        (["--resamples", "-3"], "--resamples: expected a whole number from 0"),
        (["--labels", "nowhere.txt"], "nowhere.txt"),
        (
            ["--report", "no/such/folder/report.html"],
            "--report no/such/folder/report.html: there is no folder",
        ),
        (["--report", "."], "--report '.': expected the name of a file"),
        (["--report", "page.png"], "--report page.png: expected a name that ends in .html"),
        (["--device", "cpu"], "--device cpu: nothing is predicted without --labels"),
    ],
)
def test_mistakes_get_one_message(
    toy_bundle: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    model = [] if "--model" in flags else ["--model", str(toy_bundle)]
    code = evaluate.main([*model, *flags])
    error = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in error
    assert error.count("error: ") == 1
    assert said in error


def test_a_run_without_test_says_so(
    toy: Path, toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ["--epochs", "1", "--unfreeze", "none", "--split", "0.7,0.3,0"]
    assert train.main(["--labels", str(toy), "--out", str(out), *TINY, *flags]) == 0
    capsys.readouterr()
    assert evaluate.main(["--model", str(out), "--subset", "test"]) == 2
    assert "this run had no test subset" in capsys.readouterr().err
    assert evaluated(capsys, "--model", str(out))["subset"] == "val"
    assert evaluate.main(["--model", str(out)]) == 0
    assert "chosen on these images" in capsys.readouterr().out


def test_copies_are_drawn_together_in_evaluate_as_in_train(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two names of one photo in every subset: groups.csv gives evaluate and tune-thresholds what train knew."""
    data = shutil.copytree(toy.parent, tmp_path / "data")
    lines = (data / "labels.txt").read_text().splitlines()
    for number in range(0, 60, 3):
        name = f"img_{number:03d}.png"
        shutil.copy(data / "images" / name, data / "images" / f"zz_{name}")
        lines.append(f"zz_{lines[number + 1]}")
    (data / "labels.txt").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    flags = ["--epochs", "1", "--unfreeze", "none", "--seed", "3"]
    assert train.main(["--labels", str(data / "labels.txt"), "--out", str(out), *TINY, *flags]) == 0
    assert (out / "groups.csv").read_text().startswith("image,group\n")
    for subset in ("val", "test"):
        saved = load(out / "metrics.json")["evaluation"][subset]
        assert saved["intervals"]["unit"] == "groups"
        entry = evaluated(capsys, "--model", str(out), "--subset", subset)
        assert {key: entry[key] for key in saved} == saved
    before = (out / "thresholds.json").read_bytes()
    assert tune_thresholds.main(["--model", str(out)]) == 0
    assert (out / "thresholds.json").read_bytes() == before
