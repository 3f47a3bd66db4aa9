"""The modules that a cut makes: pixels to rows, rows to logits, and rows to the rows of a later cut."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from mlcls.models.fold import fold_batch_norms
from mlcls.models.packing import Constant, Count, Packed, Several, Slot, Source, pack, tensors_in, unpack
from mlcls.models.tracing import Key, Trace, resolve, works_in_place


class Frozen(nn.Module):
    """What is frozen before a cut: pixels, or the rows of an earlier cut, to packed rows; no gradients.

    Always in eval mode, whatever `train()` says: a BatchNorm whose statistics moved would end the cache.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        before: Sequence[Slot] | None,
        returned: Sequence[Source],
        after: Sequence[Slot],
    ) -> None:
        super().__init__()
        self.graph = graph
        self._before = None if before is None else tuple(before)
        self._returned = tuple(returned)
        self._after = tuple(after)
        super().train(False)

    def train(self, mode: bool = True) -> "Frozen":
        """Stays in eval mode."""
        return self

    @torch.no_grad()
    def forward(self, given: Tensor) -> Tensor:
        """uint8 pixels [B, 3, S, S], or float rows [B, K] of the earlier cut -> float rows [B, K]."""
        values = (given,) if self._before is None else (*unpack(given, self._before, fresh=True), len(given))
        # .forward: fx's own __call__ prints what goes wrong
        return pack(tensors_in(self.graph.forward(*values), self._returned), self._after)


class Rest(nn.Module):
    """What follows a cut: packed rows to logits, with the classifier's own modules and parameters.

    `train()` sets its modules to the modes that they had as the cut was found (a frozen BatchNorm among them
    stays in eval mode) and takes the graph of training, `eval()` the other one.
    """

    def __init__(
        self,
        training: fx.GraphModule,
        evaluation: fx.GraphModule,
        slots: Sequence[Slot],
        modes: Mapping[str, bool],
        *,
        fresh: bool,
    ) -> None:
        super().__init__()
        self.in_training = training
        self.in_evaluation = evaluation
        self._slots = tuple(slots)
        self._fresh = fresh
        self._modes = [
            (module, modes.get(name, False) if name else False)
            for graph in (training, evaluation)
            for name, module in graph.named_modules()
        ]

    def train(self, mode: bool = True) -> "Rest":
        """Training mode where the stage trains, or eval mode throughout."""
        self.training = mode
        for module, trains in self._modes:
            module.training = mode and trains
        return self

    def forward(self, packed: Tensor) -> Tensor:
        """float rows [B, K] -> logits [B, A]."""
        graph = self.in_training if self.training else self.in_evaluation
        logits: Tensor = graph.forward(*unpack(packed, self._slots, fresh=self._fresh), len(packed))
        return logits


def graph_up_to(graph: fx.Graph, wanted: Sequence[fx.Node], root: nn.Module) -> fx.Graph:
    """The part of a graph that computes some of its nodes, as a graph that returns them as a tuple."""
    nodes = list(graph.nodes)
    needed = set(wanted)
    last = max((i for i, node in enumerate(nodes) if node in needed), default=0)
    for node in reversed(nodes[: last + 1]):
        # what is done in place counts, though nobody may ask for what it returns
        written = node.op.startswith("call_") and works_in_place(node, root)
        if written or any(user in needed for user in node.users):
            needed.add(node)
    new = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        if node in needed or node.op == "placeholder":
            copies[node] = new.node_copy(node, copies.__getitem__)
    new.output(tuple(copies[node] for node in wanted))
    return new


def graph_after(
    graph: fx.Graph,
    keys: Mapping[fx.Node, Key],
    include: Callable[[Key], bool],
    sources: Mapping[Key, Source],
    wanted: Sequence[Key] | None,
    slots: int,
) -> tuple[fx.Graph, dict[str, Tensor]]:
    """The part of a graph behind a cut: the unpacked tensors and the number of images in.

    Args:
        graph, keys: of the whole.
        include: whether a node is computed here.
        sources: where the values come from that are not.
        wanted: what to return, as a tuple; None for what the whole graph returns.
        slots: how many tensors are packed.

    Returns:
        the graph, and the constant tensors that it takes by name.

    Raises:
        ValueError: it would need a value from before the cut that is not among the sources.
    """
    new = fx.Graph()
    inputs = [new.placeholder(f"packed_{i}") for i in range(slots)]
    count = new.placeholder("count")
    held: dict[str, Tensor] = {}
    values: dict[fx.Node, Any] = {}

    def value_of(node: fx.Node) -> Any:
        if node not in values:
            if node.op == "get_attr":  # a frozen parameter or buffer that is used behind the cut
                values[node] = new.node_copy(node)
            elif keys[node] in sources:
                values[node] = _emit(new, sources[keys[node]], inputs, count, held)
            else:
                raise ValueError(f"'{node.name}' lies before the cut and is not packed")
        return values[node]

    by_key: dict[Key, fx.Node] = {}
    for node in graph.nodes:
        by_key[keys[node]] = node
        if node.op in ("placeholder", "get_attr") or not (node.op == "output" or include(keys[node])):
            continue
        if node.op == "output":
            if wanted is None:
                new.output(fx.node.map_arg(node.args[0], value_of))
            else:
                new.output(tuple(value_of(by_key[key]) for key in wanted))
        else:
            values[node] = _copy(new, node, value_of)
    return new, held


def module_of(
    graph: fx.Graph, traced: Trace, root: nn.Module, held: Mapping[str, Tensor], *, fold: bool
) -> fx.GraphModule:
    """A graph with the modules, parameters and constants that it names, those of `root` themselves."""
    constants = {**traced.constants, **held}
    targets = {str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")}
    named = {target: resolve(root, constants, target) for target in targets}
    if fold:
        fold_batch_norms(graph, named)
        targets = {str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")}
    return fx.GraphModule({target: named[target] for target in targets}, graph)


def _copy(new: fx.Graph, node: fx.Node, value_of: Callable[[fx.Node], Any]) -> fx.Node:
    # not node_copy, which wants a node for a node: a size becomes a number here
    args = fx.node.map_arg(node.args, value_of)
    kwargs = fx.node.map_arg(node.kwargs, value_of)
    return new.create_node(node.op, node.target, args, kwargs, node.name)


def _emit(
    new: fx.Graph, source: Source, inputs: Sequence[fx.Node], count: fx.Node, held: dict[str, Tensor]
) -> Any:
    """The node, or the literal, that a source stands for."""
    if isinstance(source, Packed):
        return inputs[source.slot]
    if isinstance(source, Count):
        return count if source.multiple == 1 else new.call_function(operator.mul, (count, source.multiple))
    if isinstance(source, Several):
        items = [_emit(new, item, inputs, count, held) for item in source.items]
        return new.call_function(torch.Size, (items,)) if source.kind is torch.Size else source.kind(items)
    if isinstance(source, Constant) and isinstance(source.value, Tensor):
        name = f"held_{len(held)}"
        held[name] = source.value.detach().clone()
        return new.get_attr(name)
    return source.value
