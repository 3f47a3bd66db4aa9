"""A fault at every write, flush, rename and removal of a training: the last good state, or a clear error.

    python tests/reliability/faults.py

One run that saves after each step tells how often each function is called that a checkpoint and a bundle rest on. For
each of these calls, and each of: a crash before it, after it, in the middle of a write, ENOSPC, EACCES (at this call
alone, and from it on), a run meets that fault. It must end right, or with one message and the last good state; and
`--resume` must then end with the result of the run that met none. All of it also over an older bundle.
`--full-disk` adds runs on a file system (tmpfs, so root alone can) of every size from too small to large enough.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from runs import Configuration, Ended, Fault, Place, difference, fault_of, first_flag, result

FLAGS = (
    "--workers 0 --views 0 --epochs 2 --unfreeze-epoch 1 --batch-size 12 --resamples 0 --estimator exact --calibration "
    "none --objective fixed:0.5 --near-duplicates ignore --checkpoint-minutes 0.000001"
)
NEW = Configuration("new", tuple(FLAGS.split()), cached=True)
OVER = Configuration("over", tuple(FLAGS.split()), cached=True, over=True)
WHATS = ("before", "after", "middle", "ENOSPC", "EACCES")
NAMES = {
    "open": "opening for writing", "write_all": "write", "flush": "flush", "rename": "rename", "remove": "removal",
    "flush_folder": "flush of a folder", "mkdir": "making a folder",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A fault, and the call it meets: its kind and the name of the file."""

    configuration: Configuration
    kind: str
    file: str
    fault: Fault


