"""The best trial's recipe trained again over several seeds, each tested once: what its figure is worth."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from mlcls.bundle.files import METRICS, load_bundle, read_verified
from mlcls.bundle.unfinished import MANIFEST, is_unfinished
from mlcls.errors import BundleError
from mlcls.recipe import Recipe, recipe_values
from mlcls.reports.record import Record, from_json
from mlcls.reports.trial_rows import SeedRow
from mlcls.workflows.identity import FREE

BEST_FOLDER = "best"


def train_again(
    fit: Callable[..., Record], recipe: Recipe, out: Path, seeds: int, on_seed: Callable[[SeedRow], None]
) -> list[SeedRow]:
    """Train a recipe with `seeds` seeds from its own on, in `out/best/seed-0` and so on; test each.

    What stands there of the same recipe is kept, and an unfinished run goes on.

    Args:
        fit: `mlcls.workflows.training.fit`, or what calls it.
        on_seed: called with each as it ends.

    Raises:
        MlclsError, Interrupted: as `fit`.
    """
    rows = []
    for seed in range(recipe.seed, recipe.seed + seeds):
        folder = out / BEST_FOLDER / f"seed-{seed}"
        rows.append(_row(seed, folder, _run(fit, dataclasses.replace(recipe, seed=seed), folder)))
        on_seed(rows[-1])
    return rows


def _run(fit: Callable[..., Record], recipe: Recipe, folder: Path) -> Record:
    found = _finished(folder, recipe)
    if found is not None:
        return found
    if is_unfinished(folder) and not (folder / MANIFEST).exists():
        try:
            return fit(recipe, out=folder, resume=True)
        except BundleError:  # of another recipe, or damaged: it is begun anew
            pass
    return fit(recipe, out=folder, overwrite=True)


def _finished(folder: Path, recipe: Recipe) -> Record | None:
    """The record of a run of this recipe that stands in a folder."""
    record = record_in(folder)
    if record is None:
        return None
    for name, value in recipe_values(recipe).items():
        resolved = value is None or value == "auto"  # in the record stands what became of it
        if not resolved and name not in FREE and record.recipe.get(name) != value:
            return None
    return record


def record_in(folder: Path) -> Record | None:
    """The record of the bundle that stands in a folder; None where none does, or a damaged one."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        return from_json(read_verified(load_bundle(folder), METRICS), str(folder / METRICS))
    except BundleError:
        return None


def _row(seed: int, folder: Path, record: Record) -> SeedRow:
    kept = next((row for row in record.epochs if row.epoch == record.best_epoch), None)
    test = (record.evaluation.get("test") or {}).get("macro") or {}
    return SeedRow(
        seed=seed,
        folder=str(folder),
        val_map=None if kept is None else kept.val_map,
        test_map=test.get("average_precision"),
        test_auroc=test.get("auroc"),
        test_f1=test.get("f1"),
        seconds=record.seconds,
    )
