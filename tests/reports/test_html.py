"""The HTML report as text: what it says of which record, and that no name can break out of it."""

import base64
import hashlib
import html
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_records import attribute_names, make_calibration, make_record, widened

import mlcls.reports.html as report
from mlcls.reports.html import ConfidentError, Picture, report_html, thumbnail
from mlcls.reports.record import AttributeCount, Contradiction, Record

FIVE = attribute_names(5)
ELEMENTS_WITHOUT_END = {"meta", "link", "img", "input", "br", "hr", "line", "circle"}


class Page(HTMLParser):
    """The text of a page, its elements with their attributes, and whether all of them are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("bdi", "b", "span", "strong", "a"):
            self.words.append(" ")
        if tag not in ELEMENTS_WITHOUT_END:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def picture() -> bytes:
    done, encoded = cv2.imencode(".png", np.full((12, 34, 3), 200, np.uint8))
    assert done
    return bytes(encoded)


def error(**other: Any) -> ConfidentError:
    values: dict[str, Any] = {"image": "a.jpg", "attribute": "vest", "label": 0, "probability": 0.987}
    return ConfidentError(**(values | {"threshold": 0.4, "thumbnail": picture()} | other))


def page(record: Any, subset: str = "test", **other: Any) -> Page:
    return Page(report_html(record, subset=subset, **other))


def test_the_verdict_comes_first_with_intervals_and_what_looks_at_no_image() -> None:
    record = make_record(FIVE, images=400)
    entry = record.evaluation["test"]
    assert entry is not None
    text = page(record, title="My run", source="outputs/a").text
    top = text[: text.index("Before you use")]
    assert "My run" in top
    assert "outputs/a" in top
    assert "4 of 5 attributes are recognised better than chance" in top
    assert "Evaluated on 400 images of the test subset" in top
    for key in ("average_precision", "auroc", "f1"):
        low, high = entry["intervals"]["macro"][key]
        assert f"{entry['macro'][key]:.3f} 95% interval {low:.3f}–{high:.3f}" in top
        assert f": {entry['baselines']['always_present'][key]:.3f} the whole interval is better" in top
    assert "no-helmet" in top  # the one that is not known both present and absent


def test_all_attributes_better_than_chance_is_said_so() -> None:
    found = report_html(make_record(("a", "b"), images=400, skill=4), subset="test")
    assert "All 2 attributes are recognised better than chance" in found
    assert 'class="verdict good"' in found
    assert "What to check" not in found


def test_nothing_learned_is_said_loudly_with_what_to_check() -> None:
    record = make_record(FIVE[:4], skill=0, images=146, seed=3)
    found = report_html(record, subset="test")
    text = Page(found).text
    assert 'class="verdict bad"' in found
    top = text[: text.index("Before you use")]
    assert "No attribute is distinguishable from chance" in top
    assert "not shown to order these images better than random numbers" in top
    assert top.count("not shown to be better") == 3
    for check in (
        "Label conflicts: 1 group of the same image",
        "Swapped files",
        "Too few images of the rarer",
    ):
        assert check in top
    assert text.count("NO, p = ") == 4  # in the table, an attribute each
    assert "NO means: not distinguishable from chance" in text


def test_one_attribute_is_spoken_of_as_one() -> None:
    found = page(make_record(("hat",), images=300, skill=3, seed=1)).text
    assert "The attribute is recognised better than chance" in found
    assert "1 attribute ·" in found


def test_validation_figures_are_called_flattering() -> None:
    text = page(make_record(FIVE, test=False), "val").text
    assert "images of the validation subset" in text
    assert "were chosen on these very images, so every figure here flatters. There is no test subset." in text
    assert "There is no test subset" not in page(make_record(FIVE), "val").text


def test_an_old_record_is_shown_without_what_it_does_not_hold() -> None:
    text = page(make_record(FIVE, assessed=False, test=False), "val").text
    assert "These figures were not tested against chance" in text
    for absent in (
        "interval",
        "Holm",
        "base rate",
        "cross-fitted",
        "ECE",
        "“present” for every image",
        "p =",
    ):
        assert absent not in text
    assert "Macro average precision" in text


def test_the_record_of_the_other_tests_without_attributes(record: Record) -> None:
    entry = dict(record.evaluation["val"] or {}) | {
        "macro": dict.fromkeys(("precision", "recall", "f1", "accuracy", "average_precision", "auroc")),
        "micro": {}, "hamming_loss": None, "exact_match": None, "undefined": [],
    }  # fmt: skip
    text = page(replace(record, evaluation={"val": entry, "test": None}), "val").text
    assert "Macro F1 –" in text
    assert "0 attributes" in text


def test_undefined_is_a_dash_and_never_nought() -> None:
    record = make_record(FIVE, images=400)
    found = report_html(record, subset="test")
    row = re.search(r'<th scope="row"><bdi>no-helmet</bdi></th>(.*?)</tr>', found, re.DOTALL)
    assert row is not None
    cells = [re.sub(r"<[^>]+>", " ", cell).split() for cell in re.findall(r"<td.*?</td>", row[1], re.DOTALL)]
    assert cells[0] == ["–", "not", "tested"]  # against chance
    assert cells[1] == ["–"]  # average precision
    assert (
        cells[3:10] == [["–"]] * 7
    )  # AUROC and its drawing, F1, precision, recall, F1 of "present", accuracy
    for cell in re.findall(r"<td[^>]*>", row[1])[3:10]:
        assert "data-v" not in cell


def test_warnings_name_conflicts_leaks_floors_and_few_positives() -> None:
    record = make_record(attribute_names(12), seed=2)
    notes = tuple(row | {"note": "precision 0.9 is not met"} for row in record.thresholds[:2])
    record = replace(record, thresholds=notes, stopped_because="failed: the loss is not finite")
    wide = widened(
        record,
        leaks=(("l1.jpg", "l2.jpg"), ("l3.jpg", "l4.jpg")),
        near_conflicts=(("n1.jpg", "n2.jpg"),),
        near_duplicates=(("n3.jpg", "n4.jpg"),),
        health=("'vest' is unknown more often in small images",),
    )
    text = page(wide).text
    listed = text[text.index("Before you use") : text.index("The smaller numbers")]
    assert "2 groups of the same or nearly the same image in different subsets" in listed
    assert "1 group of the same image with contradicting labels" in listed
    assert "1 group of nearly the same image with contradicting labels" in listed
    assert "Threshold: precision 0.9 is not met: helmet, no-helmet" in listed
    assert "Fewer than 10 images of the rarer class in the test subset" in listed
    assert "failed: the loss is not finite" in listed
    for name in ("l1.jpg ≈ l2.jpg", "n1.jpg ≈ n2.jpg", "n3.jpg ≈ n4.jpg", "image_145.jpg = image_737.jpg"):
        assert name in text
    assert "unknown more often in small images" in text


def test_many_names_and_groups_are_cut_and_counted() -> None:
    record = make_record(FIVE)
    groups = tuple((f"a{i}.jpg", f"b{i}.jpg") for i in range(500))
    text = page(
        replace(
            record, data=replace(record.data, duplicates=groups, missing=tuple(f"m{i}" for i in range(50)))
        )
    ).text
    assert "and 42 more" in text
    assert "and 300 more" in text
    assert "a199.jpg" in text
    assert "a200.jpg" not in text


def test_thresholds_show_both_figures_and_the_gap() -> None:
    record = make_record(FIVE)
    rows = [
        {
            "name": "a",
            "threshold": 0.3,
            "objective": "f1",
            "value": 0.73,
            "cross_fitted": 0.5,
            "interval": (0.1, 0.6),
        },
        {
            "name": "b",
            "threshold": 0.5,
            "objective": "f1",
            "value": None,
            "cross_fitted": None,
            "interval": None,
        },
    ]
    text = page(replace(record, thresholds=tuple(rows))).text
    assert "Macro F1, naive: 0.730, on the very labels the thresholds were tuned on" in text
    assert "cross-fitted: 0.500 (-0.230)" in text  # the sign that the console has
    assert "gap cross-fitted less naive" in text
    assert "a 0.300 0.100–0.600 0.730 0.500 -0.230" in text
    assert "b 0.500 – – –" in text


def tuned(*objectives: str) -> Record:
    row = {"threshold": 0.3, "value": 0.73, "cross_fitted": 0.5, "interval": None, "estimator": "plain"}
    rows = (row | {"name": f"a{i}", "objective": one} for i, one in enumerate(objectives))
    return replace(make_record(FIVE), thresholds=tuple(rows))


@pytest.mark.parametrize(
    ("objective", "measure"),
    [("precision:0.9", "recall"), ("recall:0.9", "precision"), ("youden", "Youden's J")],
)
def test_the_figure_of_thresholds_is_called_what_it_is(objective: str, measure: str) -> None:
    text = page(tuned(objective)).text
    assert f"Macro {measure}, naive: 0.730" in text
    assert f"{measure} naive on the very labels" in text
    assert f"{measure} cross-fitted on validation labels held out" in text


def test_of_a_cost_less_is_better() -> None:
    text = page(tuned("cost:1,5")).text
    assert "cost naive less is better; on the very labels" in text
    assert "Macro cost, naive: 0.730" in text
    assert "less is better." in text


def test_figures_of_several_objectives_are_named_in_their_rows() -> None:
    text = page(tuned("precision:0.9", "cost:1,5")).text
    assert "a0 0.300 precision:0.9 recall plain" in text
    assert "a1 0.300 cost:1,5 cost, less is better plain" in text
    assert "Macro recall" not in text


def test_other_images_than_the_subset_have_words_of_their_own() -> None:
    record = make_record(FIVE, test=False)
    record = replace(record, evaluation={"val": None, "test": record.evaluation["val"]})
    text = page(record, what="the images of new.csv", notes=["3 of these images were trained on"]).text
    assert "test subset" not in text
    assert "· the images of new.csv (150 images)" in text
    assert "Evaluated on the images of new.csv (150 images)." in text
    assert "evaluated: present of the images of new.csv" in text
    start = text.index("Before you use these figures")
    assert text[start:].startswith("Before you use these figures 3 of these images were trained on")


def test_few_images_are_few_of_the_words_given() -> None:
    record = make_record(FIVE, images=12)
    assert (
        "of the rarer class in the images of [new].csv" in page(record, what="the images of [new].csv").text
    )


def test_whether_there_is_a_test_subset_can_be_said() -> None:
    alone = make_record(FIVE, test=False)
    assert "There is no test subset" not in page(alone, "val", has_test=True).text
    assert "There is no test subset" in page(alone, "val", has_test=False).text


def test_an_f1_on_the_labels_it_was_tuned_on_stands_beside_the_cross_fitted() -> None:
    record = make_record(FIVE, test=False)
    entry = record.evaluation["val"]
    assert entry is not None
    rows = [row | {"cross_fitted": 0.4321} for row in entry["attributes"]]
    fitted = replace(record, evaluation={"val": entry | {"cross_fitted": 0.4321, "attributes": rows}})
    text = page(fitted, "val").text
    assert "F1 naive at thresholds tuned on these labels: flatters F1 cross-fitted" in text
    assert text.count(" 0.432 ") == 1 + len(rows)
    assert "F1 naive at thresholds" not in page(record, "val").text


def test_one_is_not_many() -> None:
    text = page(make_record(("hat",), images=1)).text
    assert "1 attribute, each at its threshold" in text
    assert "1 image of the test subset" in text
    assert "1 images" not in text
    assert "1 attributes" not in text


def test_calibration_before_and_after() -> None:
    calibration = make_calibration(FIVE)
    text = page(widened(make_record(FIVE), calibration=calibration)).text
    assert "known shift, then ridge Platt scaling" in text
    assert "ECE before validation, out of fold ECE after validation, out of fold" in text
    assert "mean 0.110 0.066 0.160 0.096 0.110 0.066 0.160 0.096" in text
    assert "helmet 0.800 -0.400" in text
    without = page(widened(make_record(FIVE), calibration=calibration | {"test": None})).text
    assert "mean 0.110 0.066 0.160 0.096 helmet" in without


def test_gallery_and_pictures_hold_the_very_bytes() -> None:
    one = picture()
    found = page(
        make_record(FIVE),
        errors=[error(), error(image="b.jpg", label=1, probability=0.031, thumbnail=None)],
        pictures=[Picture(title="ROC", caption="What to see", png=one)],
    )
    images = found.tags("img")
    assert [image["src"] for image in images] == [
        f"data:image/png;base64,{base64.b64encode(one).decode()}"
    ] * 2
    assert images[0]["alt"] == "a.jpg: labelled absent for vest, predicted at 0.99"
    assert images[1]["alt"] == "ROC"
    assert (images[1]["width"], images[1]["height"]) == ("34", "12")
    assert "labelled present, predicted 0.03 threshold 0.40 b.jpg" in found.text
    assert "no picture at hand" in found.text


def test_images_that_were_not_found_are_said_once() -> None:
    record = make_record(FIVE)
    record = replace(record, data=replace(record.data, images_dir="/gone/<images>"))
    text = page(record, errors=[error(thumbnail=None), error(image="b.jpg", thumbnail=None)]).text
    assert text.count("The images were not found at /gone/<images>") == 1
    assert "no picture at hand" not in text
    assert "b.jpg" in text
    assert "not found" not in page(record, errors=[error(), error(thumbnail=None)]).text


def test_recipe_training_and_command_are_there() -> None:
    text = page(make_record(FIVE)).text
    for part in (
        "schedule_args.warmup 2", "split 0.7, 0.15, 0.15", "clip no", "images –", "lr_head 0.002",
        "val_loss has not been better for 5 epochs", "time 3 min 23 s", "6 best 1 5.24e-04",
        "mlcls train --labels data/labels.txt --backbone resnet18 --out outputs",
    ):  # fmt: skip
        assert part in text


def test_counts_of_the_subsets_are_the_given_ones_or_those_evaluated() -> None:
    record = make_record(("a",))
    counts = {"train": [AttributeCount("a", 711, 722, 3)]}
    text = page(record, subsets=counts).text
    assert "train: present train: absent" in text
    assert "711 722" in text
    assert "validation: present validation: absent test: present test: absent" in page(record).text


HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "it's & \"that\"", "{{ 7 * 7 }}",
    "</style></script>", "שלום", "مرحبا", "👩‍👩‍👧", "x" * 300, "-->",
    "a\u202eb", "null\x00byte", "half \ud800 pair", "line\u2028break",
)  # fmt: skip


def test_names_are_text_wherever_they_stand() -> None:
    record = make_record(HOSTILE)
    data = replace(
        record.data,
        missing=HOSTILE,
        conflicts=(HOSTILE,),
        notes=HOSTILE,
        metadata=HOSTILE,
        duplicates=(HOSTILE,),
    )
    tame = page(make_record(tuple(f"tame{i}" for i in range(len(HOSTILE)))))
    record = replace(
        record,
        data=data,
        command=HOSTILE[0],
        recipe={name: name for name in HOSTILE},
        stopped_because=HOSTILE[1],
    )
    errors = [error(image=name, attribute=name, thumbnail=None) for name in HOSTILE]
    shown = [Picture(title=name, caption=name, png=picture()) for name in HOSTILE]
    wide = widened(record, calibration=make_calibration(HOSTILE), health=HOSTILE)
    text = report_html(
        wide, subset="test", title=HOSTILE[0], source=HOSTILE[1], errors=errors, pictures=shown
    )
    text.encode("utf-8")  # no half of a pair is left
    found = Page(text)
    assert len(found.tags("script")) == len(tame.tags("script")) == 1
    assert all(set(image) >= {"src", "alt"} and "onerror" not in image for image in found.tags("img"))
    assert len(found.tags("img")) == len(shown)
    for name in HOSTILE[:10]:
        assert " ".join(name.split()) in found.text
    assert not re.search("[\x00-\x08\u202a-\u202e\u2066-\u2069\u2028]", text)
    for escape in ("a\\u202eb", "null\\x00byte", "half \\ud800 pair", "line\\u2028break"):
        assert escape in text


@given(st.text(min_size=1))
@settings(deadline=None, max_examples=30)
def test_any_name_keeps_the_page_whole(name: str) -> None:
    record = make_record((name,), images=20)
    text = report_html(record, subset="test", title=name, errors=[error(image=name, attribute=name)])
    text.encode("utf-8")
    assert len(Page(text).tags("script")) == 1


def test_the_policy_lets_nothing_in_but_the_style_and_script_of_the_page() -> None:
    text = report_html(make_record(FIVE), subset="test", errors=[error()])
    found = Page(text)
    policies = [
        meta["content"] for meta in found.tags("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert policies[0] is not None
    assert "default-src 'none'" in policies[0]
    assert "unsafe" not in policies[0]
    for tag in ("script", "style"):
        inner = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert inner is not None
        digest = base64.b64encode(hashlib.sha256(inner[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in html.unescape(policies[0])
    assert not any("style" in attributes for _, attributes in found.elements)  # the policy would forbid it
    addresses = [
        value
        for _, attributes in found.elements
        for key, value in attributes.items()
        if key in ("src", "href")
    ]
    assert all(value is not None and value.startswith(("#", "data:")) for value in addresses)
    assert "http://" not in text
    assert "https://" not in text


def test_the_page_is_put_together_as_a_reader_of_headings_needs_it() -> None:
    found = page(
        make_record(FIVE), errors=[error()], pictures=[Picture(title="t", caption="c", png=picture())]
    )
    assert len(found.tags("h1")) == 1
    for landmark in ("header", "nav", "main", "footer"):
        assert len(found.tags(landmark)) == 1
    assert len(found.tags("table")) == len(found.tags("caption"))
    assert all(heading.get("scope") in ("col", "row") for heading in found.tags("th"))
    assert all(image.get("alt") for image in found.tags("img"))
    anchors = [attributes.get("id") for _, attributes in found.elements if attributes.get("id")]
    assert len(anchors) == len(set(anchors))
    for link in found.tags("a"):
        assert (link["href"] or "").removeprefix("#") in anchors
    assert found.tags("html") == [{"lang": "en"}]


def test_a_hundred_attributes_with_thumbnails_stay_small() -> None:
    noise = np.random.default_rng(0).integers(
        0, 256, (480, 640, 3), dtype=np.uint8
    )  # the worst a JPEG can meet
    names = attribute_names(100)
    errors = [error(thumbnail=thumbnail(noise)) for _ in range(24)]
    text = report_html(
        widened(make_record(names), calibration=make_calibration(names)), subset="test", errors=errors
    )
    assert len(text) < 1_500_000
    assert "Filter by name" in text
    assert "Filter by name" not in report_html(make_record(FIVE), subset="test")


def test_the_same_record_gives_the_same_page() -> None:
    assert report_html(make_record(FIVE), subset="test") == report_html(make_record(FIVE), subset="test")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: report_html(make_record(FIVE), subset="train"), "must be one of test, val"),
        (
            lambda: report_html(make_record(FIVE, test=False), subset="test"),
            "no evaluation of the test subset",
        ),
        (lambda: page(make_record(FIVE), errors=[error(thumbnail=b"GIF89a")]), "a PNG or a JPEG"),
        (lambda: thumbnail(np.zeros((4, 4), np.uint8)), r"\[4, 4\]"),
        (lambda: thumbnail(np.zeros((4, 4, 3), np.float32)), "float32"),
        (lambda: thumbnail(np.zeros((0, 4, 3), np.uint8)), r"\[0, 4, 3\]"),
    ],
)
def test_what_cannot_be_shown_is_refused(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((480, 640), (120, 160)), ((640, 480), (160, 120)), ((20, 30), (20, 30)), ((1, 4000), (1, 160))],
)
def test_a_thumbnail_keeps_shape_and_colour(shape: tuple[int, int], wanted: tuple[int, int]) -> None:
    rgb = np.zeros((*shape, 3), np.uint8)
    rgb[:] = (200, 100, 20)
    small = thumbnail(rgb)
    assert small.startswith(b"\xff\xd8\xff")
    back = cv2.cvtColor(cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert back.shape[:2] == wanted
    assert np.abs(back.astype(int) - (200, 100, 20)).max() <= 6


def _light(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_are_told_apart_in_light_and_dark_and_on_paper() -> None:
    """The contrast ratio of WCAG 2.1 is at least 4.5, its level AA for text."""
    style = Path(report.__file__).parent.joinpath("templates", "report.css").read_text("utf-8")
    blocks = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]
    assert len(blocks) == 3
    for colours in blocks:
        backs = ["paper", "page", "good-paper", "warn-paper", "bad-paper"]
        for front in ("ink", "soft", "link", "good", "warn", "bad"):
            for back in backs:
                dark, light = sorted((_light(colours[front]), _light(colours[back])))
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (front, back, colours)


def test_a_conflict_says_which_attribute_and_which_file() -> None:
    record = make_record(FIVE)
    facts = replace(
        record.data,
        conflicts=(("a.jpg", "b.jpg"), ("twice.jpg", "twice.jpg")),
        near_conflicts=(("c.jpg", "d.jpg"),),
        contradictions=(
            Contradiction("hat", present=("a.jpg",), absent=("b.jpg",)),
            Contradiction("bag", present=("d.jpg",), absent=("c.jpg",), near=True),
        ),
    )
    text = report_html(replace(record, data=facts), subset="test")
    assert "hat: present in a.jpg; absent in b.jpg" in text
    assert "bag: present in d.jpg; absent in c.jpg" in text
    assert text.count("twice.jpg") == 2
