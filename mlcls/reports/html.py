"""The HTML report: one file with everything in it, that asks no network and trusts no name.

The page carries a policy that lets the browser load nothing and run only the script written here, by its
digest. Every text is escaped by Jinja; characters that could reorder or break the page become escapes.
"""

import base64
import hashlib
import struct
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from mlcls.reports import html_run, html_scores, html_thresholds
from mlcls.reports.console import figure
from mlcls.reports.html_members import members_said, members_table
from mlcls.reports.html_table import mapping
from mlcls.reports.html_verdict import SUBSETS, evaluated_on, verdict, warnings
from mlcls.reports.record import AttributeCount, Record
from mlcls.reports.thumbnails import thumbnail

if TYPE_CHECKING:
    import jinja2

__all__ = ["ConfidentError", "Picture", "report_html", "thumbnail"]

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# characters that override the direction of what follows: a name with one could read as another
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A PNG to show, its title, and a sentence on what there is to see."""

    title: str
    caption: str
    png: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidentError:
    """A label that the classifier contradicts: 0 or 1, against the probability and the threshold.

    `thumbnail` is a JPEG or PNG, or None where the image could not be had.
    """

    image: str
    attribute: str
    label: int
    probability: float
    threshold: float
    thumbnail: bytes | None


def report_html(
    record: Record,
    *,
    subset: str,
    pictures: Sequence[Picture] = (),
    errors: Sequence[ConfidentError] = (),
    title: str | None = None,
    source: str = "",
    subsets: Mapping[str, Sequence[AttributeCount]] | None = None,
    what: str | None = None,
    has_test: bool | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The report on a record as the text of one HTML file, to be written in UTF-8.

    What the record does not hold (intervals, baselines, calibration, ...) is left out.

    Args:
        subset: `test` or `val`: the entry of `record.evaluation` that the figures are taken from.
        pictures: in the order they are shown.
        errors: the most confident first.
        title: the heading; `Classifier report` by itself.
        source: a line on what was evaluated: the bundle, another table.
        subsets: counts within each subset (e.g. train, val, test); without them, those of `evaluation`.
        what: words for the images, e.g. `the images of new.csv`, where they are not those of the run's subset.
        has_test: whether the run had a test subset; by itself whether `evaluation` has one.
        notes: sentences to mind before the figures are used, shown first among the warnings.

    Raises:
        ValueError: another subset, one that the record has no evaluation of, or bytes that are no picture.
    """
    if subset not in SUBSETS:
        raise ValueError(f"subset must be one of {', '.join(SUBSETS)}, not {subset!r}")
    entry = record.evaluation.get(subset)
    if entry is None:
        raise ValueError(f"the record has no evaluation of the {SUBSETS[subset]} subset")
    calibration = mapping(getattr(record, "calibration", None))
    style, script = template_part("report.css"), template_part("report.js")
    scores, run = _scores(entry, record, calibration), _run(record, subsets, subset, what)
    page = page_template("report.html.j2").render(
        title=title or "Classifier report",
        source=source,
        images=evaluated_on(subset, entry, what),
        policy=content_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        entry=entry,
        record=record,
        verdict=verdict(record, subset, entry, what=what, has_test=has_test),
        warnings=warnings(record, subset, entry, what=what, notes=notes),
        scores=scores,
        run=run,
        sections=_sections(scores, run, pictures, errors),
        calibration=calibration,
        errors=[_shown(one) for one in errors],
        pictured=any(one.thumbnail is not None for one in errors),
        pictures=[{"of": one, "uri": data_uri(one.png), "size": picture_size(one.png)} for one in pictures],
    )
    return page.lstrip()


def _sections(
    scores: Mapping[str, Any],
    run: Mapping[str, Any],
    pictures: Sequence[Picture],
    errors: Sequence[ConfidentError],
) -> dict[str, str]:
    """The parts that this report has, by the anchors of the page."""
    there = {
        "attributes": ("Attributes", True),
        "overall": ("Means", True),
        "thresholds": ("Thresholds", scores["thresholds"]),
        "calibration": ("Calibration", scores["calibration"] or scores["slopes"]),
        "errors": ("Confident errors", errors),
        "pictures": ("Pictures", pictures),
        "health": ("Label health", True),
        "training": ("Training", True),
        "recipe": ("Recipe", run["recipe"]),
    }
    return {anchor: title for anchor, (title, found) in there.items() if found}


