"""Measures each option of a training alone: the default recipe against itself with one setting changed, over seeds.

    python benchmarks/craft.py --results DIR --ppe FOLDER --digits --scenes --weights FILE
    python benchmarks/craft.py --results DIR ... --options ema soup --option "mine" "--lr-finetune 3e-4"
    python benchmarks/craft.py --results DIR --table-only

`--option NAME FLAGS` measures flags of one's own beside these. Other flags that are not this script's are flags of
train for every run, the default's too. An option that fails is told of and left out of the table. A killed benchmark
goes on with the same command. The seconds are no comparison: what the frozen part makes of the images is shared by
the runs of a seed, so the first pays for all.
"""

import argparse
import shlex
from typing import Any

import sets  # first: it puts mlcls's folder on the path
from kept_runs import (
    Case,
    Facts,
    by_key,
    difference_words,
    heading,
    markdown,
    mean_words,
    paired,
    read_runs,
    run_cases,
)

OPTIONS = {
    "ema": "--ema 0.99",
    "soup": "--soup 5",
    "all layers (LP-FT)": "--unfreeze all",
    "all layers, layer decay": "--unfreeze all --layer-decay 0.75",
    "gradual": "--unfreeze gradual",
    "mixup": "--mixup 0.2",
    "cutmix": "--cutmix 1.0",
    "label smoothing": "--label-smoothing 0.1",
    "asl": "--loss asl --pos-weight none",
    "asl, ramp": "--loss asl --pos-weight none --loss-args ramp_epochs=5",
    "growing images": "--first-image-size {half} --unfreeze all",
    "tta flip": "--tta flip",
    "tta flip, zoom": "--tta flip,zoom",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets.add_set_flags(parser, seeds=3)
    parser.add_argument("--options", nargs="*", choices=list(OPTIONS), default=list(OPTIONS), metavar="NAME")
    parser.add_argument("--option", nargs=2, action="append", default=[], metavar=("NAME", "FLAGS"))
    given, settings = sets.parse(parser)
    file = given.results / "craft.jsonl"
    if not given.table_only:
        cases = [case for each in sets.read_sets(given) for case in set_cases(given, each, settings)]
        run_cases(file, cases)
    sets.write_tables(given, tables(read_runs(file)))


def set_cases(given: argparse.Namespace, chosen: sets.Set, settings: dict[str, Any]) -> list[Case]:
    """Seed by seed, the default first; one that flips is left out where no training may flip."""
    half = str(chosen.settings["image_size"] // 2)
    options = {"default": "", **{name: OPTIONS[name] for name in given.options}, **dict(given.option)}
    options = {name: flags.replace("{half}", half) for name, flags in options.items()}
    if chosen.name.startswith("digits"):
        options = {name: flags for name, flags in options.items() if "flip" not in flags}
    cases = []
    for seed in range(given.seeds):
        for name, flags in options.items():
            over = sets.train_settings(shlex.split(flags))
            words = {
                "counts": chosen.counts,
                "flags": sets.flag_words(settings),
                "option": name,
                "its flags": flags,
            }
            cases.append(sets.plain_case(chosen, words, seed, {**settings, **over}))
    return cases


def tables(runs: list[Facts]) -> str:
    return "\n\n".join(
        set_table(group) for group in by_key(runs, "set", "network", "counts", "flags").values()
    )


def set_table(runs: list[Facts]) -> str:
    """A row for each option: test macro AP and its difference from the default's, of the same seeds."""
    groups = by_key(runs, "option", "its flags")
    default = groups.get(("default", ""), [])
    rows = []
    for (name, flags), group in groups.items():
        rows.append(
            [
                f"{name} (`{flags}`)" if flags else name,
                mean_words(run["test_map"] for run in group),
                "" if group is default else difference_words(*paired(group, default, "test_map")),
                "" if group is default else difference_words(*paired(group, default, "val_map")),
                mean_words((run["epochs"] for run in group), "{:.0f}"),
                mean_words((run["seconds"] for run in group), "{:.0f}"),
            ]
        )
    columns = ["option", "test macro AP", "less the default (95%)", "on validation", "epochs", "s"]
    return (
        heading(runs)
        + "Means over the seeds with the lowest and the highest; differences with Student's interval over seeds.\n\n"
        + markdown(columns, rows)
    )


if __name__ == "__main__":
    main()
