"""Models side by side, and calibration before and after: better and worse are said only where they are so."""

from collections.abc import Callable
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mlcls.reports.console_calibration import show_calibration
from mlcls.reports.console_comparison import show_comparison

Read = Callable[[Console], str]
SIX = ("precision", "recall", "f1", "accuracy", "average_precision", "auroc")


def cells(text: str, start: str, which: int = 0) -> list[str]:
    """The cells of a line that begins with `start`."""
    return [line.split() for line in text.splitlines() if line.strip().startswith(start)][which]


def difference(value: float | None, low: float = -1.0, high: float = 1.0) -> dict[str, Any]:
    interval = None if value is None else [low, high]
    return {"difference": value, "interval": interval}


def attribute(name: str, ap: dict[str, Any]) -> dict[str, Any]:
    low, high = ap["interval"] or (-1, 1)
    row = {"name": name, "average_precision": ap, "auroc": difference(0.01), "f1": difference(None)}
    return row | {"changed": low > 0 or high < 0}


def comparison(*attributes: dict[str, Any], names: tuple[str, ...] = ("out/a", "out/[b]")) -> dict[str, Any]:
    model = {
        "macro": dict.fromkeys(SIX, 0.7) | {"f1": 0.625},
        "micro": dict.fromkeys(SIX, 0.8) | {"auroc": None},
        "intervals": {"macro": {key: [0.61, 0.79] for key in SIX}, "micro": dict.fromkeys(SIX, None)},
    }
    means = dict.fromkeys(SIX, difference(0.02)) | {
        "average_precision": difference(0.041, -0.013, 0.1),
        "f1": difference(0.05, 0.01, 0.09),
        "auroc": difference(None),
        "recall": difference(-0.05, -0.09, -0.01),
    }
    return {
        "subset": "test", "images": 1850, "unit": "groups",
        "models": [{"name": name, **model} for name in names],
        "differences": [
            {"name": name, "macro": means, "micro": means, "attributes": list(attributes)} for name in names[1:]
        ],
    }  # fmt: skip


def test_models_stand_side_by_side(pipe: Console, written: Read) -> None:
    show_comparison(pipe, comparison())
    text = written(pipe)
    assert cells(text, "images") == ["images", "1,850"]
    assert "95%, bootstrap by groups, differences paired" in text
    row = ["0.700", ".61–.79", "0.700", ".61–.79", "0.625", ".61–.79", "0.700", ".61–.79"]
    assert cells(text, "out/a")[1:9] == row
    assert cells(text, "out/[b] ")[1:9] == row
    assert cells(text, "out/a", 1)[1:5] == ["0.800", "–", "–", "–"]


def test_better_is_said_only_where_the_interval_leaves_out_zero(pipe: Console, written: Read) -> None:
    show_comparison(pipe, comparison())
    text = written(pipe)
    assert cells(text, "macro  AP") == [
        "macro", "AP", "+0.041", "-0.013", "to", "+0.100", "not", "distinguishable",
    ]  # fmt: skip
    assert cells(text, "macro  F1")[-1] == "better"
    assert cells(text, "macro  recall")[-1] == "worse"
    assert cells(text, "micro  AUROC")[2:] == ["–", "–", "–"]
    assert "out/[b] is 0.041 above out/a in macro AP (95% -0.013 to +0.100): not distinguishable" in text
    assert "out/[b] is better than out/a by 0.050 macro F1 (95% +0.010 to +0.090)" in text


