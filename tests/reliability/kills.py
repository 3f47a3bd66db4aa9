"""Trainings killed at random instants and resumed: each must end with the bytes of the run that was never killed.

    python tests/reliability/kills.py --kills 200

A kill is SIGKILL after a random time, or at a random call of the functions that a save rests on: before it, after it,
or with half of the bytes written. Some runs are killed several times before they may end. Others get Ctrl-C or
SIGTERM. What differs is named, and its folder kept.
"""

import argparse
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from runs import Configuration, Ended, Fault, Place, Run, difference, fault_of, first_flag, result

EACH_STEP, SOME_STEPS = (
    "--checkpoint-minutes 0.000001",
    "--checkpoint-minutes 0.002",
)  # else at epochs' ends alone


def _configuration(name: str, flags: str, **named: bool) -> Configuration:
    return Configuration(name, tuple(flags.split()), **named)


CONFIGURATIONS = [
    _configuration("steps", f"--workers 0 --views 0 {EACH_STEP}"),
    _configuration(  # both stages end early, the first with its best weights
        "workers",
        "--workers 2 --views 0 --monitor val_map --patience 1 --unfreeze-epoch 7 --epochs 12",
        cached=True,
    ),
    _configuration(
        "views",
        f"--workers 0 --views 4 --augment light --unfreeze last --sampler balanced {EACH_STEP}",
        cached=True,
    ),
    _configuration(
        "views-workers",
        "--workers 2 --views 2 --unfreeze blocks.1 --accumulate 2 --schedule plateau --cache-gb 0 "
        + SOME_STEPS,
    ),
    _configuration(
        "bf16",
        "--workers 0 --views 0 --precision bf16 --accumulate 2 --optimizer sgd --unfreeze-epoch 1 --head fc "
        + SOME_STEPS,
        cached=True,
        over=True,
    ),
]
WENT_ON = re.compile(
    r"resumed at epoch (\d+), step (\d+)|resumed after the last epoch|holds a finished bundle"
)
HOW = ("mid-epoch", "at an epoch's start", "after the last epoch", "from the start", "bundle stood")


@dataclass
class Tally:
    """What became of a configuration's runs."""

    kills: int = 0
    saving: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    how: Counter[str] = field(default_factory=Counter)
    again: int = 0  # the most steps that were done a second time
    interrupts: int = 0
    runs: int = 0
    identical: int = 0
    faults: list[str] = field(default_factory=list)


