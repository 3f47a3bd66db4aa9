"""The frontier: a classifier cut in two where its first trainable parameter enters."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import fx, nn

from mlcls.models.classifier import Classifier
from mlcls.models.halves import Frozen, Rest, graph_after, graph_up_to, module_of
from mlcls.models.packing import Slot, Source, find_source, pack, packed_in, tensors_in, with_half
from mlcls.models.probes import Probe, check_bridge, check_cut, probing
from mlcls.models.stages import train_mode
from mlcls.models.tracing import Key, Trace, resolve, trace, works_in_place

_log = logging.getLogger("mlcls")

# What torch.fx and the models' own code raise where a model cannot be traced, or its halves do not run. Any code
# of any of timm's thousand models runs here on stand-ins for tensors, and each kind was met or is what such a
# stand-in provokes: TraceError and TypeError (a branch, int() or range() of a shape), RuntimeError (shapes that do
# not fit, NotImplementedError within it), ValueError and AssertionError (a model's own checks), AttributeError,
# NameError and LookupError (what the trace does not have). The way on is the whole network, which reports what
# is really wrong with it.
_UNCUTTABLE = (
    fx.proxy.TraceError,
    RuntimeError,
    TypeError,
    ValueError,
    AssertionError,
    AttributeError,
    NameError,
    LookupError,
)


@dataclass(frozen=True)
class Cut:
    """A classifier in two halves: `rest(trunk(pixels))` are the classifier's logits.

    trunk: pixels uint8 [B, 3, S, S] -> float [B, K], the activations at the frontier, a row an image. Always in
        eval mode, without gradients; holds frozen parameters alone.
    rest: rows [B, K] of any float dtype -> logits [B, A]. Shares modules and parameters with the classifier; its
        `train()` and `eval()` set the modes of the classifier's modules that it uses, and choose its graph.
    width: K, floats an image.
    nodes: the operations whose results are kept, as the graph names them.
    """

    trunk: nn.Module
    rest: nn.Module
    width: int
    nodes: tuple[str, ...]
    plan: "_Plan" = field(repr=False, compare=False)


@dataclass(frozen=True)
class _Plan:
    """How a classifier was cut.

    traced: the graphs.
    frozen: the keys of what is computed before the frontier.
    again: those of them that are computed again behind it, out of what is packed.
    sources: where the values come from that cross the frontier.
    packed: the keys of those of them that hold packed tensors.
    slots: where each packed tensor stands.
    image_size, fold: as asked for.
    """

    traced: Trace
    frozen: frozenset[Key]
    again: frozenset[Key]
    sources: Mapping[Key, Source]
    packed: tuple[Key, ...]
    slots: tuple[Slot, ...]
    image_size: int
    fold: bool


def find_cut(model: Classifier, image_size: int, *, fold: bool) -> Cut | None:
    """Cut a classifier where its first trainable parameter enters, by `requires_grad` as it is now.

    What runs in training mode is taken from `train_mode`. The classifier stays as it is: modes, buffers, the state
    of the random numbers. To be called when it is on its device, and again when something else trains.

    Args:
        model: on any device.
        image_size: S, pixels a side; the halves work for this size alone.
        fold: whether BatchNorm in eval mode is folded into the convolutions of the trunk, in copies. Faster;
            rounds otherwise, so that logits are near to the classifier's, no more equal to it.

    Returns:
        None where the model cannot be traced, its halves do not run or do not agree with it on a few images
        (the reason is logged for debugging), and where nothing before the first trainable parameter is worth
        keeping. Then the whole network has to run.
    """
    try:
        with probing(model, image_size) as probe:
            return _cut(model, probe, fold)
    except _UNCUTTABLE as error:
        _log.debug("the network is not cut (%s: %s)", type(error).__name__, _first_line(error))
        return None


def bridge(lower: Cut, upper: Cut) -> nn.Module | None:
    """The frozen part between two cuts of one classifier: rows of `lower` -> rows of `upper`, float [B, K].

    lower: found while more trained (the last stage); upper: while less did (the head alone). To be called before
    the later stage has trained, as what lies between is frozen in upper's stage alone.

    Returns:
        A module that is always in eval mode and gives no gradients, folded where `upper` is; None where `upper`
        needs what `lower` does not keep, or is no cut of the same network (the reason is logged for debugging).
    """
    try:
        module = _bridge(lower.plan, upper.plan)
        check_bridge(module, lower.trunk, upper.trunk, upper.plan.traced.shell, upper.plan.image_size)
    except _UNCUTTABLE as error:
        _log.debug("no bridge between two cuts (%s: %s)", type(error).__name__, _first_line(error))
        return None
    return module


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]


def _cut(model: Classifier, probe: Probe, fold: bool) -> Cut | None:
    traced = trace(model)
    shell, keys = traced.shell, traced.keys
    frozen = _frozen_keys(traced)
    crossing = _crossing(traced, frozen)
    again = _computed_again(traced, crossing)
    crossing = [node for node in crossing if keys[node] not in again]
    upstream = graph_up_to(traced.evaluation, crossing, shell)
    values = probe.run(module_of(upstream, traced, shell, {}, fold=False))
    slots: list[Slot] = []
    sources = {
        keys[node]: find_source(two, three, slots)
        for node, two, three in zip(crossing, values.two, values.three, strict=True)
    }
    kept = [node for node in crossing if packed_in(sources[keys[node]])]
    if not any(_parameters_of(node, traced) for node in graph_up_to(traced.evaluation, kept, shell).nodes):
        _log.debug("the network is not cut: no frozen parameter stands before the first trainable one")
        return None
    slots = with_half(slots, list(sources.values()), values.half)
    plan = _Plan(
        traced, frozen, again, sources, tuple(keys[node] for node in kept), tuple(slots), probe.size, fold
    )
    trunk = _trunk(plan, kept)
    two, three = (pack(tensors_in(v, list(sources.values())), slots) for v in (values.two, values.three))
    writes = check_cut(probe, shell, _rest(plan, shell, fresh=False), trunk, three, two)
    shell.eval()
    return Cut(
        trunk, _rest(plan, model, fresh=writes), slots[-1].last, tuple(node.name for node in kept), plan
    )


def _trunk(plan: _Plan, kept: Sequence[fx.Node]) -> Frozen:
    shell = plan.traced.shell
    graph = graph_up_to(plan.traced.evaluation, kept, shell)
    module = module_of(graph, plan.traced, shell, {}, fold=plan.fold)
    return Frozen(module, None, [plan.sources[key] for key in plan.packed], plan.slots)


def _rest(plan: _Plan, root: Classifier, *, fresh: bool) -> Rest:
    halves = []
    for graph in (plan.traced.training, plan.traced.evaluation):
        after, held = graph_after(
            graph,
            plan.traced.keys,
            lambda key: key not in plan.frozen or key in plan.again,
            plan.sources,
            None,
            len(plan.slots),
        )
        halves.append(module_of(after, plan.traced, root, held, fold=False))
    rest = Rest(halves[0], halves[1], plan.slots, plan.traced.modes, fresh=fresh)
    rest.training = root.training
    return rest


def _bridge(lower: _Plan, upper: _Plan) -> Frozen:
    ours = _in_order(lower.traced)
    theirs = _in_order(upper.traced)
    if len(ours) != len(theirs) or lower.image_size != upper.image_size:
        raise ValueError("the two cuts are of different networks, or of different image sizes")
    # the same code, traced in the same mode: node by node the same graph, under keys of its own
    lower_keys = {theirs[i]: ours[i] for i in range(len(ours))}
    graph, held = graph_after(
        upper.traced.evaluation,
        upper.traced.keys,
        lambda key: (
            key in upper.frozen and (lower_keys[key] not in lower.frozen or lower_keys[key] in lower.again)
        ),
        {key: lower.sources[lower_keys[key]] for key in theirs if lower_keys[key] in lower.sources},
        upper.packed,
        len(lower.slots),
    )
    module = module_of(graph, upper.traced, upper.traced.shell, held, fold=upper.fold)
    return Frozen(module, lower.slots, [upper.sources[key] for key in upper.packed], upper.slots)


def _in_order(traced: Trace) -> list[Key]:
    return [traced.keys[node] for node in traced.evaluation.nodes]


def _frozen_keys(traced: Trace) -> frozenset[Key]:
    """What is computed alike in training and in evaluation, and out of nothing that trains."""
    in_evaluation = {traced.keys[node] for node in traced.evaluation.nodes}
    train_mode(traced.shell)
    frozen: set[Key] = set()
    for node in traced.training.nodes:
        key = traced.keys[node]
        if node.op == "output" or key not in in_evaluation or _trains(node, traced):
            continue
        if all(traced.keys[given] in frozen for given in node.all_input_nodes):
            frozen.add(key)
    return frozenset(frozen)


def _trains(node: fx.Node, traced: Trace) -> bool:
    """Whether a node uses a trainable parameter, or a module that training changes or that changes in it."""
    if any(parameter.requires_grad for parameter in _parameters_of(node, traced)):
        return True
    if node.op != "call_module":
        return False
    module = traced.shell.get_submodule(str(node.target))
    return any(part.training and _heeds_mode(part) for part in module.modules())


def _heeds_mode(module: nn.Module) -> bool:
    """Whether a module may compute otherwise in training mode than in eval mode; in doubt it does."""
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, nn.modules.instancenorm._InstanceNorm):
        return module.track_running_stats
    if isinstance(module, nn.modules.batchnorm._NormBase | nn.RReLU | nn.RNNBase | nn.MultiheadAttention):
        return True
    return not type(module).__module__.startswith("torch.nn.")


def _crossing(traced: Trace, frozen: frozenset[Key]) -> list[fx.Node]:
    """The frozen nodes, of evaluation's graph and in its order, that what trains uses in either graph."""
    keys = traced.keys
    used = {
        keys[given]
        for graph in (traced.training, traced.evaluation)
        for node in graph.nodes
        if keys[node] not in frozen
        for given in node.all_input_nodes
        if given.op != "get_attr"
    }
    return [node for node in traced.evaluation.nodes if keys[node] in frozen & used]


