"""`compare`: the same rows side by side; other rows, other labels and other attributes are told apart."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from toy_data import TINY

from mlcls import compare, train
from mlcls.sealed import seal


@pytest.fixture(scope="module")
def other_bundle(toy: Path, toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A worse model on the split of the toy bundle."""
    out = tmp_path_factory.mktemp("other") / "worse"
    flags = ["--epochs", "1", "--unfreeze", "none", "--augment", "none", "--head", "linear"]
    split = f"file:{toy_bundle / 'split.csv'}"
    assert train.main(["--labels", str(toy), "--out", str(out), *TINY, *flags, "--split", split]) == 0
    return out


def compared(capsys: pytest.CaptureFixture[str], *flags: str) -> dict:
    capsys.readouterr()
    assert compare.main([*flags, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_figures_side_by_side_are_those_of_the_runs(
    toy_bundle: Path, other_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compared(capsys, str(toy_bundle), str(other_bundle))
    for model, folder in zip(found["models"], (toy_bundle, other_bundle), strict=True):
        saved = json.loads((folder / "metrics.json").read_text())["evaluation"]["test"]
        assert model["macro"] == saved["macro"]
    (difference,) = found["differences"]
    one, two = (model["macro"]["auroc"] for model in found["models"])
    assert difference["macro"]["auroc"]["difference"] == pytest.approx(two - one)
    low, high = difference["macro"]["auroc"]["interval"]
    assert low <= two - one <= high


def test_a_bundle_beside_itself_differs_in_nothing(
    toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = shutil.copytree(toy_bundle, tmp_path / "twin")
    (difference,) = compared(capsys, str(toy_bundle), str(twin))["differences"]
    for figure in difference["macro"].values():
        assert figure["difference"] == 0
        assert figure["interval"] == [0, 0]
    assert not any(row["changed"] for row in difference["attributes"])


def test_the_table_on_the_console(
    toy_bundle: Path, other_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "differences.png"
    assert compare.main([str(toy_bundle), str(other_bundle), "--picture", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "outputs" in out
    assert "worse" in out
    assert picture.stat().st_size > 1000


def rewrite(folder: Path, name: str, change) -> None:
    """Change a bundle's CSV and seal the bundle again, as if it had been written so."""
    with (folder / name).open(newline="") as file:
        table = list(csv.reader(file))
    with (folder / name).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(change(table))
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    manifest.pop("digest")
    (folder / "bundle.json").write_bytes(seal(manifest))


def test_other_rows_are_refused_with_the_reason(
    toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fewer = shutil.copytree(toy_bundle, tmp_path / "fewer")
    rewrite(fewer, "predictions-test.csv", lambda table: table[:-1])
    assert compare.main([str(toy_bundle), str(fewer)]) == 2
    error = capsys.readouterr().err
    assert "hold other images (11 in common; only in one of them: img_" in error
    assert "--split file:" in error


def test_other_labels_are_refused_with_the_first(
    toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def turned(table: list[list[str]]) -> list[list[str]]:
        row = next(row for row in table[1:] if row[1] in "01")
        row[1] = str(1 - int(row[1]))
        return table

    other = shutil.copytree(toy_bundle, tmp_path / "other")
    rewrite(other, "predictions-test.csv", turned)
    assert compare.main([str(toy_bundle), str(other)]) == 2
    assert "have other labels in 1 cells, the first 'red' of img_" in capsys.readouterr().err


def test_rows_in_another_order_are_the_same_rows(
    toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(toy_bundle, tmp_path / "other")
    rewrite(other, "predictions-test.csv", lambda table: [table[0], *table[:0:-1]])
    (difference,) = compared(capsys, str(toy_bundle), str(other))["differences"]
    assert difference["macro"]["average_precision"]["difference"] == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["BUNDLE", "BUNDLE", "--resamples", "0"], "--resamples: expected a whole number from 1"),
        (["BUNDLE", "BUNDLE", "--seed", "-1"], "--seed: expected a whole number from 0"),
        ([], "name two bundles or more"),
        (["BUNDLE"], "name two"),
        (["BUNDLE", "gone"], "no such folder"),
    ],
)
def test_mistakes_get_one_message(
    toy_bundle: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    assert compare.main([str(toy_bundle) if flag == "BUNDLE" else flag for flag in flags]) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert said in error
