"""mlcls: from a table of labels and a folder of images to a multi-label classifier that can be trusted.

The public names load on first use (PEP 562), so that `import mlcls` is light.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlcls.bundle.predictor import Predictor
    from mlcls.errors import (
        BundleError,
        ImageError,
        MlclsError,
        NumericalError,
        OutputError,
        RecipeError,
        TableError,
        WeightsError,
    )
    from mlcls.labels.table import LabelTable, read_table
    from mlcls.recipe import Recipe, build_recipe
    from mlcls.reports.record import Record
    from mlcls.workflows.training import fit

__version__ = "0.1.0"

# Read when torch loads: its threads sleep while they wait. Spinning, they take the cores from the processes that load
# images and from whatever else runs, which cost three times the processor time on two busy cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_HOMES = {
    "BundleError": "mlcls.errors",
    "ImageError": "mlcls.errors",
    "LabelTable": "mlcls.labels.table",
    "MlclsError": "mlcls.errors",
    "NumericalError": "mlcls.errors",
    "OutputError": "mlcls.errors",
    "Predictor": "mlcls.bundle.predictor",
    "Recipe": "mlcls.recipe",
    "RecipeError": "mlcls.errors",
    "Record": "mlcls.reports.record",
    "TableError": "mlcls.errors",
    "WeightsError": "mlcls.errors",
    "build_recipe": "mlcls.recipe",
    "fit": "mlcls.workflows.training",
    "read_table": "mlcls.labels.table",
}

__all__ = [
    "BundleError",
    "ImageError",
    "LabelTable",
    "MlclsError",
    "NumericalError",
    "OutputError",
    "Predictor",
    "Recipe",
    "RecipeError",
    "Record",
    "TableError",
    "WeightsError",
    "build_recipe",
    "fit",
    "read_table",
]


_ROOMS = (
    "bundle",
    "errors",
    "images",
    "labels",
    "learning",
    "models",
    "recipe",
    "reports",
    "scoring",
    "workflows",
)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:  # `import mlcls` is enough for `mlcls.scoring.metrics.evaluate`
        return importlib.import_module(f"mlcls.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'mlcls' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
