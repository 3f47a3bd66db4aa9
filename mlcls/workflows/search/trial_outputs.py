"""What a search leaves in its folder: rows of its trials, `trials.csv`, `best.toml`, pictures and the report."""

import csv
import dataclasses
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from mlcls import durable
from mlcls.recipe import Recipe, recipe_toml, recipe_values
from mlcls.reports.html import Picture
from mlcls.reports.trial_rows import TABLE, SeedRow, TrialRow
from mlcls.workflows.search.search_space import Range, apply_values
from mlcls.workflows.search.study import MAXIMIZED, Shared

CSV, BEST, REPORT = "trials.csv", "best.toml", "report.html"
HISTORY, SETTINGS, IMPORTANCE = "trials_history.png", "trials_settings.png", "trials_importance.png"
SEEDS = "seeds.csv"
FEW = 5  # complete trials below which no importance is told
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def trial_folder(out: Path, number: int) -> Path:
    """The folder of a trial's bundle; `number` counts from 0, as Optuna does."""
    return out / f"trial-{number + 1:04d}"


def recipe_of_trial(base: Recipe, trial: FrozenTrial) -> Recipe:
    """The recipe that a trial runs. Raises RecipeError: its values do not go together."""
    return apply_values(base, {**trial.user_attrs.get("fields", {}), **trial.params})


def rows_of(shared: Shared, base: Recipe, metric: str) -> list[TrialRow]:
    """Every trial of the study, in its order."""
    trials = shared.study.get_trials(deepcopy=False)
    followed = {
        int(trial.user_attrs["again_of"]): trial.number for trial in trials if "again_of" in trial.user_attrs
    }
    return [_row(trial, base, followed.get(trial.number), metric) for trial in trials]


def _row(trial: FrozenTrial, base: Recipe, again: int | None, metric: str) -> TrialRow:
    known: dict[str, Any] = trial.user_attrs
    state, reason = _STATES[trial.state], known.get("reason")
    if again is not None:
        state, reason = "again", f"{reason}; its values are tried again as trial {again + 1}"
    values = {**known.get("fields", {}), **trial.system_attrs.get("fixed_params", {}), **trial.params}
    columns = {name: getattr(base, name) for name in TABLE.values()}
    return TrialRow(
        number=trial.number + 1,
        name=known.get("name"),
        state=state,
        settings={**columns, **values},
        value=trial.value if trial.state == TrialState.COMPLETE else known.get(metric),
        val_loss=known.get("val_loss"),
        val_map=known.get("val_map"),
        val_f1=known.get("val_f1"),
        best_epoch=known.get("best_epoch"),
        epochs=known.get("epochs"),
        seconds=known.get("seconds"),
        folder=_shown(known["folder"]) if trial.state == TrialState.COMPLETE and "folder" in known else None,
        reason=reason,
        started=None if trial.datetime_start is None else trial.datetime_start.timestamp(),
        curve=tuple(sorted(trial.intermediate_values.items())),
    )


def _shown(folder: str) -> str:
    """A path below the working folder, in short."""
    relative = os.path.relpath(folder)
    return folder if relative.startswith("..") else relative


def best_trial(shared: Shared) -> FrozenTrial | None:
    """The complete trial with the best figure, of several the one with the least loss; None where none is complete."""
    complete = shared.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return None
    sign = -1.0 if shared.study.direction == optuna.study.StudyDirection.MAXIMIZE else 1.0
    return min(complete, key=lambda trial: (sign * float(trial.value or 0.0), _loss(trial), trial.number))


def _loss(trial: FrozenTrial) -> float:
    loss = trial.user_attrs.get("val_loss")
    return math.inf if loss is None else float(loss)


