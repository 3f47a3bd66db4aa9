"""The arithmetic of a training: which precision is faster on this CPU, found by timing a step both ways."""

import statistics
import time
from collections.abc import Callable

import torch

TRIES = 3
WORTH = 1.2  # bf16 has to be this much faster: a near tie must not be decided by what else the machine does


def bf16_is_native() -> bool:
    """Whether this CPU multiplies bfloat16 in a way that can be faster than float32 (AVX-512, AMX, Arm's BF16)."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def faster_precision(step: Callable[[str], object]) -> tuple[str, float]:
    """fp32 or bf16, whichever makes the step faster; fp32 in a near tie.

    Networks of depthwise convolutions can be faster in fp32, and the factor depends on the CPU, so it is measured:
    once each to warm up, then by turns, medians of three.

    Args:
        step: computes one step in the precision that it is given.

    Returns:
        The precision, and the seconds of a float32 step over those of a bfloat16 step.
    """
    seconds: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for attempt in range(TRIES + 1):
        for precision, measured in seconds.items():
            started = time.perf_counter()
            step(precision)
            if attempt:
                measured.append(time.perf_counter() - started)
    ratio = statistics.median(seconds["fp32"]) / statistics.median(seconds["bf16"])
    return ("bf16" if ratio >= WORTH else "fp32"), ratio
