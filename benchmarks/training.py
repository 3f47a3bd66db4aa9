"""Measures whole trainings: how soon mlcls reaches what fastai, Hugging Face's Trainer and a plain loop end with.

    pip install -r benchmarks/requirements.txt
    python benchmarks/training.py --results DIR                                 # the built-in scenes of digits
    python benchmarks/training.py --results DIR --generated --weights FILE      # and drawn scenes, to fine-tune on
    python benchmarks/training.py --results DIR --ppe FOLDER --weights FILE     # and photos of building sites
    python benchmarks/training.py --results DIR --table-only                    # the tables once more

Every run is a process of its own, from its beginning (imports, reading the table, decoding) to its end, on the same
split, first weights and image size; the contenders take turns. Scoring the test images after each epoch is left out of
the seconds. mlcls's caches are empty when its runs begin. Each contender trains as its own users do, see `peers/`.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]  # mlcls as it stands beside this script is what is measured
PEERS = ROOT / "benchmarks" / "peers"
sys.path[:0] = [str(PEERS), str(ROOT)]

from clock import BEGAN, Task, macro_average_precision  # noqa: E402
from machine import machine_words  # noqa: E402
from scenes import ATTRIBUTES, write_scenes  # noqa: E402

CONTENDERS = {
    "fastai": ("fastai_learner.py", "fastai"),
    "Hugging Face Trainer": ("huggingface_trainer.py", "transformers"),
    "plain timm loop": ("plain_loop.py", "timm"),
    "mlcls, its epochs": ("ours.py", "mlcls"),
    "mlcls train, all of it": (None, "mlcls"),
}
OURS, COMMAND = list(CONTENDERS)[-2:]

FINE_TUNING_FLAGS = ["--recipe", "default"]  # as it comes
DIGITS_FLAGS = ["--recipe", "demo"]
SCRATCH = {"epochs": 4, "lr": 3e-3, "batch_size": 32}  # those of the recipe `demo`, for everybody


@dataclass(frozen=True)
class Runs:
    """Where one set's runs are kept: the task with the machine, the table, the logs."""

    folder: Path

    @property
    def table(self) -> Path:
        return self.folder.resolve() / "table.csv"

    def log(self, contender: str, repeat: int) -> Path:
        name = contender.replace(",", "").replace(" ", "-").lower()
        return self.folder / f"{name}-{repeat}.jsonl"

    def lines(self, contender: str, repeat: int) -> list[dict[str, Any]]:
        """The log's lines; none where the run is not there or did not end."""
        path = self.log(contender, repeat)
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
        return lines if lines and lines[-1]["what"] == "exit" else []


def main() -> None:
    flags = parse_flags()
    names = flags.contenders or list(CONTENDERS)
    if not flags.table_only:
        if flags.ppe:
            run_all(Runs(flags.results / f"ppe-{flags.image_size}"), names, flags, ppe_task)
        if flags.generated:
            run_all(Runs(flags.results / f"generated-{flags.image_size}"), names, flags, generated_task)
        if flags.digits or not (flags.ppe or flags.generated):
            run_all(Runs(flags.results / "digits-64"), names, flags, digits_task)
    text = "\n".join(table(Runs(path.parent)) for path in sorted(flags.results.glob("*/task.json")))
    print(text)
    if flags.out:
        flags.out.write_text(text, encoding="utf-8")


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, help="folder of the logs, made if need be")
    parser.add_argument(
        "--ppe", type=Path, help="folder with train/, valid/ and test/, a _classes.csv in each"
    )
    parser.add_argument(
        "--generated", action="store_true", help="scenes as scenes.py draws them, to fine-tune on"
    )
    parser.add_argument("--weights", type=Path, help="of --backbone (default: timm's own source)")
    parser.add_argument("--backbone", default="mobilenetv2_100", help="for --ppe and --generated")
    parser.add_argument("--image-size", type=int, default=224, help="for --ppe and --generated")
    parser.add_argument("--digits", action="store_true", help="the built-in scenes too, beside the others")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--limit", type=int, help="images of each subset, to try the scripts")
    parser.add_argument("--epochs", type=int, help="of every contender, to try the scripts")
    parser.add_argument("--table-only", action="store_true", help="no runs: the table of those in --results")
    parser.add_argument("--out", type=Path, help="write the table there too")
    return parser.parse_args()


