"""The record of a run, and its form as `metrics.json`: what was read, built, learned, measured.

Everything that shows or keeps a run reads these values. They are plain: strings, numbers, tuples, and JSON
values (dict, list, str, int, float, bool, None) where a field is open. In the file an undefined figure is
null.
"""

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mlcls.errors import BundleError
from mlcls.reports.record_members import EnsembleFacts, MemberFigures

FORMAT = 1  # raised only when an older reader would misread a newer file; added fields do not raise it


@dataclass(frozen=True, slots=True)
class AttributeCount:
    """How many images show an attribute, do not show it, and are not labelled for it."""

    name: str
    positive: int
    negative: int
    unknown: int


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """Images in each subset."""

    train: int
    val: int
    test: int


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Images of one photo that are known to show an attribute, and others known not to.

    `near`: they are near-identical, not byte-identical.
    """

    attribute: str
    present: tuple[str, ...]
    absent: tuple[str, ...]
    near: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What the label table and its images hold.

    `rows` are the table's own; `images` those left after rows were merged and missing or unreadable images
    left out; `attributes` are counted over these. `duplicates` are groups of byte-identical images,
    `conflicts` groups (of one name or several) whose known labels contradict each other. `split` is None
    before there is one. `notes` are sentences for the reader.

    `near_duplicates` are groups of images that look like one photo (with what is byte-identical to one of
    them), `near_conflicts` those of them that contradict each other; `contradictions` say for which
    attribute, in both kinds of groups. `leaks` are groups of either kind with images in several subsets of a
    split that was given. `health` are sentences about the labels themselves. `images_dir` is the folder that
    names are relative to.
    """

    rows: int
    images: int
    missing: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    duplicates: tuple[tuple[str, ...], ...] = ()
    conflicts: tuple[tuple[str, ...], ...] = ()
    attributes: tuple[AttributeCount, ...]
    split: SplitCounts | None = None
    notes: tuple[str, ...] = ()
    near_duplicates: tuple[tuple[str, ...], ...] = ()
    near_conflicts: tuple[tuple[str, ...], ...] = ()
    leaks: tuple[tuple[str, ...], ...] = ()
    contradictions: tuple[Contradiction, ...] = ()
    health: tuple[str, ...] = ()
    images_dir: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFacts:
    """One stage of a training: its name, its first epoch, and how many parameters train and rest in it."""

    name: str
    first_epoch: int
    trainable: int
    frozen: int
    modules: tuple[str, ...] = ()  # what trains, by module name


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """The classifier: timm backbone, where its weights came from, head, and what each stage trains."""

    backbone: str
    backbone_args: dict[str, Any] = field(default_factory=dict)
    weights: str
    head: str
    features: int  # the size of the pooled features that the head sees
    image_size: int  # pixels, of the square that the backbone sees
    fit: str | None = None
    stages: tuple[StageFacts, ...]
    device: str | None = None
    precision: str | None = None
    notes: tuple[str, ...] = ()  # e.g. what of the weights was left out


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochFigures:
    """One epoch, counted from 0. Losses are means over known labels, `val_*` at threshold 0.5.

    None is undefined.
    `lr` is the head's learning rate at the epoch's start; `seconds` covers training and validation,
    `images_per_second` training alone; `skipped_steps` had a loss or gradient that was not finite.
    """

    epoch: int
    stage: int
    lr: float
    train_loss: float | None
    val_loss: float | None
    val_map: float | None
    val_f1: float | None
    val_precision: float | None
    val_recall: float | None
    val_hamming_loss: float | None
    val_exact_match: float | None
    seconds: float
    images_per_second: float | None
    skipped_steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A whole run. The fields are the top level of `metrics.json`, in its order.

    `recipe`, `thresholds`, `evaluation` and `calibration` hold JSON values: the complete recipe, an entry an
    attribute, `{"val": entry, "test": entry or None}`, and the lines that scores were calibrated by with what that
    gained (None: not calibrated), as the scoring room makes them. `soup` are the epochs whose weights were averaged
    (None: the weights are those of `best_epoch`). An ensemble has `members` and `ensemble`, and no
    `epochs` of its own; an ordinary run has neither.
    """

    format: int = FORMAT
    mlcls: str
    seed: int
    command: str
    data: DataFacts
    model: ModelFacts
    recipe: dict[str, Any]
    thresholds: tuple[dict[str, Any], ...] = ()
    epochs: tuple[EpochFigures, ...] = ()
    best_epoch: int | None = None
    stopped_because: str | None = None
    seconds: float = 0.0
    evaluation: dict[str, dict[str, Any] | None] = field(default_factory=lambda: {"val": None, "test": None})
    calibration: dict[str, Any] | None = None
    soup: tuple[int, ...] | None = None
    members: tuple[MemberFigures, ...] | None = None
    ensemble: EnsembleFacts | None = None


Facts = TypeVar("Facts")


def to_json(record: Record) -> str:
    """The text of `metrics.json`: the fields in their order, two spaces of indent, a last newline.

    The same record gives the same text. NaN and infinities become null, NumPy's values plain.

    Raises:
        TypeError: a value that JSON has no form for (a set, a path).
    """
    text = json.dumps(_plain(record), ensure_ascii=False, allow_nan=False, indent=2)
    # half a surrogate pair (a file name that is not UTF-8) has no UTF-8 form: written as JSON's own escape
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text) + "\n"


def from_json(text: str | bytes, source: str = "metrics.json") -> Record:
    """The record that `to_json` wrote. Fields that this version does not know are passed over.

    Args:
        text: the file's content, or its bytes in UTF-8.
        source: its path, for messages.

    Raises:
        BundleError: not JSON, another format, a field absent or of another type; the message names the field.
    """
    try:
        tree = json.loads(
            text if isinstance(text, str) else text.decode("utf-8"), parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{source}: damaged, not valid JSON ({error}); restore it or train the bundle again"
        ) from error
    if isinstance(tree, dict) and tree.get("format", FORMAT) != FORMAT:
        raise BundleError(
            f"{source}: format {tree['format']!r}, but this version of mlcls reads format {FORMAT}; "
            "use the version that wrote it (its field 'mlcls')"
        )
    record: Record = _read(Record, tree, "", source)
    return record


def facts_to_plain(facts: Any) -> Any:
    """One of this file's dataclasses as JSON values, NaN and infinities as null."""
    return _plain(facts)


