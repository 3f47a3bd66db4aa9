"""Measures whether the default recipe is at least as good as each published one, over seeds, in the same time.

    python benchmarks/recipes.py --results DIR --ppe FOLDER --digits --scenes --weights FILE
    python benchmarks/recipes.py --results DIR ... --candidate deeper "--unfreeze all --lr-finetune 3e-4"
    python benchmarks/recipes.py --results DIR --table-only

All recipes get the same table, split, backbone, weights and image size; `from-scratch` trains its own small network.
On each set and seed the default runs first. The others are stopped at the end of the epoch that is under way when they
have trained as long as the default did (one more epoch, rather than one less), and a bundle is made of their best
epoch so far, as `--resume --finish` does. Then they go on to their own end, as `--resume` does, with the first
--own-end-seeds seeds. The clock runs from the table to the last epoch's end; decoded images lie in the cache before.
Flags that are not this script's are flags of train for every run. What `--candidate NAME FLAGS` names is the default
with these flags, compared as the others are. A killed benchmark goes on with the same command.
"""

import argparse
import shlex
import shutil
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import sets  # first: it puts mlcls's folder on the path
from kept_runs import (
    Case,
    Facts,
    by_key,
    difference_words,
    figures,
    find_run,
    machines,
    markdown,
    mean_words,
    paired,
    read_runs,
    run_cases,
    say,
)

from mlcls.errors import Interrupted, RecipeError
from mlcls.recipe import Recipe

PUBLISHED = ("linear-probe", "two-stage", "full-finetune", "scheduled", "from-scratch")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets.add_set_flags(parser, seeds=5)
    parser.add_argument("--recipes", nargs="+", default=list(PUBLISHED), help="beside the default")
    parser.add_argument("--candidate", nargs=2, action="append", default=[], metavar=("NAME", "FLAGS"))
    parser.add_argument("--own-end-seeds", type=int, help="go on to the recipes' own end with so many (all)")
    given, settings = sets.parse(parser)
    file = given.results / "recipes.jsonl"
    if not given.table_only:
        candidates = {name: sets.train_settings(shlex.split(flags)) for name, flags in given.candidate}
        chosen = sets.read_sets(given)
        cases = [case for each in chosen for case in set_cases(file, given, each, settings, candidates)]
        for each in chosen:
            if any(find_run(file, case.key) is None for case in cases if case.key["set"] == each.name):
                warm_up(each, given.results, settings)
        run_cases(file, cases)
    sets.write_tables(given, tables(read_runs(file)))


def set_cases(
    file: Path,
    given: argparse.Namespace,
    chosen: sets.Set,
    settings: dict[str, Any],
    candidates: dict[str, Any],
) -> list[Case]:
    """The runs on one set, seed by seed, the default first."""
    cases = []
    to_the_end = given.seeds if given.own_end_seeds is None else given.own_end_seeds
    own: dict[str, Any] = {"default": {}, **candidates, **{name: {} for name in given.recipes}}
    for seed in range(given.seeds):
        first = key(chosen, "default", settings, seed)
        for name, over in own.items():
            recipe = chosen.recipe(
                name if name in given.recipes else "default", **{**settings, **over}, seed=seed
            )
            limited_by = None if name == "default" else first
            run = partial(run_beside, file, limited_by, chosen, recipe, to_the_end=seed < to_the_end)
            cases.append(Case(key(chosen, name, {**settings, **over}, seed), run))
    return cases


def key(chosen: sets.Set, name: str, settings: dict[str, Any], seed: int) -> Facts:
    network = "cnn4" if name in sets.OWN_NETWORK else chosen.network["backbone"]
    return {
        "set": chosen.name,
        "network": network,
        "recipe": name,
        "flags": sets.flag_words(settings),
        "counts": chosen.counts,
        "seed": seed,
    }


def warm_up(chosen: sets.Set, folder: Path, settings: dict[str, Any]) -> None:
    """One short run, so that decoding the images and importing the libraries are nobody's seconds."""
    say(f"{chosen.name}: decoding its images")
    recipe = chosen.recipe("default", **{**settings, "epochs": 1, "views": 1})
    chosen.fit(folder / "warm-up", recipe, overwrite=True)
    shutil.rmtree(folder / "warm-up")


