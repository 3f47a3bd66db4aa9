"""Scoring: predictions, metrics and thresholds, over known labels alone. NumPy; no torch, no pandas."""

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    if name in (
        "metrics",
        "predictions",
        "thresholds",
    ):  # `import mlcls` is enough for `mlcls.scoring.thresholds`
        return importlib.import_module(f"mlcls.scoring.{name}")
    raise AttributeError(f"module 'mlcls.scoring' has no attribute '{name}'")
