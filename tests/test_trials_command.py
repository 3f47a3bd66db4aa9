"""The command `trials`: a study from its first trial to its report, started again, shared, interrupted and killed."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_data import write_toy

from mlcls import Predictor, train, trials
from mlcls.bundle.files import load_bundle
from mlcls.workflows.search import study

BASE = [
    "--labels", "labels.txt", "--backbone", "cnn4", "--backbone-args", "widths=(8,16,16)", "--weights", "none",
    "--head", "linear", "--image-size", "32", "--workers", "0", "--unfreeze", "all", "--unfreeze-epoch", "0",
    "--epochs", "4", "--resamples", "0", "--precision", "fp32", "--device", "cpu", "--augment", "none",
]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_toy(tmp_path, images=100)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLCLS_CACHE", str(tmp_path / "cache"))
    return tmp_path


# Bundles without their pictures and without ONNX, which take longer than these trainings.
QUICK = """\
import sys
from mlcls import trials
from mlcls.workflows import finishing
finishing._draw = lambda *arguments: ""
finishing._export = lambda *arguments: None
sys.exit(trials.main())
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, in this process."""
    monkeypatch.setattr("mlcls.workflows.finishing._draw", lambda *arguments: "")
    monkeypatch.setattr("mlcls.workflows.finishing._export", lambda *arguments: None)


def rows(out: str = "trials") -> list[dict[str, str]]:
    with Path(out, "trials.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def begin(*flags: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", QUICK, *BASE, *flags]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(text: str, process: "subprocess.Popen[str]", journal: str = "trials/trials.journal") -> None:
    end = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < end:
        if Path(journal).is_file() and text in Path(journal).read_text(encoding="utf-8"):
            return
        time.sleep(0.02)
    raise AssertionError(process.communicate())


@pytest.mark.usefixtures("quick")
def test_a_study_from_its_first_trial_to_its_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*BASE, "--trials", "6", "--seeds", "2"]
    assert trials.main(flags) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Best Validation Loss" in shown.err
    assert "nan" not in shown.err.lower().split()
    found = rows()
    assert [row["trial"] for row in found] == list("123456")
    assert {row["state"] for row in found} <= {"complete", "pruned"}
    assert found[0]["name"] == "as given"
    assert float(found[0]["lr_finetune"]) == 1e-3
    assert len({row["lr_finetune"] for row in found}) == 6
    splits = set()
    for number, row in enumerate(found, start=1):
        folder = Path(f"trials/trial-{number:04d}")
        assert folder.exists() == (row["state"] == "complete")
        if row["state"] != "complete":
            continue
        record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        assert record["evaluation"]["test"] is None
        assert "predictions-test.csv" not in load_bundle(folder).manifest["files"]
        kept = record["epochs"][record["best_epoch"]]
        assert float(row["val_map"]) == kept["val_map"] == float(row["value"])
        assert float(row["val_loss"]) == min(epoch["val_loss"] for epoch in record["epochs"])
        assert record["recipe"]["lr_finetune"] == float(row["lr_finetune"])
        assert Predictor(folder).predict(["images/img_000.png"])[0]["attributes"]
        splits.add((folder / "split.csv").read_bytes())
    assert splits == {Path("trials/split.csv").read_bytes()}
    for name in ("report.html", "trials_history.png", "trials_settings.png", "trials_importance.png"):
        assert Path("trials", name).stat().st_size > 1000
    page = Path("trials/report.html").read_text(encoding="utf-8")
    assert "The best one again" in page
    assert page.count("data:image/png") == 3
    assert not re.search(r"src=.http|href=.http", page)

    best = max((row for row in found if row["state"] == "complete"), key=lambda row: float(row["value"]))
    assert train.main(["--recipe", "trials/best.toml", "--out", "again"]) == 0
    again, first = Path("again"), Path(best["folder"])
    for name in ("weights.safetensors", "thresholds.json", "iterations.csv"):
        assert (again / name).read_bytes() == (first / name).read_bytes()
        assert (again / name).read_bytes() == Path("trials/best/seed-0", name).read_bytes()
    for seed in range(2):
        record = json.loads(Path(f"trials/best/seed-{seed}/metrics.json").read_text(encoding="utf-8"))
        assert record["seed"] == seed
        assert record["evaluation"]["test"]["n"] > 0
    assert len(Path("trials/seeds.csv").read_text().splitlines()) == 3
    assert not Path("trials/workers").exists()

    # the same command has nothing left to do; with more trials it goes on
    stamps = {path: path.stat().st_mtime_ns for path in Path("trials").glob("*/**/bundle.json")}
    assert trials.main(flags) == 0
    assert rows() == found
    assert trials.main([*flags, "--trials", "7"]) == 0
    assert rows()[:6] == found
    assert len(rows()) == 7
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items() if "best" not in path.parts)

    # with other flags it is another study
    capsys.readouterr()
    assert trials.main([*flags, "--epochs", "2", "--space", "published"]) == 2
    assert "--epochs: 4 then, 2 now" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_trials_that_fail_by_their_own_settings_are_rows_and_the_study_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "losses_of_a_test.py").write_text(
        "def bad(logits, targets):\n    return logits * float('nan')\n\n"
        "def worse(logits, targets):\n    raise MemoryError\n"
    )
    monkeypatch.syspath_prepend(str(here))
    space = here / "space.toml"
    space.write_text("[loss]\nchoices = ['bce', 'losses_of_a_test:bad', 'losses_of_a_test:worse']\n")
    assert trials.main([*BASE, "--trials", "3", "--seeds", "0", "--space", "space.toml"]) == 0
    found = rows()
    failed = [row for row in found if row["state"] == "failed"]
    assert sum(row["state"] == "complete" for row in found) == 3
    assert {row["loss"] for row in failed} <= {"losses_of_a_test:bad", "losses_of_a_test:worse"}
    assert failed
    assert all("not finite" in row["reason"] or "out of memory" in row["reason"] for row in failed)
    complete = [row for row in found if row["state"] == "complete"]
    assert all(row["loss"] == "bce" for row in complete)
    assert {row["val_map"] for row in complete} == {complete[0]["val_map"]}
    assert [row["reason"] for row in complete[1:]] == [
        f"the same as trial {complete[0]['trial']}"
    ] * 2  # not run anew
    assert not any(row["folder"] for row in failed)
    assert all("\n" not in row["reason"] for row in failed)
    assert "failed: " in capsys.readouterr().err
    assert not Path("trials/best").exists()

    space.write_text("[loss]\nchoices = ['losses_of_a_test:bad', 'losses_of_a_test:worse']\n")
    assert trials.main([*BASE, "--trials", "3", "--space", "space.toml", "--out", "other"]) == 3
    assert "5 trials failed one after the other" in capsys.readouterr().err
    assert len(rows("other")) == 5


@pytest.mark.usefixtures("quick")
def test_runs_that_lag_are_ended_and_leave_a_row(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "STARTUP", 3)
    (here / "space.toml").write_text("[lr_finetune]\nlow = 1e-7\nhigh = 1e-2\nlog = true\n")
    flags = ["--trials", "8", "--seeds", "0", "--space", "space.toml", "--epochs", "5", "--patience", "0"]
    assert trials.main([*BASE, *flags]) == 0
    found = rows()
    pruned = [row for row in found if row["state"] == "pruned"]
    assert pruned
    for row in pruned:
        assert 3 <= int(row["epochs"]) < 5
        assert float(row["value"]) == float(row["val_map"])
        assert not Path(f"trials/trial-{int(row['trial']):04d}").exists()
    assert len(found) == 8  # those that were cut off count


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("metric", ["val_loss", "val_f1"])
def test_the_figure_that_decides_is_a_persons_choice(here: Path, metric: str) -> None:
    # a database in the folder of the trials, which is not there yet
    flags = ["--trials", "3", "--seeds", "0", "--metric", metric, "--storage", "sqlite:///trials/here.db"]
    assert trials.main([*BASE, *flags]) == 0
    found = [row for row in rows() if row["state"] == "complete"]
    sign = 1 if metric == "val_loss" else -1
    best = min(found, key=lambda row: (sign * float(row["value"]), float(row["val_loss"])))
    toml = Path("trials/best.toml").read_text(encoding="utf-8")
    assert f"# trial {best['trial']} of a search" in toml


def test_a_trial_with_several_views_counts_by_what_its_bundle_predicts(here: Path) -> None:
    assert trials.main([*BASE, "--trials", "1", "--seeds", "0", "--tta", "flip", "--epochs", "2"]) == 0
    metrics = json.loads(Path("trials/trial-0001/metrics.json").read_text())
    epoch = metrics["epochs"][metrics["best_epoch"]]
    of_bundle = metrics["evaluation"]["val"]["macro"]["average_precision"]
    assert of_bundle != epoch["val_map"]  # else this test shows nothing
    with Path("trials/trials.csv").open(newline="") as file:
        assert float(next(csv.DictReader(file))["value"]) == pytest.approx(of_bundle, abs=1e-9)


def test_ctrl_c_says_how_to_go_on_and_the_trial_is_run_again(here: Path) -> None:
    long = ["--trials", "1", "--seeds", "0", "--epochs", "5000", "--patience", "0"]
    process = begin(*long)
    wait_for('"intermediate_value"', process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "interrupted in trial 1, which will be run again" in said
    assert "mlcls trials" in said
    assert "Traceback" not in said
    assert not Path("trials/trial-0001").exists()
    process = begin(*long)
    wait_for('"again_of"', process)
    wait_for("trial-0002", process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "where", ["mlcls.workflows.search.one_trial.tell", "mlcls.workflows.search.one_trial.same_before"]
)
def test_ctrl_c_between_two_trials_costs_none(
    here: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    flags = [*BASE, "--trials", "2", "--seeds", "0"]
    with monkeypatch.context() as patched:
        patched.setattr(where, interrupted)
        assert trials.main(flags) == 130
    assert trials.main(flags) == 0
    over = [row for row in rows() if row["state"] == "complete"]
    assert len(over) == 2
    assert [row["name"] for row in over].count("as given") == 1


def test_two_processes_share_a_study_and_a_kill_loses_no_trial(here: Path) -> None:
    flags = ["--trials", "4", "--seeds", "1"]
    one = begin(*flags, "--title", "the first")
    wait_for('"intermediate_value"', one)
    one.kill()  # in its first trial
    one.communicate()
    two, three = begin(*flags), begin(*flags)
    said = [process.communicate(timeout=240)[1] for process in (two, three)]
    assert [two.returncode, three.returncode] == [0, 0], said
    found = rows()
    over = [row for row in found if row["state"] in ("complete", "pruned")]
    assert len(over) == 4
    assert len(found) in (4, 5)  # the one that was killed may have ended just before
    if len(found) == 5:
        assert found[0]["state"] == "again"
        assert "its process died" in found[0]["reason"]
        twin = found[int(re.findall(r"as trial (\d+)", found[0]["reason"])[0]) - 1]
        assert twin["state"] in ("complete", "pruned")
        assert twin["lr_finetune"] == found[0]["lr_finetune"]
        assert twin["name"] == "as given"
    assert not any(row["state"] in ("running", "waiting") for row in found)
    for row in over:
        if row["state"] == "complete":
            load_bundle(row["folder"])
    load_bundle("trials/best/seed-0")
    assert sum("The best one again" in text for text in said) == 1  # one of them does the rest
    assert Path("trials/report.html").is_file()


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--space", "nothing.toml"], "nothing.toml"),
        (["--space", "publised"], "did you mean 'published'"),
        (["--storage", "foo://x"], "--storage foo://...: cannot be opened"),
        (["--storage", "sqlite:///nowhere/x.db"], "there is no folder nowhere"),
        (["--metric", "auroc"], "--metric"),
        (["--trials", "0"], "--trials"),
        (["--minutes", "-1"], "--minutes"),
        (["--seeds", "x"], "--seeds"),
        (["--storage", "labels.txt"], "no journal of trials"),
        (["--folds", "3"], "--folds"),
        (["--optimizer", "adan"], "did you mean"),
    ],
)
def test_mistakes_are_told_before_any_work(
    here: Path, capsys: pytest.CaptureFixture[str], flags: list[str], what: str
) -> None:
    before = (here / "labels.txt").read_bytes()
    assert trials.main([*BASE, *flags]) == 2
    said = capsys.readouterr().err
    assert what in said
    assert "train 70" not in said  # the images were not looked at
    assert (here / "labels.txt").read_bytes() == before
    assert not Path("trials").exists()


@pytest.mark.usefixtures("quick")
def test_a_split_is_not_passed_over_in_silence(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two studies in one folder share its split, so they must have been told to divide alike."""
    one = [*BASE, "--trials", "1", "--seeds", "0", "--epochs", "1"]
    assert trials.main([*one, "--split", "0.5,0.3,0.2"]) == 0
    split = Path("trials/split.csv").read_bytes()
    for other in (["--split", "0.6,0.2,0.2"], ["--split", "0.5,0.3,0.2", "--seed", "1"]):
        assert trials.main([*one, *other, "--study", "other"]) == 2
        assert "split.csv, which the trials there share, was made otherwise" in capsys.readouterr().err
    assert Path("trials/split.csv").read_bytes() == split
    assert trials.main([*one, "--split", "0.5,0.3,0.2", "--study", "other"]) == 0


def test_a_databases_password_is_kept_nowhere(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trials.main([*BASE, "--storage", "nonsense://me:secret@here/x"]) == 2
    assert "secret" not in capsys.readouterr().err
    command = "mlcls trials --storage postgresql://me:se:cret@here/x --out a"
    assert (
        re.sub(trials.PASSWORD, r"\1:***@", command)
        == "mlcls trials --storage postgresql://me:***@here/x --out a"
    )


def test_the_time_that_is_over_ends_the_search_with_what_there_is(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trials.main([*BASE, "--minutes", "1e-9"]) == 0
    said = capsys.readouterr().err
    assert "the time is over" in said
    assert "no trial has come to its end" in said
