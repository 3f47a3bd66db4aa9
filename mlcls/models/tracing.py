"""A classifier as a graph of operations, traced once as it trains and once as it is evaluated."""

import copy
import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, nn

from mlcls.models.classifier import Classifier
from mlcls.models.stages import train_mode

Key = int
"""Equal for two nodes, in one graph or two, that compute the same from the same; see `Trace.keys`."""


class _Tracer(fx.Tracer):
    """Traces through everything but torch's own layers and what timm says must be left whole."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        self._whole = tuple(get_notrace_modules())

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self._whole) or super().is_leaf_module(m, module_qualified_name)


@dataclass(frozen=True)
class Trace:
    """A traced classifier.

    shell: modules of their own around the classifier's own parameters, under the same names. Its modes, its
        buffers and what its modules remember can be changed without the classifier noticing.
    training, evaluation: the graphs, which may differ (a drop-path is there while it trains, and nowhere else).
    keys: the key of each node of both graphs. What both graphs compute alike has one key.
    constants: tensors that the model made while it was traced, by the name that the graphs use.
    modes: whether a module trains, as `train_mode` sets it, by name.
    """

    shell: Classifier
    training: fx.Graph
    evaluation: fx.Graph
    keys: dict[fx.Node, Key]
    constants: dict[str, Tensor]
    modes: dict[str, bool]


def trace(model: Classifier) -> Trace:
    """Trace a classifier, by its `requires_grad` as it is now; the classifier itself stays as it is.

    Raises:
        ValueError: it draws random numbers that the graph would repeat for ever.
        Exception: whatever torch.fx or the model's own code says when they do not agree.
    """
    shell = shell_of(model)
    before = torch.get_rng_state()
    constants: dict[str, Tensor] = {}
    training = _trace_once(shell, train_mode, constants)
    modes = {name: module.training for name, module in shell.named_modules()}
    evaluation = _trace_once(shell, nn.Module.eval, constants)
    if not torch.equal(before, torch.get_rng_state()):
        torch.set_rng_state(before)
        raise ValueError("the model draws random numbers of its own, which a graph would hold fixed")
    keys: dict[fx.Node, Key] = {}
    table: dict[tuple[str, int], Key] = {}
    for graph in (training, evaluation):
        _add_keys(graph, constants, table, keys)
    return Trace(shell, training, evaluation, keys, constants, modes)


def shell_of(model: Classifier) -> Classifier:
    """A copy of every module and buffer, around the same parameters."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def resolve(root: nn.Module, constants: Mapping[str, Any], target: str) -> Any:
    """What a node's target names: a constant, a module, a parameter, a buffer or another attribute."""
    if target in constants:
        return constants[target]
    value: Any = root
    for name in target.split("."):
        value = getattr(value, name)
    return value


def works_in_place(node: fx.Node, root: nn.Module) -> bool:
    """Whether a node may write into what it was given, so that it must run just once and in its turn."""
    if node.op == "call_module":
        return any(getattr(module, "inplace", False) for module in root.get_submodule(_name(node)).modules())
    name = _name(node) if node.op == "call_method" else getattr(node.target, "__name__", "")
    augmented = name.startswith("i") and getattr(node.target, "__module__", "") == "_operator"
    written = name.endswith("_") and not name.endswith("__")
    return (
        written
        or name == "setitem"
        or bool(node.kwargs.get("inplace"))
        or "out" in node.kwargs
        or (augmented and name not in ("index", "inv", "invert", "is_", "is_not", "indexOf"))
    )


def _name(node: fx.Node) -> str:
    return str(node.target)


def _trace_once(
    shell: Classifier, set_mode: Callable[[Classifier], object], constants: dict[str, Tensor]
) -> fx.Graph:
    shell.train()  # here some modules (LeViT's) forget what they remembered from the pass before
    set_mode(shell)
    known = set(vars(shell))
    with warnings.catch_warnings():
        # what the model's own code says about proxies of shapes, once per trace, is of no use to anybody
        warnings.simplefilter("ignore")
        graph = _Tracer().trace(shell)
    for name in set(vars(shell)) - known:
        constants[f"{name}_{len(constants)}"] = value = vars(shell)[name]
        for node in graph.nodes:
            if node.op == "get_attr" and node.target == name:
                node.target = f"{name}_{len(constants) - 1}"
        delattr(shell, name)
        if not isinstance(value, Tensor):
            raise TypeError(f"the model hides a {type(value).__name__} from the trace")
    return graph


def _add_keys(
    graph: fx.Graph,
    constants: Mapping[str, Tensor],
    table: dict[tuple[str, int], Key],
    keys: dict[fx.Node, Key],
) -> None:
    """Give every node its key: two nodes have the same one when what they do, with what, is the same.

    The second time that a graph does the same with the same is another key: an operation in place, or one
    that draws a random number, gives something else then.
    """
    seen: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "get_attr" and node.target in constants:
            what = f"constant {_digest(constants[node.target])}"
        else:
            target = node.target if isinstance(node.target, str) else _identity(node.target)
            given = fx.node.map_arg((node.args, node.kwargs), lambda other: f"\0{keys[other]}")
            what = f"{node.op} {target} {given!r}"
        seen[what] = seen.get(what, 0) + 1
        keys[node] = table.setdefault((what, seen[what]), len(table))


def _identity(function: Any) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}#{id(function)}"


def _digest(tensor: Tensor) -> str:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{tensor.dtype} {tuple(tensor.shape)} {tensor.device} {hashlib.sha256(raw).hexdigest()}"
