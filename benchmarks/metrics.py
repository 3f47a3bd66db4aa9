"""Owns the cost of scoring: seconds and peak memory of every figure and threshold at a given size.

python benchmarks/metrics.py                         # 100,000 images by 100 attributes
python benchmarks/metrics.py --rows 1000000 --attributes 100 --no-files
"""

import argparse
import os
import platform
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlcls.scoring.metrics import auroc, evaluate
from mlcls.scoring.predictions import Predictions, read_predictions, write_predictions
from mlcls.scoring.thresholds import tune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--attributes", type=int, default=100)
    parser.add_argument("--unknown", type=float, default=0.2, help="share of labels that are unknown")
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the median is shown")
    parser.add_argument("--no-files", action="store_true", help="leave out writing and reading predictions")
    flags = parser.parse_args()
    labels, scores = make(flags.rows, flags.attributes, flags.unknown)
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, "
        f"Python {platform.python_version()}, NumPy {np.__version__}"
    )
    print(
        f"{flags.rows:,} x {flags.attributes}, {flags.unknown:.0%} unknown; "
        f"scores {scores.nbytes / 1e6:.0f} MB\n"
    )
    print("| what | seconds | peak memory, MB | times the scores |\n|---|---|---|---|")
    show("evaluate", lambda: evaluate(labels, scores, 0.5), scores.nbytes, flags.repeat)
    show("auroc", lambda: auroc(labels, scores), scores.nbytes, flags.repeat)
    for objective in ("f1", "precision:0.9"):
        show(f"tune, {objective}", lambda o=objective: tune(labels, scores, o), scores.nbytes, flags.repeat)
    if not flags.no_files:
        names = tuple(f"images/{row:08d}.jpg" for row in range(flags.rows))
        held = Predictions(names, tuple(f"a{a}" for a in range(flags.attributes)), scores, labels)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "predictions-val.csv"
            show("write_predictions", lambda: write_predictions(path, held), scores.nbytes, 1)
            show("read_predictions", lambda: read_predictions(path), scores.nbytes, 1)


def make(rows: int, attributes: int, unknown: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores that know something about them; rates of 1% to 60% from attribute to attribute."""
    random = np.random.default_rng(0)
    labels = (random.random((rows, attributes), np.float32) < np.linspace(0.01, 0.6, attributes)).astype(
        np.float32
    )
    logits = random.standard_normal((rows, attributes), np.float32) + labels
    labels[random.random((rows, attributes), np.float32) < unknown] = np.nan
    return labels, 1 / (1 + np.exp(-logits))


def show(what: str, call: Callable[[], Any], held: int, repeat: int) -> None:
    """Time without tracing, then once more with it: tracing slows."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"| {what} | {np.median(seconds):.2f} | {peak / 1e6:.0f} | {peak / held:.1f} |", flush=True)


if __name__ == "__main__":
    main()
