"""Folds: each image is predicted by a member that never saw it, the bundle averages them, no kill costs a member."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toy_data import write_toy

from mlcls import Predictor, fit
from mlcls.bundle.files import load_bundle, verify_bundle
from mlcls.errors import BundleError, Interrupted, MlclsError, OutputError, RecipeError
from mlcls.labels.split import read_subsets
from mlcls.recipe import Recipe, build_recipe
from mlcls.reports.record import EpochFigures, Record, from_json
from mlcls.scoring.predictions import read_predictions
from mlcls.scoring.thresholds import tune
from mlcls.workflows import ensemble_files
from mlcls.workflows.folds import member_seed
from mlcls.workflows.training import recipe_to_resume

SMALL: dict[str, Any] = {
    "labels": "labels.txt",
    "backbone": "cnn4",
    "weights": "none",
    "image_size": 32,
    "workers": 0,
    "precision": "fp32",
    "epochs": 3,
    "unfreeze_epoch": 1,
    "unfreeze": "all",
    "augment": "light",
    "split": "0.6,0.2,0.2",
    "batch_size": 8,
    "resamples": 50,
    "folds": 3,
}


DRAW = ensemble_files._draw


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlcls.workflows.finishing._draw", lambda *arguments: "")
    monkeypatch.setattr(ensemble_files, "_draw", lambda *arguments: "")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_toy(tmp_path, images=48)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small(**settings: Any) -> Recipe:
    return Recipe(**{**SMALL, **settings})


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of three folds that ran through. Tests must not change it."""
    folder = tmp_path_factory.mktemp("folds")
    write_toy(folder, images=48)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("mlcls.workflows.finishing._draw", lambda *arguments: "")
        patch.setattr(ensemble_files, "_draw", lambda *arguments: "")
        fit(small(), out="out")
    return folder / "out"


def stop_after(epochs: int) -> Callable[[EpochFigures], None]:
    """Ctrl-C in the last of so many epochs, counted over all members."""
    seen = 0

    def heard(figures: EpochFigures) -> None:
        nonlocal seen
        seen += 1
        if seen == epochs:
            signal.raise_signal(signal.SIGINT)

    return heard


