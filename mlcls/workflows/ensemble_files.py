"""The bundle of an ensemble: its files and its members' in their places, its pictures, and what is said of it."""

import csv
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlcls import durable
from mlcls.bundle.ensemble import ensemble_manifest, stage_members
from mlcls.bundle.files import GROUPS, MEMBERS, METRICS, THRESHOLDS, Bundle, write_thresholds
from mlcls.bundle.staging import staged_bundle
from mlcls.bundle.unfinished import MANIFEST, is_unfinished, remove_checkpoint
from mlcls.bundle.writing import is_of_the_disk
from mlcls.labels.split import write_split
from mlcls.recipe import Recipe, read_recipe, recipe_toml
from mlcls.reports.console import say
from mlcls.reports.console_chance import show_chance_verdict
from mlcls.reports.console_folds import show_members
from mlcls.reports.console_scores import show_evaluation
from mlcls.reports.html import Picture
from mlcls.reports.record import Record, from_json, to_json
from mlcls.scoring.groups import shared_groups, write_groups
from mlcls.scoring.predictions import write_predictions
from mlcls.sealed import digest_of, seal
from mlcls.workflows.data import LabelledImages, subset_counts
from mlcls.workflows.finishing import REPORT, draw_all, judged_subset
from mlcls.workflows.folded import Folded
from mlcls.workflows.judging import SUBSET_NAMES, Judged, Judgement
from mlcls.workflows.reporting import draw_labels, draw_scores, draw_thresholds, report_page
from mlcls.workflows.signals import Stop

if TYPE_CHECKING:
    from rich.console import Console

RECIPE, FOLDS_FILE = "recipe.toml", "folds.csv"
OUT_OF_FOLD = (
    "out of fold: each image outside of the test subset by the one member that was not trained on it"
)


def write_ensemble(
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
    data, names = folded.data, [str(name) for name in folded.data.table.images]
    undrawn: Exception | None = None
    manifest = ensemble_manifest(members, folded.names, seed=recipe.seed)
    manifest["tta"] = members[0].tta
    with staged_bundle(out, manifest) as folder:
        stage_members(folder, members, folded.names)
        for member, name in zip(members, folded.names, strict=True):
            _settle(folder / MEMBERS / name, out / MEMBERS / name, member, data)
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
            if is_unfinished(out) and (stop.asked or is_of_the_disk(error, folder)):
                raise  # the members are kept, and become a whole bundle once there is room
            undrawn = error  # raised again when the bundle stands: a picture does not cost the training
    remove_checkpoint(out)
    if undrawn is not None:
        raise undrawn


def _settle(staged: Path, place: Path, member: Bundle, data: LabelledImages) -> None:
    """Have a staged member say where its split stands from now on, so that its recipe repeats it.

    Args:
        staged: its folder, whose files may be second names of the files that it was trained to: they are replaced.
        place: where it will stand.
        data: of the run, which says whether a command could repeat it.
    """
    split = f"file:{place / 'split.csv'}"
    recipe = dataclasses.replace(Recipe(**read_recipe(str(staged / RECIPE))), split=split)
    record = from_json((staged / METRICS).read_bytes(), str(staged / METRICS))
    record = dataclasses.replace(record, recipe={**record.recipe, "split": split})
    comment = _repeat(data, place, "member of folds")
    files = dict(member.manifest["files"])
    for name, text in ((RECIPE, recipe_toml(recipe, comment)), (METRICS, to_json(record))):
        content = text.encode("utf-8")
        durable.write_flushed(staged / name, content)
        files[name] = digest_of(content)
    durable.write_flushed(staged / MANIFEST, seal({**member.manifest, "files": files}))


def _write_folds(path: Path, names: Sequence[str], folded: Folded) -> None:
    """`image,fold` for every image outside of the test subset. UTF-8, LF."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "fold"])
        for row, fold in zip(folded.rows.tolist(), folded.of_row.tolist(), strict=True):
            writer.writerow([names[row], folded.names[fold]])


def _repeat(data: LabelledImages, out: Path, what: str = "run") -> str:
    if data.table.report.source == "DataFrame":
        return f"of a {what} on a DataFrame: mlcls.fit(build_recipe(this file), labels=the same DataFrame) repeats it"
    return f"repeats this {what}: python -m mlcls.train --recipe {out / RECIPE} --out ANOTHER_FOLDER"


def _draw(
    folder: Path, data: LabelledImages, record: Record, judgement: Judgement, console: "Console"
) -> str:
    """The pictures of an ensemble, in the bundle's folder, and the text of the page that shows them."""
    subset = judged_subset(judgement)
    judged = {
        name: Judged(predictions, judgement.raw[name], data.table.images_dir)
        for name, predictions in judgement.predictions.items()
    }
    rows = {"train": data.split.train, "val": data.split.val, "test": data.split.test}
    labels = {name: data.table.labels[indices] for name, indices in rows.items() if len(indices)}
    on = f"{SUBSET_NAMES[subset]} subset" if subset == "test" else "out of fold"
    parts: list[Callable[[], tuple[Picture, ...]]] = [
        partial(draw_scores, folder, record, judged[subset], subset, on),
        partial(draw_thresholds, folder, record, judged["val"]),
        partial(draw_labels, folder, data.table.attributes, labels),
    ]
    pictures = draw_all(console, parts)
    return report_page(
        record,
        judged[subset],
        pictures,
        subset=subset,
        counts=subset_counts(data),
        notes=[OUT_OF_FOLD] if subset == "val" else [],
    )


def show_ensemble(
    console: "Console", record: Record, judgement: Judgement, out: Path, seconds: float
) -> None:
    """What the run has come to, on the console."""
    subset = judged_subset(judgement)
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
