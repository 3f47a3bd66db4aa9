"""The benchmarks of recipes and options: tiny runs of each, what is hidden or made rare, and what the tables say."""

import json
import math
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("MLCLS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """train/, valid/ and test/ as exports have them: bright or not, and something rare."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("valid", 10), ("test", 12)):
        folder = tmp_path / "photos" / part
        folder.mkdir(parents=True)
        lines = ["filename, bright, rare"]
        for number in range(count):
            bright, rare = number % 2, int(number % 6 == 0)
            pixels = rng.integers(0, 80, (40, 40, 3), dtype=np.uint8) + np.uint8(120 * bright)
            pixels[:10, :10] = 255 * rare
            cv2.imwrite(str(folder / f"{part}{number}.png"), pixels)
            lines.append(f"{part}{number}.png, {bright}, {rare}")
        (folder / "_classes.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "photos"


@pytest.fixture
def flags(tmp_path: Path, photos: Path) -> list[str]:
    """Of every script: a tiny network with weights of a file."""
    import timm
    from safetensors.torch import save_file

    import mlcls.models.cnn  # noqa: F401 - it registers cnn4

    weights = tmp_path / "cnn4.safetensors"
    save_file(timm.create_model("cnn4").state_dict(), weights)
    given = f"--backbone cnn4 --image-size 32 --epochs 2 --views 1 --workers 0 --precision fp32 --weights {weights}"
    return ["--results", str(tmp_path / "results"), "--ppe", str(photos), *given.split()]


def run(
    script: str, flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What the script's main prints."""
    module = __import__(script)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *flags])
    module.main()
    return capsys.readouterr().out


def row_of(text: str, name: str) -> list[str]:
    """The cells of the table's row that begins so."""
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {name}")]
    return [cell.strip() for cell in row.strip("| ").split("|")]


def test_a_run_is_stopped_in_time_and_goes_on_to_the_same_end(flags, tmp_path, monkeypatch, capsys):
    import recipes

    few = [*flags, "--seeds", "1", "--recipes", "linear-probe"]
    text = run("recipes", few, monkeypatch, capsys)
    assert 0 < float(row_of(text, "`default`")[1]) <= 1
    assert row_of(text, "`linear-probe`")[2][0] in "+-"
    kept = tmp_path / "results" / "recipes.jsonl"
    first, second = kept.read_text().splitlines()
    assert [json.loads(line)["key"]["recipe"] for line in (first, second)] == ["default", "linear-probe"]

    # a kill in the last line: that run alone is done again
    monkeypatch.setattr(recipes, "warm_up", lambda *_: None)
    kept.write_text(first + "\n" + second[:50])
    run("recipes", few, monkeypatch, capsys)
    lines = kept.read_text().splitlines()
    assert lines[0] == first
    assert [json.loads(line)["key"]["recipe"] for line in (lines[0], lines[-1])] == [
        "default",
        "linear-probe",
    ]
    before = kept.read_bytes()
    run("recipes", few, monkeypatch, capsys)
    assert kept.read_bytes() == before

    # the default with no time at all: one epoch within it, and the end that it has without a limit
    import sets

    monkeypatch.setattr(sys, "argv", ["recipes.py"])
    parser = recipes.argparse.ArgumentParser()
    sets.add_set_flags(parser, seeds=1)
    given, settings = parser.parse_known_args(few)
    (chosen,) = sets.read_sets(given)
    recipe = chosen.recipe("default", **sets.train_settings(settings[: settings.index("--recipes")]), seed=0)
    (tmp_path / "work").mkdir()
    facts = recipes.run_timed(chosen, recipe, tmp_path / "work", 0.0, to_the_end=True)
    unlimited = json.loads(first)
    assert facts["within"]["epochs"] == 1
    assert facts["epochs"] == unlimited["epochs"] == 2
    assert facts["test_ap"] == unlimited["test_ap"]
    assert facts["trained_seconds"] > facts["within"]["trained_seconds"] > 0


def test_options_and_remedies_run(flags, monkeypatch, capsys):
    text = run("craft", [*flags, "--seeds", "1", "--options", "label smoothing"], monkeypatch, capsys)
    assert row_of(text, "label smoothing")[2][0] in "+-"
    text = run("rare_labels", [*flags, "--seeds", "1", "--remedies", "augment_rare"], monkeypatch, capsys)
    assert "`rare` in 4 of 24 known labels" in text
    assert 0 < float(row_of(text, "augment_rare")[1]) <= 1


def test_hidden_labels_run(flags, monkeypatch, capsys):
    few = ["--seeds", "1", "--shares", "50", "--hide", "per class", "--na-settings", "negative"]
    text = run("hidden_labels", [*flags, *few], monkeypatch, capsys)
    cells = row_of(text, "50%")
    assert cells[1] == "per class"
    assert 0 < float(cells[2]) <= 1


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    cells = np.where(rng.random((400, 2)) < [0.05, 0.7], "1", "0").astype(object)
    cells[rng.random((400, 2)) < 0.1] = "NA"
    subset = ["train"] * 200 + ["val"] * 100 + ["test"] * 100
    return pd.DataFrame(
        {"image": [f"{i}.png" for i in range(400)], "a": cells[:, 0], "b": cells[:, 1], "subset": subset}
    )


@pytest.mark.parametrize("way", ["at random", "per class"])
def test_what_is_hidden(table, way):
    import hidden_labels

    known = {0.0: table[["a", "b"]] != "NA"}
    for share in (0.5, 0.9, 0.98):
        hidden = hidden_labels.hide(table, ["a", "b"], way, share, seed=3)
        known[share] = hidden[["a", "b"]] != "NA"
        assert (hidden.subset == table.subset).all()
        assert hidden[table.subset == "test"].equals(table[table.subset == "test"])
        assert (hidden.where(known[share]).a.dropna() == table.a[known[share].a]).all()
        for subset in ("train", "val"):
            rows = table.subset == subset
            for name in ("a", "b"):
                before, after = (int(known[s][rows][name].sum()) for s in (0.0, share))
                if way == "per class":
                    kinds = [int((hidden[rows][name] == kind).sum()) for kind in ("1", "0")]
                    assert after == max(round((1 - share) * before), 2)
                    enough = min((table[rows][name] == kind).sum() for kind in ("1", "0")) >= after / 2
                    assert abs(kinds[0] - kinds[1]) <= 1 or not enough
                    assert min(kinds) >= 1
                else:
                    spread = math.sqrt(before * share * (1 - share))
                    assert abs(after - (1 - share) * before) <= 4 * spread
    for less, more in ((0.0, 0.5), (0.5, 0.9), (0.9, 0.98)):
        assert not (known[more] & ~known[less]).to_numpy().any()


def test_an_attribute_is_made_rare_in_training_alone(table):
    import rare_labels

    made = rare_labels.make_rare(table, "b", 0.1)
    for subset in ("train", "val"):
        cells = made[made.subset == subset].b
        assert 0.05 < (cells == "1").sum() / cells.isin(["0", "1"]).sum() <= 0.1
    assert made[made.subset == "test"].image.tolist() == table[table.subset == "test"].image.tolist()
    left = table[~table.image.isin(made.image)]
    assert (left.b == "1").all()


def test_a_run_that_fails_is_told_and_the_others_go_on(tmp_path, capsys):
    from kept_runs import Case, read_runs, run_cases

    from mlcls.errors import RecipeError

    def fails(folder):
        raise RecipeError("--lr-head: too much")

    cases = [Case({"seed": 0}, fails), Case({"seed": 1}, lambda folder: {"test_map": 0.5})]
    with pytest.raises(SystemExit) as ended:
        run_cases(tmp_path / "runs.jsonl", cases)
    assert ended.value.code == 1
    assert "--lr-head: too much" in capsys.readouterr().err
    assert [run["key"] for run in read_runs(tmp_path / "runs.jsonl")] == [{"seed": 1}]


def test_differences_are_of_the_same_seeds_with_students_interval():
    from kept_runs import difference_words, paired

    one = [{"key": {"seed": seed}, "test_map": value} for seed, value in enumerate([0.5, 0.6, 0.7])]
    other = [{"key": {"seed": seed}, "test_map": value} for seed, value in ((2, 0.6), (1, 0.58))]
    assert paired(one, other, "test_map") == ([0.6, 0.7], [0.58, 0.6])
    # 0.02 and 0.10: mean 0.06, sd 0.0566, t(1) = 12.706
    assert difference_words([0.6, 0.7], [0.58, 0.6]) == "+0.060 (-0.448 to +0.568)"
    assert difference_words([0.6], [0.5]) == "+0.100"


def test_table_of_folds(tmp_path):
    import folds

    words = {"set": "ppe", "network": "cnn4", "counts": "1", "flags": "folds=5"}
    ensemble = {
        "members": [0.6, 0.8],
        "mean_member": 0.7,
        "difference": {"difference": 0.05, "interval": [0.01, 0.09]},
    }
    runs = [
        {
            "key": {**words, "folds": 5, "seed": 0},
            "machine": "m",
            "test_map": 0.75,
            "seconds": 9.0,
            **ensemble,
        },
        {
            "key": {**words, "folds": 0, "flags": "", "seed": 0},
            "machine": "m",
            "test_map": 0.72,
            "seconds": 3.0,
        },
    ]
    cells = row_of(folds.set_table(runs), "0 ")
    assert cells == ["0", "0.720", "0.700 (0.600 to 0.800)", "0.750", "+0.050 (+0.010 to +0.090)", "9"]


def test_table_of_trials(tmp_path):
    import trials

    (tmp_path / "trials.csv").write_text(
        "trial,name,state,value,lr_finetune,val_map\n1,Trial 1,pruned,0.9,0.001,0.9\n2,,complete,0.5,0.0001,0.5\n"
        "3,,complete,0.6,0.0001234567,0.6\n"
    )
    text = trials.study_table(
        [{"machine": "m", "seconds": 61.2, "kills": 1, "key": {"processes": 2}}], tmp_path
    )
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")][2:]
    assert rows == ["3", "2", "1"]
    assert "2 complete" in text
    assert "m: 61 s, processes: 2, killed: 1." in text
    assert row_of(text, "3 ")[2] == "0.0001235"
