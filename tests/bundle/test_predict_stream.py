"""Images stream: in order, in bounded memory, as they come, whatever happens to some of them."""

import csv
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcls import predict as command
from mlcls.bundle.predictor import Predictor
from mlcls.bundle.stream import AHEAD, run_stream
from mlcls.errors import ImageError
from mlcls.images.read import IMAGE_SUFFIXES
from mlcls.predict import main as predict
from mlcls.workflows.photos import paths_to_predict

Photos = Callable[[int], list[str]]


def number_as_pixels(number: int, image: int) -> np.ndarray:
    if image < 0:
        raise ImageError(f"{image}: broken")
    return np.full((1, 1, 3), image % 251, dtype=np.uint8)


def first_pixel(pixels: np.ndarray, threads: int) -> np.ndarray:
    return pixels[:, 0, 0, :1].astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    images=st.lists(st.integers(-3, 10_000), max_size=70),
    workers=st.integers(1, 5),
    batch=st.integers(1, 9),
)
def test_whatever_the_threads_and_batches_each_image_comes_once_in_order_with_its_own_value(
    images: list[int], workers: int, batch: int
) -> None:
    seen = []
    for chunk in run_stream(images, number_as_pixels, first_pixel, workers=workers, batch=batch):
        assert len(chunk.items) <= max(batch, workers)
        values = iter(() if chunk.values is None else chunk.values[:, 0])
        for (number, image), error in zip(chunk.items, chunk.errors, strict=True):
            assert number == len(seen)
            assert (error is not None) == (image < 0)
            assert error is not None or next(values) == image % 251
            seen.append(image)
        assert next(values, None) is None
    assert seen == images


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_no_more_is_read_than_a_few_chunks_ahead(workers: int) -> None:
    taken, batch = 0, 4

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    stream = run_stream(endless(), number_as_pixels, first_pixel, workers=workers, batch=batch)
    for done in range(1, 60):
        next(stream)
        assert taken <= (done + AHEAD * workers) * batch + workers + 1
    stream.close()
    assert threading.active_count() < 20


