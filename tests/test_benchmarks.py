"""The benchmarks run: ratios of epochs are printed and stored, and the table of trainings says what its logs say."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.syspath_prepend(BENCHMARKS / "peers")
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


def test_drawn_scenes_are_the_same_for_everybody(tmp_path):
    import scenes

    few, more = {"train": 3, "val": 2, "test": 1}, {"train": 4, "val": 2, "test": 1}
    one = scenes.write_scenes(tmp_path / "one", scenes=few)
    other = scenes.write_scenes(tmp_path / "other", scenes=more)
    assert set(one.read_text().splitlines()) < set(other.read_text().splitlines())
    names = [line.split(",")[0] for line in one.read_text().splitlines()[1:]]
    photos = [[(path.parent / "images" / name).read_bytes() for name in names] for path in (one, other)]
    assert photos[0] == photos[1]
    assert len(set(photos[0])) == 6
    third = scenes.write_scenes(tmp_path / "third", scenes=few, seed=1)
    assert (third.parent / "images" / names[0]).read_bytes() != photos[0][0]


def test_fog_and_darkness_are_what_the_pixels_say():
    import scenes

    scene = np.random.default_rng(0).random((scenes.DRAWN, scenes.DRAWN, 3), dtype=np.float32)
    clear, foggy = (scenes.through_fog(scene, fog, np.random.default_rng(1)) for fog in (0.0, 1.0))
    half = scenes.DRAWN // 2
    lost = [foggy[part].std() / clear[part].std() for part in (slice(half), slice(half, None))]
    assert lost[0] < lost[1] < 1  # above is farther away
    light, dark = (scenes.photograph(scene, d, np.random.default_rng(1)) for d in (0.0, 1.0))
    assert dark.mean() < 0.8 * light.mean()


def test_mlcls_trains_on_the_drawn_scenes(tmp_path, monkeypatch, capsys):
    """The flag, the task, one contender and the table; the contender in this process."""
    import timm
    import training
    from safetensors.torch import save_file
    from scenes import write_scenes

    import mlcls.models.cnn  # noqa: F401 - it registers cnn4

    weights = tmp_path / "cnn4.safetensors"
    save_file(timm.create_model("cnn4").state_dict(), weights)
    few = {"train": 24, "val": 12, "test": 12}
    monkeypatch.setattr(training, "write_scenes", lambda folder: write_scenes(folder, scenes=few))
    given = f"--generated --weights {weights} --backbone cnn4 --image-size 32 --epochs 1 --repeats 1"
    given = [
        "training.py",
        *given.split(),
        "--contenders",
        training.OURS,
        "--results",
        str(tmp_path / "results"),
    ]

    def run_here(runs, contender, task, repeat):
        import ours

        own = tmp_path / "task.json"
        own.write_text(json.dumps({**asdict(task), "flags": [*task.flags, "--workers", "0"]}))
        monkeypatch.setattr("sys.argv", ["ours.py", str(own), str(runs.log(contender, repeat))])
        ours.main()
        with runs.log(contender, repeat).open("a") as file:
            file.write(json.dumps({"what": "exit", "seconds": 1.0, "version": "v1"}) + "\n")

    monkeypatch.setattr(training, "run", run_here)
    monkeypatch.setattr("sys.argv", given)
    training.main()
    text = capsys.readouterr().out
    assert "### generated-32: 24 train, 12 val, 12 test images, cnn4 from cnn4.safetensors, 32 px" in text
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {training.OURS}")]
    assert 0 < float(row.split("|")[2].split("(")[0]) <= 1


@pytest.mark.parametrize(
    ("weights", "scratch", "expected"),
    [
        (None, None, {"pretrained": True}),
        ("w.pth", None, {"pretrained": True, "pretrained_cfg_overlay": {"file": "w.pth"}}),
        (None, {"epochs": 1}, {"pretrained": False}),
    ],
)
def test_all_start_from_the_same_weights(weights, scratch, expected):
    import training

    rest = dict.fromkeys(("table", "images", "attributes", "image_size", "flips", "epochs", "seed", "flags"))
    task = training.Task(**rest, backbone="cnn4", backbone_args={}, weights=weights, scratch=scratch)
    assert task.timm_arguments() == expected
