"""Measures what helps a rare attribute: balanced sampling, pos_weight, or stronger augmentation of its images.

    python benchmarks/rare_labels.py --results DIR --ppe FOLDER --digits --scenes --weights FILE
    python benchmarks/rare_labels.py --results DIR --table-only

On ppe the rare attribute is the one with the fewest positives in train. On digits and scenes one is made rare: images
of train and val that have it are left out until it is present in --share of what is left; test stays whole.
Each remedy alone over plain training (shuffled, pos_weight none, one augmentation for all), and all three together.
Flags that are not this script's are flags of train for every run. A killed benchmark goes on with the same command.
"""

import argparse
import dataclasses
from typing import Any

import numpy as np
import pandas as pd
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

PLAIN: dict[str, Any] = {"sampler": "shuffle", "pos_weight": "none", "augment_rare": "none"}
REMEDIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "balanced sampling": {"sampler": "balanced"},
    "pos_weight": {"pos_weight": "auto"},
    "augment_rare": {"augment_rare": "strong"},
    "all three": {"sampler": "balanced", "pos_weight": "auto", "augment_rare": "strong"},
}
MADE_RARE = {"digits": "has_7", "scenes": "striped"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets.add_set_flags(parser, seeds=5)
    parser.add_argument("--share", type=float, default=0.03, help="of the attribute that is made rare")
    parser.add_argument(
        "--remedies", nargs="+", choices=list(REMEDIES), default=list(REMEDIES), metavar="NAME"
    )
    given, settings = sets.parse(parser)
    file = given.results / "rare-labels.jsonl"
    if not given.table_only:
        cases = [case for each in sets.read_sets(given) for case in set_cases(given, each, settings)]
        run_cases(file, cases)
    sets.write_tables(given, tables(read_runs(file)))


def set_cases(given: argparse.Namespace, chosen: sets.Set, settings: dict[str, Any]) -> list[Case]:
    kind = chosen.name.split("-")[0]
    if kind in MADE_RARE:
        attribute = MADE_RARE[kind]
        table = make_rare(chosen.table, attribute, given.share)
        chosen = dataclasses.replace(chosen, table=table)
    else:
        attribute = rarest(chosen)
    train = chosen.table[chosen.table.subset == "train"]
    positives, known = (train[attribute] == "1").sum(), (train[attribute] != "NA").sum()
    cases = []
    for seed in range(given.seeds):
        for remedy in given.remedies:
            words = {
                "counts": chosen.counts,
                "rare": f"{attribute}, {positives} of {known}",
                "flags": sets.flag_words(settings),
                "remedy": remedy,
            }
            case = sets.plain_case(chosen, words, seed, {**PLAIN, **settings, **REMEDIES[remedy]})
            cases.append(case)
    return cases


def rarest(chosen: sets.Set) -> str:
    """The attribute with the fewest positives in train."""
    train = chosen.table[chosen.table.subset == "train"]
    return min(chosen.attributes, key=lambda name: (train[name] == "1").sum())


def make_rare(table: pd.DataFrame, attribute: str, share: float) -> pd.DataFrame:
    """The table with the attribute present in at most `share` of the known labels of train and of val each.

    Images that have it are left out by a draw; one stays at least.
    """
    rng = np.random.default_rng(0)
    kept = np.ones(len(table), dtype=np.bool_)
    for subset in ("train", "val"):
        own = (table.subset == subset).to_numpy()
        with_it = np.flatnonzero(own & (table[attribute] == "1").to_numpy())
        without = int((own & (table[attribute] == "0").to_numpy()).sum())
        count = max(int(share / (1 - share) * without), 1)
        kept[rng.permutation(with_it)[count:]] = False
    return table[kept].reset_index(drop=True)


def tables(runs: list[Facts]) -> str:
    groups = by_key(runs, "set", "network", "counts", "rare", "flags")
    return "\n\n".join(set_table(group) for group in groups.values())


def set_table(runs: list[Facts]) -> str:
    """A row for each remedy: AP of the rare attribute and macro AP on test, and both less plain training's."""
    first = runs[0]["key"]
    rare = first["rare"].split(",")[0]
    runs = [{**run, "rare_ap": run["test_ap"][rare]} for run in runs]
    groups = {remedy: group for (remedy,), group in by_key(runs, "remedy").items()}
    plain = groups.get("plain", [])
    rows = []
    for remedy, group in groups.items():
        cells = [remedy]
        for name in ("rare_ap", "test_map"):
            cells.append(mean_words(run[name] for run in group if run[name] is not None))
            cells.append("" if remedy == "plain" else difference_words(*paired(group, plain, name)))
        rows.append([*cells, mean_words((run["seconds"] for run in group), "{:.0f}")])
    columns = [
        "remedy",
        f"AP of `{rare}`",
        "less plain (95%)",
        "macro AP",
        "less plain (95%)",
        "s",
    ]
    about = f"; `{rare}` in{first['rare'].split(',')[1]} known labels of train"
    return (
        heading(runs, about)
        + "Test AP, means over the seeds with the lowest and the highest; differences with Student's interval.\n\n"
        + markdown(columns, rows)
    )


if __name__ == "__main__":
    main()
