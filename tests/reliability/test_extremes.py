"""Data at the edge of what can be learned from: each command works on it, or refuses it in a sentence."""

import csv
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from numpy.typing import ArrayLike, NDArray

from mlcls import Predictor, Recipe, compare, evaluate, fit, inspect, predict, train, tune_thresholds
from mlcls.errors import MlclsError
from mlcls.scoring.predictions import read_predictions

NA = float("nan")
TINY = [
    "--backbone", "cnn4", "--backbone-args", "widths=8,8", "--weights", "none", "--image-size", "32",
    "--workers", "0", "--epochs", "1", "--unfreeze", "all", "--unfreeze-epoch", "0", "--augment", "none",
    "--resamples", "20", "--device", "cpu",
]  # fmt: skip
RECIPE = {
    "backbone": "cnn4",
    "backbone_args": {"widths": [8, 8]},
    "weights": "none",
    "image_size": 32,
    "workers": 0,
    "epochs": 1,
    "unfreeze": "all",
    "unfreeze_epoch": 0,
    "augment": "none",
    "resamples": 20,
}
# what consoles, matplotlib, HTML, CSV and format strings might take for something else
WEIRD = (
    "[bold]red[/bold]",
    "100% %s {0} {",
    r"$\frac$ \$ \ ^",
    "<script>alert(1)</script>&amp;",
    "é 😀 名前",
    "n" * 300,
    '_a,"b" | c',
    "x",
    "macro",
    "test",
    "nan",
    "-1",
)
Command = Callable[[Sequence[str] | None], int]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no `outputs` stands already


def coin(rows: int, columns: int, seed: int = 0) -> NDArray[np.float64]:
    """Labels that are 0 or 1 by chance."""
    return np.random.default_rng(seed).integers(0, 2, (rows, columns)).astype(np.float64)


def write_table(
    folder: Path,
    labels: ArrayLike,
    names: Sequence[str] | None = None,
    *,
    size: tuple[int, int] = (12, 10),
    subsets: Sequence[str] | None = None,
) -> Path:
    """A table in CSV, and beside it an image of noise a row; `size` is height, width."""
    cells = np.asarray(labels, dtype=np.float64)
    rng = np.random.default_rng(5)
    (folder / "images").mkdir(parents=True)
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        header = list(names or (f"a{column}" for column in range(cells.shape[1])))
        table.writerow(["image", *header, *(["part"] if subsets else [])])
        for number, row in enumerate(cells):
            noise = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            (folder / f"images/i{number:03d}.png").write_bytes(cv2.imencode(".png", noise)[1].tobytes())
            words = ["NA" if np.isnan(cell) else str(int(cell)) for cell in row]
            table.writerow([f"i{number:03d}.png", *words, *([subsets[number]] if subsets else [])])
    return folder / "table.csv"


def parted(train: int, val: int, test: int) -> list[str]:
    return ["train"] * train + ["val"] * val + ["test"] * test


