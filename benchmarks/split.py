"""Measures the split: seconds, peak memory and evenness against a random division, by rows and attributes.

python benchmarks/split.py                      # 100,000 rows x 100 attributes
python benchmarks/split.py --rows 1000000       # linear in rows
python benchmarks/split.py --grouped 0.5        # half of the rows in groups of 2 to 9
"""

import argparse
import resource
import time

import numpy as np
from numpy.typing import NDArray

from mlcls.labels.split import split_table

FRACTIONS = (0.7, 0.15, 0.15)


def make_labels(rows: int, attributes: int, seed: int) -> NDArray[np.float32]:
    """Attributes from 1 in 1,000 to 1 in 2, a tenth unknown; made in slices, so that memory is the labels' own."""
    rng = np.random.default_rng(seed)
    rates = np.geomspace(0.001, 0.5, attributes)
    labels = np.empty((rows, attributes), dtype=np.float32)
    for start in range(0, rows, 50_000):
        part = labels[start : start + 50_000]
        part[:] = rng.random(part.shape, dtype=np.float32) < rates
        part[rng.random(part.shape, dtype=np.float32) < 0.1] = np.nan
    return labels


def make_groups(rows: int, grouped: float, seed: int) -> NDArray[np.int64] | None:
    """Ids of which the first `grouped` share of the rows come in runs of 2 to 9; None when there are none."""
    if not grouped:
        return None
    rng = np.random.default_rng(seed)
    together = int(rows * grouped)
    runs = np.repeat(np.arange(together), rng.integers(2, 10, together))[:together]
    return np.concatenate([runs, np.arange(rows - together) + together])


def unevenness(labels: NDArray[np.float32], parts: list[NDArray[np.intp]]) -> dict[str, float]:
    """Root mean square over attributes and subsets of (count - share) / sqrt(share)."""
    kinds = {"positives": lambda x: x == 1, "negatives": lambda x: x == 0, "unknowns": np.isnan}
    result = {}
    for name, pick in kinds.items():
        counts = np.array([pick(labels[part]).sum(axis=0) for part in parts], dtype=np.float64)
        share = np.outer(FRACTIONS, counts.sum(axis=0))
        result[name] = float(np.sqrt(np.mean((counts - share) ** 2 / np.maximum(share, 1))))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--attributes", type=int, default=100)
    parser.add_argument("--grouped", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    labels = make_labels(args.rows, args.attributes, args.seed)
    groups = make_groups(args.rows, args.grouped, args.seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, processor = time.perf_counter(), time.process_time()
    split = split_table(labels, FRACTIONS, groups=groups, seed=args.seed)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours = unevenness(labels, [split.train, split.val, split.test])
    order = np.random.default_rng(args.seed).permutation(args.rows)
    chance = unevenness(labels, np.split(order, [int(0.7 * args.rows), int(0.85 * args.rows)]))

    print(f"{args.rows:,} rows x {args.attributes} attributes, {args.grouped:.0%} of the rows in groups")
    print(f"seconds                {wall:8.2f} (processor {processor:.2f})")
    print(f"label matrix MiB       {labels.nbytes / 2**20:8.0f}")
    print(f"peak beyond it MiB     {(peak - before) / 1024:8.0f}")
    print(f"rows per subset        {len(split.train):,} {len(split.val):,} {len(split.test):,}")
    print("unevenness             ours  random")
    for name, value in ours.items():
        print(f"  {name:<18} {value:8.3f} {chance[name]:7.3f}")
    for note in split.notes:
        print(f"note: {note}")


if __name__ == "__main__":
    main()