def run_all(
    runs: Runs,
    names: list[str],
    flags: argparse.Namespace,
    make_task: Callable[[Runs, argparse.Namespace], Task],
) -> None:
    """One set's runs in turns; those that are there already stay as they are."""
    runs.folder.mkdir(parents=True, exist_ok=True)
    before = runs.table.read_bytes() if runs.table.is_file() else b""
    task, kept = make_task(runs, flags), runs.folder / "task.json"
    words = json.dumps({**asdict(task), "machine": machine_words()}, indent=1)
    if kept.is_file() and (kept.read_text(encoding="utf-8"), before) != (words, runs.table.read_bytes()):
        runs.table.write_bytes(before)
        sys.exit(f"{runs.folder} holds runs of another task or machine; name another --results")
    kept.write_text(words, encoding="utf-8")
    warm_up(task)
    for repeat in range(flags.repeats):
        for name in names:
            if not runs.lines(name, repeat):
                run(runs, name, task, repeat)


def ppe_task(runs: Runs, flags: argparse.Namespace) -> Task:
    """The photos as one table with a column `subset`; a row without a photo is left out."""
    rows, attributes = [], []
    for folder, subset in (("train", "train"), ("valid", "val"), ("test", "test")):
        with open(flags.ppe / folder / "_classes.csv", newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            found = [row for row in reader if (flags.ppe / folder / row["filename"]).is_file()]
        attributes = [name for name in found[0] if name != "filename"]
        rows += [
            {"image": f"{folder}/{row['filename']}", **{a: row[a] for a in attributes}, "subset": subset}
            for row in found
        ]
    return fine_tuning_task(runs, flags, rows, images=flags.ppe, attributes=attributes)


def generated_task(runs: Runs, flags: argparse.Namespace) -> Task:
    """Scenes that are drawn here, the same on every machine."""
    folder = runs.folder / "scenes"
    path = folder / "labels.csv"
    if not path.is_file():
        write_scenes(folder)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return fine_tuning_task(runs, flags, rows, images=folder / "images", attributes=list(ATTRIBUTES))


def fine_tuning_task(
    runs: Runs, flags: argparse.Namespace, rows: list[dict[str, str]], images: Path, attributes: list[str]
) -> Task:
    """A backbone with ImageNet's weights, for everybody."""
    weights = str(flags.weights.resolve()) if flags.weights else None
    own = [*FINE_TUNING_FLAGS, "--backbone", flags.backbone, "--image-size", str(flags.image_size)]
    return build_task(
        runs,
        flags,
        rows,
        images=images,
        attributes=attributes,
        image_size=flags.image_size,
        backbone=flags.backbone,
        backbone_args={},
        weights=weights,
        scratch=None,
        flips=True,
        flags=[*own, *(["--weights", weights] if weights else [])],
    )


def digits_task(runs: Runs, flags: argparse.Namespace) -> Task:
    """The built-in scenes; without weights that anybody could download, the small network trains from nothing."""
    from mlcls.labels.demo import write_digits
    from mlcls.recipe import build_recipe

    path = write_digits()
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    recipe = build_recipe("demo")
    return build_task(
        runs,
        flags,
        rows,
        images=path.parent / "images",
        attributes=[name for name in rows[0] if name not in ("image", "subset")],
        image_size=recipe.image_size,
        backbone=recipe.backbone,
        backbone_args=dict(recipe.backbone_args),
        weights=None,
        scratch=SCRATCH,
        flips=False,
        flags=DIGITS_FLAGS,
    )


def build_task(
    runs: Runs, given: argparse.Namespace, rows: list[dict[str, str]], images: Path, **more: Any
) -> Task:
    """The task; its table is written into the folder of the runs."""
    if given.limit:
        taken = dict.fromkeys(("train", "val", "test"), 0)
        for row in rows:
            taken[row["subset"]] += 1
            row["taken"] = str(taken[row["subset"]])
        rows = [row for row in rows if int(row.pop("taken")) <= given.limit]
    path = runs.table
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    folder = images.resolve()
    own = [*more.pop("flags"), "--labels", str(path), "--images", str(folder), "--split", "column:subset"]
    if given.epochs:
        own += ["--epochs", str(given.epochs)]
    return Task(table=str(path), images=str(folder), epochs=given.epochs, seed=0, flags=own, **more)


def warm_up(task: Task) -> None:
    """Read every photo once, so that the first contender does not alone wait for the disk."""
    for subset in ("train", "val", "test"):
        for name in task.rows(subset)["image"]:
            (Path(task.images) / name).read_bytes()


def run(runs: Runs, contender: str, task: Task, repeat: int) -> None:
    """One process, its own seed, caches that are empty; its log, ended by how long the whole process took."""
    script, package = CONTENDERS[contender]
    log = runs.log(contender, repeat)
    own = {**asdict(task), "seed": repeat, "flags": [*task.flags, "--seed", str(repeat)]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.json"
        path.write_text(json.dumps(own), encoding="utf-8")
        command = [sys.executable, str(PEERS / str(script)), str(path), str(log.resolve())]
        if script is None:
            command = [sys.executable, "-m", "mlcls.train", "--out", f"{folder}/outputs", *own["flags"]]
        surroundings = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "MLCLS_CACHE": f"{folder}/cache",
            "FASTAI_HOME": f"{folder}/fastai",
        }
        print(f"{runs.folder.name}, run {repeat + 1}: {contender} ...", file=sys.stderr, flush=True)
        before, began = os.times(), time.monotonic()
        surroundings[BEGAN] = repr(began)
        done = subprocess.run(command, env=surroundings, cwd=folder, capture_output=True, text=True)
        seconds = time.monotonic() - began
        if done.returncode:
            sys.exit(f"{contender} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        if script is None:
            write_command_log(log, task, Path(folder) / "outputs", seconds)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    away = json.loads(log.read_text().splitlines()[-1])["away"]
    with log.open("a", encoding="utf-8") as file:
        whole = {"what": "exit", "seconds": seconds - away, "version": f"{package} {version(package)}"}
        whole["processor_seconds"] = used  # scoring the test images included
        file.write(json.dumps(whole) + "\n")


def write_command_log(log: Path, task: Task, bundle: Path, seconds: float) -> None:
    """The log of `python -m mlcls.train`, from the test predictions it leaves."""
    with (bundle / "predictions-test.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    test = task.rows("test")
    scores = np.array(
        [[float(rows[name][f"{a}_probability"]) for a in task.attributes] for name in test["image"]],
        dtype=np.float32,
    )
    np.save(log.with_suffix(".npy"), scores)
    figure = macro_average_precision(test[task.attributes].to_numpy(np.float32), scores)
    line = {"what": "end", "seconds": seconds, "average_precision": figure, "away": 0.0}
    log.write_text(json.dumps(line) + "\n", encoding="utf-8")


def table(runs: Runs) -> str:
    """The set's table in Markdown: medians of the runs that ended; ratios are of the runs of one turn."""
    kept = json.loads((runs.folder / "task.json").read_text(encoding="utf-8"))
    machine = kept.pop("machine")
    task = Task(**kept)
    labels = task.rows("test")[task.attributes].to_numpy(np.float32)
    counts = ", ".join(f"{len(task.rows(subset)):,} {subset}" for subset in ("train", "val", "test"))
    repeats = [r for r in range(100) if any(runs.lines(contender, r) for contender in CONTENDERS)]  # ended
    rows = [row for contender in CONTENDERS if (row := table_row(runs, contender, repeats, labels))]
    own = f"from {Path(task.weights).name}" if task.weights else "from timm's own weights"
    start = "from nothing" if task.scratch else own
    pairs = zip(task.flags[::2], task.flags[1::2], strict=True)  # those that another machine would repeat
    flags = [word for pair in pairs if not Path(pair[1]).is_absolute() for word in pair]
    columns = [
        "contender",
        "test macro AP (95% interval)",
        "whole process, s",
        "its own final AP first reached, s",
        "mlcls reaches it after, s",
        "times as long as mlcls: whole process",
        "to its own final AP",
    ]
    return f"""### {runs.folder.name}: {counts} images, {task.backbone} {start}, {task.image_size} px

{machine}. Medians of {len(repeats)} runs in turns. mlcls: `{" ".join(flags)}`

| {" | ".join(columns)} |
|{"---|" * len(columns)}
{chr(10).join(rows)}
"""


def table_row(runs: Runs, contender: str, repeats: list[int], labels: np.ndarray) -> str | None:
    """A contender's row; None where no run of it ended."""
    ended = {r: lines for r in repeats if (lines := runs.lines(contender, r))}
    if not ended:
        return None
    finals = {r: lines[-2]["average_precision"] for r, lines in ended.items()}
    middle = sorted(finals, key=lambda r: finals[r])[(len(finals) - 1) // 2]
    low, high = interval(labels, np.load(runs.log(contender, middle).with_suffix(".npy")))
    whole = {r: lines[-1]["seconds"] for r, lines in ended.items()}
    first = {r: reached(lines, finals[r]) for r, lines in ended.items()}
    cells = [
        f"{contender} ({next(iter(ended.values()))[-1]['version']})",
        f"{finals[middle]:.3f} ({low:.3f} to {high:.3f})",
        shown(whole.values()),
        shown(first.values()) if contender != COMMAND else "",
    ]
    ours = {r: reached(runs.lines(OURS, r), finals[r]) for r in ended if runs.lines(OURS, r)}
    if contender in (OURS, COMMAND) or not ours:
        return "| " + " | ".join([*cells, "", "", ""]) + " |"
    cells.append(shown(ours.values()))
    cells += [shown([each[r] / ours[r] for r in ours], "{:.1f}x") for each in (whole, first)]
    return "| " + " | ".join(cells) + " |"


def reached(lines: list[dict[str, Any]], figure: float) -> float:
    """Seconds to the first epoch whose test figure is at least `figure`; infinite where none is."""
    return min(
        (line["seconds"] for line in lines if line["what"] != "exit" and line["average_precision"] >= figure),
        default=float("inf"),
    )


def shown(values: Iterable[float], form: str = "{:.0f}") -> str:
    """The median and the range, of seconds or of ratios.

    Infinite seconds, or a ratio of 0, are runs in which mlcls did not get there: they count as the worst, and are told.
    """
    given = sorted(values)
    there = [value for value in given if 0 < value < float("inf")]
    missing = len(given) - len(there)
    if not missing:
        middle = statistics.median(given)
    elif given[0] == 0:
        middle = statistics.median_low(given)
    else:
        middle = statistics.median_high(given)
    said = form.format(middle) if 0 < middle < float("inf") else "not reached"
    if len(set(ends := [form.format(value) for value in there])) > 1:
        said += f" ({ends[0]} to {ends[-1]})"
    return f"{said}, in {missing} of {len(given)} runs not reached" if missing else said


def interval(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """The 95% bootstrap interval over images of macro average precision, by mlcls's own rule for everybody."""
    from mlcls.scoring.intervals import intervals

    return intervals(labels, scores, 0.5).overall["macro"]["average_precision"]


if __name__ == "__main__":
    main()
