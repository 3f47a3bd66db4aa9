"""Unknown labels: NaN in one float array, and the one place that takes them apart from the known.

Everything that computes with labels calls `split_missing` first. NaN is loud (a NaN that reaches a loss makes
the loss NaN) where -1 would train silently toward minus infinity; and because it lives in the labels' own
array, no mask can drift from its labels.
"""

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


@overload
def split_missing(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]: ...
@overload
def split_missing(labels: "Tensor") -> "tuple[Tensor, Tensor]": ...


def split_missing(labels: Any) -> tuple[Any, Any]:
    """Take labels apart into values without NaN and a mask of what is known.

    Args:
        labels: floats of any shape, 0 absent, 1 present, NaN unknown; a NumPy array or a torch tensor.

    Returns:
        `(values, known)` of the same shape and kind: `values` equals `labels` where known and 0 elsewhere
        (filled *before* a loss: `where(known, bce(x, nan), 0)` has a finite loss and NaN gradients);
        `known` is boolean.
    """
    known = labels == labels  # NaN alone differs from itself; holds for NumPy and torch alike
    if isinstance(labels, np.ndarray):
        return np.where(known, labels, labels.dtype.type(0)), known
    return labels.masked_fill(~known, 0.0), known
