"""Names: those that people write in flags and recipes, and which characters any name may hold.

In flags and recipes a name is a key of a room's dict, or `package.module:function`.
"""

import difflib
import importlib
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from mlcls.errors import RecipeError

T = TypeVar("T")


def suggest(name: str, known: "Mapping[str, Any] | list[str]") -> str:
    """A half sentence that names the nearest known name, or all of them when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean '{near[0]}'?" if near else f"expected one of: {', '.join(known)}"


def look_up(registry: Mapping[str, T], name: str, what: str) -> T:
    """The entry of `registry` called `name`, or the object that `package.module:function` names.

    Args:
        registry: a room's dict, e.g. `LOSSES`.
        name: a key of it, or `package.module:attribute` of any importable module.
        what: how the message calls it, with its flag, e.g. `--loss`.

    Raises:
        RecipeError: the name is neither; the message suggests the nearest key.
    """
    if name in registry:
        return registry[name]
    if ":" not in name:
        raise RecipeError(f"{what}: unknown name '{name}'; {suggest(name, registry)}")
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise RecipeError(f"{what}: cannot import '{module_name}' of '{name}': {error}") from error
    found: T | None = getattr(module, attribute, None)
    if found is None:
        raise RecipeError(
            f"{what}: module '{module_name}' has no '{attribute}'; {suggest(attribute, dir(module))}"
        )
    return found


# Control characters but for tabs and line breaks: what a terminal would obey when the name is shown, and NUL, which
# ends a name for the system. Halves of surrogate pairs, as JSON may have them: no file in UTF-8 can hold these.
_REFUSED: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def find_refused(name: str) -> str | None:
    """The first character that no image's, attribute's or column's name may hold, as people write it (`\\x1b`).

    None where all are fine.
    """
    if name.isprintable():  # nearly all are: much quicker
        return None
    found = _REFUSED.search(name)
    return None if found is None else ascii(found[0])[1:-1]


def shown(text: str) -> str:
    """A text as it may stand in a message, with what a name may not hold written out."""
    return _REFUSED.sub(lambda found: ascii(found[0])[1:-1], text)