def write_tables(out: Path, shared: Shared, base: Recipe, metric: str) -> list[TrialRow]:
    """Write `trials.csv` and `best.toml` as the study stands now; hold `shared.turn`. Returns the rows.

    Raises:
        OSError: they cannot be written.
    """
    rows = rows_of(shared, base, metric)
    durable.write_whole(out / CSV, _csv(rows, metric).encode("utf-8"))
    best = best_trial(shared)
    if best is not None:
        comment = (
            f"trial {best.number + 1} of a search, the best of {sum(row.state == 'complete' for row in rows)}: "
            f"{metric} {best.value:.6g}; it varied {', '.join(best.params)}\n"
            f"repeats it: python -m mlcls.train --recipe {out / BEST} --out ANOTHER_FOLDER\n"
            "relative paths below count from the folder that the search was started in: train there"
        )
        text = recipe_toml(recipe_of_trial(base, best), comment)
        durable.write_whole(out / BEST, text.encode("utf-8"))
    return rows


def _csv(rows: Sequence[TrialRow], metric: str) -> str:
    """A row a trial in their order; what is not known is empty."""
    settings = list(dict.fromkeys(name for row in rows for name in row.settings))
    figures = ("val_loss", "val_map", "val_f1", "best_epoch", "epochs", "seconds", "folder", "reason")
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["trial", "name", "state", "objective", "value", *settings, *figures])
    for row in rows:
        cells = [row.number, row.name, row.state, metric, row.value]
        cells += [row.settings.get(name) for name in settings] + [getattr(row, name) for name in figures]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return file.getvalue()


def importance_of(shared: Shared) -> dict[str, float] | None:
    """How much of the figure each setting decides, the largest first; None where too few trials say.

    PED-ANOVA (Watanabe, Bansal and Hutter 2023), of the complete trials: shares that sum to 1.
    """
    complete = shared.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < FEW or len({trial.value for trial in complete}) < 2:
        return None
    return dict(optuna.importance.get_param_importances(shared.study))


def write_report(
    out: Path, shared: Shared, base: Recipe, metric: str, seeds: Sequence[SeedRow], command: str
) -> None:
    """Draw the pictures and write the report, and `seeds.csv` where there are seeds.

    Raises:
        OutputError, OSError: they cannot be written.
    """
    from mlcls.reports.html_trials import trials_html  # with matplotlib: the last thing of a search
    from mlcls.reports.plots_trials import trials_history, trials_importance, trials_settings

    rows, maximize = rows_of(shared, base, metric), MAXIMIZED[metric]
    trials_history(out / HISTORY, rows, metric=metric, maximize=maximize)
    about = (
        f"A trial counts as the epoch whose weights it kept (--monitor {base.monitor}); others may be better."
    )
    pictures = [_picture(out / HISTORY, "The search", about)]
    best = best_trial(shared)
    if best is not None:
        varied = {name: isinstance(one, Range) and one.log for name, one in shared.space.items()}
        trials_settings(out / SETTINGS, rows, varied, metric=metric, maximize=maximize)
        about = (
            "The figure of each complete trial over each setting; the paler, the earlier; the best in a ring."
        )
        pictures.append(_picture(out / SETTINGS, "Settings", about))
    importance = importance_of(shared)
    if importance is not None:
        trials_importance(out / IMPORTANCE, importance)
        about = "How much each setting moves the figure among the good trials; from few trials a rough guess."
        pictures.append(_picture(out / IMPORTANCE, "What decides", about))
    page = trials_html(
        rows,
        seeds,
        metric=metric,
        maximize=maximize,
        recipe=None if best is None else recipe_values(recipe_of_trial(base, best)),
        pictures=pictures,
        command=command,
    )
    durable.write_whole(out / REPORT, page.encode("utf-8"))
    if seeds:
        durable.write_whole(out / SEEDS, _seeds_csv(seeds).encode("utf-8"))


def _seeds_csv(seeds: Sequence[SeedRow]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([field.name for field in dataclasses.fields(SeedRow)])
    writer.writerows(["" if cell is None else cell for cell in dataclasses.astuple(row)] for row in seeds)
    return file.getvalue()


def _picture(path: Path, title: str, caption: str) -> Picture:
    return Picture(title=title, caption=caption, png=path.read_bytes())