def test_an_end_near_zero_does_not_read_as_zero(pipe: Console, written: Read) -> None:
    other = comparison(attribute("hat", difference(0.0004, 0.0003, 0.2)))
    other["differences"][0]["macro"] = {
        "average_precision": difference(0.02, 0.0004, 0.04), "f1": difference(-0.00004, -0.5, -0.00002),
        "recall": difference(0.0, 0.0, 0.04),
    }  # fmt: skip
    show_comparison(pipe, other)
    text = written(pipe)
    assert cells(text, "macro  AP")[2:] == ["+0.020", "+0.0004", "to", "+0.0400", "better"]
    assert "out/[b] is worse than out/a by 0.00004 macro F1 (95% -0.50000 to -0.00002)" in text
    assert cells(text, "macro  recall")[2:6] == ["0.000", "0.000", "to", "+0.040"]
    assert cells(text, "hat")[1:5] == ["+0.0004*", "+0.0003", "to", "+0.2000"]


def test_the_verdicts_are_said_to_be_uncorrected(pipe: Console, written: Read) -> None:
    show_comparison(pipe, comparison())
    assert "the 12 verdicts are not corrected for their number" in written(pipe)


def test_on_validation_images_figures_flatter(pipe: Console, written: Read) -> None:
    show_comparison(pipe, comparison())
    assert "flatter" not in written(pipe)
    show_comparison(pipe, comparison() | {"subset": "val"})
    assert "note: the epochs and thresholds were chosen on these images: figures flatter" in written(pipe)


def test_models_of_one_name_are_pointed_out(pipe: Console, written: Read) -> None:
    show_comparison(pipe, comparison())
    assert "are called" not in written(pipe)
    show_comparison(pipe, comparison(names=("a\nb", "a\nb", "c")))
    assert "note: 2 of these models are called a\\nb: where they are one folder" in written(pipe)
    assert "a\nb" not in written(pipe)


def test_worse_and_undefined_have_words_too(pipe: Console, written: Read) -> None:
    other = comparison()
    other["differences"][0]["macro"] = {
        "f1": difference(-0.05, -0.09, -0.01),
        "average_precision": difference(None),
    }
    show_comparison(pipe, other)
    assert "out/[b] is worse than out/a by 0.050 macro F1 (95% -0.090 to -0.010)" in written(pipe)
    assert "macro AP of out/[b] and out/a cannot be compared" in written(pipe)


def test_changed_attributes_are_listed_and_the_rest_counted(pipe: Console, written: Read) -> None:
    same = [attribute(f"s{i}", difference(0.01)) for i in range(38)]
    show_comparison(
        pipe,
        comparison(
            attribute("[hat]", difference(0.1, 0.02, 0.2)),
            *same,
            attribute("b", difference(-0.1, -0.2, -0.1)),
        ),
    )
    text = written(pipe)
    assert cells(text, "[hat]")[1:5] == ["+0.100*", "+0.020", "to", "+0.200"]
    assert cells(text, "[hat]")[5] == "+0.010"
    assert cells(text, "b ")[1] == "-0.100*"
    assert "  s0" not in text
    assert "38 other attributes did not change distinguishably" in text
    assert "with allowance for the number of attributes" in text


def test_no_change_is_said_in_a_line(pipe: Console, written: Read) -> None:
    show_comparison(pipe, comparison(attribute("a", difference(0.01)), attribute("b", difference(None))))
    assert "attributes: none of 2 attributes changed distinguishably" in written(pipe)


def test_of_many_changes_a_terminal_shows_the_largest(
    terminal: Callable[[int], Console], written: Read
) -> None:
    rows = [
        attribute(f"a{i}", difference((-1) ** i * (0.1 + i / 500), *((0.01, 0.9), (-0.9, -0.01))[i % 2]))
        for i in range(100)
    ]
    console = terminal(120)
    show_comparison(console, comparison(*rows))
    text = Text.from_ansi(written(console)).plain
    shown = [line.split()[0] for line in text.splitlines() if line.startswith("  a") and line[3].isdigit()]
    assert shown == [f"a{i}" for i in range(80, 100)]
    assert (
        "20 of 100 attributes that changed, those that changed most; all of them are in --format json" in text
    )


