"""From trained members to one bundle that averages them: out-of-fold predictions, thresholds, figures, pictures."""

import csv
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import mlcls
from mlcls import durable
from mlcls.bundle.ensemble import ensemble_manifest, mean_probabilities, stage_members
from mlcls.bundle.files import GROUPS, MEMBERS, METRICS, THRESHOLDS, Bundle, load_bundle, write_thresholds
from mlcls.bundle.staging import staged_bundle
from mlcls.bundle.unfinished import MANIFEST, is_unfinished, remove_checkpoint
from mlcls.bundle.writing import FULL
from mlcls.labels.split import Split, write_split
from mlcls.recipe import Recipe, read_recipe, recipe_toml, recipe_values
from mlcls.reports.console import say
from mlcls.reports.console_chance import show_chance_verdict
from mlcls.reports.console_folds import show_members
from mlcls.reports.console_scores import show_evaluation
from mlcls.reports.html import Picture
from mlcls.reports.progress import progress
from mlcls.reports.record import Record, SplitCounts, from_json, to_json
from mlcls.reports.record_members import EnsembleFacts, MemberFigures
from mlcls.scoring.differences import difference_to_mean
from mlcls.scoring.groups import shared_groups, write_groups
from mlcls.scoring.metrics import FIGURES
from mlcls.scoring.predictions import Predictions, write_predictions
from mlcls.sealed import digest_of, seal
from mlcls.workflows.data import LabelledImages, subset_counts
from mlcls.workflows.evaluation import saved_predictions
from mlcls.workflows.finishing import FAILED, REPORT
from mlcls.workflows.judging import SUBSET_NAMES, Judged, Judgement, Scored, judge, judging_steps
from mlcls.workflows.reporting import draw_labels, draw_scores, draw_thresholds, report_page
from mlcls.workflows.signals import Stop

if TYPE_CHECKING:
    from rich.console import Console

RECIPE, FOLDS_FILE = "recipe.toml", "folds.csv"
PREDICTIONS = {
    "val": "out of fold: each image outside of the test subset by the one member that was not trained on it",
    "test": "the mean of the members' calibrated probabilities",
}


@dataclass(frozen=True)
class Folded:
    """The images of a run of folds.

    Attributes:
        data: with the split that the recipe asks for; its training and validation rows together are in the folds.
        rows: int [n], these rows, in the table's order.
        of_row: int64 [n], the fold of each.
        names: of the folds, and of the members that are validated on them.
        notes: what some fold lacks.
    """

    data: LabelledImages
    rows: NDArray[np.intp]
    of_row: NDArray[np.int64]
    names: tuple[str, ...]
    notes: tuple[str, ...]

    def fold(self, number: int) -> NDArray[np.intp]:
        """The rows of a fold."""
        rows: NDArray[np.intp] = self.rows[self.of_row == number]
        return rows

    def member(self, number: int) -> LabelledImages:
        """The images as a member meets them: validated on its fold, trained on the others, the test subset the same."""
        split = Split(self.rows[self.of_row != number], self.fold(number), self.data.split.test)
        counts = SplitCounts(len(split.train), len(split.val), len(split.test))
        return dataclasses.replace(
            self.data, split=split, facts=dataclasses.replace(self.data.facts, split=counts)
        )


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
    tests = [_of_test(folded.data, member) for member in members]
    test = _mean(folded.data, [one for one in tests if one is not None]) if all(tests) else None
    scored = None if test is None else Scored(test, shared_groups(groups[folded.data.split.test]))
    own = dataclasses.replace(recipe, calibration="none")
    with progress(console, "thresholds, intervals", judging_steps(scored), "steps") as advance:
        judgement = judge(own, val, scored, None, advance)
    recipe = _resolved(recipe, records[0])
    record = Record(
        mlcls=mlcls.__version__,
        seed=recipe.seed,
        command=command,
        data=folded.data.facts,
        model=records[0].model,
        recipe=recipe_values(recipe),
        thresholds=tuple(dataclasses.asdict(threshold) for threshold in judgement.thresholds),
        stopped_because=_stopped(folded, records),
        evaluation=judgement.evaluation,
        members=_member_figures(folded, records),
        ensemble=_beside_members(recipe, members, records, [one for one in tests if one], scored, judgement),
    )
    record = dataclasses.replace(record, seconds=round(time.monotonic() - started, 3))
    _write(out, recipe, folded, members, record, judgement, console, stop)
    _show(console, record, judgement, out, time.monotonic() - started)
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


