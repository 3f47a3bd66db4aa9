"""Measures large tables: seconds of the processor and peak memory of each step from the file to the thresholds.

    python benchmarks/large_tables.py                                # 1,000,000 rows x 100 attributes
    python benchmarks/large_tables.py --rows 10000000 --sizes 1 --steps read,split,evaluate,tune

Each step runs in a process of its own, with a tenth of the rows, with three tenths, and with all of them. Memory is
the largest resident set above that of the process with everything imported and nothing loaded, so what a step is given
(labels; labels and scores) and what it gives back count in full. It is told in label matrices: float32 [rows,
attributes]. A quarter of the labels is unknown. The images are empty files in folders of 100,000, made once in --work.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = 100_000  # files in a folder
BLOCK = 50_000  # rows made at a time
UNKNOWN = 0.25
SIZES = (0.1, 0.3, 1.0)  # of --rows


def image_name(row: int) -> str:
    return f"{row // FOLDER:03d}/img_{row:08d}.jpg"


class Data:
    """The files of one size in a folder, made where they are missing."""

    def __init__(self, work: Path, rows: int, attributes: int) -> None:
        self.work, self.rows, self.attributes = work, rows, attributes
        self.images = work / "images"
        stem = f"{rows}x{attributes}"
        self.table, self.labels, self.scores = (
            work / f"{stem}{end}" for end in (".csv", "-labels.npy", "-scores.npy")
        )
        self.predictions = work / f"{stem}-predictions.csv"

    def make(self, table: bool) -> None:
        self.make_matrices()
        if table:
            self.make_images()
            self.make_table()

    def make_matrices(self) -> None:
        """Labels of rates from 1 in 1,000 to 1 in 2, and scores that know something about them."""
        if self.scores.exists():
            return
        rng = np.random.default_rng(0)
        rates = np.geomspace(0.001, 0.5, self.attributes).astype(np.float32)
        away = np.log(rates / (1 - rates))
        shape = (self.rows, self.attributes)
        labels = np.lib.format.open_memmap(self.labels, "w+", np.float32, shape)
        scores = np.lib.format.open_memmap(self.scores, "w+", np.float32, shape)
        for start in range(0, self.rows, BLOCK):
            part = slice(start, min(start + BLOCK, self.rows))
            size = (part.stop - part.start, self.attributes)
            present = (rng.random(size, np.float32) < rates).astype(np.float32)
            scores[part] = 1 / (1 + np.exp(-(away + 2 * present + rng.standard_normal(size, np.float32))))
            present[rng.random(size, np.float32) < UNKNOWN] = np.nan
            labels[part] = present
        labels.flush()
        scores.flush()

    def make_images(self) -> None:
        """An empty file for each row."""
        done = self.work / f"{self.rows}.images"
        if done.exists():
            return
        for row in range(self.rows):
            if row % FOLDER == 0:
                (self.images / f"{row // FOLDER:03d}").mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.images / image_name(row), os.O_CREAT | os.O_WRONLY))
        done.touch()

    def make_table(self) -> None:
        if self.table.exists():
            return
        labels = np.load(self.labels, mmap_mode="r")
        words = np.array([b"0", b"1", b"NA"], dtype=object)
        with open(self.table, "wb") as file:
            file.write(",".join(["image", *self.names()]).encode() + b"\n")
            for start in range(0, self.rows, BLOCK):
                part = np.asarray(labels[start : start + BLOCK])
                cells = words[np.where(np.isnan(part), 2, part).astype(np.int8)]
                for row, line in enumerate(cells.tolist(), start=start):
                    file.write(image_name(row).encode() + b"," + b",".join(line) + b"\n")

    def names(self) -> tuple[str, ...]:
        return tuple(f"attribute_{number}" for number in range(self.attributes))

    def load(self, *which: str) -> list[Any]:
        return [np.load(getattr(self, name)) for name in which]

    def groups(self) -> Any:
        """Half of the rows in groups of 2 to 9."""
        rng = np.random.default_rng(1)
        together = self.rows // 2
        runs = np.repeat(np.arange(together), rng.integers(2, 10, together))[:together]
        return np.concatenate([runs, np.arange(self.rows - together) + together])


Work = Callable[[], object]


def step_find(data: Data) -> Work:
    """The folder's files listed and each row's image found."""
    from mlcls.labels.locate import ImageFolder

    names = [image_name(row) for row in range(data.rows)]
    return lambda: (folder := ImageFolder(data.images), [folder.find(name) for name in names])


def step_read(data: Data) -> Work:
    from mlcls.labels.table import read_table

    return lambda: read_table(data.table, data.images)


def step_duplicates(data: Data) -> Work:
    """Byte-identical images, one in fifty a copy of another."""
    from mlcls.workflows.alike import same_files

    rng = np.random.default_rng(0)
    digests = rng.integers(0, 256, (data.rows, 32), dtype=np.uint8)
    digests[rng.integers(0, data.rows, data.rows // 50)] = digests[: data.rows // 50]
    return lambda: same_files(digests)


def step_contradictions(data: Data) -> Work:
    """Opposite labels in groups of two."""
    from mlcls.labels.duplicates import find_conflicts

    (labels,) = data.load("labels")
    pairs = tuple((row, row + 1) for row in range(0, data.rows - 1, 2))
    return lambda: find_conflicts(labels, pairs)


def step_health(data: Data) -> Work:
    from mlcls.labels.health import describe_health

    (labels,) = data.load("labels")
    sizes = np.random.default_rng(0).integers(100, 4000, (data.rows, 2), dtype=np.int32)
    return lambda: describe_health(labels, data.names(), sizes, data.groups())


def step_split(data: Data) -> Work:
    from mlcls.labels.split import split_table

    (labels,) = data.load("labels")
    return lambda: split_table(labels)


def step_split_groups(data: Data) -> Work:
    from mlcls.labels.split import split_table

    (labels,) = data.load("labels")
    return lambda: split_table(labels, groups=data.groups())


def step_evaluate(data: Data) -> Work:
    from mlcls.scoring.metrics import evaluate

    labels, scores = data.load("labels", "scores")
    return lambda: evaluate(labels, scores, 0.5)


def step_assess(data: Data) -> Work:
    from mlcls.scoring.assessment import assess

    labels, scores = data.load("labels", "scores")
    return lambda: assess(labels, scores, 0.5, resamples=0)


def step_assess_groups(data: Data) -> Work:
    from mlcls.scoring.assessment import assess

    labels, scores = data.load("labels", "scores")
    return lambda: assess(labels, scores, 0.5, groups=data.groups(), resamples=0)


def step_tune(data: Data) -> Work:
    from mlcls.scoring.thresholds import tune

    labels, scores = data.load("labels", "scores")
    return lambda: tune(labels, scores)


def step_tune_exact(data: Data) -> Work:
    from mlcls.scoring.thresholds import tune

    labels, scores = data.load("labels", "scores")
    return lambda: tune(labels, scores, estimator="exact")


def step_cross_fit(data: Data) -> Work:
    from mlcls.scoring.crossfit import cross_fit

    labels, scores = data.load("labels", "scores")
    return lambda: cross_fit(labels, scores)


def step_tune_report(data: Data) -> Work:
    from mlcls.scoring.thresholds import tune_report

    labels, scores = data.load("labels", "scores")
    return lambda: tune_report(labels, scores)


def step_calibrate(data: Data) -> Work:
    from mlcls.scoring.calibration import fit_calibration

    labels, scores = data.load("labels", "scores")
    return lambda: fit_calibration(labels, scores).apply(scores)


def step_out_of_fold(data: Data) -> Work:
    from mlcls.scoring.calibration import out_of_fold

    labels, scores = data.load("labels", "scores")
    return lambda: out_of_fold(labels, scores)


def step_calibration_figures(data: Data) -> Work:
    from mlcls.scoring.calibration_error import calibration_figures

    labels, scores = data.load("labels", "scores")
    return lambda: calibration_figures(labels, scores)


def step_write(data: Data) -> Work:
    from mlcls.scoring.predictions import Predictions, write_predictions

    labels, scores = data.load("labels", "scores")
    images = tuple(image_name(row) for row in range(data.rows))
    held = Predictions(images, data.names(), scores, labels)
    return lambda: write_predictions(data.predictions, held)


def step_read_predictions(data: Data) -> Work:
    from mlcls.scoring.predictions import read_predictions

    return lambda: read_predictions(data.predictions)


STEPS: dict[str, tuple[str, Callable[[Data], Work]]] = {
    "find": ("images listed and found", step_find),
    "read": ("`read_table`, with its images", step_read),
    "duplicates": ("byte-identical images, by digest", step_duplicates),
    "contradictions": ("`find_conflicts`, pairs", step_contradictions),
    "health": ("`describe_health`, groups", step_health),
    "split": ("`split_table`", step_split),
    "split_groups": ("`split_table`, groups", step_split_groups),
    "evaluate": ("`evaluate`", step_evaluate),
    "assess": ("`assess`, no intervals", step_assess),
    "assess_groups": ("`assess`, no intervals, groups", step_assess_groups),
    "tune_exact": ("`tune`, exact", step_tune_exact),
    "tune": ("`tune`, robust", step_tune),
    "cross_fit": ("`cross_fit`, robust", step_cross_fit),
    "tune_report": ("`tune_report`, robust", step_tune_report),
    "calibrate": ("`fit_calibration` and `apply`", step_calibrate),
    "out_of_fold": ("`out_of_fold`", step_out_of_fold),
    "calibration_figures": ("`calibration_figures`", step_calibration_figures),
    "write": ("`write_predictions`", step_write),
    "read_predictions": ("`read_predictions`", step_read_predictions),
}
NEEDS_TABLE = {"find", "read"}


def resident() -> int:
    """Bytes of this process in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    """The most bytes of this process in memory so far; `ru_maxrss` may be that of the process that started it."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def measure(name: str, data: Data) -> None:
    """In this process: print seconds of the clock and of the processor, bytes at the start's and at the peak."""
    import mlcls.labels.table
    import mlcls.scoring.assessment
    import mlcls.scoring.calibration
    import mlcls.scoring.thresholds
    import mlcls.workflows.alike  # noqa: F401 - imports are not what is measured

    start = resident()
    work = STEPS[name][1](data)
    inputs = resident() - start
    clock, processor = time.perf_counter(), time.process_time()
    kept = work()
    seconds = time.perf_counter() - clock, time.process_time() - processor
    del kept
    print(
        json.dumps({"clock": seconds[0], "processor": seconds[1], "inputs": inputs, "peak": peak() - start})
    )


