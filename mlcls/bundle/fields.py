"""The fields of `bundle.json` and `thresholds.json`, checked, since a bundle may come from a stranger."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlcls.errors import RecipeError
from mlcls.images.preprocess import FITS, INTERPOLATIONS, Preprocessing
from mlcls.images.tta import tta_views
from mlcls.naming import find_refused
from mlcls.scoring.line import Calibration, identity
from mlcls.scoring.tuned import TunedThreshold

LARGEST_SIDE = 100_000  # px, of a network's input
MOST_MEMBERS = 1000


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _are_numbers(count: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) == count and all(map(_is_number, value))


def _are_views(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(tta_views(value))
    except RecipeError:
        return False


THRESHOLD_FIELDS: dict[str, Callable[[Any], bool]] = {
    "name": _is_text,
    "threshold": _is_number,
    "objective": _is_text,
    "known": _is_count,
    "positive": _is_count,
    "negative": _is_count,
    "value": _or_none(_is_number),
    "note": _or_none(_is_text),
    "estimator": _is_text,
    "cross_fitted": _or_none(_is_number),
    "interval": _or_none(_are_numbers(2)),
}
MANIFEST_FIELDS: dict[str, Callable[[Any], bool]] = {
    "backbone": _is_text,
    "backbone_args": lambda value: isinstance(value, dict),
    "head": _is_text,
    "dropout": _or_none(_is_number),
    "seed": _is_count,
    "tta": _or_none(_are_views),
}
PREPROCESSING_FIELDS: dict[str, Callable[[Any], bool]] = {
    "image_size": lambda value: _is_count(value) and value <= LARGEST_SIDE,
    "fit": _is_text,
    "interpolation": _is_text,
    "crop_pct": _is_number,
    "mean": _are_numbers(3),
    "std": _are_numbers(3),
}


def _check(fields: Mapping[str, Any], checks: Mapping[str, Callable[[Any], bool]]) -> None:
    for name, value in fields.items():
        if name in checks and not checks[name](value):
            raise ValueError(f"{name} {value!r:.80}")


def check_manifest(manifest: Mapping[str, Any]) -> None:
    """Check those fields of `bundle.json` that are taken as they stand. Raises ValueError, OverflowError."""
    _check(manifest, MANIFEST_FIELDS)


def names_of(names: Any) -> tuple[str, ...]:
    """Attributes, in their order. Raises ValueError where they are none."""
    if not isinstance(names, list) or not names or not all(map(_is_text, names)):
        raise ValueError("attributes: expected a list of names")
    if len(set(names)) < len(names) or any(map(find_refused, names)):
        raise ValueError("attributes: expected different names, without control characters")
    return tuple(names)


def members_of(names: Any) -> tuple[str, ...]:
    """The folders of an ensemble's members, as they stand there. Raises ValueError where they are none."""
    if not isinstance(names, list) or not names or not all(map(_is_text, names)):
        raise ValueError("members: expected a list of folders")
    if len(set(names)) < len(names) or len(names) > MOST_MEMBERS:
        raise ValueError(f"members: expected different folders, at most {MOST_MEMBERS}")
    return tuple(names)


def thresholds_of(rows: Any) -> tuple[TunedThreshold, ...]:
    """Thresholds, in their order. Raises ValueError, TypeError, AttributeError where they are none."""
    for row in rows:
        _check(row, THRESHOLD_FIELDS)
    return tuple(TunedThreshold(**row) for row in rows)


def preprocessing_of(fields: Any) -> Preprocessing:
    """How images are prepared. Raises ValueError, TypeError, AttributeError, RecipeError where it says none of it."""
    _check(fields, PREPROCESSING_FIELDS)
    for name, known in (("fit", FITS), ("interpolation", INTERPOLATIONS)):
        if fields.get(name) is not None and fields[name] not in known:  # package.module:function is imported
            raise ValueError(
                f"{name} {fields[name]!r:.80}: expected one of {', '.join(known)}; a bundle names no code to import"
            )
    arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Preprocessing(**arguments)


def calibration_of(fields: Mapping[str, Any] | None, attributes: int) -> Calibration:
    """How scores become probabilities; a bundle from before there was calibration leaves them as they are.

    Raises ValueError, TypeError, KeyError, OverflowError where the fields are none of that.
    """
    if fields is None:
        return identity(attributes)
    slope, intercept = (np.asarray(fields[name], dtype=np.float64) for name in ("slope", "intercept"))
    finite = np.isfinite(slope).all() and np.isfinite(intercept).all()
    if slope.shape != (attributes,) or intercept.shape != (attributes,) or not finite or (slope <= 0).any():
        raise ValueError("calibration: expected a slope above 0 and an intercept for each attribute")
    return Calibration(slope, intercept)