class Faults:
    """The runs without fault, and those that are held against them."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.found: dict[str, Counter[str]] = defaultdict(Counter)
        self.faults: list[str] = []
        self.old = place.folder()
        run = place.begin(OVER, self.old, "--seed", "1", light=True)
        assert (ended := run.wait()) is not None
        assert ended.code == 0, ended.said
        self.expected: dict[str, dict[str, Any]] = {}
        self.calls: dict[str, list[str]] = {}
        for configuration in (NEW, OVER):
            folder = self.folder(configuration)
            ended = self._run(configuration, folder, log=True)
            assert ended.code == 0, ended.said
            self.expected[configuration.name] = _bundle(folder)
            self.calls[configuration.name] = (folder / "calls.txt").read_text().splitlines()

    def folder(self, configuration: Configuration) -> Path:
        folder = self.place.folder()
        if configuration.over:
            shutil.copytree(self.old / "out", folder / "out")
        return folder

    def _old(self, configuration: Configuration) -> Path | None:
        return self.old if configuration.over else None

    def _run(self, configuration: Configuration, folder: Path, **named: Any) -> Ended:
        first = first_flag(folder, self._old(configuration))
        ended = self.place.begin(configuration, folder, first, light=True, **named).wait()
        assert ended is not None
        return ended

    def points(self) -> Iterator[Point]:
        """All of them."""
        for configuration in (NEW, OVER):
            saves = 0
            last = sum(line == "write_all now-N.safetensors" for line in self.calls[configuration.name])
            for number, line in enumerate(self.calls[configuration.name], 1):
                kind, _, file = line.partition(" ")
                if configuration.over and line == "open now-N.safetensors":
                    saves += 1
                if configuration.over and 1 < saves < last:  # as in the runs into an empty folder
                    continue
                for what in WHATS:
                    if what == "middle" and kind != "write_all":
                        continue
                    if what.startswith("E") and kind == "flush_folder":
                        continue  # which says nothing of what the system refuses
                    for lasting in (False, True) if what.startswith("E") else (False,):
                        yield Point(configuration, kind, file, Fault(number, what, lasting))

    def meet(self, point: Point) -> None:
        """One run with a fault, what it leaves, and where it goes on to."""
        folder = self.folder(point.configuration)
        ended = self._run(point.configuration, folder, fault=point.fault)
        crash = not point.fault.what.startswith("E")
        row = self.found[NAMES[point.kind]]
        row["crashes" if crash else "errors"] += 1
        wrong = self._ended_wrong(point.configuration, folder, ended, crash)
        if wrong is None and ended.code:
            row["crashes" if crash else "told"] += not crash
            wrong = self.goes_on(point.configuration, folder)
        elif wrong is None:
            row["borne"] += 1
            wrong = difference(self.expected[point.configuration.name], _bundle(folder))
        if wrong is None:
            row["identical"] += 1
            shutil.rmtree(folder)
            return
        fault = f"{point.configuration.name}, {folder}, {point.kind} {point.file}, {point.fault}: {wrong}"
        print(fault, file=sys.stderr, flush=True)
        self.faults.append(fault)

    def _ended_wrong(
        self, configuration: Configuration, folder: Path, ended: Ended, crash: bool
    ) -> str | None:
        """What is wrong with how a run ended, or with what it left."""
        if crash and ended.code != -signal.SIGKILL:
            return f"did not come to the fault, ended with {ended.code}"
        if not crash and (wrong := _told_wrong(ended)):
            return wrong
        if wrong := fault_of(folder):
            return wrong
        out = folder / "out"
        stands = (out / "checkpoint" / "manifest.json").exists()
        if not stands and not (out / "bundle.json").exists():
            if ended.saves:
                return f"{ended.saves} checkpoints were written, and none stands"
            if configuration.over:
                return "the older bundle is gone, and nothing stands in its place"
        return None

    def goes_on(self, configuration: Configuration, folder: Path) -> str | None:
        """What is wrong with what a run comes to once the fault is gone."""
        ended = self._run(configuration, folder)
        if ended.code != 0:
            return f"--resume ended with {ended.code}: {ended.said[-1500:]}"
        return difference(self.expected[configuration.name], _bundle(folder))

    def full_disk(self, kilobytes: int) -> str:
        """A run into a file system of that size, which gets room afterwards; how the first ended."""
        folder = self.place.folder()
        out = folder / "out"
        out.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(out)], check=True)
        try:
            ended = self._run(NEW, folder)
            wrong = self._ended_wrong(NEW, folder, ended, False)
            if wrong is None and ended.code:
                subprocess.run(["mount", "-o", "remount,size=100m", str(out)], check=True)
                wrong = self.goes_on(NEW, folder)
            elif wrong is None:
                wrong = difference(self.expected["new"], _bundle(folder))
        finally:
            subprocess.run(["umount", str(out)], check=True)
        if wrong:
            self.faults.append(f"a disk of {kilobytes} kB, {folder}: {wrong}")
            print(self.faults[-1], file=sys.stderr, flush=True)
        return "told" if ended.code else "borne"


def _told_wrong(ended: Ended) -> str | None:
    """What is wrong with the message of a run that met an error."""
    if "Traceback" in ended.said:
        return f"a traceback: {ended.said[-2500:]}"
    if ended.code not in (0, 2, 3):
        return f"ended with {ended.code}: {ended.said[-1500:]}"
    if ended.code and sum(line.startswith("error: ") for line in ended.said.splitlines()) != 1:
        return f"not one message: {ended.said[-1500:]}"
    return None


def _bundle(folder: Path) -> dict[str, Any]:
    """What must be the same; the last checkpoint may not have reached the disk."""
    return {name: content for name, content in result(folder).items() if name != "last checkpoint"}


def rows(found: dict[str, Counter[str]]) -> Iterator[str]:
    """A Markdown table."""
    columns = {
        "crashes": "crashes", "errors": "errors", "borne": "borne to the end", "told": "told, exit 2 or 3",
        "identical": "identical result, at once or with `--resume`",
    }  # fmt: skip
    yield "| fault at | " + " | ".join(columns.values()) + " |"
    yield "|---|" + "--:|" * len(columns)
    total: Counter[str] = Counter()
    for name, row in found.items():
        total += row
        yield f"| {name} | " + " | ".join(str(row[key]) for key in columns) + " |"
    yield "| all | " + " | ".join(str(total[key]) for key in columns) + " |"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, help="so many faults, by chance (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--part", default="1/1", metavar="K/N", help="the K-th of N equal parts of the faults"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--full-disk", action="store_true", help="also file systems of every size; for root")
    parser.add_argument("--root", type=Path, help="where the runs lie (default: a temporary folder)")
    arguments = parser.parse_args(argv)
    started = time.monotonic()
    root = arguments.root or Path(tempfile.mkdtemp(prefix="mlcls-faults-"))
    faults = Faults(Place(root, images=30))
    points = list(faults.points())
    random.Random(arguments.seed).shuffle(points)
    part, parts = map(int, arguments.part.split("/"))
    met = 0
    for point in points[: arguments.sample][part - 1 :: parts]:
        if time.monotonic() - started < 60 * arguments.minutes:
            faults.meet(point)
            met += 1
    print("\n".join(rows(faults.found)))
    if arguments.full_disk:
        ends = Counter(faults.full_disk(size) for size in range(4, 400, 4))
        print(f"\nfull disks: {ends['told']} told, {ends['borne']} large enough or borne")
    took = f"{time.monotonic() - started:.0f} s"
    print(
        f"\n{met} of {len(points)} faults; seed {arguments.seed}, {took}, {len(faults.faults)} not as they should be"
    )
    print("\n".join(faults.faults))
    if not faults.faults and arguments.root is None:
        shutil.rmtree(root)
    return 1 if faults.faults else 0


if __name__ == "__main__":
    sys.exit(main())