def run_beside(
    file: Path, first: Facts | None, chosen: sets.Set, recipe: Recipe, folder: Path, *, to_the_end: bool
) -> Facts:
    """A run in the time that the run with the key `first` took; its own time where there is none."""
    limit = None
    if first is not None:
        default = find_run(file, first)
        if default is None:
            raise RecipeError("the default's run with this seed has failed: there is no time to keep to")
        limit = default["trained_seconds"]
    return run_timed(chosen, recipe, folder, limit, to_the_end=to_the_end)


def run_timed(
    chosen: sets.Set, recipe: Recipe, folder: Path, limit: float | None, *, to_the_end: bool
) -> Facts:
    """A run's figures within `limit` seconds (None: no limit), and at its own end.

    Returns:
        `trained_seconds` and the figures at its own end, None where it was not gone to; `within`: the figures, and the
        seconds to the end of the last epoch that counts.
    """
    clock = Clock(limit)
    try:
        record = chosen.fit(folder / "run", recipe, on_epoch=clock.epoch_ended)
    except Interrupted:
        if not clock.rang:
            raise
    else:
        own = figures(record)
        return {**own, "trained_seconds": clock.last, "within": {**own, "trained_seconds": clock.last}}
    shutil.copytree(folder / "run", folder / "finished")
    within = figures(chosen.fit(folder / "finished", recipe, resume=True, finish=True))
    within["trained_seconds"] = clock.last
    if not to_the_end:
        return {"test_map": None, "trained_seconds": None, "within": within}
    record = chosen.fit(folder / "run", recipe, resume=True)
    later = sum(row.seconds for row in record.epochs[within["epochs"] :])
    return {**figures(record), "trained_seconds": clock.last + later, "within": within}


class Clock:
    """Ends a run, as Ctrl-C would, at the end of the epoch in which its seconds are over."""

    def __init__(self, limit: float | None) -> None:
        self.began = time.monotonic()
        self.limit = limit
        self.last = 0.0  # seconds to the last epoch's end
        self.rang = False

    def epoch_ended(self, row: object) -> None:
        self.last = time.monotonic() - self.began
        if self.limit is not None and self.last >= self.limit:
            self.rang = True
            signal.raise_signal(signal.SIGINT)  # the trainer hears it, and saves where it is


def tables(runs: list[Facts]) -> str:
    """A table a set: each recipe's figures, and the default's less the recipe's, of the same seeds."""
    return "\n\n".join(set_table(group) for group in by_key(runs, "set", "counts").values())


def set_table(runs: list[Facts]) -> str:
    rows = []
    groups = by_key(runs, "recipe", "network", "flags")
    default = next((group for (name, *_), group in groups.items() if name == "default"), [])
    shared = default[0]["key"] if default else runs[0]["key"]
    for (name, network, flags), group in groups.items():
        within = [{"key": run["key"], **run["within"]} for run in group]
        differs = [network] if network != shared["network"] else []
        differs += [f"`{flags}`"] if flags != shared["flags"] else []
        cells = [
            f"`{name}`" + (f" ({', '.join(differs)})" if differs else ""),
            mean_words(run["test_map"] for run in within),
            "" if group is default else difference_words(*paired(default, within, "test_map")),
            mean_words((run["trained_seconds"] for run in within), "{:.0f}"),
            mean_words(run["test_map"] for run in group if run["test_map"] is not None),
            "" if group is default else difference_words(*paired(default, group, "test_map")),
            mean_words((run["trained_seconds"] for run in group if run["trained_seconds"]), "{:.0f}"),
        ]
        rows.append(cells)
    columns = (
        "recipe",
        "within the default's time: test macro AP",
        "default less it (95%)",
        "s",
        "at its own end: test macro AP",
        "default less it (95%)",
        "s",
    )
    first = runs[0]["key"]
    seeds = len({run["key"]["seed"] for run in runs})
    flags = f"All with `{shared['flags']}`." if shared["flags"] else ""
    return (
        f"### {first['set']}: {first['counts']} images, {seeds} seeds\n\n{machines(runs)}. {flags}\n\n"
        "Means over the seeds, with the lowest and the highest; of the differences Student's interval over seeds.\n\n"
        + markdown(columns, rows)
    )


if __name__ == "__main__":
    main()
