"""What the console says of data, model, scores, thresholds and predictions."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mlcls.reports.console_data import show_data, show_model
from mlcls.reports.console_predictions import show_prediction, show_prediction_error, show_test_examples
from mlcls.reports.console_scores import ThresholdChange, show_evaluation, show_thresholds
from mlcls.reports.record import AttributeCount, Contradiction, DataFacts, ModelFacts

Read = Callable[[Console], str]
LONG = "an_attribute_name_that_is_very_long_indeed_sixty_characters_xx"


def cells(text: str, start: str) -> list[str]:
    """The cells of the one line that begins with `start`."""
    lines = [line.split() for line in text.splitlines() if line.strip().startswith(start)]
    assert len(lines) == 1, text
    return lines[0]


def test_data_names_what_is_wrong_and_counts_the_rest(pipe: Console, written: Read, data: DataFacts) -> None:
    subsets = {
        "train": [AttributeCount("hat", 160, 620, 84), AttributeCount("[bold]", 0, 0, 864)],
        "test": [AttributeCount("hat", 1234, 1, 0), AttributeCount("[bold]", 0, 0, 185)],
    }
    show_data(pipe, data, subsets, source="labels.txt: commas, a header")
    text = written(pipe)
    for part in (
        "labels.txt: commas, a header",
        "1,240",
        "1,234",
        "2: a[1].jpg, b.jpg",
        "1: c.jpg",
        "1 group: d.jpg = e.jpg",
        "2 groups: d.jpg = e.jpg; f.jpg",
        "age",
        "train 864, val 185, test 185",
        "note: '[bold]' is known for no image",
    ):
        assert part in text
    assert cells(text, "hat") == ["hat", "234", "900", "100", "20.6%", "160/620", "1,234/1"]
    assert cells(text, "[bold]") == ["[bold]", "0", "0", "1,234", "–", "0/0", "0/0"]


def test_images_of_one_photo_are_named_with_what_they_contradict(
    pipe: Console, written: Read, data: DataFacts
) -> None:
    data = replace(
        data,
        near_duplicates=(("g.jpg", "h.jpg"), tuple(f"{i}.jpg" for i in range(9))),
        near_conflicts=(("g.jpg", "h.jpg"),),
        leaks=(("g.jpg", "h.jpg"),),
        contradictions=(
            Contradiction("hat", ("d.jpg",), ("e.jpg",)),
            Contradiction("coat", ("d.jpg",), ("e.jpg",)),
            Contradiction("hat", ("g.jpg",), ("h.jpg",), near=True),
        ),
        health=("coat: absent wherever known", "hat says the same as coat"),
    )
    show_data(pipe, data)
    lines = [" ".join(line.split()) for line in written(pipe).splitlines()]
    assert "near-identical 2 groups: g.jpg ~ h.jpg; 0.jpg ~ 1.jpg ~ 2.jpg ~ 3.jpg ~ 4.jpg ~ 4 more" in lines
    start = lines.index("conflicting labels 2 groups:")
    assert lines[start + 1 : start + 4] == [
        "hat, coat: d.jpg yes, e.jpg no",
        "1 group of near-identical images:",
        "hat: g.jpg yes, h.jpg no",
    ]
    assert "leaks 1 group of one photo in several subsets: g.jpg ~ h.jpg" in lines
    assert lines[-3:] == ["label health:", "- coat: absent wherever known", "- hat says the same as coat"]


@pytest.mark.parametrize("width", [80, 120])
def test_long_names_of_one_photo_stay_within_a_terminal(
    terminal: Callable[[int], Console], written: Read, data: DataFacts, width: int
) -> None:
    pairs = tuple(
        (f"train/photo_{i:04d}_jpg.rf.{'e9' * 16}.jpg", f"valid/photo_{i:04d}_jpg.rf.{'a0' * 16}.jpg")
        for i in range(7)
    )
    console = terminal(width)
    show_data(
        console,
        replace(
            data,
            near_duplicates=pairs,
            near_conflicts=pairs[:1],
            leaks=pairs[:2],
            contradictions=(Contradiction("no-vest", pairs[0][:1], pairs[0][1:], near=True),),
        ),
    )
    lines = Text.from_ansi(written(console)).plain.splitlines()
    assert all(cell_len(line) <= width for line in lines)
    groups = [line.strip() for line in lines if " ~ " in line]
    assert len(groups) == 5 + 2  # each on a line of its own
    assert all(line.startswith("train/photo_0") and line.endswith(".jpg") for line in groups)
    assert any(line.strip() == "and 2 more" for line in lines)
    assert len([line for line in lines if " yes, " in line and line.rstrip().endswith(" no")]) == 1


def test_nothing_wrong_is_said_too(pipe: Console, written: Read, data: DataFacts) -> None:
    show_data(pipe, replace(data, missing=(), unreadable=(), duplicates=(), conflicts=(), split=None))
    text = written(pipe)
    assert text.count("none") == 5
    assert "leaks" not in text
    assert "split" not in text


def test_of_many_attributes_the_rarest_are_shown(pipe: Console, written: Read, data: DataFacts) -> None:
    many = [AttributeCount(f"a{i}", 10 + i, 1000, 0) for i in range(100)]
    random.Random(0).shuffle(many)
    show_data(pipe, replace(data, attributes=tuple(many)))
    text = written(pipe)
    shown = {line.split()[0] for line in text.splitlines() if line.startswith("  a") and line[3].isdigit()}
    assert shown == {f"a{i}" for i in range(20)}
    assert "the 20 rarest of 100 attributes; the other 80 are present in 30 to 109 images" in text


def test_model_shows_what_trains_in_each_stage(pipe: Console, written: Read, model: ModelFacts) -> None:
    show_model(
        pipe, replace(model, device="cpu", precision="fp32", notes=("head of 1,000 classes left out",))
    )
    text = written(pipe)
    assert cells(text, "0 head") == ["0", "head", "0", "66,436", "11,176,512", "head"]
    assert cells(text, "1 last") == ["1", "last", "3", "8,460,164", "2,782,784", "layer4"]
    for part in (
        "resnet18 (drop_path_rate=0.1)",
        "mlp on 512 features",
        "224 x 224 px",
        "cpu, fp32",
        "left out",
    ):
        assert part in text


def entry(attributes: list[str], undefined: tuple[str, ...] = ()) -> dict[str, Any]:
    figures = {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "average_precision": 0.75, "auroc": 0.875}
    nothing = dict.fromkeys(figures)
    rows = [
        {"name": name, "known": 2000, "positive": 40, "threshold": 0.4321, "accuracy": 0.9}
        | (nothing if name in undefined else figures)
        | {"confusion": {"tn": 1950, "fp": 10, "fn": 30, "tp": 10}}
        for name in attributes
    ]
    return {
        "n": 2234,
        "macro": figures if len(undefined) < len(attributes) else nothing,
        "micro": figures,
        "hamming_loss": 0.02,
        "exact_match": math.nan,
        "undefined": list(undefined),
        "attributes": rows,
    }


def test_evaluation_shows_every_attribute_and_the_means(pipe: Console, written: Read) -> None:
    names = [f"a{i}" for i in range(100)]
    show_evaluation(pipe, "Test subset", entry(names))
    text = written(pipe)
    row = ["2,000", "40", "0.432", "0.500", "0.250", "0.333", "0.750", "0.875", "1,950", "10", "30", "10"]
    for name in names:
        assert cells(text, f"{name} ") == [name, *row]
    assert cells(text, "macro") == ["macro", "0.500", "0.250", "0.333", "0.750", "0.875"]
    assert cells(text, "micro")[1:] == cells(text, "macro")[1:]
    assert cells(text, "exact match") == ["exact", "match", "–"]
    assert "note" not in text


def test_undefined_is_a_dash_with_the_reason(pipe: Console, written: Read) -> None:
    show_evaluation(pipe, "Test subset", entry(["a", "b", "c"], ("b",)))
    text = written(pipe)
    assert cells(text, "b ")[4:9] == ["–"] * 5
    assert "b is not known both present and absent in these images; macro is the mean of the other 2" in text


def test_nothing_defined_leaves_macro_undefined(pipe: Console, written: Read) -> None:
    show_evaluation(pipe, "Test subset", entry(["a"], ("a",)))
    assert cells(written(pipe), "macro") == ["macro", *["–"] * 5]
    assert "macro is undefined too" in written(pipe)


@pytest.mark.parametrize("width", [80, 120])
def test_evaluation_fits_a_terminal_with_long_names(
    terminal: Callable[[int], Console], written: Read, width: int
) -> None:
    console = terminal(width)
    console.no_color = True
    show_evaluation(console, "Test subset", entry([LONG, "日本語の名前", "[/]"]))
    text = written(console)
    assert not any(line.endswith("…") for line in text.splitlines())
    assert ("not shown in this narrow window: threshold, tn, fp, fn, tp" in text) == (width == 80)
    assert text.count("0.875") == 5


def test_thresholds_before_and_after(pipe: Console, written: Read) -> None:
    changes = [
        ThresholdChange(
            name="hat",
            known=900,
            positive=40,
            before=0.5,
            after=0.1234567,
            figure_before=0.4,
            figure_after=0.6,
        ),
        ThresholdChange(
            name="[b]", known=9, positive=1, before=None, after=0.5, note="1 known positive: stays"
        ),
    ]
    show_thresholds(pipe, changes, about="measured where they were tuned: they flatter")
    text = written(pipe)
    assert cells(text, "hat") == ["hat", "900", "40", "0.5000", "0.1235", "0.400", "0.600"]
    assert cells(text, "[b]") == ["[b]", "9", "1", "–", "0.5000", "–", "–"]
    assert "note: [b]: 1 known positive: stays" in text
    assert "they flatter" in text


def test_thresholds_without_figures_have_no_columns_for_them(pipe: Console, written: Read) -> None:
    show_thresholds(pipe, [ThresholdChange(name="hat", known=9, positive=4, before=0.5, after=0.5)])
    assert "F1" not in written(pipe)


PUBLISHED = """\
──────────────────────────────────────────────────
  Image : data/images/sample.jpg
