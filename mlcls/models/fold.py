"""BatchNorm folded into the convolution before it, in copies: the same frozen network with fewer passes over memory."""

import copy

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import fx, nn

# Exactly these: a subclass may do more with its weight than convolve with it (timm's StdConv2d normalises it).
_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
_BATCH_NORMS = (nn.BatchNorm2d, BatchNormAct2d)


def fold_batch_norms(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    """Fold each BatchNorm in eval mode into the convolution that it alone follows.

    With w, b of the convolution, g, h of the BatchNorm and its running mean m and variance v:
    w' = w g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + h (Jacob et al. 2018, section 3.2). The dropout and the
    activation inside of timm's BatchNormAct2d stay.

    Args:
        graph: changed in place.
        modules: what the graph's modules are by name; folded ones are replaced, none is changed itself.
    """
    calls: dict[str, int] = {}
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            calls[str(node.target)] = calls.get(str(node.target), 0) + 1
    for node in list(graph.nodes):
        if node.op != "call_module" or len(node.all_input_nodes) != 1 or len(node.args) != 1 or node.kwargs:
            continue
        before, name = node.all_input_nodes[0], str(node.target)
        if before.op != "call_module" or len(before.users) != 1:
            continue
        norm, convolution = modules[name], modules[str(before.target)]
        alone = all(_times(calls, target) == 1 for target in (name, str(before.target)))
        if not (alone and _can_fold(convolution, norm)):
            continue
        modules[str(before.target)] = _folded(convolution, norm)  # type: ignore[arg-type]
        if isinstance(norm, BatchNormAct2d):
            modules[name] = nn.Sequential(norm.drop, norm.act).eval()
        else:
            node.replace_all_uses_with(before)
            graph.erase_node(node)


def _times(calls: dict[str, int], target: str) -> int:
    """How often a graph calls a module, or takes a parameter out of it."""
    return sum(n for name, n in calls.items() if name == target or name.startswith(f"{target}."))


def _can_fold(convolution: nn.Module, norm: nn.Module) -> bool:
    return (
        type(convolution) in _CONVOLUTIONS
        and type(norm) in _BATCH_NORMS
        and not norm.training
        and getattr(norm, "running_mean", None) is not None
    )


@torch.no_grad()
def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    # in float64, rounded once at the end, and on the CPU, as not every device has it
    mean, variance = norm.running_mean.to("cpu", torch.float64), norm.running_var.to("cpu", torch.float64)
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.to("cpu", torch.float64)
    shift = -mean
    if convolution.bias is not None:
        shift = shift + convolution.bias.to("cpu", torch.float64)
    bias = shift * scale
    if norm.bias is not None:
        bias = bias + norm.bias.to("cpu", torch.float64)
    old = convolution.weight
    weight = old.to("cpu", torch.float64) * scale.view(-1, 1, 1, 1)
    folded = copy.deepcopy(convolution, {id(p): None for p in convolution.parameters()})
    folded.weight = nn.Parameter(weight.to(old.device, old.dtype), requires_grad=False)
    folded.bias = nn.Parameter(bias.to(old.device, old.dtype), requires_grad=False)
    return folded
