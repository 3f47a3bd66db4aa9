"""Owns how many processor cores there are to share out: threads that decode, processes that augment."""

import os

MOST_WORKERS = 8


def usable_cores() -> int:
    """Cores that this process may use: a container or `taskset` may leave it fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def auto_workers() -> int:
    """How many worker processes `--workers auto` means: one for each core but one, at most 8.

    The training process needs a core for itself, also where a GPU does the arithmetic, since it feeds it. So
    one core has no worker, and two have one. Each costs memory, hence the 8.
    """
    return min(usable_cores() - 1, MOST_WORKERS)