def run(name: str, data: Data) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", name, "--rows", str(data.rows)]
    command += ["--attributes", str(data.attributes), "--work", str(data.work)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads that wait for each other would count as work
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=alone)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def show(name: str, runs: dict[int, dict[str, float]], matrix: int) -> None:
    (first, least), (last, most) = min(runs.items()), max(runs.items())
    growth = (most["processor"] / last) / max(least["processor"] / first, 1e-9)
    seconds = " | ".join(f"{one['processor']:.1f}" for one in runs.values())
    print(
        f"| {STEPS[name][0]} | {seconds} | {most['clock']:.1f} | {growth:.2f} | "
        f"{most['inputs'] / matrix:.2f} | {most['peak'] / matrix:.2f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--attributes", type=int, default=100)
    parser.add_argument("--steps", help="some of " + ",".join(STEPS))
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="shares of --rows to run with")
    parser.add_argument("--work", type=Path, help="a folder that keeps the files for the next time")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(args.one, Data(args.work, args.rows, args.attributes))
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        compare(args, work)


def compare(args: argparse.Namespace, work: Path) -> None:
    steps = args.steps.split(",") if args.steps else list(STEPS)
    rows = [int(float(share) * args.rows) for share in args.sizes.split(",")]
    every = [Data(work, count, args.attributes) for count in rows]
    for data in every:
        data.make(table=bool(NEEDS_TABLE & set(steps)))
    matrix = rows[-1] * args.attributes * 4
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"NumPy {np.__version__}; {rows[-1]:,} x {args.attributes}, label matrix {matrix / 2**20:,.0f} MiB\n"
    )
    heads = [f"{count:,} rows, s" for count in rows]
    print("| step | " + " | ".join(heads) + " | on the clock, s | s/row, growth | given | peak |")
    print("|---" * (6 + len(rows) - 1) + "|")
    for name in steps:
        show(name, {data.rows: run(name, data) for data in every}, matrix)


if __name__ == "__main__":
    main()
