"""Thresholds on the console: naive beside cross-fitted, how sure they are, and what could not be met."""

from collections.abc import Callable
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mlcls.reports.console_thresholds import (
    ThresholdChange,
    measure_of,
    show_threshold_summary,
    show_thresholds,
)

Read = Callable[[Console], str]
LEGEND = "cross-fitted: tuned on four fifths of these labels, scored on the fifth it has not seen"


def change(name: str, **other: Any) -> ThresholdChange:
    values: dict[str, Any] = {
        "known": 185, "positive": 60, "before": 0.5, "after": 0.3123, "naive": 0.7, "cross_fitted": 0.55,
        "interval": (0.12, 0.45),
    }  # fmt: skip
    return ThresholdChange(name=name, **(values | other))


def cells(text: str, start: str) -> list[str]:
    """The cells of the one line that begins with `start`."""
    lines = [line.split() for line in text.splitlines() if line.strip().startswith(start)]
    assert len(lines) == 1, text
    return lines[0]


def test_naive_stands_beside_cross_fitted_with_the_gap(pipe: Console, written: Read) -> None:
    rows = [
        change("hat"),
        change("[bold]", naive=0.6, cross_fitted=0.61),
        change("bag", cross_fitted=None, interval=None),
    ]
    show_thresholds(pipe, rows)
    text = written(pipe)
    assert cells(text, "hat") == [
        "hat", "185", "60", "0.5000", "0.3123", ".12–.45", "0.700", "0.550", "-0.150",
    ]  # fmt: skip
    assert cells(text, "[bold]")[-3:] == ["0.600", "0.610", "+0.010"]
    assert cells(text, "bag")[-4:] == ["–", "0.700", "–", "–"]
    # the mean of both figures is over the attributes that have both
    assert cells(text, "macro") == ["macro", "0.650", "0.580", "-0.070"]
    assert LEGEND in text


def test_the_gap_is_the_first_column_to_go_after_the_naive_ones(
    terminal: Callable[[int], Console], written: Read
) -> None:
    console = terminal(80)
    rows = [change("日本語" * 9, figure_before=0.4, figure_after=0.7), change("x" * 60)]
    show_thresholds(console, rows)
    text = Text.from_ansi(written(console)).plain
    assert all(cell_len(line) <= 80 for line in text.splitlines())
    assert "not shown in this narrow window: known, F1 before, F1 after, gap" in text
    assert "cross-fitted" in text.splitlines()[2]


def test_without_cross_fitting_nothing_is_said_of_it(pipe: Console, written: Read) -> None:
    show_thresholds(pipe, [change("hat", naive=0.7, cross_fitted=None, interval=None)], measure="cost")
    text = written(pipe)
    for word in ("cross-fitted", "macro", "95%", "naive"):
        assert word not in text


def test_of_a_cost_less_is_better(pipe: Console, written: Read) -> None:
    assert measure_of("cost:1,5") == "cost"
    show_thresholds(pipe, [change("hat")], measure=measure_of("cost:1,5"))
    assert "cost naive" in written(pipe)
    assert "less is better" in written(pipe)


def test_of_many_a_terminal_shows_the_least_certain(
    pipe: Console, terminal: Callable[[int], Console], written: Read
) -> None:
    rows = [change(f"a{i}", interval=(0.1, 0.2 + (i * 37 % 100) / 200)) for i in range(100)]
    rows[0] = change("a0", interval=None)
    console = terminal(120)
    show_thresholds(console, rows)
    text = Text.from_ansi(written(console)).plain
    shown = {line.split()[0] for line in text.splitlines() if line.startswith("  a") and line[3].isdigit()}
    assert shown == {f"a{i}" for i in range(100) if i * 37 % 100 >= 80}
    assert (
        "20 of 100 attributes, those of the least certain thresholds; all of them are in thresholds.json"
        in text
    )
    show_thresholds(pipe, rows)
    assert all(f"  a{i} " in written(pipe) for i in range(100))


def test_notes_of_one_kind_share_a_line(pipe: Console, written: Read) -> None:
    unmet = "no threshold reaches precision:0.9; the best has a precision of "
    kept = "kept at 0.5: 2 known positives, at least 3 are needed"
    rows = [
        change("a", note=unmet + "0.4"),
        change("b", note=kept),
        change("c", note=unmet + "0.6"),
        change("d", note=kept),
        change("e", note="something else"),
    ]
    show_thresholds(pipe, rows)
    notes = [line.strip() for line in written(pipe).splitlines() if line.startswith("  note: ")]
    assert notes == [
        "note: no threshold reaches precision:0.9: a (the best has a precision of 0.4), c (the best has a "
        "precision of 0.6)",
        f"note: b, d: {kept}",
        "note: e: something else",
    ]


@pytest.mark.parametrize("piped", [True, False])
def test_notes_end_somewhere_on_a_terminal(
    pipe: Console, terminal: Callable[[int], Console], written: Read, piped: bool
) -> None:
    console = pipe if piped else terminal(120)
    show_threshold_summary(console, [change(f"a{i}", note=f"kind {i}") for i in range(30)])
    text = written(console)
    assert text.count("note: ") == (30 if piped else 5)
    assert ("26 more notes in thresholds.json" in text) != piped


def test_the_summary_says_what_to_expect(pipe: Console, written: Read) -> None:
    rows = [change(f"a{i}", interval=(0.1, 0.15 + i / 10)) for i in range(5)]
    rows += [change("[b]", positive=1, interval=(0.0, 0.9), naive=None, cross_fitted=None)]
    show_threshold_summary(pipe, rows, objective="f1 (robust), tuned on validation")
    text = written(pipe)
    assert "f1 (robust), tuned on validation" in text
    assert cells(text, "macro F1, naive")[3] == "0.700:"
    assert cells(text, "macro F1, cross-fitted")[3:5] == ["0.550", "(-0.150):"]
    assert (
        "[b] 0.312 (95% 0.00–0.90, 1 known positive); a4 0.312 (95% 0.10–0.55, 60 known positives); a3 0.312 "
        "(95% 0.10–0.45, 60 known positives); 3 others in thresholds.json"
    ) in text


def test_a_summary_of_fixed_thresholds_is_short(pipe: Console, written: Read) -> None:
    show_threshold_summary(
        pipe, [change("a", naive=None, cross_fitted=None, interval=None)], objective="fixed:0.5"
    )
    assert written(pipe) == "\nThresholds\n  objective  fixed:0.5\n"
