"""An ensemble's members in the console and on the page: better and worse are said only where the interval is clear."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from report_records import attribute_names, make_record
from rich.console import Console

from mlcls.reports.console_folds import difference_said, show_members
from mlcls.reports.html import report_html
from mlcls.reports.record import Record, from_json, to_json
from mlcls.reports.record_members import EnsembleFacts, MemberFigures

Read = Callable[[Console], str]


def difference(low: float, high: float) -> dict[str, Any]:
    figures = {"average_precision": {"difference": (low + high) / 2, "interval": [low, high]}}
    return {"level": 0.95, "resamples": 1000, "unit": "images", "macro": figures}


def make_ensemble(*, test: bool = True, low: float = 0.004, high: float = 0.03) -> Record:
    members = tuple(
        MemberFigures(
            name=f"fold-{number}",
            seed=100 + number,
            train=1200,
            val=300,
            epochs=9,
            best_epoch=5 + number,
            stopped_because="val_loss has not been better for 5 epochs",
            seconds=61.5,
            val_map=0.71 + number / 100,
            test_map=0.61 + number / 100 if test else None,
        )
        for number in range(3)
    )
    facts = EnsembleFacts(
        predictions={"val": "out of fold", **({"test": "the mean"} if test else {})},
        mean_val_map=0.72,
        mean_test_map=0.62 if test else None,
        test_difference=difference(low, high) if test else None,
    )
    record = make_record(attribute_names(3), test=test)
    return dataclasses.replace(record, epochs=(), best_epoch=None, members=members, ensemble=facts)


def test_the_members_their_mean_and_the_ensemble(pipe: Console, written: Read) -> None:
    record = make_ensemble()
    show_members(pipe, record)
    lines = [line.split() for line in written(pipe).splitlines()]
    assert ["fold-1", "1,200", "300", "9", "6", "0.720", "0.620"] in lines
    assert ["mean", "member", "0.720", "0.620"] in lines
    entry = record.evaluation["test"] or {}
    (ensemble,) = (line for line in lines if line[:1] == ["ensemble"])
    assert f"{entry['macro']['average_precision']:.3f}" in ensemble
    text = written(pipe)
    assert "less the mean member's: +0.017 (95% +0.004 to +0.030, paired, 1,000 bootstrap resamples" in text
    assert "flatter a little; the test subset's do not" in text


def test_without_a_test_subset_nothing_is_said_of_one(pipe: Console, written: Read) -> None:
    show_members(pipe, make_ensemble(test=False))
    assert "test" not in written(pipe)


def test_an_ordinary_run_has_no_members(pipe: Console, written: Read) -> None:
    show_members(pipe, make_record(attribute_names(2)))
    assert written(pipe) == ""


@pytest.mark.parametrize(
    ("low", "high", "verdict", "mood"),
    [
        (0.01, 0.03, "better", "good"),
        (-0.03, -0.01, "worse", "bad"),
        (-0.01, 0.03, "no clear difference", ""),
    ],
)
def test_a_verdict_needs_an_interval_without_nought(low: float, high: float, verdict: str, mood: str) -> None:
    text, found = difference_said(difference(low, high))
    assert text.endswith(f": {verdict}")
    assert found == mood


def test_too_few_images_for_an_interval() -> None:
    one = difference(0.1, 0.2)
    one["macro"]["average_precision"]["interval"] = None
    assert difference_said(one) == (
        "the ensemble's test AP less the mean member's: +0.150; too few images for an interval",
        "",
    )


def test_a_narrow_terminal_keeps_the_figures(terminal: Callable[[int], Console], written: Read) -> None:
    console = terminal(60)
    show_members(console, make_ensemble())
    assert all(name in written(console) for name in ("fold-0", "mean member", "ensemble", "0.620"))


def test_what_is_written_of_members_is_read_back() -> None:
    record = make_ensemble()
    assert from_json(to_json(record)).members == record.members
    assert from_json(to_json(record)).ensemble == record.ensemble


def test_the_page_has_the_members_in_the_place_of_epochs() -> None:
    page = report_html(make_ensemble(), subset="test")
    assert all(text in page for text in ("fold-2", "mean member", "less the mean member", "flatter a little"))
    assert "best epoch</dt>" not in page
    elsewhere = report_html(make_ensemble(), subset="test", what="the images of new.csv")
    assert "mean member" not in elsewhere
    ordinary = report_html(make_record(attribute_names(2)), subset="test")
    assert "mean member" not in ordinary
