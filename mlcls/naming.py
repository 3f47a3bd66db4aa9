"""Names that people write in flags and recipes: a key of a room's dict, or `package.module:function`."""

import difflib
import importlib
from collections.abc import Mapping
from typing import Any, TypeVar

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
