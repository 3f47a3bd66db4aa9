"""The state of optimizers and schedules as JSON and tensors: what PyTorch would pickle, without pickle."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mlcls.errors import RecipeError

_PLAIN = (str, int, bool, type(None))


def to_plain(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A state as plain JSON; its tensors are copied to the CPU and added to `tensors`.

    Args:
        value: tensors, numbers, strings, None, and dicts, lists and tuples of them.
        name: of the state, for the tensors' keys and the message.
        tensors: is added to.

    Raises:
        RecipeError: an object of another kind, which an optimizer from outside may keep.
    """
    if isinstance(value, Tensor):
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, _PLAIN) or type(value) is float:
        return value
    if isinstance(value, dict):
        items = [[to_plain(k, name, tensors), to_plain(v, f"{name}.{k}", tensors)] for k, v in value.items()]
        return {"dict": items}
    if type(value) in (list, tuple):
        kind = "list" if type(value) is list else "tuple"
        return {kind: [to_plain(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]}
    if isinstance(value, float):  # NumPy's own float64
        return float(value)
    raise RecipeError(
        f"{name}: holds a {type(value).__name__}, which a checkpoint has no form for; use an optimizer and a schedule "
        "that keep numbers and tensors, or --checkpoint-minutes 0"
    )


def from_plain(plain: Any, tensors: dict[str, Tensor]) -> Any:
    """What `to_plain` was given; its tensors lie on the CPU."""
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    return _READERS[kind](content, tensors)


_READERS: dict[str, Callable[[Any, dict[str, Tensor]], Any]] = {
    "tensor": lambda name, tensors: tensors[name],
    "float": lambda text, tensors: float(text),
    "dict": lambda items, tensors: {from_plain(k, tensors): from_plain(v, tensors) for k, v in items},
    "list": lambda items, tensors: [from_plain(item, tensors) for item in items],
    "tuple": lambda items, tensors: tuple(from_plain(item, tensors) for item in items),
}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's state; moments get the memory format of their parameters, as they were made with.

    Elementwise kernels take another path where formats differ, and may round otherwise.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in state["state"].items():
        if not (isinstance(index, int) and isinstance(values, dict)):
            continue  # what an optimizer from outside keeps of all parameters together
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameters[index].shape and value.ndim:
                values[name] = torch.empty_like(parameters[index], dtype=value.dtype).copy_(value)
    optimizer.load_state_dict(state)
