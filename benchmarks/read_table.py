"""Measures reading a label table: mlcls against a plain Python loop over csv.reader, seconds and peak memory.

    python benchmarks/read_table.py --rows 1000000 --attributes 100

The table is written first (names, then 1, 0 or NA), once with commas and once with spaces between cells. Each reading
is a process of its own, the two interleaved, and the medians are printed; on a busy machine judge by the seconds of
the processor. Only the parsing is measured: finding the images on the disk is the same work for both. The loop does
what such loops do, a dictionary look-up a cell; unlike mlcls it checks nothing.
"""

import argparse
import csv
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WORDS = np.array([b"0", b"1", b"NA"])


def write_table(path: Path, rows: int, attributes: int, delimiter: bytes) -> None:
    """A table of random labels: 60% absent, 30% present, 10% unknown."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, rows, 10_000):
            labels = WORDS[rng.choice(3, size=(min(10_000, rows - start), attributes), p=[0.6, 0.3, 0.1])]
            for i, row in enumerate(labels):
                file.write(b"images/img_%07d.jpg" % (start + i) + delimiter + delimiter.join(row) + b"\n")


def read_mlcls(path: Path) -> NDArray[np.float32]:
    """Labels by mlcls."""
    from mlcls.labels.faults import Faults
    from mlcls.labels.layouts import read_rows
    from mlcls.labels.source import Request

    faults = Faults(str(path))
    rows = read_rows(path, Request(), lambda name: name.endswith(".jpg"), faults)
    faults.check()
    return rows.labels


def read_loop(path: Path) -> NDArray[np.float32]:
    """Labels by a loop over lines."""
    values = {"0": 0.0, "1": 1.0, "NA": float("nan")}
    delimiter = "," if path.suffix == ".csv" else " "
    with path.open(newline="", encoding="utf-8") as file:
        names, labels = [], []
        for row in csv.reader(file, delimiter=delimiter):
            names.append(row[0])
            labels.append(np.array([values[cell] for cell in row[1:]], np.float32))
    return np.stack(labels)


READERS = {"mlcls": read_mlcls, "python loop": read_loop}


def measure(reader: str, path: Path) -> None:
    """In this process: print seconds, those of the processor, peak MB, and a sum that all readers must agree on."""
    if reader == "mlcls":
        import mlcls.labels.layouts  # noqa: F401 - imports are not what is measured
    before, processor = time.perf_counter(), time.process_time()
    labels = READERS[reader](path)
    seconds, processor = time.perf_counter() - before, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(seconds, processor, peak, np.nansum(labels[:, 0]) + np.isnan(labels[:, -1]).sum())


def main() -> None:
    """Write the tables, read them in turns, print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--attributes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("READER", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(args.one[0], Path(args.one[1]))
        return
    matrix = args.rows * args.attributes * 4 / 2**20
    print(
        f"{args.rows:,} rows x {args.attributes} attributes, {os.cpu_count()} cores; label matrix {matrix:,.0f} MB"
    )
    print(f"{'table':12} {'reader':12} {'seconds':>8} {'CPU s':>8} {'peak MB':>8} {'peak/matrix':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for name, delimiter in (("commas.csv", b","), ("spaces.txt", b" ")):
            path = Path(folder) / name
            write_table(path, args.rows, args.attributes, delimiter)
            figures: dict[str, list[list[float]]] = {reader: [] for reader in READERS}
            for _ in range(args.repeats):
                for reader, runs in figures.items():
                    command = [sys.executable, __file__, "--one", reader, str(path)]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    runs.append([float(word) for word in done.stdout.split()])
            assert len({run[3] for runs in figures.values() for run in runs}) == 1, "the readers disagree"
            for reader, runs in figures.items():
                seconds, processor, peak = (statistics.median(run[i] for run in runs) for i in range(3))
                print(
                    f"{name:12} {reader:12} {seconds:8.1f} {processor:8.1f} {peak:8,.0f} {peak / matrix:12.1f}"
                )
            path.unlink()


if __name__ == "__main__":
    main()