def strict(text: str) -> Any:
    """JSON, in which NaN and infinities are no numbers."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in JSON")

    return json.loads(text, parse_constant=refuse)


Run = Callable[..., str]


@pytest.fixture
def works(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that has to work: without a warning, a traceback or an undefined number; what stdout got."""

    def run(command: Command, *flags: object) -> str:
        capsys.readouterr()
        code = command([str(flag) for flag in flags])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        for text in (captured.out, captured.err):
            assert not re.search(r"Traceback|Warning|error: ", text), text
        return captured.out

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that has to refuse: one message, exit code 2; the message."""

    def run(command: Command, *flags: object) -> str:
        capsys.readouterr()
        assert command([str(flag) for flag in flags]) == 2
        message = capsys.readouterr().err
        assert message.count("error: ") == 1
        assert "Traceback" not in message
        return message

    return run


def check_bundle(folder: Path) -> dict[str, Any]:
    """Nothing in a bundle is NaN; returns `metrics.json`."""
    for name in ("bundle.json", "thresholds.json"):
        strict((folder / name).read_text(encoding="utf-8"))
    metrics = strict((folder / "metrics.json").read_text(encoding="utf-8"))
    weights = safetensors.numpy.load_file(folder / "weights.safetensors")
    assert all(np.isfinite(tensor).all() for tensor in weights.values())
    for line in (folder / "iterations.csv").read_text().splitlines()[1:]:
        assert line.endswith(",") or np.isfinite(float(line.split(",")[2]))
    for subset in ("val", "test"):
        if (folder / f"predictions-{subset}.csv").exists():
            assert np.isfinite(read_predictions(folder / f"predictions-{subset}.csv").scores).all()
    page = (folder / "report.html").read_text(encoding="utf-8")
    shown = re.sub(r"<(style|script)\b.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)
    known = [row["name"] for row in metrics["data"]["attributes"]]
    if "nan" not in known:
        assert not re.search(r"(?<![\w-])(nan|inf|None|null)(?![\w-])", shown)
    return metrics


def use(run: Run, bundle: Path, table: Path, *, draw: bool = True) -> None:
    """Every command, on a bundle and the table that it was trained on; with or without what takes a second."""
    report, picture = bundle.parent / "report.html", bundle.parent / "picture.png"
    for flags in ([], ["--subset", "val", "--resamples", "0"], ["--labels", table]):
        strict(run(evaluate.main, "--model", bundle, "--resamples", "20", "--format", "json", *flags))
    for objective in ("precision:0.9", "recall:0.9", "youden", "cost:1,9", "fixed:0.3", "f1"):
        run(tune_thresholds.main, "--model", bundle, "--objective", objective, "--estimator", "exact")
    strict(run(compare.main, bundle, bundle, "--resamples", "20", "--format", "json"))
    run(inspect.main, "--labels", table)
    images = sorted((table.parent / "images").iterdir())[:2]
    rows = strict(run(predict.main, "--model", bundle, "--image", *images, "--format", "json"))
    assert len(rows) == len(images)
    for row in rows:
        assert all(0 <= attribute["probability"] <= 1 for attribute in row["attributes"])
    text = run(predict.main, "--model", bundle, "--image", *images, "--format", "csv")
    assert {len(line) for line in csv.reader(text.splitlines())} == {2 + 2 * len(rows[0]["attributes"])}
    run(predict.main, "--model", bundle, "--image", *images)
    if draw:
        run(evaluate.main, "--model", bundle, "--resamples", "20", "--labels", table, "--report", report)
        run(tune_thresholds.main, "--model", bundle, "--labels", table, "--curves", picture, "--dry-run")
        run(compare.main, bundle, bundle, "--resamples", "20", "--picture", picture)
        run(inspect.main, "--labels", table, "--preview", picture)


def test_attributes_that_nothing_can_be_learned_of_under_names_that_look_like_something_else(
    tmp_path: Path, works: Run
) -> None:
    """Never present, always present, known once or twice; images without a known label, in batches of their own."""
    labels = coin(24, len(WEIRD))
    labels[:, 0], labels[:, 1], labels[:, 2], labels[:, 3] = 0, 1, NA, NA
    labels[:3, 2], labels[:2, 3] = 1, 0
    labels[5:9] = NA
    table = write_table(tmp_path, labels, WEIRD)
    bundle = tmp_path / "o"
    works(
        train.main,
        "--labels",
        table,
        "--out",
        bundle,
        *TINY,
        "--batch-size",
        "1",
        "--title",
        r"$\frac$ [b] %",
    )
    metrics = check_bundle(bundle)
    assert [row["name"] for row in metrics["data"]["attributes"]] == list(WEIRD)
    for subset in ("val", "test"):
        assert {*WEIRD[:4]} <= {*metrics["evaluation"][subset]["undefined"]}
    for row in metrics["thresholds"][:4]:
        assert 0 <= row["threshold"] <= 1
        assert row["value"] is None
        assert "known" in row["note"]  # too few of one or the other
    steps = [line.split(",")[2] for line in (bundle / "iterations.csv").read_text().splitlines()[1:]]
    assert "" in steps  # a batch without a known label takes no step
    assert "<script>alert" not in (bundle / "report.html").read_text(encoding="utf-8")
    use(works, bundle, table)


def test_a_validation_subset_without_a_positive_and_a_test_subset_that_is_unknown(
    tmp_path: Path, works: Run, refused: Run
) -> None:
    labels = coin(12, 2)
    labels[8:10], labels[10:] = 0, NA
    table = write_table(tmp_path, labels, subsets=parted(8, 2, 2))
    flags = ["--labels", table, "--out", tmp_path / "o", *TINY, "--split", "column:part"]
    assert "--monitor val_map: undefined" in refused(train.main, *flags, "--monitor", "val_map")
    works(train.main, *flags)
    metrics = check_bundle(tmp_path / "o")
    assert metrics["epochs"][0]["val_map"] is None
    assert metrics["recipe"]["monitor"] == "val_loss"
    assert any("val_loss tells the best epoch" in note for note in metrics["model"]["notes"])
    assert metrics["epochs"][0]["val_loss"] > 0
    assert metrics["evaluation"]["val"]["macro"]["f1"] is None
    assert metrics["evaluation"]["test"]["exact_match"] is None
    use(works, tmp_path / "o", table)


def test_no_positive_in_training_at_all(tmp_path: Path, works: Run) -> None:
    labels = coin(12, 2)
    labels[:8] = 0
    table = write_table(tmp_path, labels, subsets=parted(8, 2, 2))
    flags = ["--split", "column:part", "--sampler", "balanced", "--loss", "asl", "--na", "negative"]
    works(
        train.main,
        "--labels",
        table,
        "--out",
        tmp_path / "o",
        *TINY,
        *flags,
        "--views",
        "4",
        "--unfreeze",
        "none",
    )
    assert check_bundle(tmp_path / "o")["recipe"]["pos_weight"] == "1.0,1.0"


def test_an_epoch_that_draws_no_known_label(tmp_path: Path, works: Run) -> None:
    labels = np.full((12, 1), NA)
    labels[[0, 8, 9, 10], 0] = 0, 1, 0, 1
    table = write_table(tmp_path, labels, subsets=parted(8, 2, 2))
    flags = ["--split", "column:part", "--sampler", "balanced", "--seed", "1", "--epochs", "2"]
    works(train.main, "--labels", table, "--out", tmp_path / "o", *TINY, *flags)
    losses = [epoch["train_loss"] for epoch in check_bundle(tmp_path / "o")["epochs"]]
    assert losses[0] is None
    assert losses[1] > 0


def test_two_images_and_a_batch_size_beyond_any_data(tmp_path: Path, works: Run) -> None:
    table = write_table(tmp_path, [[1], [0]])
    large = ["--batch-size", str(2**62), "--accumulate", str(2**62), "--patience", str(2**62)]
    works(train.main, "--labels", table, "--out", tmp_path / "o", *TINY, *large)
    metrics = check_bundle(tmp_path / "o")
    assert metrics["data"]["split"] == {"train": 1, "val": 1, "test": 0}
    assert "too few for three subsets" in " ".join(metrics["data"]["notes"])
    use(works, tmp_path / "o", table, draw=False)


def test_one_pixel_an_image(tmp_path: Path, works: Run) -> None:
    table = write_table(tmp_path, coin(8, 2), size=(1, 1))
    works(train.main, "--labels", table, "--out", tmp_path / "o", *TINY, "--augment", "rich", "--fit", "crop")
    check_bundle(tmp_path / "o")
    use(works, tmp_path / "o", table, draw=False)


def test_a_thousand_attributes(tmp_path: Path, works: Run) -> None:
    table = write_table(tmp_path, coin(6, 1000))
    works(train.main, "--labels", table, "--out", tmp_path / "o", *TINY)
    metrics = check_bundle(tmp_path / "o")
    assert len(metrics["thresholds"]) == 1000
    rows = strict(
        works(
            predict.main,
            "--model",
            tmp_path / "o",
            "--image",
            tmp_path / "images/i000.png",
            "--format",
            "json",
        )
    )
    assert len(rows[0]["attributes"]) == 1000


# --- refused -------------------------------------------------------------------------------------------------------


def test_too_few_images_or_labels_are_refused_before_anything_is_written(
    tmp_path: Path, refused: Run
) -> None:
    unknown_val, unknown_train = coin(6, 2), coin(6, 2)
    unknown_val[3:5], unknown_train[:3] = NA, NA
    cases: list[tuple[str, ArrayLike, list[str] | None, str]] = [
        ("one image", [[1, 0]], None, "1 usable row; training needs at least two images"),
        ("no label known", np.full((4, 2), NA), None, "no label is known"),
        ("val unknown", unknown_val, parted(3, 2, 1), "the validation subset has no known label"),
        ("train unknown", unknown_train, parted(3, 2, 1), "the training subset has no known label"),
        ("no train", coin(4, 1), parted(0, 2, 2), "names no row train"),
        ("one train", coin(3, 1), parted(1, 0, 2), "training needs at least two images"),
    ]
    for name, labels, subsets, expected in cases:
        table = write_table(tmp_path / name, labels, subsets=subsets)
        out, split = tmp_path / name / "o", ["--split", "column:part"] if subsets else []
        for command in (train.main, inspect.main):
            flags = [*TINY, "--out", out] if command is train.main else []
            assert expected in refused(command, "--labels", table, *split, *flags)
        assert not out.exists()


def test_tables_without_a_row_are_refused(tmp_path: Path, refused: Run) -> None:
    for content in ("", "\n\n", "image,a\n", "image\n", "\ufeff", " ", "image,a\n\n\n"):
        (tmp_path / "t.csv").write_text(content, encoding="utf-8")
        for command in (train.main, inspect.main):
            assert str(tmp_path / "t.csv") in refused(command, "--labels", tmp_path / "t.csv")


def test_images_that_are_all_one_photo_are_refused(tmp_path: Path, refused: Run) -> None:
    table = write_table(tmp_path, coin(6, 2))
    same = (tmp_path / "images/i000.png").read_bytes()
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(same)
    assert "all 6 rows of the table belong to one group" in refused(
        train.main, "--labels", table, *TINY, "--out", tmp_path / "o"
    )


@pytest.mark.parametrize(("size", "widths"), [("8", "8,8,8,8,8,8"), ("7", "8"), ("-32", "8")])
def test_an_image_size_that_the_network_or_the_machine_cannot_have(
    size: str, widths: str, tmp_path: Path, refused: Run
) -> None:
    table = write_table(tmp_path, coin(4, 1))
    sized = [*TINY, "--image-size", size, "--backbone-args", f"widths={widths}"]
    assert "--image-size" in refused(train.main, "--labels", table, "--out", tmp_path / "o", *sized)
    assert not (tmp_path / "o" / "bundle.json").exists()


def test_evaluating_where_nothing_is_known_is_refused(
    toy_bundle: Path, tmp_path: Path, refused: Run, works: Run
) -> None:
    names = ["red", "bright", "square_left"]
    table = write_table(tmp_path / "none", np.full((2, 3), NA), names)
    for command in (evaluate.main, tune_thresholds.main):
        assert "no label" in refused(command, "--model", toy_bundle, "--labels", table)
    one = write_table(tmp_path / "one", [[1, NA, NA]], names)
    strict(
        works(evaluate.main, "--model", toy_bundle, "--labels", one, "--format", "json", "--resamples", "5")
    )
    works(tune_thresholds.main, "--model", toy_bundle, "--labels", one, "--dry-run")


# --- from Python ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame(),
        pd.DataFrame({"image": []}),
        pd.DataFrame({"image": [], "a": []}),
        pd.DataFrame({"image": ["i000.png"], "a": [1]}),
        pd.DataFrame({"image": [None, None], "a": [1, 0]}),
        pd.DataFrame({"image": ["i000.png", "i001.png"], "a": [np.inf, -np.inf]}),
        pd.DataFrame({"image": ["i000.png", "i001.png"], "a": [0.5, 1e308]}),
        pd.DataFrame({"image": ["i000.png", "i001.png"], "a": [np.nan, np.nan]}),
        pd.DataFrame({"image": ["i000.png", "i001.png"], "a": [[1], {}]}),
        pd.DataFrame({"image": ["i000.png"] * 2, "a": [1, 0]}),
        pd.DataFrame([[1, 2], [3, 4]]),
    ],
)  # fmt: skip
def test_a_dataframe_that_cannot_be_learned_from_is_one_of_our_errors(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    images = write_table(tmp_path, coin(3, 1)).parent / "images"
    with pytest.raises(MlclsError):
        fit(Recipe(**RECIPE), labels=frame, images=images, out=tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_a_dataframe_of_odd_types_trains(tmp_path: Path) -> None:
    images = write_table(tmp_path, coin(6, 1)).parent / "images"
    frame = pd.DataFrame(
        {
            "image": pd.Categorical([f"i{n:03d}.png" for n in range(6)]),
            "a": pd.array([True, False, None, True, False, True], dtype="boolean"),
            "b": pd.array([1, 0, None, 0, 1, 0], dtype="Int8"),
            7: [True, False, True, False, True, False],
        }
    )
    record = fit(Recipe(**RECIPE), labels=frame, images=images, out=tmp_path / "o")
    assert [one.name for one in record.data.attributes] == ["a", "b", "7"]
    assert [one.unknown for one in record.data.attributes] == [1, 1, 0]


def test_arrays_of_any_shape_get_a_row(toy_bundle: Path) -> None:
    predictor = Predictor(toy_bundle)
    assert predictor.predict([]) == []
    odd = [np.zeros((0, 0, 3), np.uint8), np.zeros((4, 4), np.uint8), np.full((4, 4, 3), np.nan, np.float32)]
    fine = [np.zeros((1, 1, 3), np.uint8), np.zeros((1, 3000, 3), np.uint8)]
    rows = predictor.predict([*odd, *fine])
    assert all("error" in row or all(0 <= a["probability"] <= 1 for a in row["attributes"]) for row in rows)
    assert ["error" in row for row in rows[-2:]] == [False, False]
    assert "error" in rows[0]
    assert "error" in rows[2]
