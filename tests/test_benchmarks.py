"""The benchmarks run: ratios of epochs are printed and stored, and the table of trainings says what its logs say."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("MLCLS_CACHE", str(tmp_path / "cache"))


def test_epochs_are_compared_with_steps_on_tensors_in_memory(tmp_path, monkeypatch, record_property):
    """A regression guard without timed asserts: the ratios are in the output and among the test's properties."""
    import end_to_end

    out = tmp_path / "ratios.json"
    tiny = (
        "--backbone cnn4 --image-size 32 --photo-size 64 --images 32 --workers 0 --epochs 1 --precision fp32"
    )
    monkeypatch.setattr("sys.argv", ["end_to_end.py", *tiny.split(), "--out", str(out)])
    end_to_end.main()
    rows = json.loads(out.read_text())["rows"]
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        ("head, views 2", "fills a view"),
        ("head, views 2", "reads the cache"),
        ("head + last, views 2", "reads the cache"),
        ("head, views 0", "from pixels"),
        ("head + last, views 0", "from pixels"),
        ("head + all, unfreeze all", "from pixels"),
    ]
    for row in rows:
        assert math.isfinite(row["ratio"])
        assert row["ratio"] > 0
        record_property(f"ratio, {row['stage']}, {row['epoch']}", round(row["ratio"], 3))


@pytest.fixture
def runs(tmp_path):
    """Two turns of fastai and mlcls, as their logs would be: mlcls passes fastai's 0.6 after 10 and 20 s."""
    import training

    table = ["image,a,b,subset", *(f"{i}.jpg,{i % 2},{i // 2 % 2},test" for i in range(40))]
    (tmp_path / "table.csv").write_text("\n".join(table) + "\n")
    task = {
        "table": str(tmp_path / "table.csv"),
        "images": str(tmp_path),
        "attributes": ["a", "b"],
        "image_size": 64,
        "backbone": "resnet18",
        "backbone_args": {},
        "weights": None,
        "scratch": None,
        "flips": True,
        "epochs": None,
        "seed": 0,
        "flags": ["--recipe", "default", "--labels", str(tmp_path / "table.csv")],
        "machine": "a machine",
    }
    (tmp_path / "task.json").write_text(json.dumps(task))
    runs = training.Runs(tmp_path)
    scores = np.random.default_rng(0).random((40, 2), dtype=np.float32)
    for repeat in range(2):
        for contender, epochs in {
            "fastai": [(90, 0.7), (100, 0.6)],
            training.OURS: [(5 * (repeat + 1), 0.5), (10 * (repeat + 1), 0.65)],
        }.items():
            lines = [{"what": "epoch", "seconds": s, "average_precision": ap, "away": 0} for s, ap in epochs]
            lines.append({**lines[-1], "what": "end"})
            lines.append({"what": "exit", "seconds": epochs[-1][0] + 4, "version": "v1"})
            log = runs.log(contender, repeat)
            log.write_text("".join(json.dumps(line) + "\n" for line in lines))
            np.save(log.with_suffix(".npy"), scores)
    return runs


def test_table_of_trainings_pairs_the_runs_of_a_turn(runs):
    import training

    text = training.table(runs)
    (fastai,) = [line for line in text.splitlines() if line.startswith("| fastai")]
    cells = [cell.strip() for cell in fastai.strip("|").split("|")]
    assert cells[0] == "fastai (v1)"
    assert cells[1].startswith("0.600 (")
    assert cells[2:5] == ["104", "90", "15 (10 to 20)"]
    # 104 s over 10 s and 20 s; the 90 s after which fastai first was where it ended
    assert cells[5:] == ["7.8x (5.2x to 10.4x)", "6.8x (4.5x to 9.0x)"]
    assert "`--recipe default`" in text
    assert "a machine" in text


def test_table_of_trainings_says_when_a_figure_is_not_reached(runs):
    import training

    log = runs.log("fastai", 1)
    log.write_text(log.read_text().replace("0.6}", "0.99}").replace("0.6,", "0.99,"))
    text = training.table(runs)
    (fastai,) = [line for line in text.splitlines() if line.startswith("| fastai")]
    cells = [cell.strip() for cell in fastai.strip("|").split("|")]
    assert cells[4] == "not reached, in 1 of 2 runs not reached"
    assert cells[5] == "not reached, in 1 of 2 runs not reached"


def test_unfinished_runs_are_left_out(runs):
    import training

    log = runs.log("fastai", 0)
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    text = training.table(runs)
    (fastai,) = [line for line in text.splitlines() if line.startswith("| fastai")]
    assert "5.2x" in fastai
    assert "10.4x" not in fastai