class Trial:
    """One configuration: its reference, and the runs that are held against it."""

    def __init__(self, place: Place, configuration: Configuration, chance: random.Random) -> None:
        self.place, self.configuration, self.chance = place, configuration, chance
        self.tally = Tally()
        self._old: Path | None = None
        if configuration.over:
            self._old = place.folder()
            self._end(self._begin(self._old, "--epochs", "1"), "the older bundle")
        self.references: dict[bool, dict[str, Any]] = {}
        self.seconds: dict[bool, float] = {}
        self.calls: dict[bool, int] = {}
        self.reference(False)

    def reference(self, drawn: bool) -> dict[str, Any]:
        """What the run that is never killed leaves."""
        if drawn not in self.references:
            folder = self._folder()
            ended = self._end(self._begin(folder, self._first(folder), drawn=drawn), "the reference")
            self.references[drawn] = result(folder)
            self.seconds[drawn], self.calls[drawn] = ended.seconds, ended.calls
            shutil.rmtree(folder)
        return self.references[drawn]

    def _folder(self) -> Path:
        folder = self.place.folder()
        if self._old is not None:
            shutil.copytree(self._old / "out", folder / "out")
        return folder

    def _first(self, folder: Path) -> str:
        return first_flag(folder, self._old)

    def _begin(self, folder: Path, *more: str, **named: Any) -> Run:
        return self.place.begin(self.configuration, folder, *more, **named)

    def _end(self, run: Run, what: str) -> Ended:
        ended = run.wait()
        assert ended is not None
        if ended.code != 0:
            raise SystemExit(
                f"{self.configuration.name}: {what} ended with {ended.code}:\n{ended.said[-3000:]}"
            )
        return ended

    def killed(self, most: int) -> None:
        """One run that is killed up to `most` times, and then goes on to its end."""
        drawn = self.chance.random() < 0.06 and most > 1
        expected, folder = self.reference(drawn), self._folder()
        before: Ended | None = None
        for _ in range(min(most, self.chance.choice((1, 1, 1, 2, 3)))):
            fault, until = None, None
            if self.chance.random() < 0.45:
                what = self.chance.choice(("before", "after", "middle"))
                fault = Fault(self.chance.randint(1, self.calls[drawn]), what)
            else:
                until = self.chance.uniform(0, self.seconds[drawn])
            run = self._begin(folder, self._first(folder), fault=fault, drawn=drawn)
            ended = run.wait(None if until is None else run.started + until)
            if ended is None:
                run.signal(signal.SIGKILL)
                ended = run.wait()
            assert ended is not None
            self._went_on(before, ended)
            self._check(folder)
            if ended.code != -signal.SIGKILL:
                if ended.code != 0:
                    self._fault(folder, f"ended with {ended.code}: {ended.said[-1500:]}")
                    return
                continue  # it was through before the kill
            before = ended
            self.tally.kills += 1
            self.tally.saving += ended.saving
            self.tally.phases[ended.phase] += 1
        self._compare(folder, expected, drawn, before)

    def interrupted(self) -> None:
        """One run that gets Ctrl-C or SIGTERM, some of them twice, and then goes on to its end."""
        expected, folder = self.reference(False), self._folder()
        number = self.chance.choice((signal.SIGINT, signal.SIGTERM))
        run = self._begin(folder, self._first(folder))
        ended = run.wait(run.started + self.chance.uniform(0, self.seconds[False]))
        if ended is None:
            run.signal(number, group=True)
            if self.chance.random() < 0.2:
                ended = run.wait(time.monotonic() + self.chance.uniform(0, 0.02))
                if ended is None:
                    run.signal(number, group=True)
            ended = ended or run.wait()
            self.tally.interrupts += 1
        assert ended is not None
        fault = self._fault_of_interrupt(folder, ended)
        self._check(folder)
        if fault:
            self._fault(folder, f"{signal.Signals(number).name} in {ended.phase}: {fault}")
            return
        self._compare(folder, expected, False, None)

    def _fault_of_interrupt(self, folder: Path, ended: Ended) -> str | None:
        """What is wrong with how a run ended that was asked to."""
        told = "error: interrupted" in ended.said  # and the second signal came on the way out
        if ended.code == 0 or (ended.code == -signal.SIGTERM and (told or ended.phase in ("set-up", "end"))):
            return None
        if ended.code != 130 or ("Traceback" in ended.said and not told):
            return f"exit code {ended.code}: {ended.said[-1500:]}"
        stands = (folder / "out" / "checkpoint" / "manifest.json").exists()
        last = [line for line in ended.said.splitlines() if line.startswith("error: ")][-1]
        if stands and "--resume" not in last:
            return f"does not say how to go on: {last}"
        new = (folder / "out" / "bundle.json").exists() and self._first(folder) == "--resume"
        if not stands and new and "nothing is kept" in last:
            return f"says that nothing is kept, and a bundle stands: {last}"
        return None

    def _compare(self, folder: Path, expected: dict[str, Any], drawn: bool, before: Ended | None) -> None:
        """Let a run end, and hold what it left against the reference."""
        ended = self._begin(folder, self._first(folder), drawn=drawn).wait()
        assert ended is not None
        self._went_on(before, ended)
        self.tally.runs += 1
        if ended.code != 0:
            self._fault(folder, f"ended with {ended.code}: {ended.said[-1500:]}")
            return
        self._check(folder)
        apart = difference(expected, result(folder))
        if apart:
            self._fault(folder, apart)
            return
        self.tally.identical += 1
        shutil.rmtree(folder)

    def _went_on(self, before: Ended | None, ended: Ended) -> None:
        """Where a run went on that had been killed, and how many steps it did again."""
        if before is None:
            return
        found = WENT_ON.search(" ".join(ended.said.split()))
        if found is None:
            if ended.code == 0:
                self.tally.how["from the start"] += 1
        elif found[1] is None:
            what = "bundle stood" if "bundle" in found[0] else "after the last epoch"
            self.tally.how[what] += 1
        else:
            epoch, step = int(found[1]), int(found[2])
            self.tally.how["mid-epoch" if step else "at an epoch's start"] += 1
            if before.epoch == epoch:
                self.tally.again = max(self.tally.again, before.step - step)

    def _check(self, folder: Path) -> None:
        if fault := fault_of(folder):
            self._fault(folder, fault)

    def _fault(self, folder: Path, what: str) -> None:
        fault = f"{self.configuration.name}, {folder}: {what}"
        print(fault, file=sys.stderr, flush=True)
        self.tally.faults.append(fault)