def result(folder: Path) -> dict[str, object]:
    """All that a run of folds leaves, but for how long it took and where it was resumed from."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("metrics.json", "bundle.json", "recipe.toml", "report.html"):
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
        if path.name == "metrics.json":
            metrics = json.loads(path.read_text())
            for row in (metrics, *metrics["epochs"], *(metrics["members"] or ())):
                row.pop("seconds")
                row.pop("images_per_second", None)
            metrics["recipe"].pop("split")  # of a member: in the bundle's folder
            found[path.relative_to(folder).as_posix()] = metrics
    return found


def test_every_image_outside_of_test_is_predicted_by_the_one_member_that_never_saw_it(ensemble: Path) -> None:
    found = read_predictions(ensemble / "predictions-val.csv")
    subsets = read_subsets(ensemble / "split.csv")
    assert sorted(found.images) == sorted(image for image, subset in subsets.items() if subset != "test")
    with (ensemble / "folds.csv").open(newline="") as file:
        fold_of = {row["image"]: row["fold"] for row in csv.DictReader(file)}
    assert sorted(fold_of) == sorted(found.images)
    seen = 0
    for name in ("fold-0", "fold-1", "fold-2"):
        own = read_predictions(ensemble / "members" / name / "predictions-val.csv")
        split = read_subsets(ensemble / "members" / name / "split.csv")
        for image, scores in zip(own.images, own.scores, strict=True):
            assert fold_of[image] == name
            assert split[image] == "val"
            assert np.array_equal(found.scores[found.images.index(image)], scores)
        seen += len(own.images)
        assert {i for i, s in split.items() if s == "test"} == {i for i, s in subsets.items() if s == "test"}
        assert {i for i, s in split.items() if s == "train"} == {i for i, f in fold_of.items() if f != name}
    assert seen == len(found.images)


def test_the_bundle_predicts_what_its_test_predictions_say(ensemble: Path) -> None:
    test = read_predictions(ensemble / "predictions-test.csv")
    members = [
        read_predictions(ensemble / "members" / f"fold-{number}" / "predictions-test.csv").scores
        for number in range(3)
    ]
    np.testing.assert_allclose(test.scores, np.mean(members, axis=0), atol=1e-7)
    images = [ensemble.parent / "images" / name for name in test.images]
    rows = Predictor(ensemble).predict(images)
    predicted = [[cell["probability"] for cell in row["attributes"]] for row in rows]
    np.testing.assert_allclose(predicted, test.scores, atol=2e-6)


def test_thresholds_are_tuned_on_the_out_of_fold_predictions(ensemble: Path) -> None:
    found = read_predictions(ensemble / "predictions-val.csv")
    bundle = verify_bundle(ensemble)
    known = (~np.isnan(found.labels)).sum(axis=0).tolist()
    assert [threshold.known for threshold in bundle.thresholds] == known
    exact = tune(found.labels, found.scores, objective="f1")
    assert exact.shape == bundle.threshold_values().shape


def test_the_record_tells_of_each_member_and_of_the_ensemble_beside_them(ensemble: Path) -> None:
    record = from_json((ensemble / "metrics.json").read_bytes())
    assert record.members is not None
    assert record.ensemble is not None
    assert [one.name for one in record.members] == ["fold-0", "fold-1", "fold-2"]
    assert [one.seed for one in record.members] == [member_seed(0, number) for number in range(3)]
    assert len({one.seed for one in record.members}) == 3
    own = []
    for one in record.members:
        member = from_json((ensemble / "members" / one.name / "metrics.json").read_bytes())
        assert (one.epochs, one.best_epoch, one.seed) == (len(member.epochs), member.best_epoch, member.seed)
        assert one.val_map == (member.evaluation["val"] or {})["macro"]["average_precision"]
        assert one.test_map == (member.evaluation["test"] or {})["macro"]["average_precision"]
        assert member.members is None
        own.append(one.test_map)
    test = record.evaluation["test"]
    assert test is not None
    assert record.ensemble.mean_test_map == pytest.approx(
        np.mean([value for value in own if value is not None])
    )
    difference = (record.ensemble.test_difference or {})["macro"]["average_precision"]
    expected = test["macro"]["average_precision"] - (record.ensemble.mean_test_map or 0)
    assert difference["difference"] == pytest.approx(expected)
    assert difference["interval"][0] <= expected <= difference["interval"][1]
    assert record.stopped_because == "all 3 members are done"
    assert record.recipe["folds"] == 3
    assert record.data.split is not None
    assert "training and validation together, 39 images, are divided into 3 folds of 13" in record.data.notes


def test_nothing_is_left_of_the_run(ensemble: Path) -> None:
    assert not (ensemble / "checkpoint").exists()


def test_a_members_recipe_repeats_it(ensemble: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ensemble.parent)
    fit(build_recipe(str(ensemble / "members/fold-1/recipe.toml")), out=tmp_path / "again")
    for name in ("weights.safetensors", "predictions-val.csv", "predictions-test.csv", "thresholds.json"):
        assert (tmp_path / "again" / name).read_bytes() == (ensemble / "members/fold-1" / name).read_bytes()


def test_ordinary_runs_say_nothing_of_members(here: Path) -> None:
    record = fit(small(folds=0, epochs=1), out="out")
    assert record.members is None
    assert record.ensemble is None


@pytest.mark.parametrize("epochs", [2, 4])
def test_a_run_that_was_interrupted_goes_on_to_the_same_bytes(
    here: Path, ensemble: Path, epochs: int
) -> None:
    with pytest.raises(
        Interrupted, match=f"^fold-{(epochs - 1) // 3}: interrupted in epoch .*, which is saved; go on"
    ):
        fit(small(), out="out", on_epoch=stop_after(epochs))
    finished = [path.parent.name for path in Path("out/checkpoint/members").glob("*/bundle.json")]
    assert sorted(finished) == [f"fold-{number}" for number in range((epochs - 1) // 3)]
    recipe = recipe_to_resume(Path("out"), Recipe(), {})
    assert recipe.folds == 3
    heard: list[int] = []
    fit(recipe, out="out", resume=True, on_epoch=lambda figures: heard.append(figures.epoch))
    assert len(heard) <= 9 - 3 * len(finished)
    found, expected = result(Path("out")), result(ensemble)
    assert list(found) == list(expected)
    for name, content in expected.items():
        if name.endswith("metrics.json"):
            continue
        assert found[name] == content, name
    for name in ("metrics.json", "members/fold-1/metrics.json"):
        one, other = dict(found[name]), dict(expected[name])  # type: ignore[call-overload]
        for metrics in (one, other):
            metrics["data"].pop("images_dir")
        assert one == other


def _train_and_kill(number: int) -> None:
    """Train, in a process of its own, and end it in epoch `number` as a power cut would."""

    def heard(figures: EpochFigures) -> None:
        nonlocal number
        number -= 1
        if not number:
            os.kill(os.getpid(), signal.SIGKILL)

    fit(small(checkpoint_minutes=1e-9), out="out", on_epoch=heard)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
def test_a_kill_costs_no_member_that_was_done(here: Path, ensemble: Path) -> None:
    # by path: a spawned child could not import this module, whose folder is no package
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, __file__], cwd=here, env=os.environ | paths, timeout=300)
    assert ended.returncode == -signal.SIGKILL
    assert Path("out/checkpoint/members/fold-0/bundle.json").is_file()
    heard: list[int] = []
    fit(out="out", resume=True, on_epoch=lambda figures: heard.append(figures.epoch))
    assert len(heard) in (5, 6)  # of fold-1, whose second epoch had not been taken in, and fold-2
    found, expected = result(Path("out")), result(ensemble)
    for name in ("predictions-val.csv", "predictions-test.csv", "thresholds.json", "folds.csv"):
        assert found[name] == expected[name]


def test_what_stands_there_is_not_replaced_unasked(here: Path) -> None:
    with pytest.raises(Interrupted):
        fit(small(), out="out", on_epoch=stop_after(4))
    with pytest.raises(BundleError, match="an unfinished run stands there"):
        fit(small(), out="out")
    with pytest.raises(BundleError, match=r"--folds: 3 then, 2 now"):
        fit(small(folds=2), out="out", resume=True)
    with pytest.raises(BundleError, match=r"--folds: 3 then, 0 now"):
        fit(small(folds=0), out="out", resume=True)
    with pytest.raises(BundleError, match="--finish: fold-2 of 3 members has not begun"):
        fit(small(), out="out", resume=True, finish=True)
    lines = Path("labels.txt").read_text().splitlines()
    other = " ".join([lines[1].split()[0], *("1" if cell == "0" else "0" for cell in lines[1].split()[1:])])
    Path("labels.txt").write_text("\n".join([lines[0], other, *lines[2:]]) + "\n")
    with pytest.raises(BundleError, match="have changed since the run was begun: 1 images have other labels"):
        fit(small(), out="out", resume=True)
    fit(small(folds=0, epochs=1), out="out", overwrite=True)
    assert not Path("out/checkpoint").exists()
    assert load_bundle("out").members == ()


def test_finish_makes_the_ensemble_of_what_there_is(here: Path) -> None:
    with pytest.raises(Interrupted):
        fit(small(), out="out", on_epoch=stop_after(8))
    record = fit(out="out", resume=True, finish=True)
    assert record.members is not None
    assert [one.epochs for one in record.members] == [3, 3, 2]
    assert len(verify_bundle("out").members) == 3


def test_an_ensemble_makes_room_for_another_and_for_one_network(here: Path) -> None:
    fit(small(epochs=1), out="out")
    with pytest.raises(BundleError, match="a finished bundle stands there"):
        fit(small(epochs=1), out="out")
    again = fit(small(epochs=1), out="out", resume=True)  # nothing is left to do
    assert again.members is not None
    fit(small(epochs=1, folds=2, seed=1), out="out", overwrite=True)
    assert sorted(path.name for path in Path("out/members").iterdir()) == ["fold-0", "fold-1"]
    verify_bundle("out")
    fit(small(epochs=1, folds=0), out="out", overwrite=True)
    assert not Path("out/members").exists()
    assert not Path("out/folds.csv").exists()


def test_one_fold_and_too_many_are_refused_before_any_training(here: Path) -> None:
    for folds, words in ((1, "expected 2 or more"), (40, "expected at most 39 folds")):
        with pytest.raises(RecipeError, match=words):
            fit(small(folds=folds), out="out")
    assert not Path("out").exists()


def test_groups_are_not_torn(here: Path) -> None:
    rng = np.random.default_rng(0)
    lines = Path("labels.txt").read_text().splitlines()
    people = rng.integers(0, 12, len(lines) - 1)
    rows = [f"{line} person{number}" for line, number in zip(lines[1:], people, strict=True)]
    Path("labels.txt").write_text("\n".join([f"{lines[0]} person", *rows]) + "\n")
    fit(small(epochs=1, group_column="person"), out="out")
    with Path("out/folds.csv").open(newline="") as file:
        fold_of = {row["image"]: row["fold"] for row in csv.DictReader(file)}
    for number in range(12):
        images = [f"img_{row:03d}.png" for row in np.flatnonzero(people == number)]
        assert len({fold_of.get(image, "test") for image in images}) <= 1
    assert json.loads(Path("out/metrics.json").read_text())["ensemble"]["test_difference"]["unit"] == "groups"


def test_the_test_subset_stays_closed_where_it_is_not_to_be_scored(here: Path) -> None:
    record = fit(small(epochs=1, folds=2), out="out", score_test=False)
    assert record.evaluation["test"] is None
    assert record.ensemble is not None
    assert record.ensemble.mean_test_map is None
    assert not list(Path("out").rglob("predictions-test.csv"))
    verify_bundle("out")


def test_tables_of_their_own_and_dataframes(here: Path) -> None:
    lines = Path("labels.txt").read_text().splitlines()
    Path("test.txt").write_text("\n".join([lines[0], *lines[37:]]) + "\n")
    Path("train.txt").write_text("\n".join(lines[:37]) + "\n")
    record = fit(
        small(epochs=1, folds=2, labels="train.txt", test_labels="test.txt", images="images"), out="out"
    )
    test = read_predictions("out/predictions-test.csv")
    assert sorted(Path(name).name for name in test.images) == [
        f"img_{number:03d}.png" for number in range(36, 48)
    ]
    assert (record.evaluation["val"] or {})["n"] == 36
    frame = pd.read_csv("labels.txt", sep=" ", na_values="NA")
    found = fit(small(epochs=1, folds=2), labels=frame, images="images", out="frame")
    assert found.members is not None
    verify_bundle("frame")


def test_a_fault_in_a_member_says_how_the_whole_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlcls.bundle.unfinished import how_to_go_on
    from mlcls.workflows import finishing

    def full(*arguments: object) -> Record:
        raise OutputError(f"the disk is full; then: {how_to_go_on(Path('out/checkpoint/members/fold-0'))}")

    with monkeypatch.context() as patch:
        patch.setattr(finishing, "finish", full)
        with pytest.raises(MlclsError) as raised:
            fit(small(epochs=1, folds=2), out="out")
    assert str(raised.value) == "the disk is full; then: python -m mlcls.train --out out --resume"
    fit(out="out", resume=True)
    verify_bundle("out")


def test_a_full_disk_in_the_end_costs_no_member(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ensemble_files, "write_split", full)
        with pytest.raises(OutputError, match=r"The training is kept; then: .* --out out --resume"):
            fit(small(epochs=1, folds=2), out="out")
    assert not Path("out/bundle.json").exists()
    heard: list[int] = []
    fit(out="out", resume=True, on_epoch=lambda figures: heard.append(figures.epoch))
    assert heard == []
    assert len(verify_bundle("out").members) == 2


def test_what_is_no_run_among_the_members_is_not_removed(here: Path) -> None:
    Path("out/checkpoint/members").mkdir(parents=True)
    Path("out/checkpoint/members/mine.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"mine.txt was not written by a training"):
        fit(small(), out="out", overwrite=True)
    assert Path("out/checkpoint/members/mine.txt").read_text() == "mine"


def test_the_page_shows_the_members(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble_files, "_draw", DRAW)
    fit(small(epochs=1, folds=2), out="out")
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "fold-1" in page
    assert "mean member" in page


def test_of_folds_on_a_dataframe_no_recipe_names_a_command(here: Path) -> None:
    table = pd.read_csv("labels.txt", sep=" ")
    fit(small(epochs=1, folds=2, resamples=0), labels=table, images=here / "images", out="run")
    for place in (Path("run"), *Path("run/members").iterdir()):
        comment = (place / "recipe.toml").read_text(encoding="utf-8").partition("\n")[0]
        assert "labels=the same DataFrame" in comment
        assert "mlcls.train" not in comment


if __name__ == "__main__":
    _train_and_kill(5)
