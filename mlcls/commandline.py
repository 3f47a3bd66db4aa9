"""What all commands share: parsers made from the recipe's fields, one message a mistake, exit codes."""

import argparse
import dataclasses
import difflib
import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from mlcls.errors import MlclsError, RecipeError, is_out_of_memory
from mlcls.kinds import auto_integer, integer, key_values, number, text_list
from mlcls.recipe import TABLE, Recipe, flag_of

if TYPE_CHECKING:
    from rich.console import Console

FAILED_IN_PART, WRONG_INPUT, GAVE_OUT, INTERRUPTED = 1, 2, 3, 130
MOST_RESAMPLES = 100_000  # more of them fill the memory, and move no third decimal


class Parser(argparse.ArgumentParser):
    """argparse with our manners: no abbreviated flags, and a mistyped flag gets the nearest one suggested."""

    def __init__(self, command: str, description: str) -> None:
        usage = f"python -m mlcls.{command} [flags]"
        super().__init__(prog=f"mlcls {command}", usage=usage, description=description, allow_abbrev=False)
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            near = difflib.get_close_matches(unknown[0].partition("=")[0], flags, n=1)
            hint = (
                f"; did you mean {near[0]}?"
                if near
                else f"; 'mlcls {self.prog.split()[-1]} --help' lists them"
            )
            self.error(f"unknown argument '{unknown[0]}'{hint}")
        return known

    def error(self, message: str) -> NoReturn:
        raise RecipeError(message)


def add_recipe_flags(parser: Parser, groups: Iterable[str], without: Iterable[str] = ()) -> None:
    """A flag for each field of the recipe in `groups`; one that is not given stays out of the namespace."""
    sections: dict[str, Any] = {}
    for field in dataclasses.fields(Recipe):
        rules = field.metadata
        if rules["group"] not in groups or field.name in without:
            continue
        section = (
            sections.setdefault(rules["group"], parser.add_argument_group(rules["group"]))
            if rules["group"] not in sections
            else sections[rules["group"]]
        )
        several = rules["kind"] in (text_list, key_values)
        section.add_argument(
            flag_of(field.name),
            default=argparse.SUPPRESS,
            nargs="+" if several else None,
            metavar=rules["metavar"] or _metavar(rules),
            help=rules["help"].replace("%", "%%") + _default_of(field),
        )


def _metavar(rules: Any) -> str:
    if rules["choices"]:
        return "{" + ",".join(rules["choices"]) + "}"
    return {integer: "N", number: "X", auto_integer: "N"}.get(rules["kind"], "NAME")


def _default_of(field: "dataclasses.Field[Any]") -> str:
    default = field.default
    if default is None or default is dataclasses.MISSING:
        return ""
    return f" (default: {default:g})" if isinstance(default, float) else f" (default: {default})"


def recipe_flags(arguments: argparse.Namespace) -> dict[str, Any]:
    """The recipe's fields that were given as flags."""
    names = {field.name for field in dataclasses.fields(Recipe)}
    return {key: value for key, value in vars(arguments).items() if key in names}


def table_recipe(labels: str | None, flags: dict[str, Any]) -> Recipe | None:
    """The table that a command is given by `--labels`; None where it is given none.

    Args:
        flags: the recipe's fields that were given as flags, those of other groups than the table's among them.

    Raises:
        RecipeError: a flag that speaks of a table, and no table.
    """
    fields = {field.name: field for field in dataclasses.fields(Recipe)}
    given = {
        name: value
        for name, value in flags.items()
        if fields[name].metadata["group"] == TABLE and value is not None
    }
    if labels is not None:
        return Recipe(**{**given, "labels": labels})
    if others := [name for name in given if name != "labels"]:
        raise RecipeError(
            f"{flag_of(others[0])}: speaks of a table; name it with --labels, or leave this flag out"
        )
    return None


def check_output(flag: str, path: str | None, *endings: str) -> None:
    """Make sure, before any work is done, that a file can be written there.

    Raises:
        RecipeError: it stands in no folder, is one, has another ending, or cannot be written.
    """
    if path is None:
        return
    place = Path(path)
    if not path or "\0" in path or place.is_dir():
        raise RecipeError(f"{flag} '{path}': expected the name of a file, e.g. name{endings[0]}")
    if place.suffix.lower() not in endings:
        raise RecipeError(f"{flag} {path}: expected a name that ends in {' or '.join(endings)}")
    if not place.parent.is_dir():
        raise RecipeError(f"{flag} {path}: there is no folder {place.parent}; make it first")
    if not os.access(place if place.exists() else place.parent, os.W_OK):
        raise RecipeError(f"{flag} {path}: cannot be written there; name another place")


def check_device(device: str, table: Recipe | None) -> None:
    """Refuse a device where nothing is to be predicted.

    Raises:
        RecipeError: a device, and no table.
    """
    if table is None and device != "auto":
        raise RecipeError(
            f"--device {device}: nothing is predicted without --labels; name a table, or leave this flag out"
        )


def whole_number(flag: str, least: int = 0, most: int | None = None) -> Callable[[str], int]:
    """The reader of a flag that takes a whole number from `least` on, to `most`; it raises RecipeError."""
    expected = f"from {least}" + ("" if most is None else f" to {most:,}")

    def read(text: str) -> int:
        try:
            number = integer(text)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            raise RecipeError(f"{flag}: expected a whole number {expected}, got '{text}'")
        return number

    return read


def add_models_flag(parser: Parser) -> None:
    """The flag --model, which may name several bundles; None where it is not given."""
    parser.add_argument(
        "--model", action="extend", nargs="+", metavar="DIR",
        help="the bundle (default: outputs); several, of the same attributes, are averaged",
    )  # fmt: skip


def add_tta_flag(parser: Parser) -> None:
    """The flag --tta; None where it is not given."""
    parser.add_argument(
        "--tta", metavar="NAME",
        help="views of each image that its probabilities are averaged over: none, or flip, zoom, rot90 with commas "
        "between them (default: those that the bundle was made with)",
    )  # fmt: skip


def run_command(command: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None) -> int:
    """Run a command; turn what a person or the machine did wrong into one message on stderr and an exit code."""
    debug = "--debug" in (sys.argv[1:] if argv is None else argv)
    try:
        return command(argv)
    except MlclsError as error:
        return _failed(str(error), error.exit_code, debug)
    except KeyboardInterrupt as error:
        return _failed(str(error) or "interrupted", INTERRUPTED, debug)
    except BrokenPipeError:  # `mlcls predict ... | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED_IN_PART
    except MemoryError:
        return _failed("out of memory: try a smaller --batch-size or --image-size", GAVE_OUT, debug)
    except OSError as error:
        gave_out = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _failed(what, GAVE_OUT if gave_out else WRONG_INPUT, debug)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return _failed(
            "out of memory on the device: try a smaller --batch-size or --image-size", GAVE_OUT, debug
        )


def _failed(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc(file=sys.stderr)
    sys.stderr.write(f"error: {_printable(message)}\n")
    return code


def _printable(message: str) -> str:
    """The message with escapes for what could steer a terminal or has no form in UTF-8: names may hold anything."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode("ascii")
        for char in message
    )


def console_on(stream: IO[str]) -> "Console":
    """A rich console on `stream`, imported only when something is to be shown."""
    from mlcls.reports.console import make_console

    return make_console(stream)