@pytest.mark.parametrize("width", [80, 120])
def test_a_comparison_fits_a_terminal(terminal: Callable[[int], Console], written: Read, width: int) -> None:
    console = terminal(width)
    long = comparison(
        attribute("日本語" * 20, difference(0.1, 0.02, 0.2)),
        names=("outputs/" + "x" * 70, "日本語" * 12, "c"),
    )
    show_comparison(console, long)
    text = Text.from_ansi(written(console)).plain
    table = [line for line in text.splitlines() if not line.startswith("──")]
    assert all(cell_len(line) <= width for line in table)
    assert not any(line.endswith("…") for line in table)
    assert "+0.100*" in text
    assert text.count("compared with") == 2


def gain(before: float, after: float, worse: tuple[int, ...] = (), attributes: int = 4) -> dict[str, Any]:
    def side(ece: float, brier: float, penalty: float) -> dict[str, Any]:
        rows = [
            {"name": f"[{i}]", "ece": ece, "brier": brier + (penalty if i in worse else 0.0)}
            for i in range(attributes)
        ]
        return {"ece": ece, "brier": brier, "attributes": rows}

    return {"before": side(0.12, before, 0.0), "after": side(0.04, after, 0.1)}


def calibration(attributes: int, worse: tuple[int, ...] = (), test: bool = True) -> dict[str, Any]:
    return {
        "method": "shift, then ridge Platt",
        "attributes": [{"name": f"[{i}]", "slope": 0.5, "intercept": -1.25} for i in range(attributes)],
        "val": gain(0.2, 0.15, (), attributes),
        "test": gain(0.21, 0.18, worse, attributes) if test else None,
    }


def test_calibration_before_and_after(pipe: Console, written: Read) -> None:
    show_calibration(pipe, calibration(12))
    text = written(pipe)
    assert cells(text, "validation, out of fold")[4:] == ["0.120", "0.040", "0.200", "0.150"]
    assert cells(text, "test")[1:] == ["0.120", "0.040", "0.210", "0.180"]
    assert cells(text, "[11]") == ["[11]", "0.120", "0.040", "0.210", "0.180", "0.500", "-1.250"]
    assert "method: shift, then ridge Platt" in text
    assert "note" not in text
    assert "other" not in text


def test_of_many_attributes_those_that_got_worse_are_shown(pipe: Console, written: Read) -> None:
    show_calibration(pipe, calibration(13, worse=(3,)))
    text = written(pipe)
    assert [line.split()[0] for line in text.splitlines() if line.startswith("  [")] == ["[3]"]
    assert "the other 12 attributes did not get worse, test" in text


def test_of_one_attribute_that_is_left_one_is_said(pipe: Console, written: Read) -> None:
    show_calibration(pipe, calibration(13, worse=tuple(range(12))))
    assert "the other attribute did not get worse, test" in written(pipe)


def test_where_none_got_worse_that_is_said(pipe: Console, written: Read) -> None:
    show_calibration(pipe, calibration(13, test=False))
    assert "none of the 13 attributes got worse, validation, out of fold" in written(pipe)
    assert "  [" not in written(pipe)


def test_harm_on_the_whole_is_a_note(pipe: Console, written: Read) -> None:
    harmful = calibration(2)
    harmful["test"] = gain(0.15, 0.2)
    show_calibration(pipe, harmful)
    assert "note: calibration made the Brier score worse (test): consider `--raw`" in written(pipe)


def test_undefined_calibration_is_a_dash_and_none_is_nothing(pipe: Console, written: Read) -> None:
    show_calibration(pipe, None)
    assert written(pipe) == ""
    undefined = calibration(2)
    undefined["test"] = {
        when: {"ece": None, "brier": None, "attributes": [{"name": "a", "ece": None, "brier": None}]}
        for when in ("before", "after")
    }
    show_calibration(pipe, undefined)
    assert cells(written(pipe), "test") == ["test", "–", "–", "–", "–"]
    assert cells(written(pipe), "a ") == ["a", "–", "–", "–", "–", "–", "–"]
