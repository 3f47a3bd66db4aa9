"""`predict` and its output: names of any bytes, what stands in the file when things go wrong, words of its messages."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from untrained_bundle import write_bundle

from mlcls.bundle.predictor import Predictor
from mlcls.predict import main as predict


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("small") / "outputs")


@pytest.fixture
def photo(tmp_path: Path) -> Callable[[str], str]:
    """A function that writes a photo of this name."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)

    def write(name: str) -> str:
        path = tmp_path / name
        path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        return str(path)

    return write


def interrupted_after(count: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many rows come, then what Ctrl-C or a fault raises."""
    whole = Predictor.stream

    def stream(self: Predictor, images: Any) -> Iterator[dict[str, Any]]:
        for number, row in enumerate(whole(self, images)):
            if number == count:
                raise error
            yield row

    monkeypatch.setattr(Predictor, "stream", stream)


@pytest.mark.parametrize("form", ["table", "json", "csv"])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_name_of_any_bytes_is_written_to_any_stdout(
    form: str, encoding: str, small_bundle: Path, photo: Callable[[str], str]
) -> None:
    paths = [photo(os.fsdecode(b"bad\xff.png")), photo("caf\u00e9.png")]
    found = subprocess.run(
        [sys.executable, "-m", "mlcls.predict", "--model", small_bundle, "--format", form, "--image", *paths],
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        capture_output=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    text = found.stdout.decode(encoding)
    assert r"bad\udcff.png" in text
    if form == "json":
        assert [row["image"] for row in json.loads(text)] == paths


def test_a_name_of_any_bytes_is_written_to_a_file(
    small_bundle: Path, photo: Callable[[str], str], tmp_path: Path
) -> None:
    paths = [photo(os.fsdecode(b"bad\xff.png")), photo("caf\u00e9.png")]
    for ending in ("json", "csv", "txt"):
        out = tmp_path / f"rows.{ending}"
        assert predict(["--model", str(small_bundle), "--image", *paths, "--out", str(out)]) == 0
        text = out.read_text(encoding="utf-8")
        assert r"bad\udcff.png" in text
        assert "caf\u00e9.png" in text
    assert [row["image"] for row in json.loads((tmp_path / "rows.json").read_text("utf-8"))] == paths


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("", "--out ''"),
        (".", "--out '.'"),
        ("nowhere/rows.csv", "--out nowhere/rows.csv: there is no folder nowhere"),
        ("x.png", "--out x.png: is one of the images"),
        ("link.csv", "--out link.csv: is one of the images"),
    ],
)
def test_a_bad_place_is_refused_before_the_model_is_opened(
    out: str,
    expected: str,
    photo: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = Path(photo("x.png")).read_bytes()
    (tmp_path / "link.csv").symlink_to("x.png")
    assert predict(["--model", "no-such-model", "--image", "x.png", "--out", out]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1
    assert (tmp_path / "x.png").read_bytes() == before


def test_an_older_result_survives_what_fails_before_the_first_row(
    small_bundle: Path, photo: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "rows.json"
    out.write_text("old")
    flags = ["--image", photo("x.png"), photo("y.png"), "--out", str(out)]
    assert predict(["--model", str(tmp_path / "nowhere"), *flags]) == 2
    assert out.read_text() == "old"
    interrupted_after(0, KeyboardInterrupt(), monkeypatch)
    assert predict(["--model", str(small_bundle), *flags]) == 130
    assert out.read_text() == "old"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a fault")])
def test_what_was_finished_before_an_interruption_can_be_read(
    error: BaseException,
    small_bundle: Path,
    photo: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = [photo(f"{number}.png") for number in range(3)]
    interrupted_after(2, error, monkeypatch)
    for ending in ("json", "csv"):
        flags = ["--model", str(small_bundle), "--image", *paths, "--out", str(tmp_path / f"rows.{ending}")]
        if isinstance(error, RuntimeError):
            with pytest.raises(RuntimeError, match="a fault"):
                predict(flags)
        else:
            assert predict(flags) == 130
    assert [row["image"] for row in json.loads((tmp_path / "rows.json").read_text())] == paths[:2]
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == paths[:2]


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (1, "the image cannot be read; its row says why"),
        (2, "1 of 2 images cannot be read; its row says why"),
        (3, "2 of 3 images cannot be read; their rows say why"),
    ],
)
def test_how_many_failed_is_said_in_good_words(
    images: int,
    said: str,
    small_bundle: Path,
    photo: Callable[[str], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    paths = [str(broken)] if images == 1 else [photo("x.png"), *[str(broken)] * (images - 1)]
    assert predict(["--model", str(small_bundle), "--format", "json", "--image", *paths]) == 1
    assert said in capsys.readouterr().err.splitlines()


def test_a_mistyped_engine_is_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(["--image", "x.jpg", "--engine", "onx"]) == 2
    assert "--engine: unknown engine 'onx'; did you mean 'onnx'?" in capsys.readouterr().err


def test_the_help_says_what_auto_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        predict(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "auto, which is the CPU, through ONNX Runtime; cuda predicts on the GPU, through PyTorch" in said
    assert "{auto,onnx,torch,openvino}" in said
    assert "names that begin with a dot" in said
