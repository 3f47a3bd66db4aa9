"""Measures whether the ensemble of a training in folds beats its members: test macro AP, with the paired interval.

    python benchmarks/folds.py --results DIR --ppe FOLDER --digits --scenes --weights FILE
    python benchmarks/folds.py --results DIR --table-only

Each run is a `train --folds 5`. Beside it stands one network of the same recipe and seed, which learns from train alone
and stops by val, as without --folds: a member learns from four fifths of train and val together. The difference of the
ensemble and the mean of its members has a bootstrap interval over the test images, of each seed by itself; over seeds
it has Student's. Flags that are not this script's are flags of train for every run. A killed benchmark goes on with the
same command, and goes on within a run of folds.
"""

import argparse
from pathlib import Path
from typing import Any

import sets  # first: it puts mlcls's folder on the path
from kept_runs import (
    Case,
    Facts,
    by_key,
    difference_words,
    figures,
    machines,
    markdown,
    mean_words,
    paired,
    read_runs,
    run_cases,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets.add_set_flags(parser, seeds=3)
    parser.add_argument("--folds", type=int, default=5)
    given, settings = sets.parse(parser)
    settings["folds"] = given.folds
    file = given.results / "folds.jsonl"
    if not given.table_only:
        cases = [case for each in sets.read_sets(given) for case in set_cases(given, each, settings)]
        run_cases(file, cases)
    sets.write_tables(given, tables(read_runs(file)))


def set_cases(given: argparse.Namespace, chosen: sets.Set, settings: dict[str, Any]) -> list[Case]:
    """The ensemble and the one network of each seed."""
    cases = []
    for seed in range(given.seeds):
        for folds in (settings["folds"], 0):
            own = {**settings, "folds": folds, "resamples": 1000}
            words = {"set": chosen.name, "network": chosen.network["backbone"], "counts": chosen.counts}
            key = {
                **words,
                "flags": sets.flag_words({**settings, "folds": folds}),
                "folds": folds,
                "seed": seed,
            }

            def run(_: Path, own: Any = own, seed: int = seed, folds: int = folds) -> Facts:
                # a folder that outlives a kill, so that members that were trained stay
                out = given.results / f"folds-{chosen.name}-{folds}-{seed}"
                return facts_of(chosen.fit(out, chosen.recipe("default", **own, seed=seed), resume=True))

            cases.append(Case(key, run))
    return cases


def facts_of(record: Any) -> Facts:
    """A run's figures; of an ensemble the members' too, and the difference between the two."""
    facts = figures(record)
    if record.members:
        difference = record.ensemble.test_difference
        facts["members"] = [member.test_map for member in record.members]
        facts["mean_member"] = record.ensemble.mean_test_map
        facts["difference"] = difference and difference["macro"]["average_precision"]
    return facts


def tables(runs: list[Facts]) -> str:
    return "\n\n".join(set_table(group) for group in by_key(runs, "set", "network", "counts").values())


def set_table(runs: list[Facts]) -> str:
    """A row a seed: the one network, the members, the ensemble, and what it gains; then the means."""
    single = {run["key"]["seed"]: run for run in runs if not run["key"]["folds"]}
    ensembles = sorted((run for run in runs if run["key"]["folds"]), key=lambda run: run["key"]["seed"])
    rows = []
    for run in ensembles:
        seed = run["key"]["seed"]
        gain = run["difference"]
        interval = (
            "" if not gain or not gain["interval"] else " ({:+.3f} to {:+.3f})".format(*gain["interval"])
        )
        cells: list[Any] = [seed, f"{single[seed]['test_map']:.3f}" if seed in single else ""]
        cells += [f"{run['mean_member']:.3f} ({min(run['members']):.3f} to {max(run['members']):.3f})"]
        cells += [f"{run['test_map']:.3f}", f"{run['test_map'] - run['mean_member']:+.3f}{interval}"]
        rows.append([*cells, f"{run['seconds']:.0f}"])
    alone = list(single.values())
    rows.append(
        [
            "mean",
            mean_words(run["test_map"] for run in alone),
            mean_words(run["mean_member"] for run in ensembles),
            mean_words(run["test_map"] for run in ensembles),
            difference_words(*([run[name] for run in ensembles] for name in ("test_map", "mean_member"))),
            mean_words((run["seconds"] for run in ensembles), "{:.0f}"),
        ]
    )
    columns = ["seed", "one network", "mean member", "ensemble", "ensemble less its mean member (95%)", "s"]
    first = (ensembles or runs)[0]["key"]
    more = difference_words(*paired(ensembles, alone, "test_map"))
    said = f"\n\nThe ensemble less the one network of the same seed: {more}." if more else ""
    return (
        f"### {first['set']}: {first['counts']} images, {first['network']}\n\n{machines(runs)}. `{first['flags']}`\n\n"
        + markdown(columns, rows)
        + said
    )


if __name__ == "__main__":
    main()