def _computed_again(traced: Trace, crossing: Sequence[fx.Node]) -> frozenset[Key]:
    """What need not cross, as it is made from other values that do at little cost: shapes, norms, joins."""
    kept = set(crossing)
    again: set[fx.Node] = set()
    for node in reversed(crossing):
        way = _way_from(node, kept - {node}, traced)
        if way is not None:
            kept.remove(node)
            again |= way
    return frozenset(traced.keys[node] for node in again)


def _way_from(node: fx.Node, kept: set[fx.Node], traced: Trace) -> set[fx.Node] | None:
    """The nodes that make `node` out of `kept` ones; None where matrices or the pixels are needed for it."""
    way: set[fx.Node] = set()
    waiting, reached = [node], False
    while waiting:
        at = waiting.pop()
        if at in way:
            continue
        if not _is_cheap(at, traced):
            return None
        way.add(at)
        for given in at.all_input_nodes:
            reached = reached or given in kept
            if given not in kept:
                waiting.append(given)
    return way if reached else None


def _is_cheap(node: fx.Node, traced: Trace) -> bool:
    """Whether a node can as well be computed in each epoch: nothing in it multiplies by a matrix."""
    if node.op != "get_attr" and (not node.op.startswith("call_") or works_in_place(node, traced.shell)):
        return False
    return all(parameter.ndim < 2 for parameter in _parameters_of(node, traced))


def _parameters_of(node: fx.Node, traced: Trace) -> list[nn.Parameter]:
    if node.op not in ("call_module", "get_attr"):
        return []
    value = resolve(traced.shell, traced.constants, str(node.target))
    if isinstance(value, nn.Module):
        return list(value.parameters())
    return [value] if isinstance(value, nn.Parameter) else []
