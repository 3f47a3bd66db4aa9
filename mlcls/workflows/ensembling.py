"""From trained members to one bundle that averages them: out-of-fold predictions, thresholds, and every figure."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import mlcls
from mlcls.bundle.ensemble import mean_probabilities
from mlcls.bundle.files import Bundle, load_bundle
from mlcls.recipe import Recipe, recipe_values
from mlcls.reports.progress import progress
from mlcls.reports.record import ModelFacts, Record
from mlcls.reports.record_members import EnsembleFacts, MemberFigures
from mlcls.scoring.differences import difference_to_mean
from mlcls.scoring.groups import shared_groups
from mlcls.scoring.metrics import FIGURES
from mlcls.scoring.predictions import Predictions
from mlcls.workflows.ensemble_files import OUT_OF_FOLD, show_ensemble, write_ensemble
from mlcls.workflows.evaluation import saved_predictions
from mlcls.workflows.finishing import FAILED
from mlcls.workflows.folded import Folded
from mlcls.workflows.judging import Judgement, Scored, judge, judging_steps
from mlcls.workflows.signals import Stop

if TYPE_CHECKING:
    from rich.console import Console

PREDICTIONS = {
    "val": OUT_OF_FOLD,
    "test": "the mean of the members' calibrated probabilities",
}


def make_ensemble(
    recipe: Recipe,
    folded: Folded,
    records: Sequence[Record],
    folders: Sequence[Path],
    out: Path,
    *,
    command: str,
    started: float,
    console: "Console",
    stop: Stop,
) -> Record:
    """Judge the members' predictions together, and write, draw and show the bundle that averages them.

    Thresholds are tuned on the out-of-fold predictions; no probability is calibrated again, since each member's are.

    Args:
        records, folders: of the members, in the order of the folds.
        started: when the run began, by `time.monotonic`, less what it had taken before.
        stop: whether a person has ended the run meanwhile.
    """
    members = [load_bundle(folder) for folder in folders]
    groups = folded.data.groups
    val = Scored(_out_of_fold(folded, members), shared_groups(groups[folded.rows]))
    tests = _of_test(members)
    scored = None
    if tests:
        mean = dataclasses.replace(tests[0], scores=mean_probabilities([one.scores for one in tests]))
        scored = Scored(mean, shared_groups(groups[folded.data.split.test]))
    own = dataclasses.replace(recipe, calibration="none")
    with progress(console, "thresholds, intervals", judging_steps(scored), "steps") as advance:
        judgement = judge(own, val, scored, None, advance)
    recipe = _resolved(recipe, records)
    record = Record(
        mlcls=mlcls.__version__,
        seed=recipe.seed,
        command=command,
        data=folded.data.facts,
        model=_network(records),
        recipe=recipe_values(recipe),
        thresholds=tuple(dataclasses.asdict(threshold) for threshold in judgement.thresholds),
        stopped_because=_stopped(folded, records),
        evaluation=judgement.evaluation,
        members=_member_figures(folded, records),
        ensemble=EnsembleFacts(
            predictions={subset: PREDICTIONS[subset] for subset in judgement.predictions},
            mean_val_map=_mean_of([_macro_ap(one, "val") for one in records]),
            mean_test_map=_mean_of([_macro_ap(one, "test") for one in records]),
            test_difference=None
            if scored is None
            else _difference(recipe, members, tests, scored, judgement),
        ),
        seconds=round(time.monotonic() - started, 3),
    )
    write_ensemble(out, recipe, folded, members, record, judgement, console, stop)
    show_ensemble(console, record, judgement, out, time.monotonic() - started)
    return record


def _out_of_fold(folded: Folded, members: Sequence[Bundle]) -> Predictions:
    """Each row's prediction by the member that was validated on it, in the table's order."""
    table = folded.data.table
    scores = np.full((len(folded.rows), len(table.attributes)), np.nan, dtype=np.float32)
    for number, member in enumerate(members):
        found, _ = saved_predictions(member, "val")
        row_of = {name: row for row, name in enumerate(found.images)}
        place = np.flatnonzero(folded.of_row == number)
        order = [row_of[name] for name in folded.data.names(folded.rows[place])]
        scores[place] = found.scores[order]
    return Predictions(folded.data.names(folded.rows), table.attributes, scores, table.labels[folded.rows])


def _of_test(members: Sequence[Bundle]) -> list[Predictions]:
    """The members' predictions of the test subset; none where one of them has not scored it."""
    if any("predictions-test.csv" not in member.manifest["files"] for member in members):
        return []
    return [saved_predictions(member, "test")[0] for member in members]


def _resolved(recipe: Recipe, records: Sequence[Record]) -> Recipe:
    """The recipe with every `auto` resolved that all members have alike."""
    names = ("device", "image_size", "workers", "precision", "monitor")
    first = records[0].recipe
    alike = [name for name in names if all(record.recipe[name] == first[name] for record in records)]
    return dataclasses.replace(recipe, **{name: first[name] for name in alike})


def _stopped(folded: Folded, records: Sequence[Record]) -> str:
    """How the members' trainings ended, in a sentence."""
    failed = [
        f"{name}: {(one.stopped_because or '').removeprefix(FAILED)}"
        for name, one in zip(folded.names, records, strict=True)
        if (one.stopped_because or "").startswith(FAILED)
    ]
    return FAILED + "; ".join(failed) if failed else f"all {len(records)} members are done"


def _network(records: Sequence[Record]) -> ModelFacts:
    """The network that all members are."""
    model = records[0].model
    note = f"{len(records)} such networks, each trained on all folds but its own; their probabilities are averaged"
    return dataclasses.replace(model, notes=(note, *model.notes))


def _macro_ap(record: Record, subset: str) -> float | None:
    entry = record.evaluation.get(subset)
    return None if entry is None else entry["macro"]["average_precision"]


def _member_figures(folded: Folded, records: Sequence[Record]) -> tuple[MemberFigures, ...]:
    figures = []
    for number, (name, record) in enumerate(zip(folded.names, records, strict=True)):
        val = len(folded.fold(number))
        figures.append(
            MemberFigures(
                name=name,
                seed=record.seed,
                train=len(folded.rows) - val,
                val=val,
                epochs=len(record.epochs),
                best_epoch=record.best_epoch,
                stopped_because=record.stopped_because,
                seconds=record.seconds,
                val_map=_macro_ap(record, "val"),
                test_map=_macro_ap(record, "test"),
            )
        )
    return tuple(figures)


def _mean_of(values: Sequence[float | None]) -> float | None:
    """None where one of them is undefined: a mean of fewer would be of others than the ensemble's figure."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _difference(
    recipe: Recipe,
    members: Sequence[Bundle],
    tests: Sequence[Predictions],
    scored: Scored,
    judgement: Judgement,
) -> dict[str, Any] | None:
    """The ensemble's macro figures less the mean of its members', with intervals; None without resamples."""
    if not recipe.resamples:
        return None
    test = scored.predictions
    found = difference_to_mean(
        test.labels,
        (test.scores, judgement.threshold_values()),
        [(one.scores, member.threshold_values()) for one, member in zip(tests, members, strict=True)],
        attributes=test.attributes,
        groups=scored.groups,
        resamples=recipe.resamples,
        seed=recipe.seed,
    )
    return {
        "level": found["level"],
        "resamples": found["resamples"],
        "unit": found["unit"],
        "macro": {name: found["macro"][name] for name in FIGURES},
    }
