"""A piece of work in a forked child: what it took, and how it ended, whatever it did."""

import json
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SPARE = 1 << 30  # bytes of address space beside what the parent had


class Cost(NamedTuple):
    """What a child took.

    Attributes:
        ended: what the work returned; `killed by SIGNAL` where it did not come to its end.
        megabytes: the most memory the child held at a time, less what it held at its start.
        seconds: of the processor.
    """

    ended: str
    megabytes: float
    seconds: float


def measure(work: Callable[[], str], *, limit_s: int = 60, spare: int = SPARE) -> Cost:
    """Do the work in a child of at most `limit_s` seconds of processor and `spare` bytes of memory more than now."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_AS, (_bytes_held()[0] + spare,) * 2)
            resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
            before, start = _bytes_held()[1], time.process_time()
            ended = work()
            seconds = time.process_time() - start
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
            os.write(writer, json.dumps([ended[:60_000], grown / 1e6, seconds]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as stream:
        answer = stream.read()
    _, status, usage = os.wait4(child, 0)
    if answer:
        return Cost(*json.loads(answer))
    name = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status}"
    return Cost(f"killed by {name}", usage.ru_maxrss / 1000, usage.ru_utime + usage.ru_stime)


def _bytes_held() -> list[int]:
    """Of address space, and of memory."""
    return [int(pages) * resource.getpagesize() for pages in Path("/proc/self/statm").read_text().split()[:2]]