def test_pixels_are_held_of_a_few_chunks_alone() -> None:
    """Counted by their life: an image's pixels are gone once its chunk is computed."""
    workers, batch, lock, alive, most = 2, 4, threading.Lock(), 0, 0

    class Counted(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            with lock:
                alive -= 1

    def load(number: int, image: int) -> np.ndarray:
        nonlocal alive, most
        pixels = np.zeros((8, 8, 3), np.uint8).view(Counted)
        with lock:
            alive += 1
            most = max(most, alive)
        return pixels

    def slow_reader() -> None:
        for _ in run_stream(range(200), load, first_pixel, workers=workers, batch=batch):
            time.sleep(0.001)

    slow_reader()
    assert (
        0 < most <= workers * batch + 4 * workers
    )  # arrays and views of those in work, none of those waiting


def test_decoding_runs_beside_computing() -> None:
    """Each waits for the other to be at work: in turns alone they would wait forever."""
    both = threading.Barrier(2, timeout=20)

    def load(number: int, image: int) -> np.ndarray:
        if image == 9:
            both.wait()
        return number_as_pixels(number, image)

    def compute(pixels: np.ndarray, threads: int) -> np.ndarray:
        if 6 in pixels:
            both.wait()
        return first_pixel(pixels, threads)

    # chunks of 1, 1, 2, 2, ...: 6 and 9 are of two chunks, at work at once
    chunks = list(run_stream(range(12), load, compute, workers=2, batch=8))
    assert sum(len(chunk.items) for chunk in chunks) == 12


def test_first_rows_come_long_before_the_last_image_is_read() -> None:
    read = []

    def load(number: int, image: int) -> np.ndarray:
        read.append(number)
        return number_as_pixels(number, image)

    next(run_stream(iter(range(10_000)), load, first_pixel, workers=2, batch=8))
    assert len(read) < 50


def test_what_breaks_in_a_thread_is_raised_and_stops_the_others() -> None:
    computed = []

    def compute(pixels: np.ndarray, threads: int) -> np.ndarray:
        computed.append(len(pixels))
        if len(computed) > 5:
            raise RuntimeError("out of memory")
        return first_pixel(pixels, threads)

    with pytest.raises(RuntimeError, match="out of memory"):
        list(run_stream(range(100_000), number_as_pixels, compute, workers=2, batch=4))
    assert len(computed) < 30


def test_opencv_gets_its_threads_back() -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(3)
        stream = run_stream(range(50), number_as_pixels, first_pixel, workers=2, batch=4)
        next(stream)
        assert cv2.getNumThreads() == 1
        stream.close()
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


def test_streams_that_overlap_leave_opencv_its_threads() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        first, second = (
            run_stream(range(50), number_as_pixels, first_pixel, workers=1, batch=1) for _ in range(2)
        )
        next(first)
        next(second)
        first.close()
        assert cv2.getNumThreads() == 1
        second.close()
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


# --- folders -------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    names=st.sets(
        st.lists(st.text("ab.- Zé_", min_size=1, max_size=3), min_size=1, max_size=3).map("/".join),
        max_size=12,
    ),
    data=st.data(),
)
def test_a_folder_gives_the_paths_that_sorting_all_of_them_gives(
    names: set[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("folder")
    for name in sorted(names):
        path = root / (name + data.draw(st.sampled_from([".jpg", ".PNG", ".txt", ""])))
        if ".." in path.parts or path.exists() or any(parent.is_file() for parent in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (root / "last.jpg").write_bytes(b"")
    wanted = sorted(
        str(p)
        for p in root.rglob("*")
        if p.suffix.lower() in IMAGE_SUFFIXES
        and p.is_file()
        and not any(part.startswith(".") for part in p.relative_to(root).parts)
    )
    assert paths_to_predict([], str(root)) == (wanted, [])
    assert paths_to_predict(["first.jpg"], str(root) + os.sep) == (["first.jpg", *wanted], [])


def test_the_working_folder_gives_bare_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.jpg", "sub/b.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    assert paths_to_predict([], ".").paths == ["a.jpg", "sub/b.jpg"]


def test_a_folder_that_is_none_or_holds_no_image_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such folder"):
        paths_to_predict([], str(tmp_path / "nowhere"))
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(ImageError, match="no image in it"):
        paths_to_predict([], str(tmp_path))
    with pytest.raises(ImageError, match="--images '': expected the name of a folder"):
        paths_to_predict([], "")
    with pytest.raises(ImageError, match="--image '': expected the name of an image"):
        paths_to_predict(["x.jpg", ""], None)


def test_copies_of_macos_and_hidden_folders_are_left_out(tmp_path: Path) -> None:
    for name in ("x.jpg", "._x.jpg", ".hidden.jpg", ".trash/y.jpg", "a.b/z.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = paths_to_predict([], str(tmp_path)).paths
    assert [os.path.relpath(path, tmp_path) for path in found] == ["a.b/z.jpg", "x.jpg"]


def test_folders_may_be_nested_deeper_than_python_recurses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    depth = sys.getrecursionlimit() + 200
    for number in range(1, depth + 1):
        os.mkdir("d/" * number)
    Path("d/" * depth + "x.jpg").write_bytes(b"")
    assert paths_to_predict([], "d").paths == ["d/" * depth + "x.jpg"]
    subprocess.run(["rm", "-r", "d"], check=True)  # what removes the test's folder recurses


@contextmanager
def without_rights() -> Iterator[None]:
    """Root reads everything: be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_cannot_be_read_is_told(
    onnx_bundle: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(photos(2)[0]).parent
    monkeypatch.chdir(folder)
    closed = [folder / name for name in ("closed", "locked")]
    for place in closed:
        place.mkdir(mode=0)
    folder.chmod(0o755)
    try:
        with without_rights():
            found = paths_to_predict([], ".")
            with pytest.raises(ImageError, match=r"--images closed: cannot be read \(Permission denied\)"):
                paths_to_predict([], "closed")
        assert found.paths == ["photo_0000.jpg", "photo_0001.jpg"]
        assert found.unread == ["closed (Permission denied)", "locked (Permission denied)"]
        monkeypatch.setattr("mlcls.workflows.photos.paths_to_predict", lambda images, folder: found)
        assert predict(["--model", str(onnx_bundle), "--images", ".", "--format", "json"]) == 1
    finally:
        for place in closed:
            place.chmod(0o755)
    captured = capsys.readouterr()
    said = "closed (Permission denied): the folder cannot be read, nor can 1 more; what is in there is not predicted"
    assert said in captured.err.splitlines()
    assert len(json.loads(captured.out)) == 2


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "csv"])
def test_rows_are_written_as_they_come(
    form: str, onnx_bundle: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in the output each time a row is asked for: all rows before it, none held back."""
    paths, written = photos(30), []
    rows = list(Predictor(onnx_bundle).stream(paths))
    out = io.StringIO()
    flushed: list[int] = []
    monkeypatch.setattr(out, "flush", lambda: flushed.append(out.tell()), raising=False)

    def coming() -> Iterator[dict]:
        for row in rows:
            written.append(out.getvalue())
            yield row

    command._write(form, coming(), out, Predictor(onnx_bundle).attributes)
    for number, text in enumerate(written):
        assert text.count("photo_") == number
    assert len(flushed) >= len(rows)


def test_a_folder_with_broken_images_is_predicted_whole(
    onnx_bundle: Path, photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(photos(25)[0]).parent
    (folder / "photo_0007.jpg").write_bytes(b"no image")
    (folder / "photo_0003.jpg").unlink()
    out = tmp_path / "rows.csv"
    code = predict(["--model", str(onnx_bundle), "--images", str(folder), "--out", str(out)])
    captured = capsys.readouterr()
    assert code == 1
    assert captured.out == ""
    assert "predicting: 24 images" in captured.err
    assert "1 of 24 images cannot be read" in captured.err
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["image"]).name for row in rows] == [f"photo_{n:04d}.jpg" for n in range(25) if n != 3]
    assert [row["image"] for row in rows if row["error"]] == [str(folder / "photo_0007.jpg")]
    alone = Predictor(onnx_bundle).predict(rows[-1]["image"])[0]
    assert float(rows[-1]["one_probability"]) == pytest.approx(
        alone["attributes"][0]["probability"], abs=1e-5
    )


def test_one_image_says_nothing_beside_its_row(
    onnx_bundle: Path, photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(["--model", str(onnx_bundle), "--image", photos(1)[0], "--format", "json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert len(json.loads(captured.out)) == 1
