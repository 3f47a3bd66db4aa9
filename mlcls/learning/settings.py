"""Which of a recipe's settings a chosen function takes: one rule for losses, optimizers and schedules."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from mlcls.errors import RecipeError
from mlcls.naming import suggest


def settings_for(
    function: Callable[..., Any],
    settings: Mapping[str, Any],
    registry: Mapping[str, Callable[..., Any]],
    what: str,
    positional: int,
) -> dict[str, Any]:
    """The part of `settings` that `function` takes.

    A setting of a sibling in `registry` is left out, so that a flag may choose another function than the
    recipe did without the recipe's numbers being in its way; a setting that nothing takes is a mistake.

    Args:
        function: the chosen function; a parameter `**anything` takes every setting.
        settings: names and values, as a recipe gives them.
        registry: the siblings of `function`.
        what: how the message calls it, with its flag, e.g. `--loss focal`.
        positional: how many leading parameters are no settings, e.g. 2 for `(logits, targets)`.

    Raises:
        RecipeError: a setting that nothing takes, or `function` is no function with a readable signature.
    """
    takes = setting_names(function, what, positional)
    if takes is None:
        return dict(settings)
    parameters = inspect.signature(function).parameters
    siblings = {name for entry in registry.values() for name in setting_names(entry, what, positional) or ()}
    for name, value in settings.items():
        if name not in takes and name not in siblings:
            # pos_weight has a flag of its own
            offered = [known for known in takes if known != "pos_weight"]
            hint = suggest(name, offered) if offered else "it takes none"
            raise RecipeError(f"{what}: no setting '{name}'; {hint}")
        if name in takes:
            check_kind(f"{what}: {name}", value, parameters[name].default)
    return {name: value for name, value in settings.items() if name in takes}


def check_kind(what: str, value: Any, default: Any) -> None:
    """Refuse a value of another kind than the default's: a number, a whole number, true or false, a list.

    Raises:
        RecipeError: it is of another kind. A default of any other kind allows everything.
    """
    kinds: dict[type, tuple[str, tuple[type, ...]]] = {
        float: ("a number", (int, float)),
        int: ("a whole number", (int,)),
        bool: ("true or false", (bool,)),
        tuple: ("a list", (list, tuple)),
    }
    if type(default) not in kinds:
        return
    expected, allowed = kinds[type(default)]
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise RecipeError(f"{what} is {value!r}, expected {expected}")


def setting_names(function: Callable[..., Any], what: str, positional: int) -> list[str] | None:
    """The names of the parameters after the first `positional` ones; None when every name is taken.

    Raises:
        RecipeError: not callable, or without a readable signature (a function written in C).
    """
    if not callable(function):
        raise RecipeError(f"{what}: names a {type(function).__name__}, expected a function")
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError as error:
        message = f"{what}: its parameters cannot be read; wrap it in a Python function of your own"
        raise RecipeError(message) from error
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    leading = [p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY][:positional]
    return [p.name for p in parameters if p.kind in by_name and p.name not in leading]
