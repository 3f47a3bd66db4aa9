"""Intervals, baselines and the test against chance beside the figures, and the verdict where nothing passed."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mlcls.reports.console_chance import show_chance_verdict
from mlcls.reports.console_figures import (
    between,
    interval_decimals,
    level_text,
    p_text,
    signed,
    signed_span,
    span,
)
from mlcls.reports.console_scores import show_evaluation

Read = Callable[[Console], str]
SIX = ("precision", "recall", "f1", "accuracy", "average_precision", "auroc")
LONG = "an_attribute_name_that_is_very_long_indeed_sixty_characters_xx"


def six(value: float | None) -> dict[str, float | None]:
    return dict.fromkeys(SIX, value)


def attribute(
    name: str, *, passes: bool | None = True, positive: int = 60, f1: float | None = 0.8, auroc: float = 0.834
) -> dict[str, Any]:
    """A row of an `evaluation` entry, of 185 known images; undefined where `f1` is None."""
    figures: dict[str, Any] = six(None) if f1 is None else six(0.7) | {"f1": f1, "auroc": auroc}
    low, high = auroc - 0.071, auroc + 0.062
    p = {True: 0.0001, False: 0.41, None: None}[passes]
    return {
        "name": name, "known": 185, "positive": positive, "negative": 185 - positive, "threshold": 0.5,
        **figures,
        "confusion": {"tn": 100, "fp": 25, "fn": 10, "tp": 50},
        "intervals": {key: None if f1 is None else [low, high] for key in SIX},
        "baselines": {"base_rate": 0.4, "always_present": six(0.4) | {"f1": 0.571}, "always_absent": six(0.0)},
        "chance": {"p": p, "p_adjusted": p, "distinguishable": passes},
    }  # fmt: skip


def entry(*attributes: dict[str, Any]) -> dict[str, Any]:
    """An `evaluation` entry as `assess` makes it."""
    return {
        "n": 185, "known_share": 0.875, "hamming_loss": 0.214, "exact_match": None, "coverage_error": 2.31,
        "label_ranking_average_precision": 0.81,
        "macro": six(0.75), "micro": six(0.77), "samples": dict.fromkeys(SIX[:4], 0.61),
        "undefined": [one["name"] for one in attributes if one["f1"] is None],
        "attributes": list(attributes),
        "intervals": {
            "level": 0.95, "resamples": 1000, "unit": "groups",
            "macro": six(None) | {"auroc": [0.41, 0.53], "f1": [0.72, 0.79]}, "micro": six(None),
            "samples": dict.fromkeys(SIX[:4], None), "hamming_loss": [0.19, 0.24], "exact_match": None,
            "coverage_error": [2.1, 2.5], "label_ranking_average_precision": None,
        },
        "baselines": {
            "always_present": {"precision": 0.4, "recall": 1.0, "f1": 0.571, "accuracy": 0.4,
                               "average_precision": 0.4, "auroc": 0.5},
            "always_absent": six(0.0) | {"average_precision": 0.4, "auroc": 0.5},
        },
        "not_distinguishable": [one["name"] for one in attributes if one["chance"]["distinguishable"] is False],
    }  # fmt: skip


def cells(text: str, start: str) -> list[str]:
    """The cells of the one line that begins with `start`."""
    lines = [line.split() for line in text.splitlines() if line.strip().startswith(start)]
    assert len(lines) == 1, text
    return lines[0]


def test_a_row_has_intervals_baselines_and_the_test(pipe: Console, written: Read) -> None:
    show_evaluation(pipe, "Test subset", entry(attribute("hat")))
    row = ["hat", "185", "60", "0.500", "0.700", "0.700", "0.800", ".76–.90", "0.571", "0.700", ".76–.90"]
    row += ["0.400", "0.834", ".76–.90", "p<0.001", "100", "25", "10", "50"]
    text = written(pipe)
    assert cells(text, "hat") == row
    assert cells(text, "attribute")[6:15] == [
        "F1", "95%", "base", "F1", "AP", "95%", "base", "rate", "AUROC",
    ]  # fmt: skip
    assert "note" not in text


def test_means_and_baselines_stand_below(pipe: Console, written: Read) -> None:
    show_evaluation(pipe, "Test subset", entry(attribute("hat")))
    lines = written(pipe).splitlines()
    places = [
        next(i for i, line in enumerate(lines) if line.startswith(f"  {name}"))
        for name in ("hat ", "macro ", "micro ", "samples ", "always present ", "always absent ")
    ]
    assert places == list(range(places[0], places[0] + 6))
    text = written(pipe)
    assert cells(text, "macro")[3:6] == ["0.750", ".72–.79", "0.571"]
    assert cells(text, "samples") == ["samples", "0.610", "0.610", "0.610", "–"]
    assert cells(text, "always present")[2:] == ["0.400", "1.000", "0.571", "0.400", "0.500"]
    assert cells(text, "always absent")[2:] == ["0.000", "0.000", "0.000", "0.400", "0.500"]


def test_what_base_rates_alone_score_stands_beside_micro_and_whole_image_figures(
    pipe: Console, written: Read
) -> None:
    one = entry(attribute("hat"))
    micro = dict(zip(("precision", "recall", "f1"), (0.6, 0.9, 0.95), strict=True))
    micro |= {"accuracy": 0.7, "average_precision": 0.86, "auroc": 0.85}
    blind = {"micro": micro, "samples": {"f1": 0.7}, "hamming_loss": 0.123}
    one["baselines"] |= {"base_rates": blind}
    show_evaluation(pipe, "Test subset", one)
    text = written(pipe)
    assert cells(text, "micro base rates")[3:] == ["0.600", "0.900", "0.950", "0.860", "0.850"]
    assert "(base rates alone: 0.123)" in text
    assert "is no better than can be had without a look at any image: 0.950" in text


def test_facts_come_with_their_intervals(pipe: Console, written: Read) -> None:
    show_evaluation(pipe, "Test subset", entry(attribute("hat"), attribute("bag")))
    text = written(pipe)
    assert cells(text, "known labels")[2:] == ["87.5%", "of", "the", "cells"]
    assert cells(text, "Hamming loss")[2:] == ["0.214,", "95%", "0.19–0.24"]
    assert cells(text, "exact match")[2:] == ["–"]
    assert "2.310, 95% 2.10–2.50: ranks, of 2, down to the last present attribute" in text
    assert cells(text, "label ranking AP")[3:] == ["0.810"]
    assert "95%, 1,000 bootstrap resamples of groups" in text


def test_not_distinguishable_is_marked_and_explained(pipe: Console, written: Read) -> None:
    bad = attribute("[bold]", passes=False, auroc=0.48)
    rare = attribute("hat", passes=False, auroc=0.6, positive=182)
    below = attribute("bag", passes=False, auroc=0.2)
    show_evaluation(
        pipe, "Test subset", entry(attribute("coat"), bad, rare, below, attribute("x", passes=None))
    )
    text = written(pipe)
    assert cells(text, "[bold]")[14:16] == ["NO", "p=0.41"]
    assert cells(text, "x ")[14] == "–"
    assert (
        "note: not distinguishable from chance: [bold] (AUROC 0.480, 95% 0.41–0.54), hat (AUROC 0.600, 95% "
        "0.53–0.66; only 3 known negatives), bag (AUROC 0.200, 95% 0.13–0.26; worse than chance: are present and "
        "absent swapped?); check: label conflicts, swapped files or columns, too few images of the rarer class"
    ) in text


def test_many_that_are_not_distinguishable_are_counted(pipe: Console, written: Read) -> None:
    rows = [attribute(f"a{i}", passes=False, auroc=0.5) for i in range(30)]
    show_evaluation(pipe, "Test subset", entry(*rows))
    assert "a7 (AUROC 0.500, 95% 0.43–0.56) and 22 more; check:" in written(pipe)
    assert written(pipe).count("NO p=0.41") == 30


def test_an_f1_that_says_nothing_is_called_so(pipe: Console, written: Read) -> None:
    empty = entry(attribute("hat", f1=0.571), attribute("bag", f1=0.572))
    empty["macro"]["f1"] = 0.55
    show_evaluation(pipe, "Test subset", empty)
    text = written(pipe)
    assert "macro F1 0.550 is no better than answering present for every image, which scores 0.571" in text
    assert "note: F1 no better than answering present for every image: hat\n" in text


def test_a_plain_entry_has_none_of_the_columns(pipe: Console, written: Read) -> None:
    plain = entry(attribute("hat"))
    for key in ("intervals", "baselines", "not_distinguishable", "samples", "known_share", "coverage_error"):
        del plain[key]
    for key in ("intervals", "baselines", "chance", "negative"):
        del plain["attributes"][0][key]
    show_evaluation(pipe, "Test subset", plain)
    text = written(pipe)
    assert cells(text, "hat")[6:10] == ["0.800", "0.700", "0.834", "100"]
    for word in ("95%", "base", "chance", "always", "samples", "cells", "coverage"):
        assert word not in text
    assert not show_chance_verdict(pipe, plain, "test")


@pytest.mark.parametrize(
    ("width", "lost"),
    [
        (
            80,
            "known, threshold, precision, recall, interval of F1, interval of AP, base rate, tn, fp, fn, tp",
        ),
        (120, "known, threshold, base rate, tn, fp, fn, tp"),
        (170, ""),
    ],
)
def test_a_narrow_window_keeps_what_matters(
    terminal: Callable[[int], Console], written: Read, width: int, lost: str
) -> None:
    console = terminal(width)
    console.no_color = True
    show_evaluation(console, "Test subset", entry(attribute(LONG), attribute("日本語"), attribute("[/]")))
    text = Text.from_ansi(written(console)).plain
    assert all(cell_len(line) <= width for line in text.splitlines())
    assert not any(line.endswith("…") for line in text.splitlines())
    said = " ".join(text.split())
    assert (f"not shown in this narrow window: {lost} base F1" in said) == bool(lost)
    assert cells(text, "日本語")[-3 if lost else -7] == "0.834"


def test_of_many_a_terminal_shows_those_that_need_attention(
    pipe: Console, terminal: Callable[[int], Console], written: Read
) -> None:
    rows = [attribute(f"a{i}", auroc=0.6 + i / 300) for i in range(100)]
    for i in (50, 90):
        rows[i] = attribute(f"a{i}", passes=False, auroc=0.59 + i / 300)
    rows[0] = attribute("a0", f1=None, passes=None)
    console = terminal(100)
    console.no_color = True
    show_evaluation(console, "Test subset", entry(*rows), complete="x.json")
    text = Text.from_ansi(written(console)).plain
    shown = [line.split()[0] for line in text.splitlines() if line.startswith("  a") and line[3].isdigit()]
    assert shown == [*(f"a{i}" for i in range(1, 19)), "a50", "a90"]
    assert (
        "20 of 100 attributes: those not distinguishable from chance, then those of the lowest AUROC;" in text
    )
    assert "all of them are in x.json" in " ".join(text.split())
    show_evaluation(pipe, "Test subset", entry(*rows))
    assert all(f"  a{i} " in written(pipe) for i in range(100))
    assert "of 100 attributes:" not in written(pipe)


def test_two_rules_part_means_and_baselines(terminal: Callable[[int], Console], written: Read) -> None:
    console = terminal(80)
    show_evaluation(console, "Test subset", entry(attribute("hat")))
    lines = Text.from_ansi(written(console)).plain.splitlines()
    rules = [i for i, line in enumerate(lines) if line.startswith("  ──")]
    assert [lines[i + 1].split()[0] for i in rules] == ["hat", "macro", "always"]


VERDICT = (
    "NOTHING LEARNED: none of the 2 attributes is distinguishable from chance on the test subset. Macro AUROC "
    "0.750 (95% 0.41–0.53); chance is 0.5. Do not use this model. Check: label conflicts, swapped files or "
    "columns, too few images of the rarer class."
)


def test_the_verdict_is_one_clear_line(pipe: Console, written: Read) -> None:
    nothing = entry(attribute("a", passes=False), attribute("b", passes=False))
    assert show_chance_verdict(pipe, nothing, "test")
    assert written(pipe) == f"\n{VERDICT}\n"


def test_the_verdict_is_loud_on_a_terminal(terminal: Callable[[int], Console], written: Read) -> None:
    console = terminal(80)
    assert show_chance_verdict(
        console, entry(attribute("a", passes=False), attribute("b", passes=False)), "test"
    )
    assert "\x1b[1;31mNOTHING LEARNED" in written(console)
    assert " ".join(Text.from_ansi(written(console)).plain.split()) == VERDICT


@pytest.mark.parametrize(
    ("passes", "words"),
    [
        ((False, None), "the only attribute that could be tested is not distinguishable"),
        ((False, False, None), "none of the 2 attributes that could be tested is distinguishable"),
        ((False,), "the only attribute is not distinguishable"),
    ],
)
def test_the_verdict_counts_what_was_tested(
    pipe: Console, written: Read, passes: tuple[bool | None, ...], words: str
) -> None:
    rows = [attribute(f"a{i}", passes=one) for i, one in enumerate(passes)]
    assert show_chance_verdict(pipe, entry(*rows), "val", has_test=False)
    assert words in written(pipe)
    assert "on the validation subset (there is no test subset)." in written(pipe)


def test_a_name_of_two_lines_is_told_in_one(pipe: Console, written: Read) -> None:
    rows = [attribute("a\nb", passes=False, f1=0.1), attribute("c\nd", f1=None, passes=None)]
    show_evaluation(pipe, "Test subset", entry(*rows))
    show_chance_verdict(pipe, entry(rows[0]), "the images of x\ny.csv")
    text = written(pipe)
    assert "not distinguishable from chance: a\\nb (AUROC" in text
    assert "F1 no better than answering present for every image: a\\nb" in text
    assert "c\\nd is not known both present and absent" in text
    assert "macro is the other attribute's figure" in text
    assert "the images of x\\ny.csv" in text


@pytest.mark.parametrize("has_test", [None, True])
def test_the_verdict_denies_no_test_subset_unasked(
    pipe: Console, written: Read, has_test: bool | None
) -> None:
    assert show_chance_verdict(pipe, entry(attribute("a", passes=False)), "val", has_test=has_test)
    assert "on the validation subset. " in written(pipe)


@pytest.mark.parametrize("passes", [(True, False), (True,), (None, None), ()])
def test_no_verdict_where_one_passed_or_none_was_tested(
    pipe: Console, written: Read, passes: tuple[bool | None, ...]
) -> None:
    rows = [attribute(f"a{i}", passes=one) for i, one in enumerate(passes)]
    assert not show_chance_verdict(pipe, entry(*rows), "test")
    assert written(pipe) == ""


def test_too_few_images_are_told_from_nothing_learned(pipe: Console, written: Read) -> None:
    rare = entry(attribute("a", passes=False, positive=9), attribute("b", passes=False, positive=180))
    assert show_chance_verdict(pipe, rare, "new[1].csv")
    text = written(pipe)
    assert "NOTHING LEARNED that so few images could show: none of the 2 attributes" in text
    assert "chance on new[1].csv." in text
    assert "Check: too few images of the rarer class, label conflicts" in text


def test_undefined_intervals_are_dashes_and_nothing_fails(pipe: Console, written: Read) -> None:
    bare = copy.deepcopy(entry(attribute("hat", f1=None, passes=None)))
    bare["macro"] = six(None)
    bare["macro"]["auroc"] = math.nan
    show_evaluation(pipe, "Test subset", bare)
    text = written(pipe)
    assert cells(text, "hat")[4:8] == ["–", "–", "–", "–"]
    assert cells(text, "hat")[14] == "–"
    assert "macro is undefined too" in text


def test_how_uncertainty_is_written() -> None:
    assert [span(ends) for ends in (None, [math.nan, 1.0], [0.413, 0.585], [0.9, 1.0])] == [
        "–", "–", ".41–.58", ".90–1.00",
    ]  # fmt: skip
    assert span([0.8341, 0.8412], 3) == ".834–.841"
    assert between([2.0, 2.5]) == "2.00–2.50"
    assert [interval_decimals(ends) for ends in ([[0.2, 0.3], None], [[0.2, 0.21]], [[1.0, 1.0]])] == [
        2,
        3,
        2,
    ]
    assert [p_text(p) for p in (None, 0.0, 0.0009, 0.0123, 0.41, 1.0)] == [
        "–", "p<0.001", "p<0.001", "p=0.012", "p=0.41", "p=1.00",
    ]  # fmt: skip
    assert [signed(value) for value in (None, 0.0412, -0.0412, -0.0001, 0.0)] == [
        "–", "+0.041", "-0.041", "0.000", "0.000",
    ]  # fmt: skip
    assert signed_span([-0.013, 0.1]) == "-0.013 to +0.100"
    assert [level_text(value) for value in (None, {"level": 0.9}, {"level": 0.975})] == [
        "95%",
        "90%",
        "97.5%",
    ]
