"""What checkpoints cost: trainings with them (each epoch's end, and every 5 minutes) against trainings without.

    python tests/reliability/cost.py

The two take turns. Measured are the seconds of the epochs, from the first batch to the last checkpoint on the disk.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from runs import Run
from toy_data import write_toy

import mlcls.train
from mlcls.workflows import checkpoints, training

SHORT = (
    "--resamples 0 --estimator exact --objective fixed:0.5 --near-duplicates ignore --patience 0 --device cpu"
)
RESNET = (
    "--backbone resnet18 --weights none --augment light --image-size 64 --batch-size 16 --workers 0 --views 2"
)


@dataclass(frozen=True)
class Case:
    """A training to measure; images: of the toy data, 0 where the flags name the table."""

    name: str
    images: int
    flags: str


CASES = [
    Case("digits, cnn4 from scratch", 0, "--labels demo:digits --recipe demo --epochs 3 --views 0"),
    Case("resnet18, its last stage", 1200, f"{RESNET} --unfreeze-epoch 1 --epochs 5"),
    Case("the same, few images", 120, f"{RESNET} --unfreeze-epoch 1 --epochs 20"),
    Case("resnet18, the head alone, few images", 120, f"{RESNET} --unfreeze none --epochs 60"),
]
_threads = 1
_learn, _main = training.learn, mlcls.train.main


def _timed(*given: Any, **named: Any) -> Any:
    started, processor = time.perf_counter(), time.process_time()
    learned = _learn(*given, **named)
    took = {"seconds": time.perf_counter() - started, "processor": time.process_time() - processor}
    took["epochs"] = [row.seconds for row in learned.epochs]
    Path("took.json").write_text(json.dumps(took))
    return learned


def _threaded(argv: Sequence[str] | None = None) -> int:
    torch.set_num_threads(_threads)
    return _main(argv)


training.learn, mlcls.train.main = _timed, _threaded


def measure(root: Path, case: Case, minutes: str) -> dict[str, Any]:
    """Seconds of one training's epochs."""
    folder = Path(tempfile.mkdtemp(dir=root))
    labels = ["--labels", str(root / f"toy-{case.images}" / "labels.txt")] if case.images else []
    argv = [*labels, *case.flags.split(), *SHORT.split(), "--checkpoint-minutes", minutes]
    ended = Run(folder, argv, worth=checkpoints.WORTH, env={"MLCLS_CACHE": str(root / "cache")}).wait()
    assert ended is not None
    if ended.code:
        raise SystemExit(ended.said[-3000:])
    took: dict[str, Any] = json.loads((folder / "took.json").read_text())
    took["saves"] = ended.saves
    shutil.rmtree(folder)
    return took


def main(argv: list[str] | None = None) -> int:
    global _threads
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--only", type=int, nargs="+", default=range(len(CASES)), help="numbers of cases, from 0"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args(argv)
    _threads = arguments.threads
    root = Path(tempfile.mkdtemp(prefix="mlcls-cost-"))
    print("| training | an epoch, s | checkpoints | with, s | without, s | ratio | of processor time |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for number in arguments.only:
        case = CASES[number]
        if case.images and not (root / f"toy-{case.images}").exists():
            write_toy(root / f"toy-{case.images}", case.images)
        measure(root, case, "0")  # fills the caches
        found: dict[str, list[dict[str, Any]]] = {"5": [], "0": []}
        for repeat in range(arguments.repeats):
            for minutes in ("5", "0") if repeat % 2 else ("0", "5"):
                found[minutes].append(measure(root, case, minutes))
        with_, without = (
            statistics.median(one["seconds"] for one in found[minutes]) for minutes in ("5", "0")
        )
        pairs = [a["seconds"] / b["seconds"] for a, b in zip(found["5"], found["0"], strict=True)]
        processor = [statistics.median(one["processor"] for one in found[minutes]) for minutes in ("5", "0")]
        epoch = statistics.median(second for one in found["0"] for second in one["epochs"])
        saves = statistics.median(one["saves"] for one in found["5"])
        print(
            f"| {case.name} | {epoch:.2f} | {saves:.0f} | {with_:.2f} | {without:.2f} | {with_ / without:.3f} "
            f"({min(pairs):.3f} to {max(pairs):.3f}) | {processor[0] / processor[1]:.3f} |",
            flush=True,
        )
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
