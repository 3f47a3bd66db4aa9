"""What trials vary: fields of the recipe with their ranges or choices, built in, published, or from a TOML file."""

import dataclasses
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcls.errors import MlclsError, RecipeError
from mlcls.naming import suggest
from mlcls.recipe import OUTPUT, TABLE, Recipe, flag_of

BUILT_IN = "default"
PUBLISHED = "published"
FIXED = ("seed", "device", "workers", "cache_gb", "resamples", "folds", "views")
"""Settings, beside those of the table and the output, that are no trial's to vary."""
OF_THE_LOSS = ("loss", "loss_args", "pos_weight", "pos_weight_cap", "na", "na_args")
"""Settings that change what `val_loss` measures."""
AT_THE_END = ("soup", "tta")
"""Settings that the figures of an epoch know nothing of."""
HEADS_DROPOUT = {"mlp": 0.5, "linear": 0.0, "fc": 0.5}
"""The first dropout of a head that is given none."""
BASELINE = "as given"
"""The name of the trial that is the recipe as it stands."""
_KEYS = ("low", "high", "log", "step", "choices")


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both among them: by their logarithm, or in steps; `whole` numbers alone."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Choices:
    """Values to choose from, in no order."""

    values: tuple[Any, ...]


Space = dict[str, Range | Choices]
"""What a field of the recipe, or `schedule_args.warmup_epochs` of one that holds numbers by name, is taken from."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A trial that is run as it stands, before any is drawn: its name, values of the space, and fields beside it."""

    name: str
    values: dict[str, Any]
    fields: dict[str, Any]


_TABLE_COLUMNS = ("optimizer", "lr_finetune", "weight_decay", "dropout", "schedule", "batch_size")
# A table of five trials of a ResNet, as published: the columns above, and over how many epochs the cosine falls
# (its T_max); a batch that the table calls the default is one of 32.
_PUBLISHED: tuple[tuple[str, tuple[Any, ...], int | None], ...] = (
    ("Trial 1", ("adam", 5e-4, 1e-4, 0.5, "step", 32), None),
    ("Trial 2", ("adam", 1e-4, 1e-5, 0.4, "plateau", 32), None),
    ("Trial 3", ("adam", 1e-4, 7e-4, 0.5, "cosine", 32), 25),
    ("Trial 4", ("adamw", 1e-4, 5e-4, 0.45, "cosine", 64), 35),
    ("Trial 5", ("adamw", 1e-4, 6e-4, 0.48, "cosine", 80), 40),
)


def built_in_space(recipe: Recipe, given: Collection[str] = ()) -> Space:
    """The space that is searched where no file names one; it holds the columns of the published table.

    Args:
        recipe: what it varies; a learning rate that no stage of it uses is left out.
        given: fields that a person has named, which stay as they are.

    Raises:
        RecipeError: all of its fields are given.
    """
    space: Space = {
        "lr_head": Range(5e-4, 1e-2, log=True),
        "lr_finetune": Range(1e-5, 5e-3, log=True),
        "optimizer": Choices(("adam", "adamw")),
        "weight_decay": Range(1e-6, 1e-2, log=True),
        "dropout": Range(0.0, 0.6),
        "schedule": Choices(("step", "plateau", "cosine")),
        "batch_size": Range(16, 96, step=16, whole=True),
    }
    unused = set(given)
    if recipe.unfreeze == "none":
        unused.add("lr_finetune")
    elif recipe.unfreeze_epoch == 0:
        unused.add("lr_head")
    left = {name: one for name, one in space.items() if name not in unused}
    if not left:
        flags = ", ".join(flag_of(name) for name in space if name in given)
        raise RecipeError(
            f"{flags}: nothing is left to vary; leave one of them out, or give --space FILE.toml"
        )
    return left


def published_trials(recipe: Recipe, space: Space, given: Collection[str] = ()) -> tuple[Planned, ...]:
    """The five published trials, as values of the built-in space and fields beside it.

    A published learning rate is `lr_finetune`, T_max the epochs of the stage that has it; what the table does not say
    is as in the recipe.

    Args:
        given: fields that a person has named, which stay as they are.
    """
    planned = []
    for name, row, falls in _PUBLISHED:
        values = dict(zip(_TABLE_COLUMNS, row, strict=True))
        head = space.get("lr_head")
        if isinstance(head, Range):
            values["lr_head"] = min(max(recipe.lr_head, head.low), head.high)
        fields: dict[str, Any] = {}
        if falls is not None and "epochs" not in given:
            fields["epochs"] = falls + (0 if recipe.unfreeze == "none" else recipe.unfreeze_epoch)
        planned.append(Planned(name, {key: values[key] for key in space if key in values}, fields))
    return tuple(planned)


