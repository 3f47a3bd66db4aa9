"""The kinds of values that settings take: what a flag, a TOML file or Python gives, turned into its own type.

A kind raises ValueError with what was expected; who called it adds the setting's name and what was given.
"""

import ast
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Kind = Callable[[Any], Any]
LARGEST = 2**63  # whole numbers below it are what NumPy, PyTorch and TOML hold


def text(value: Any) -> str:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("expected text")
    if not _is_plain(str(value)):
        raise ValueError("expected text in UTF-8 (rename a file or folder whose name is in another encoding)")
    return str(value)


def integer(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError("expected a whole number")
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise ValueError("expected a whole number") from None
    if abs(number) >= LARGEST:
        raise ValueError("expected a whole number below 2^63")
    return number


def number(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    except (TypeError, ValueError):
        raise ValueError("expected a number") from None
    if not math.isfinite(number):
        raise ValueError("expected a finite number")
    return number


def auto_integer(value: Any) -> int | str:
    if value == "auto":
        return "auto"
    try:
        return integer(value)
    except ValueError as error:
        raise ValueError(str(error).replace("expected ", "expected 'auto' or ")) from None


def text_list(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list | tuple) or not all(isinstance(v, str | int | float) for v in value):
        raise ValueError("expected a list of names")
    names = [str(v) for v in value]
    if len(names) == 1 and "," in names[0]:  # --names a,b,c as well as --names a b c
        names = names[0].split(",")
    names = [name.strip() for name in names]
    if not names or not all(names):
        raise ValueError("expected names, none of them empty")
    if not _is_plain(names):
        raise ValueError("expected names in UTF-8")
    return tuple(names)


def _literal(text: str) -> Any:
    """`32`, `0.5`, `true`, `(8, 16)`, `avg` -> the value they show."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # all that its page names
        return text


def plain_value(value: Any) -> Any:
    """Tuples as lists, all the way down, as TOML and JSON hold them: what is read back equals what was written."""
    if isinstance(value, list | tuple):
        return [plain_value(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): plain_value(v) for k, v in value.items()}
    return value


def key_values(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        pairs = {str(k): plain_value(v) for k, v in value.items()}
    else:
        pairs = {}
        if isinstance(value, str) or not isinstance(value, Iterable):
            value = [value]
        for item in value:
            key, equals, text = str(item).partition("=")
            if not equals or not key.strip():
                raise ValueError(f"expected key=value, not '{item}'")
            pairs[key.strip()] = plain_value(_literal(text.strip()))
    for key, held in pairs.items():
        if not _is_plain(held):
            raise ValueError(f"expected text, true, false, finite numbers or lists of them for '{key}'")
    return pairs


def _is_plain(value: Any) -> bool:
    """Whether a recipe in TOML and a record in JSON can hold it: told now, not when a training is over."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(
        value, str
    ):  # half a surrogate pair, a byte of a name in another encoding, has no UTF-8 form
        return not any("\ud800" <= char <= "\udfff" for char in value)
    return isinstance(value, int)
