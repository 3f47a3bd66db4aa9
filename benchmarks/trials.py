"""Measures a search of twenty trials: how long it takes, what it finds, and that no trial is lost.

    python benchmarks/trials.py --results DIR --ppe FOLDER --weights FILE
    python benchmarks/trials.py --results DIR --ppe FOLDER --weights FILE --processes 2 --kill-after 60

Runs `python -m mlcls.trials --space published` as a person does: one process, or several that share the study. With
`--kill-after` the first one is killed (SIGKILL) after so many seconds and started again. Prints the seconds, how many
trials ended how, and the table, best first. Flags that are not this script's are flags of `mlcls.trials`. The study
itself goes on where it was killed: so does this script, and adds its seconds up.
"""

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import sets  # first: it puts mlcls's folder on the path
from kept_runs import find_run, markdown, read_runs, say
from machine import machine_words

COLUMNS = {
    "trial": "Trial",
    "name": "Name",
    "optimizer": "Optimizer",
    "lr_finetune": "Learning Rate",
    "weight_decay": "Weight Decay",
    "dropout": "Dropout",
    "schedule": "Scheduler",
    "batch_size": "Batch Size",
    "val_loss": "Best Validation Loss",
    "val_map": "val macro AP",
    "epochs": "epochs",
    "seconds": "s",
    "state": "state",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets.add_set_flags(parser, seeds=3)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--space", default="published")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--kill-after", type=float, metavar="SECONDS", help="kill the first process once")
    given, flags = parser.parse_known_args()
    texts = []
    for chosen in sets.read_sets(given):
        study = given.results / f"trials-{chosen.name}-{given.processes}"
        key = {
            "set": chosen.name,
            "counts": chosen.counts,
            "flags": shlex.join(flags),
            "trials": given.trials,
        }
        key |= {"network": chosen.network["backbone"], "processes": given.processes, "seed": 0}
        file = study.with_suffix(".jsonl")
        if not given.table_only and find_run(file, key) is None:
            run_study(given, chosen, study, file, key, flags)
        texts.append(study_table(read_runs(file), study))
    sets.write_tables(given, "\n\n".join(texts))


def run_study(
    given: argparse.Namespace,
    chosen: sets.Set,
    study: Path,
    file: Path,
    key: dict[str, object],
    flags: list[str],
) -> None:
    """The study from where it stands to its end; a line is kept of the seconds."""
    study.mkdir(parents=True, exist_ok=True)
    table = study.with_suffix(".csv").resolve()
    chosen.table.to_csv(table, index=False)
    command = [sys.executable, "-m", "mlcls.trials", "--labels", str(table), "--images", str(chosen.images)]
    command += ["--split", "column:subset", "--image-size", str(chosen.settings["image_size"])]
    command += [word for name, value in chosen.network.items() for word in (f"--{name}", str(value))]
    for name, value in chosen.settings.get("augment_args", {}).items():
        command += ["--augment-args", f"{name}={value}"]
    command += ["--trials", str(given.trials), "--space", given.space, "--seeds", str(given.seeds)]
    command += ["--out", str(study.resolve()), *flags]
    spent = study.with_suffix(".seconds")  # of earlier starts of this script
    before, began = float(spent.read_text()) if spent.is_file() else 0.0, time.monotonic()
    running = [start(command) for _ in range(given.processes)]
    kills = 0
    while any(process.poll() is None for process in running):
        time.sleep(1)
        seconds = before + time.monotonic() - began
        spent.write_text(str(seconds))
        if given.kill_after and not kills and seconds >= given.kill_after and running[0].poll() is None:
            say(f"SIGKILL to process {running[0].pid}")
            running[0].kill()
            running[0].wait()
            running[0] = start(command)
            kills += 1
    codes = [process.returncode for process in running]
    if any(codes):
        sys.exit(f"mlcls.trials ended with {codes}; the same command goes on")
    line = {
        "key": key,
        "machine": machine_words(),
        "seconds": before + time.monotonic() - began,
        "kills": kills,
    }
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line) + "\n")


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """One process of the study, its progress on this script's stderr."""
    path = os.pathsep.join([str(sets.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=sys.stderr)


def study_table(runs: list[dict[str, object]], study: Path) -> str:
    """The table of trials, best first, under what it took."""
    with (study / "trials.csv").open(newline="", encoding="utf-8") as lines:
        trials = list(csv.DictReader(lines))
    states = Counter(trial["state"] for trial in trials)
    order = ["complete", "pruned", "failed"]
    trials.sort(
        key=lambda trial: (
            order.index(trial["state"]) if trial["state"] in order else len(order),
            -float(trial["value"] or "-inf"),
        )
    )
    columns = {name: said for name, said in COLUMNS.items() if trials and name in trials[0]}
    rows = [[short(trial[name]) for name in columns] for trial in trials]
    told = [
        f"{run['machine']}: {run['seconds']:.0f} s, processes: {run['key']['processes']}, killed: {run['kills']}."
        for run in runs
    ]
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    return (
        f"### {study.name}: {counted}\n\n" + "\n".join(told) + "\n\n" + markdown(list(columns.values()), rows)
    )


def short(cell: str) -> str:
    """A figure with four digits that count; anything else as it is."""
    try:
        number = float(cell)
    except ValueError:
        return cell
    return str(int(number)) if number == int(number) and abs(number) < 1e6 else f"{number:.4g}"


if __name__ == "__main__":
    main()
