"""What a search shows: the table at any width, its rows best first, the pictures, the page."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mlcls.reports.console import make_console
from mlcls.reports.console_trials import TrialTable, setting, show_seeds, show_trials, trial_name
from mlcls.reports.html_trials import mean_of, trials_html
from mlcls.reports.plots_trials import history_figure, importance_figure, settings_figure
from mlcls.reports.record import EpochFigures
from mlcls.reports.trial_rows import TABLE, SeedRow, TrialRow, best_first, best_so_far

SCHEDULES = ("step", "plateau", "cosine")


def row(number: int, state: str = "complete", value: float | None = 0.5, **other: object) -> TrialRow:
    settings = {
        "optimizer": ("adam", "adamw")[number % 2], "lr_finetune": 1e-5 * number, "weight_decay": 1e-6 * number,
        "dropout": 0.1 * number, "schedule": SCHEDULES[number % 3], "batch_size": 16 * number, "lr_head": 2e-3 * number,
    }  # fmt: skip
    facts = {"val_loss": None if value is None else 1 - value, "val_map": value, "epochs": 7, "seconds": 12.3}
    curve = () if value is None else ((0, value / 2), (1, value))
    return TrialRow(
        number=number, state=state, value=value, settings=settings, curve=curve, **{**facts, **other}
    )  # type: ignore[arg-type]


ROWS = [
    row(1, value=0.6, name="as given"),
    row(2, value=0.8),
    row(3, "pruned", 0.9),
    row(4, "failed", None, reason="the loss is not finite"),
    row(5, "again", None, reason="its process died; its values are tried again as trial 6"),
    row(6, value=0.7, name="Trial 3"),
    row(7, "running", None),
    row(8, "waiting", None),
]
SEEDS = [
    SeedRow(
        seed=i, folder="f", val_map=0.5, test_map=0.25 * (i + 1), test_auroc=None, test_f1=0.5, seconds=3.0
    )
    for i in range(3)
]


def test_complete_trials_stand_first_then_pruned_then_failed_ones() -> None:
    assert [one.number for one in best_first(ROWS, maximize=True)] == [2, 6, 1, 3, 4]
    assert [one.number for one in best_first(ROWS, maximize=False)] == [1, 6, 2, 3, 4]
    equal = [row(1, val_loss=0.4), row(2, val_loss=0.3), row(3, val_loss=None)]
    assert [one.number for one in best_first(equal, maximize=True)] == [2, 1, 3]
    assert best_so_far(ROWS, maximize=True) == [0.6, *[0.8] * 7]
    assert best_so_far([row(1, "pruned", 0.9)], maximize=True) == [None]


@pytest.mark.parametrize("width", [40, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width, height=30, force_terminal=True, color_system=None)
    show_trials(console, ROWS, metric="val_map", maximize=True)
    show_seeds(console, SEEDS)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    table = "\n".join(lines)
    assert re.search(r"\b2 .*0\.2000", table), table  # the best one's loss is seen at any width
    if width >= 80:
        assert "val loss" in table or "Best Validation Loss" in table
        assert {"Opt", "LR", "WD", "Sched", "Batch"} <= set(table.split()) or "Learning Rate" in table
    assert "trial 4 failed: the loss is not finite" in " ".join(table.split())


def test_a_pipe_gets_every_column_in_whole_words_and_a_line_a_trial() -> None:
    file = io.StringIO()
    console = make_console(file)
    with TrialTable(console, metric="val_map", maximize=True, most=20) as table:
        table.begin(2, None, 7)
        table.epoch(
            EpochFigures(
                epoch=0, stage=0, lr=1.0, train_loss=1.0, val_loss=1.0, val_map=0.1, val_f1=None, val_precision=None,
                val_recall=None, val_hamming_loss=None, val_exact_match=None, seconds=1.0, images_per_second=None,
            ),
            0.1,
        )  # fmt: skip
        table.show(ROWS, 2)
        table.show(ROWS, 4)
        table.show(ROWS, 0)
    lines = file.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(
        "[4/20] Trial 2: complete, val mAP 0.8000, the best so far, 7 epochs, 12.3 s; "
    )
    assert "failed, the loss is not finite" in lines[1]
    file.truncate(0)
    show_trials(console, ROWS, metric="val_map", maximize=True)
    shown = file.getvalue()
    assert all(title in shown for title in (*TABLE, "lr_head", "Best Validation Loss", "state"))
    assert "Trial 6 (Trial 3)" in shown


def test_a_terminal_gets_the_table_while_a_trial_runs() -> None:
    file = io.StringIO()
    console = Console(file=file, width=120, height=30, force_terminal=True, color_system=None)
    with TrialTable(console, metric="val_map", maximize=True, most=20) as table:
        table.begin(9, "Trial 4", 7)
        table.show(ROWS, 0)
        table.begin(9, "Trial 4", 7)
    shown = file.getvalue()
    assert "4 of 20 trials over, 1 running elsewhere; trial 9 (Trial 4): reading" in shown
    assert "the loss is not finite" not in shown


def test_a_study_without_a_trial_says_so() -> None:
    file = io.StringIO()
    show_trials(make_console(file), [row(1, "running", None)], metric="val_f1", maximize=True)
    assert "no trial has come to its end" in file.getvalue()


def test_names_and_settings_are_short() -> None:
    assert trial_name(row(3, name="Trial 3")) == "Trial 3"
    assert trial_name(row(3, name="Trial 1"), short=True) == "3 (Trial 1)"
    assert [setting(value) for value in (None, 1.23456e-4, 16, "adam", True, 0.0)] == [
        "–", "0.000123", "16", "adam", "True", "0",
    ]  # fmt: skip


def test_the_means_of_the_seeds_are_those_of_all_or_none() -> None:
    assert mean_of(SEEDS, "test_map") == pytest.approx(0.5)
    assert mean_of(SEEDS, "test_auroc") is None
    assert mean_of([], "test_map") is None


def test_the_pictures_show_what_they_are_given(tmp_path: Path) -> None:
    figure = history_figure(ROWS, metric="val_map", maximize=True)
    left, right = figure.axes
    step = left.lines[0]
    np.testing.assert_allclose(np.asarray(step.get_ydata()), [0.6, 0.8, 0.8, 0.8, 0.8])
    assert {text.get_text() for text in left.get_legend().get_texts()} == {
        "best so far", "complete", "pruned (its last epoch)", "failed",
    }  # fmt: skip
    assert len(right.lines) == 4
    assert max(line.get_linewidth() for line in right.lines if "trial 2" in str(line.get_label())) > 2

    panels = settings_figure(
        ROWS, {"lr_finetune": True, "optimizer": False}, metric="val_map", maximize=True
    ).axes
    assert panels[0].get_xscale() == "log"
    assert [tick.get_text() for tick in panels[1].get_xticklabels()] == ["adam", "adamw"]
    offsets = np.asarray(panels[0].collections[1].get_offsets())
    np.testing.assert_allclose(offsets, [[2e-5, 0.8]])  # the ring is around the best

    bars = importance_figure({"a": 0.2, "b": 0.8}).axes[0]
    assert [tick.get_text() for tick in bars.get_yticklabels()] == ["a", "b"]
    assert [patch.get_width() for patch in bars.patches] == [0.2, 0.8]
    history_figure([], metric="val_map", maximize=True)
    history_figure([row(1, "failed", None)], metric="val_loss", maximize=False)


def test_the_page_holds_the_table_the_seeds_and_nothing_that_runs_or_loads() -> None:
    evil = "<script>alert(1)</script>\x07"
    rows = [*ROWS, row(9, "failed", None, reason=evil, name=evil)]
    page = trials_html(
        rows, SEEDS, metric="val_map", maximize=True, recipe={"loss": evil, "dropout": None},
        command=f"mlcls trials {evil}",
    )  # fmt: skip
    assert page.count("<script>") == 1  # our own
    assert "&lt;script&gt;alert(1)" in page
    assert "\x07" not in page
    assert "Trial 2 is the best: val mAP 0.8000 on validation" in page
    assert "0.250 to 0.750" in page
    assert "nan" not in page.lower().split()
    assert not re.search(r"(src|href)=.https?:", page)
    titles = re.findall(r'class="title">([^<]+)<', page)
    assert titles[:7] == ["Trial", *TABLE]
    empty = trials_html([], [], metric="val_loss", maximize=False, recipe=None)
    assert "No trial has come to its end" in empty