def rows(tallies: dict[str, Tally]) -> Iterator[str]:
    """A Markdown table."""
    yield (
        "| runs | kills | inside a save | resumed mid-epoch | at an epoch's start | after the last epoch | "
        "from the start | bundle stood | most steps done again | Ctrl-C, SIGTERM | ended | identical |"
    )
    yield "|---|" + "--:|" * 11
    total = Tally()
    for name, one in tallies.items():
        yield _row(name, one)
        for what in ("kills", "saving", "interrupts", "runs", "identical"):
            setattr(total, what, getattr(total, what) + getattr(one, what))
        total.how += one.how
        total.phases += one.phases
        total.again = max(total.again, one.again)
    yield _row("all", total)
    yield ""
    yield "killed in: " + ", ".join(f"{name} {count}" for name, count in total.phases.most_common())


def _row(name: str, one: Tally) -> str:
    cells = [
        one.kills,
        one.saving,
        *(one.how[how] for how in HOW),
        one.again,
        one.interrupts,
        one.runs,
        one.identical,
    ]
    return f"| {name} | " + " | ".join(map(str, cells)) + " |"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--interrupts", type=int, help="Ctrl-C and SIGTERM (default: a fifth of the kills)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="+", default=[one.name for one in CONFIGURATIONS], help="these configurations"
    )
    parser.add_argument("--root", type=Path, help="where the runs lie (default: a temporary folder)")
    arguments = parser.parse_args(argv)
    interrupts = arguments.kills // 5 if arguments.interrupts is None else arguments.interrupts
    root = arguments.root or Path(tempfile.mkdtemp(prefix="mlcls-kills-"))
    place = Place(root)
    tallies: dict[str, Tally] = {}
    started = time.monotonic()
    chosen = [one for one in CONFIGURATIONS if one.name in arguments.only]
    for number, configuration in enumerate(chosen):
        trial = Trial(place, configuration, random.Random(f"{arguments.seed} {configuration.name}"))
        tallies[configuration.name] = tally = trial.tally
        quota = [
            total * (number + 1) // len(chosen) - total * number // len(chosen)
            for total in (arguments.kills, interrupts)
        ]
        while tally.kills < quota[0] and len(tally.faults) < 5:
            trial.killed(quota[0] - tally.kills)
        for _ in range(quota[1]):
            trial.interrupted()
        print(_row(configuration.name, tally), file=sys.stderr, flush=True)
    print("\n".join(rows(tallies)))
    faults = [fault for tally in tallies.values() for fault in tally.faults]
    print(f"\nseed {arguments.seed}, {time.monotonic() - started:.0f} s, {len(faults)} faults")
    print("\n".join(faults))
    if not faults and arguments.root is None:
        shutil.rmtree(root)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
