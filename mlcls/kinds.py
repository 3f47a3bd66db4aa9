"""The kinds of values that settings take: what a flag, a TOML file or Python gives, turned into its own type.

A kind raises ValueError with what was expected; who called it adds the setting's name and what was given.
"""

import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Kind = Callable[[Any], Any]


def text(value: Any) -> str:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("expected text")
    return str(value)


def integer(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError("expected a whole number")
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ValueError("expected a whole number") from None


def number(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError("expected a number") from None
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError("expected a finite number")
    return number


def auto_integer(value: Any) -> int | str:
    if value == "auto":
        return "auto"
    try:
        return integer(value)
    except ValueError:
        raise ValueError("expected 'auto' or a whole number") from None


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
    return tuple(names)


def _literal(text: str) -> Any:
    """`32`, `0.5`, `true`, `(8, 16)`, `avg` -> the value they show."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
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
        return {str(k): plain_value(v) for k, v in value.items()}
    if isinstance(value, str):
        value = [value]
    pairs = {}
    for item in value:
        key, equals, text = str(item).partition("=")
        if not equals or not key.strip():
            raise ValueError(f"expected key=value, not '{item}'")
        pairs[key.strip()] = plain_value(_literal(text.strip()))
    return pairs