def facts_from_plain(kind: type[Facts], tree: Any, source: str) -> Facts:
    """One of this file's dataclasses from the JSON values that `facts_to_plain` gave.

    Raises:
        BundleError: a field absent or of another type; the message begins with `source` and names the field.
    """
    facts: Facts = _read(kind, tree, "", source)
    return facts


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _plain(value: Any) -> Any:
    """The JSON value of a record's field."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Mapping):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {part.name: _plain(getattr(value, part.name)) for part in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        return _plain(value.tolist())
    raise TypeError(f"a record cannot hold {value!r}: JSON has no form for {type(value).__name__}")


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a record's keys are strings, not {key!r}")
    return key


def _read(kind: Any, value: Any, where: str, source: str) -> Any:
    """Make a value of the type `kind` from JSON; `where` is its path in the file, for the message."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):  # only `X | None` occurs
        if value is None:
            return None
        return _read(next(part for part in arguments if part is not type(None)), value, where, source)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(arguments[0], item, f"{where}[{i}]", source) for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _read(arguments[1], item, f"{where}.{key}", source) for key, item in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _read_fields(typing.cast("type[Any]", kind), value, where, source)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise _damaged(kind, value, where, source) from None
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise _damaged(kind, value, where, source)


def _read_fields(kind: type[Any], tree: dict[str, Any], where: str, source: str) -> Any:
    hints = typing.get_type_hints(kind)
    found: dict[str, Any] = {}
    for part in dataclasses.fields(kind):
        place = f"{where}.{part.name}".lstrip(".")
        if part.name in tree:
            found[part.name] = _read(hints[part.name], tree[part.name], place, source)
        elif part.default is dataclasses.MISSING and part.default_factory is dataclasses.MISSING:
            raise BundleError(
                f"{source}: the field '{place}' is absent; restore the file or train the bundle again"
            )
    return kind(**found)


def _damaged(kind: Any, value: Any, where: str, source: str) -> BundleError:
    expected = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(kind)
    if expected is None:
        expected = "a list" if typing.get_origin(kind) is tuple else "an object"
    found = repr(value)
    found = found if len(found) <= 60 else f"{found[:57]}..."
    place = f"the field '{where}'" if where else "the file"
    return BundleError(
        f"{source}: {place} should be {expected}, not {found}; restore the file or train the bundle again"
    )