def baseline_trial(recipe: Recipe, space: Space) -> Planned | None:
    """The recipe as it stands, for the others to be held against; None where a value of it is not in the space."""
    values: dict[str, Any] = {}
    for name, one in space.items():
        field, dot, key = name.partition(".")
        value = getattr(recipe, field)
        value = value.get(key) if dot else value
        if name == "dropout" and value is None:
            value = HEADS_DROPOUT.get(recipe.head)
        if value is None or not _holds(one, value):
            return None
        values[name] = value
    return Planned(BASELINE, values, {})


def _holds(one: Range | Choices, value: Any) -> bool:
    if isinstance(one, Choices):
        return value in one.values
    if isinstance(value, str | bool) or not one.low <= value <= one.high:
        return False
    return one.step is None or abs((value - one.low) / one.step % 1) < 1e-9


def read_space(path: Path, recipe: Recipe, given: Collection[str] = ()) -> Space:
    """The space of a TOML file: a table a field, `low` and `high` (and `log` or `step`), or `choices`.

    Args:
        recipe: what it varies; its names and bounds are checked by trying the ends and the choices in it.
        given: fields that a person has named as flags, which the file must not vary.

    Raises:
        RecipeError: with all that is wrong.
    """
    try:
        toml = path.read_text(encoding="utf-8-sig")
        tables = tomllib.loads(toml)
    except OSError as error:
        near = suggest(str(path), [BUILT_IN, PUBLISHED])
        raise RecipeError(
            f"--space {path}: cannot be read as a TOML file ({error.strerror}), and is no space's name; {near}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"--space {path}: not a TOML file: {error}") from error
    space: Space = {}
    faults = []
    for name, table in _fields_of(tables):
        where = f"--space {path}{_line_of(toml, name)}: {name}"
        try:
            field = name.partition(".")[0]
            if field in given:
                raise RecipeError(f"{flag_of(field)} is given too; leave out the flag, or this table")
            space[name] = _read_one(name, table)
            faults += [f"{where}: {fault}" for fault in _refused(recipe, name, space[name])]
        except RecipeError as error:
            faults.append(f"{where}: {error}")
    if not space and not faults:
        faults.append(
            f"--space {path}: varies nothing; add e.g.\n[lr_finetune]\nlow = 1e-5\nhigh = 1e-3\nlog = true"
        )
    if faults:
        raise RecipeError("\n".join(dict.fromkeys(faults)))
    return space


def apply_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with these values; `schedule_args.warmup_epochs` changes one of the numbers that a field holds.

    Raises:
        RecipeError: a value that its field cannot have.
    """
    changes: dict[str, Any] = {}
    for name, value in values.items():
        field, dot, key = name.partition(".")
        if dot:
            changes[field] = {**changes.get(field, getattr(recipe, field)), key: value}
        else:
            changes[field] = value
    return dataclasses.replace(recipe, **changes)


def space_values(space: Space) -> dict[str, dict[str, Any]]:
    """The space as values that JSON holds, to be kept with a study and compared."""
    return {
        name: {"choices": list(one.values)} if isinstance(one, Choices) else dataclasses.asdict(one)
        for name, one in sorted(space.items())
    }


def check_metric(metric: str, space: Space) -> None:
    """Refuse a space whose trials could not be told by the figure.

    Raises:
        RecipeError: it varies what the loss is, and `metric` is the loss; or what is made of the epochs at the end,
            which `val_map` alone is measured of.
    """
    late = [name for name in space if name in AT_THE_END]
    if metric != "val_map" and late:
        raise RecipeError(
            f"--metric {metric}: is measured at the end of each epoch, and the space varies {', '.join(late)}, which "
            "comes after the last one; use --metric val_map"
        )
    varied = [name for name in space if name.partition(".")[0] in OF_THE_LOSS]
    if metric == "val_loss" and varied:
        raise RecipeError(
            f"--metric val_loss: the space varies {', '.join(varied)}, which changes what the loss is, so that one "
            "trial's says nothing against another's; use --metric val_map"
        )


def _fields_of(tables: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names, with dots in those of numbers that a field holds, and their tables."""
    for name, table in tables.items():
        if isinstance(table, Mapping) and table and all(isinstance(one, Mapping) for one in table.values()):
            for key, inner in table.items():
                yield f"{name}.{key}", inner
        else:
            yield name, table


def _read_one(name: str, table: Any) -> Range | Choices:
    """The range or the choices that a table says. Raises RecipeError."""
    kind = _kind_of(name)
    if not isinstance(table, Mapping):
        raise RecipeError(f"expected a table with low and high, or with choices, got {table!r}")
    if unknown := [key for key in table if key not in _KEYS]:
        raise RecipeError(
            f"'{unknown[0]}' is not one of {', '.join(_KEYS)}; {suggest(unknown[0], list(_KEYS))}"
        )
    if "choices" in table:
        if len(table) > 1:
            raise RecipeError("choices stand alone, without low, high, log and step")
        return _read_choices(table["choices"])
    if kind == "text":
        raise RecipeError("takes names, no numbers; give choices = [...]")
    return _read_range(table, kind)


def _kind_of(name: str) -> str:
    """What a field takes: `whole` numbers, a `number`, `text`, or `any` by a name of its own. Raises RecipeError."""
    fields = {field.name: field for field in dataclasses.fields(Recipe)}
    first, dot, key = name.partition(".")
    if first not in fields:
        raise RecipeError(f"is not a setting; {suggest(first, list(fields))}")
    rules = fields[first].metadata
    if rules["group"] in (TABLE, OUTPUT) or first in FIXED:
        raise RecipeError("cannot be varied: trials are compared on the same images, by the same seed")
    kind = str(rules["kind"].__name__)
    if kind == "key_values":
        if not dot or not key:
            raise RecipeError(f"holds numbers by name; vary one of them, as in [{first}.NAME]")
        return "any"
    if dot:
        raise RecipeError(f"{first} holds one value, no '{key}'")
    return {"integer": "whole", "number": "number"}.get(kind, "text")


def _read_choices(values: Any) -> Choices:
    if not isinstance(values, list) or not all(isinstance(v, str | int | float) for v in values):
        raise RecipeError(f"choices: expected a list of names or numbers, got {values!r}")
    if len(values) < 2 or len({(type(v), v) for v in values}) < len(values):
        raise RecipeError(f"choices: expected two values or more, no two alike, got {values!r}")
    return Choices(tuple(values))


def _read_range(table: Mapping[str, Any], kind: str) -> Range:
    numbers: dict[str, float] = {}
    for key in ("low", "high", "step"):
        value = table.get(key)
        if value is None and key == "step":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or value - value != 0:
            raise RecipeError(
                f"{key}: expected a number, " + ("which is absent" if value is None else f"got {value!r}")
            )
        numbers[key] = value
    log = table.get("log", False)
    if not isinstance(log, bool):
        raise RecipeError(f"log: expected true or false, got {log!r}")
    whole = kind == "whole" or (kind == "any" and all(isinstance(value, int) for value in numbers.values()))
    if whole and any(value != int(value) for value in numbers.values()):
        raise RecipeError("expected whole numbers")
    low, high, step = numbers["low"], numbers["high"], numbers.get("step")
    if low >= high:
        raise RecipeError(f"low is {low:g}, high is {high:g}; expected low below high")
    if log and low <= 0:
        raise RecipeError(f"low is {low:g}; with log = true expected above 0")
    if step is not None:
        if log or not 0 < step <= high - low:
            raise RecipeError(f"step is {step:g}; expected above 0, at most high - low, and no log beside it")
        high = low + int((high - low) / step + 1e-9) * step
    if whole:
        return Range(int(low), int(high), log, None if step is None else int(step), whole=True)
    return Range(float(low), float(high), log, step)


def _refused(recipe: Recipe, name: str, one: Range | Choices) -> list[str]:
    """What is wrong with the recipe at the ends, or at a choice."""
    from mlcls.workflows.checks import check_names  # torch: for this alone

    faults: list[str] = []
    for value in (one.low, one.high) if isinstance(one, Range) else one.values:
        try:
            check_names(apply_values(recipe, {name: value}))
        except MlclsError as error:
            faults.append(f"{value!r}: {error}")
    return faults


def _line_of(toml: str, name: str) -> str:
    lines = [line.replace(" ", "").replace('"', "") for line in toml.splitlines()]
    for begin in (f"[{name}]", f"{name}="):  # first its own table: `log` is a key of others too
        for number, line in enumerate(lines, start=1):
            if line.startswith(begin):
                return f", line {number}"
    return ""
