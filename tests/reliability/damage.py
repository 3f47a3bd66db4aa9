"""Truncations, bit flips and zeroed blocks of every file of a bundle and of a checkpoint: each is to be found.

python tests/reliability/damage.py --count 1000
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import io
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from toy_data import TINY, write_toy

import mlcls.train
from mlcls.bundle.files import load_bundle, verify_bundle
from mlcls.bundle.network import load_classifier
from mlcls.bundle.predictor import Predictor
from mlcls.bundle.unfinished import CHECKPOINT, CHECKPOINT_MANIFEST
from mlcls.errors import BundleError, MlclsError
from mlcls.learning.checkpoint import read_checkpoint
from mlcls.learning.features import FeatureStore, Layout, make_store
from mlcls.learning.saved_rows import load_rows, save_rows
from mlcls.recipe import Recipe
from mlcls.reports.console import make_console
from mlcls.workflows.evaluation import evaluate_bundle
from mlcls.workflows.prediction import predict_table

Read = Callable[[Path], object]
"""Reads a folder, and raises MlclsError where it is damaged."""

FLAGS = [*TINY, "--epochs", "2", "--unfreeze-epoch", "1", "--split", "0.6,0.2,0.2", "--batch-size", "8"]
FOREVER = ["--epochs", "100000", "--unfreeze-epoch", "1", "--patience", "100000"]


@dataclass(frozen=True)
class Target:
    """A folder, and who reads its files.

    files: those that are damaged. readers: by a file's name those that must find its damage; "" for any file.
    """

    name: str
    folder: Path
    files: tuple[str, ...]
    readers: dict[str, tuple[Read, ...]]


@dataclass(frozen=True)
class Outcome:
    """What became of one damaged file: missed holds the reason where it was not found, or not named."""

    kind: str
    file: str
    size: int
    missed: str | None


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut off anywhere; each fourth time by the last byte alone, or to nothing."""
    near = rng.integers(8)
    keep = {0: len(data) - 1, 1: 0}.get(int(near), int(rng.integers(len(data))))
    return data[:keep]


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """One bit is another."""
    changed = bytearray(data)
    changed[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def zeroed(data: bytes, rng: np.random.Generator) -> bytes:
    """Zeros from anywhere to the end, as files have that a power cut met before their data were on disk."""
    start = int(rng.integers(len(data)))
    return data[:start] + bytes(len(data) - start)


DAMAGES = {"truncated": truncated, "a bit flipped": flipped, "zeros at the end": zeroed}


def damage(target: Target, kind: str, count: int, rng: np.random.Generator) -> Iterator[Outcome]:
    """Damage one file after the other, each equally often; every one is whole again before the next."""
    for number in range(count):
        name = target.files[number % len(target.files)]
        path = target.folder / name
        data = path.read_bytes()
        changed = DAMAGES[kind](data, rng)
        while changed == data:  # zeros in the place of zeros
            changed = DAMAGES[kind](data, rng)
        path.write_bytes(changed)
        try:
            readers = (*target.readers.get("", ()), *target.readers.get(name, ()))
            missed = next((why for reader in readers if (why := _missed(reader, target.folder, name))), None)
        finally:
            path.write_bytes(data)
        yield Outcome(kind, name, len(data), missed)


def _missed(read: Read, folder: Path, name: str) -> str | None:
    """Why a reader did not do as it should; None where it named the damaged file."""
    try:
        read(folder)
    except MlclsError as error:
        return None if name in str(error) else f"named another: {error}"
    except Exception as error:
        return f"raised {error!r}"
    return "not found"


def make_bundle(folder: Path) -> Target:
    """A small trained bundle with every kind of file, and the commands that open them."""
    table, out = _data(folder), folder / "out"
    assert mlcls.train.main(["--labels", str(table), "--out", str(out), *FLAGS]) == 0
    quiet = make_console(io.StringIO())
    evaluate = partial(evaluate_bundle, resamples=0, progress_console=quiet)
    elsewhere = Recipe(labels=str(table))
    readers: dict[str, tuple[Read, ...]] = {
        "": (verify_bundle,),
        "bundle.json": (load_bundle, Predictor, evaluate),
        "thresholds.json": (load_bundle, Predictor, evaluate),
        "weights.safetensors": (
            lambda place: load_classifier(load_bundle(place)),
            partial(Predictor, engine="torch"),
        ),
        "model.onnx": (partial(Predictor, engine="onnx"),),
        "metrics.json": (evaluate,),
        "predictions-test.csv": (evaluate,),
        "predictions-val.csv": (partial(evaluate, subset="val"),),
        "groups.csv": (evaluate,),
        "split.csv": (lambda place: predict_table(load_bundle(place), elsewhere, "cpu", quiet, "test"),),
    }
    names = sorted(path.name for path in out.iterdir() if path.is_file())
    assert {name for name in readers if name} <= set(names)
    return Target("bundle", out, tuple(names), readers)


def make_checkpoint(folder: Path) -> Target:
    """What a run leaves that is interrupted in its second stage."""
    table, out = _data(folder), folder / "out"
    ended = threading.Event()
    watcher = threading.Thread(target=_interrupt, args=(out, ended), daemon=True)
    watcher.start()
    code = mlcls.train.main(["--labels", str(table), "--out", str(out), *FLAGS, *FOREVER])
    ended.set()
    watcher.join()
    assert code == 130, code
    place = out / CHECKPOINT
    checkpoint = read_checkpoint(place)
    assert checkpoint is not None
    names = (CHECKPOINT_MANIFEST, *sorted(kept.file for kept in checkpoint.kept.values()))
    return Target("checkpoint", place, names, {"": (_read_all,)})


def _interrupt(out: Path, ended: threading.Event) -> None:
    """Ctrl-C once some epochs are kept; when the training has ended by itself nobody is interrupted."""
    while not ended.wait(0.02):
        checkpoint = read_checkpoint(out / CHECKPOINT)
        if checkpoint is not None and checkpoint.number >= 3:
            os.kill(os.getpid(), signal.SIGINT)
            return


def _read_all(place: Path) -> None:
    checkpoint = read_checkpoint(place)
    assert checkpoint is not None, "no checkpoint stands there"
    for role in checkpoint.kept:
        checkpoint.tensors(role)


def make_rows(folder: Path) -> Target:
    """What a run has kept of the frozen part's features; a damaged file's are computed again, and that is said."""
    width, views = 512, 3
    layout = Layout(64, 8, lambda view: np.random.default_rng(view).permutation(64))

    def compute(view: int, chunks: Sequence[NDArray[np.int64]]) -> Iterator[torch.Tensor]:
        for chunk in chunks:
            yield torch.randn(
                len(chunk), width, generator=torch.Generator().manual_seed(int(chunk[0]) + view)
            )

    def empty() -> FeatureStore:
        return make_store(
            layout, width, compute, views=views, memory=10**9, dtype=torch.float32, folder=folder
        )

    folder.mkdir(parents=True)
    store = empty()
    for view in range(views):
        list(store.obtain(view, [np.arange(64)]))
    facts = save_rows(store, folder, "train0")

    def read(place: Path) -> None:
        if lost := load_rows(empty(), place, facts):
            raise BundleError(f"computed again: {', '.join(lost)}")

    read(folder)
    return Target("saved rows", folder, tuple(fact["file"] for fact in facts), {"": (read,)})


def _data(folder: Path) -> Path:
    """The toy data, with images of which two are the same, so that there is a file of groups."""
    table = write_toy(folder)
    images = folder / "images"
    for number in range(1, 60, 2):
        twin = images / f"img_{number - 1:03d}.png"
        (images / f"img_{number:03d}.png").write_bytes(twin.read_bytes())
    assert cv2.imread(str(images / "img_001.png")) is not None
    return table


def table_of(target: Target, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A Markdown table, a row a file."""
    yield f"| {target.name} | bytes | {' | '.join(DAMAGES)} | found and named |"
    yield "|---|--:|" + "--:|" * (len(DAMAGES) + 1)
    for name in target.files:
        mine = [one for one in outcomes if one.file == name]
        counts = [str(sum(one.kind == kind for one in mine)) for kind in DAMAGES]
        found = sum(one.missed is None for one in mine)
        if mine:
            yield f"| `{name}` | {mine[0].size:,} | {' | '.join(counts)} | {found} of {len(mine)} |"
    totals = [f"{sum(one.kind == kind for one in outcomes):,}" for kind in DAMAGES]
    found = sum(one.missed is None for one in outcomes)
    yield f"| together | | {' | '.join(totals)} | {found:,} of {len(outcomes):,} |"
    yield ""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="of each kind of damage, over all folders")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    rng, started, failed = np.random.default_rng(arguments.seed), time.monotonic(), 0
    with tempfile.TemporaryDirectory() as name:
        makers = (make_bundle, make_checkpoint, make_rows)
        targets = [make(Path(name, make.__name__)) for make in makers]
        sys.stdout.write("\n")
        for target in targets:
            count = -(-arguments.count // len(targets))
            outcomes = [one for kind in DAMAGES for one in damage(target, kind, count, rng)]
            sys.stdout.write("\n".join(table_of(target, outcomes)) + "\n")
            for one in outcomes:
                if one.missed is not None:
                    failed += 1
                    sys.stdout.write(f"MISSED: {one.file}, {one.kind}: {one.missed}\n")
    sys.stdout.write(f"{time.monotonic() - started:.0f} s, {failed} missed\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
