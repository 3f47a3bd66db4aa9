"""The arithmetic of a training: which precision is faster on this CPU, found by timing a step both ways."""

import time
from collections.abc import Callable

import torch

TRIES = 3
WORTH = 1.25  # bf16 has to be this much faster: a near tie must not be decided by what else the machine does
SHORT = 0.05  # seconds of a step that is too short to be timed, or to be worth it


def bf16_is_native() -> bool:
    """Whether this CPU multiplies bfloat16 in a way that can be faster than float32 (AVX-512, AMX, Arm's BF16)."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def faster_precision(step: Callable[[str], object]) -> tuple[str, float | None]:
    """fp32 or bf16, whichever makes the step faster; fp32 in a near tie.

    Networks of depthwise convolutions can be faster in fp32, and the factor depends on the CPU, so it is measured:
    once each to warm up, then by turns, and the fastest of three counts, which other work on the machine moves least.

    Args:
        step: computes one step in the precision that it is given.

    Returns:
        The precision, and the seconds of a bfloat16 step over those of a float32 step; None for a step that is
        too short to be timed.
    """
    step("fp32")
    fp32 = _seconds(step, "fp32")
    if fp32 < SHORT:
        return "fp32", None
    step("bf16")
    bf16 = _seconds(step, "bf16")
    for _ in range(TRIES - 1):
        fp32 = min(fp32, _seconds(step, "fp32"))
        bf16 = min(bf16, _seconds(step, "bf16"))
    return ("bf16" if bf16 * WORTH <= fp32 else "fp32"), bf16 / fp32


def _seconds(step: Callable[[str], object], precision: str) -> float:
    started = time.perf_counter()
    step(precision)
    return time.perf_counter() - started
