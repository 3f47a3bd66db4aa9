"""Label tables: reading, checking, splitting, and the built-in data. NumPy and pandas; never torch."""

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    if name in ("split", "table"):  # `import mlcls` is enough for `mlcls.labels.table`
        return importlib.import_module(f"mlcls.labels.{name}")
    raise AttributeError(f"module 'mlcls.labels' has no attribute '{name}'")
