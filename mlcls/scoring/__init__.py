"""Scoring: predictions, metrics, intervals, thresholds, calibration, over known labels; no torch, no pandas."""

import importlib
from types import ModuleType

_ROOM = (
    "assessment",
    "baselines",
    "calibration",
    "chance",
    "curves",
    "differences",
    "intervals",
    "metrics",
    "predictions",
    "thresholds",
)


def __getattr__(name: str) -> ModuleType:
    if name in _ROOM:  # `import mlcls` is enough for `mlcls.scoring.thresholds`
        return importlib.import_module(f"mlcls.scoring.{name}")
    raise AttributeError(f"module 'mlcls.scoring' has no attribute '{name}'")
