"""Measures what hidden labels cost, by how they are hidden and by what an unknown label counts as (`--na`).

    python benchmarks/hidden_labels.py --results DIR --digits --ppe FOLDER --weights FILE
    python benchmarks/hidden_labels.py --results DIR --table-only

Of the known labels of train and of val (each by itself), a share is made unknown; those of test stay whole.

at random   each label by a draw of its own, whatever it says: annotators who skip cells.
per class   of each attribute equally many labels stay, as far as there are some half of them positives and half
            negatives, wherever they are: an attribute's images were looked for, some that have it and as many that have
            not, and nothing else was looked at. Where one kind has too few, the other fills up. At
            least one of each kind stays.

What is hidden at 50% is hidden at 90% too. Flags that are not this script's are flags of train for every run.
A killed benchmark goes on with the same command.
"""

import argparse
from collections.abc import Callable
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
from numpy.typing import NDArray

SHARES = (0, 50, 90, 98)  # percent
NA = ("ignore", "negative", "selective")
UNKNOWN = "NA"

Cells = NDArray[np.object_]  # [n]: '1', '0' or 'NA'


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets.add_set_flags(parser, seeds=3)
    parser.add_argument("--hide", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY")
    parser.add_argument("--shares", nargs="+", type=int, default=list(SHARES), help="percent that is hidden")
    parser.add_argument("--na-settings", nargs="+", choices=NA, default=list(NA))
    given, settings = sets.parse(parser)
    file = given.results / "hidden-labels.jsonl"
    if not given.table_only:
        run_cases(file, [case for each in sets.read_sets(given) for case in set_cases(given, each, settings)])
    sets.write_tables(given, tables(read_runs(file)))


def set_cases(given: argparse.Namespace, chosen: sets.Set, settings: dict[str, Any]) -> list[Case]:
    """Every share, way and setting; seed by seed, so that a table of few seeds is whole early."""
    cases = []
    for seed in range(given.seeds):
        for share in given.shares:
            for way in given.hide if share else ["nothing hidden"]:
                table = hide(chosen.table, chosen.attributes, way, share / 100, seed) if share else None
                for na in given.na_settings:
                    words = {
                        "counts": chosen.counts,
                        "flags": sets.flag_words(settings),
                        "way": way,
                        "hidden": share,
                        "na": na,
                    }
                    cases.append(sets.plain_case(chosen, words, seed, {**settings, "na": na}, table))
    return cases


def hide(table: pd.DataFrame, attributes: list[str], way: str, share: float, seed: int) -> pd.DataFrame:
    """The table with a share of the known labels of train and of val unknown.

    Args:
        table: with a column `subset`; cells of the attributes '1', '0' or 'NA'.
        way: a key of `WAYS`.
        share: 0 to 1, of each attribute's known labels in expectation (at random), or as near as can be (per class).
        seed: of what is drawn; the same draws for every share.
    """
    table = table.copy()
    for place, subset in enumerate(("train", "val")):
        rows = (table.subset == subset).to_numpy()
        for column, name in enumerate(attributes):
            rng = np.random.default_rng([seed, place, column])
            cells = table.loc[rows, name].to_numpy(dtype=object)
            kept = WAYS[way](cells, share, rng.random(len(cells)))
            table.loc[rows, name] = np.where(kept, cells, UNKNOWN)
    return table


# `fn(cells [n], share, draws [n] in 0..1) -> which stay, bool [n]`
def at_random(cells: Cells, share: float, draws: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (cells != UNKNOWN) & (draws >= share)


def per_class(cells: Cells, share: float, draws: NDArray[np.float64]) -> NDArray[np.bool_]:
    kinds = [cells == "1", cells == "0"]
    there = [int(kind.sum()) for kind in kinds]
    left = round((1 - share) * sum(there))
    positives = min(there[0], max(left // 2, left - there[1], 1))
    negatives = min(there[1], max(left - positives, 1))
    kept = np.zeros(len(cells), dtype=np.bool_)
    for kind, count in zip(kinds, (positives, negatives), strict=True):
        rows = np.flatnonzero(kind)
        kept[rows[np.argsort(-draws[rows], kind="stable")[:count]]] = True
    return kept


WAYS: dict[str, Callable[[Cells, float, NDArray[np.float64]], NDArray[np.bool_]]] = {
    "at random": at_random,
    "per class": per_class,
}


def tables(runs: list[Facts]) -> str:
    return "\n\n".join(
        set_table(group) for group in by_key(runs, "set", "network", "counts", "flags").values()
    )


def set_table(runs: list[Facts]) -> str:
    """A row for each way and share: test macro AP by setting, and each setting less `ignore`."""
    settings = [name for name in NA if any(run["key"]["na"] == name for run in runs)]
    rows = []
    for (way, share), group in sorted(by_key(runs, "way", "hidden").items(), key=lambda item: item[0][::-1]):
        by_setting = {na: members for (na,), members in by_key(group, "na").items()}
        cells: list[Any] = [f"{share}%", way]
        cells += [mean_words(run["test_map"] for run in by_setting.get(na, [])) for na in settings]
        ignored = by_setting.get("ignore", [])
        cells += [
            difference_words(*paired(by_setting.get(na, []), ignored, "test_map"))
            for na in settings
            if na != "ignore"
        ]
        rows.append(cells)
    columns = ["hidden", "how", *(f"`--na {na}`" for na in settings)]
    columns += [f"{na} less ignore (95%)" for na in settings if na != "ignore"]
    return (
        heading(runs)
        + "Test macro AP, means over seeds with the lowest and the highest; differences with Student's interval\n\n"
        + markdown(columns, rows)
    )


if __name__ == "__main__":
    main()