def _of_test(data: LabelledImages, member: Bundle) -> Predictions | None:
    """A member's predictions of the test subset, in the table's order; None where it was not scored."""
    if "predictions-test.csv" not in member.manifest["files"]:
        return None
    return saved_predictions(member, "test")[0]


def _mean(data: LabelledImages, tests: Sequence[Predictions]) -> Predictions | None:
    if not tests:
        return None
    return dataclasses.replace(tests[0], scores=mean_probabilities([one.scores for one in tests]))


def _resolved(recipe: Recipe, first: Record) -> Recipe:
    """The recipe with every `auto` resolved that all members have alike."""
    names = ("device", "image_size", "workers", "precision")
    return dataclasses.replace(recipe, **{name: first.recipe[name] for name in names})


def _stopped(folded: Folded, records: Sequence[Record]) -> str:
    """How the members' trainings ended, in a sentence."""
    failed = [
        f"{name}: {(one.stopped_because or '').removeprefix(FAILED)}"
        for name, one in zip(folded.names, records, strict=True)
        if (one.stopped_because or "").startswith(FAILED)
    ]
    return FAILED + "; ".join(failed) if failed else f"all {len(records)} members are done"


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


def _beside_members(
    recipe: Recipe,
    members: Sequence[Bundle],
    records: Sequence[Record],
    tests: Sequence[Predictions],
    scored: Scored | None,
    judgement: Judgement,
) -> EnsembleFacts:
    """The members' means, and what the ensemble has over them on the test subset."""
    difference: dict[str, Any] | None = None
    if scored is not None:
        test = judgement.predictions["test"]
        difference = _difference(recipe, members, tests, test, scored, judgement)
    return EnsembleFacts(
        predictions={subset: PREDICTIONS[subset] for subset in judgement.predictions},
        mean_val_map=_mean_of([_macro_ap(record, "val") for record in records]),
        mean_test_map=_mean_of([_macro_ap(record, "test") for record in records]),
        test_difference=difference,
    )


def _mean_of(values: Sequence[float | None]) -> float | None:
    """None where one of them is undefined: a mean of fewer would be of others than the ensemble's figure."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _difference(
    recipe: Recipe,
    members: Sequence[Bundle],
    tests: Sequence[Predictions],
    test: Predictions,
    scored: Scored,
    judgement: Judgement,
) -> dict[str, Any] | None:
    """The ensemble's macro figures less the mean of its members', with intervals; None without resamples."""
    if not recipe.resamples:
        return None
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


def _write(
    out: Path,
    recipe: Recipe,
    folded: Folded,
    members: Sequence[Bundle],
    record: Record,
    judgement: Judgement,
    console: "Console",
    stop: Stop,
) -> None:
    """The bundle in its place, and the runs of its members gone."""
    data, names = folded.data, data_names(folded)
    undrawn: Exception | None = None
    manifest = ensemble_manifest(members, folded.names, seed=recipe.seed)
    manifest["tta"] = members[0].tta
    with staged_bundle(out, manifest) as folder:
        stage_members(folder, members, folded.names)
        for member, name in zip(members, folded.names, strict=True):
            _settle(folder / MEMBERS / name, out / MEMBERS / name, member)
        write_thresholds(folder / THRESHOLDS, judgement.thresholds)
        (folder / RECIPE).write_text(recipe_toml(recipe, _repeat(data, out)), encoding="utf-8")
        (folder / METRICS).write_text(to_json(record), encoding="utf-8")
        write_split(folder / "split.csv", names, data.split)
        _write_folds(folder / FOLDS_FILE, names, folded)
        if shared_groups(data.groups) is not None:
            write_groups(folder / GROUPS, names, data.groups)
        for subset, predictions in judgement.predictions.items():
            write_predictions(folder / f"predictions-{subset}.csv", predictions)
        try:
            page = _draw(folder, data, record, judgement, console)
            (folder / REPORT).write_text(page, encoding="utf-8")
        except Exception as error:
            if is_unfinished(out) and (stop.asked or _is_of_the_disk(error, folder)):
                raise  # the members are kept, and become a whole bundle once there is room
            undrawn = error  # raised again when the bundle stands: a picture does not cost the training
    remove_checkpoint(out)
    if undrawn is not None:
        raise undrawn


def _is_of_the_disk(error: Exception, folder: Path) -> bool:
    if not isinstance(error, OSError):
        return False
    return error.errno in FULL or (error.filename is not None and Path(error.filename).parent == folder)


def _settle(staged: Path, place: Path, member: Bundle) -> None:
    """Have a staged member say where its split stands from now on, so that its recipe repeats it.

    Args:
        staged: its folder, whose files may be second names of the files that it was trained to: they are replaced.
        place: where it will stand.
    """
    split = f"file:{place / 'split.csv'}"
    recipe = dataclasses.replace(Recipe(**read_recipe(str(staged / RECIPE))), split=split)
    record = from_json((staged / METRICS).read_bytes(), str(staged / METRICS))
    record = dataclasses.replace(record, recipe={**record.recipe, "split": split})
    comment = (
        f"repeats this member of folds: python -m mlcls.train --recipe {place / RECIPE} --out ANOTHER_FOLDER"
    )
    files = dict(member.manifest["files"])
    for name, text in ((RECIPE, recipe_toml(recipe, comment)), (METRICS, to_json(record))):
        data = text.encode("utf-8")
        durable.write_flushed(staged / name, data)
        files[name] = digest_of(data)
    durable.write_flushed(staged / MANIFEST, seal({**member.manifest, "files": files}))


def data_names(folded: Folded) -> list[str]:
    """The names of all images, in the table's order."""
    return [str(name) for name in folded.data.table.images]