def _scores(entry: Mapping[str, Any], record: Record, calibration: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "overall": html_scores.overall_table(entry),
        "scalars": html_scores.scalars_table(entry),
        "attributes": html_scores.attributes_table(entry),
        "intervals": html_scores.interval_note(entry),
        "chance": html_scores.chance_note(entry),
        "thresholds": html_thresholds.thresholds_table(record.thresholds) if record.thresholds else None,
        "thresholds_summary": html_thresholds.thresholds_summary(record.thresholds),
        "calibration": html_scores.calibration_table(calibration),
        "slopes": html_scores.slopes(calibration),
    }


def _run(
    record: Record,
    subsets: Mapping[str, Sequence[AttributeCount]] | None,
    subset: str,
    what: str | None,
) -> dict[str, Any]:
    return {
        "health": tuple(getattr(record.data, "health", ())),
        "groups": html_run.image_groups(record.data),
        "facts": html_run.data_facts(record.data),
        "counts": html_run.counts_table(record, subsets, subset, what),
        "training": html_run.training_facts(record),
        "stages": html_run.stages_table(record),
        "members": members_table(record)
        if what is None
        else None,  # beside figures of the run's own images alone
        "members_said": members_said(record),
        "epochs": html_run.epochs_table(record),
        "recipe": html_run.recipe_table(record.recipe),
        "about": html_run.about(record),
    }


def _shown(error: ConfidentError) -> dict[str, Any]:
    return {
        "of": error,
        "label": "present" if error.label else "absent",
        "probability": figure(error.probability, 2),
        "threshold": figure(error.threshold, 2),
        "uri": None if error.thumbnail is None else data_uri(error.thumbnail),
    }


def data_uri(picture: bytes) -> str:
    """A data: address of a PNG or JPEG."""
    kind = "png" if picture.startswith(_PNG) else "jpeg" if picture.startswith(_JPEG) else None
    if kind is None:
        raise ValueError(f"a picture of a report is a PNG or a JPEG, not bytes that begin {picture[:8]!r}")
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def picture_size(picture: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG, so that the page does not jump while pictures are decoded."""
    if not picture.startswith(_PNG) or len(picture) < 24:
        return None
    width, height = struct.unpack(">II", picture[16:24])
    return width, height


def content_policy(style: str, script: str) -> str:
    """A Content-Security-Policy: nothing is loaded, and only this style and this script are obeyed."""
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digests[0]}'; "
        f"script-src 'sha256-{digests[1]}'; base-uri 'none'; form-action 'none'"
    )


@lru_cache(maxsize=4)
def template_part(file: str) -> str:
    """A file beside the template, with plain newlines: what the browser takes the digest of."""
    return files("mlcls.reports").joinpath("templates", file).read_text(encoding="utf-8")


@lru_cache(maxsize=2)
def page_template(file: str) -> "jinja2.Template":
    """A page that is made of a file beside the templates; what it shows is escaped."""
    import jinja2  # here: the page is the last thing of a run

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=safe_text,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    return environment.from_string(template_part(file))


def safe_text(value: Any) -> Any:
    """What is put into the page: a text without characters that HTML cannot hold or that turn its direction.

    They become escapes (`\\x00`, `\\u202e`), as do halves of surrogate pairs, which UTF-8 cannot hold.
    """
    if not isinstance(value, str) or isinstance(value, Markup) or (value.isascii() and value.isprintable()):
        return value
    return "".join(_escape(char) if _harmful(char) else char for char in value)


def _harmful(char: str) -> bool:
    if char in "\t\n":
        return False
    return (
        char in _BIDI
        or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")
        or ord(char) & 0xFFFE == 0xFFFE
    )


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