──────────────────────────────────────────────────
  Attribute    Probability   Status
  ──────────────────────────────────────────────
  Attr1             0.8821   [PRESENT]
  Attr2             0.1034   [absent]\x20
  Attr3             0.9210   [PRESENT]
  Attr4             0.3301   [absent]\x20
──────────────────────────────────────────────────
  Attributes present : ['Attr1', 'Attr3']
──────────────────────────────────────────────────
"""


def predicted(scores: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {"name": name, "probability": score, "threshold": 0.5, "present": score >= 0.5}
        for name, score in scores.items()
    ]


def test_a_prediction_looks_as_published(pipe: Console, written: Read) -> None:
    scores = {"Attr1": 0.8821, "Attr2": 0.1034, "Attr3": 0.9210, "Attr4": 0.3301}
    show_prediction(pipe, "data/images/sample.jpg", predicted(scores))
    assert written(pipe) == PUBLISHED


def test_a_prediction_with_long_names_stays_aligned(
    pipe: Console, terminal: Callable[[int], Console], written: Read
) -> None:
    scores = {LONG: 0.5, "日本語": 0.25, "[bold]": 0.75}
    show_prediction(pipe, "a[1].jpg", predicted(scores))
    lines = written(pipe).splitlines()
    assert len(lines[0]) == len(LONG) + 38
    assert f"  {LONG}      0.5000   [PRESENT]" in lines
    assert f"  Attributes present : {[LONG, '[bold]']}" in lines
    narrow = terminal(60)
    show_prediction(narrow, "a[1].jpg", predicted(scores))
    *table, _, rule = written(narrow).splitlines()
    assert rule == "─" * 60
    assert all(cell_len(Text.from_ansi(line).plain) <= 60 for line in table)
    assert LONG[:22] in table[5]
    assert table[6].strip() == LONG[22:44]


def test_an_image_without_prediction_says_why(pipe: Console, written: Read) -> None:
    show_prediction_error(pipe, "x[0].jpg", "x[0].jpg: not an image")
    assert "  Image : x[0].jpg\n  Error : x[0].jpg: not an image\n" in written(pipe)


def test_examples_mark_right_wrong_and_unknown(pipe: Console, written: Read) -> None:
    rows = [
        {"name": "a", "label": 1.0, "probability": 0.9, "present": True},
        {"name": "b", "label": 0.0, "probability": 0.8, "present": True},
        {"name": "c", "label": math.nan, "probability": 0.7, "present": True},
        {"name": "d", "label": None, "probability": 0.1, "present": False},
    ]
    show_test_examples(pipe, [{"image": "i[1].jpg", "attributes": rows}])
    text = written(pipe)
    assert "i[1].jpg: 1 of 2 known labels right" in text
    assert cells(text, "a ") == ["a", "0.900", "present", "present", "right"]
    assert cells(text, "b ") == ["b", "0.800", "present", "absent", "wrong"]
    assert cells(text, "c ") == ["c", "0.700", "present", "unknown"]
    assert cells(text, "d ") == ["d", "0.100", "absent", "unknown"]


def test_examples_of_many_attributes_show_what_matters(pipe: Console, written: Read) -> None:
    rows = [{"name": f"q{i}", "label": 0.0, "probability": 0.1, "present": False} for i in range(50)]
    rows[37] |= {"label": 1.0}
    rows[39] |= {"present": True, "label": None}
    show_test_examples(pipe, [{"image": "i.jpg", "attributes": rows}])
    text = written(pipe)
    assert "48 of 49 known labels right" in text
    assert cells(text, "q37 ")[-1] == "wrong"
    assert cells(text, "q39 ")[-1] == "unknown"
    assert text.count(" q") == 12
    assert "and 38 other attributes, 0 of them wrong" in text


def test_examples_count_the_wrong_ones_that_are_not_shown(pipe: Console, written: Read) -> None:
    rows = [{"name": f"q{i}", "label": 1.0, "probability": 0.1, "present": False} for i in range(50)]
    show_test_examples(pipe, [{"image": "i.jpg", "attributes": rows}])
    assert "and 38 other attributes, 38 of them wrong" in written(pipe)