def _write_folds(path: Path, names: Sequence[str], folded: Folded) -> None:
    """`image,fold` for every image outside of the test subset. UTF-8, LF."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "fold"])
        for row, fold in zip(folded.rows.tolist(), folded.of_row.tolist(), strict=True):
            writer.writerow([names[row], folded.names[fold]])


def _repeat(data: LabelledImages, out: Path) -> str:
    if data.table.report.source == "DataFrame":
        return "of a run on a DataFrame: mlcls.fit(build_recipe(this file), labels=the same DataFrame) repeats it"
    return f"repeats this run: python -m mlcls.train --recipe {out / RECIPE} --out ANOTHER_FOLDER"


def _draw(
    folder: Path, data: LabelledImages, record: Record, judgement: Judgement, console: "Console"
) -> str:
    """The pictures of an ensemble, in the bundle's folder, and the text of the page that shows them."""
    subset = "test" if "test" in judgement.predictions else "val"
    judged = {
        name: Judged(predictions, judgement.raw[name], data.table.images_dir)
        for name, predictions in judgement.predictions.items()
    }
    rows = {"train": data.split.train, "val": data.split.val, "test": data.split.test}
    labels = {name: data.table.labels[indices] for name, indices in rows.items() if len(indices)}
    on = f"{SUBSET_NAMES[subset]} subset" if subset == "test" else "out of fold"
    draw: list[Callable[[], tuple[Picture, ...]]] = [
        partial(draw_scores, folder, record, judged[subset], subset, on),
        partial(draw_thresholds, folder, record, judged["val"]),
        partial(draw_labels, folder, data.table.attributes, labels),
    ]
    pictures: list[Picture] = []
    with progress(console, "drawing", unit="pictures") as advance:
        for part in draw:
            drawn = part()
            pictures += drawn
            advance(len(drawn))
    return report_page(
        record,
        judged[subset],
        pictures,
        subset=subset,
        counts=subset_counts(data),
        what="the images outside of the test subset, out of fold" if subset == "val" else None,
    )


def _show(console: "Console", record: Record, judgement: Judgement, out: Path, seconds: float) -> None:
    """What the run has come to, on the console."""
    subset = "test" if "test" in judgement.predictions else "val"
    entry = record.evaluation[subset] or {}
    title = "Test subset, the ensemble" if subset == "test" else "Out-of-fold predictions"
    show_evaluation(console, title, entry)
    show_members(console, record)
    say(
        console,
        f"saved in {out} after {seconds:.0f} s (open {out / REPORT} in a browser); now: "
        f"python -m mlcls.predict --model {out} --image FILE",
    )
    show_chance_verdict(console, entry, subset, has_test=subset == "test")
