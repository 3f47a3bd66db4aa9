"""The arithmetic of a training: which precision is faster on this CPU, found by timing a step both ways, once.

What was found is kept beside the other caches, so that the same command computes alike the next time, however busy the
machine is then.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

TRIES = 3
WORTH = 1.25  # bf16 has to be this much faster: a near tie must not be decided by what else the machine does
TOO_SHORT = 0.0  # in the place of a ratio
SHORT = 0.02  # seconds of a step that is too short to be timed, or to be worth it


def bf16_is_native() -> bool:
    """Whether this CPU multiplies bfloat16 in a way that can be faster than float32 (AVX-512, AMX, Arm's BF16)."""
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(built and torch.ops.mkldnn._is_mkldnn_bf16_supported())


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
    fp32 = min(_seconds(step, "fp32") for _ in range(TRIES))
    if fp32 < SHORT:
        return "fp32", None
    step("bf16")
    bf16 = _seconds(step, "bf16")
    for _ in range(TRIES - 1):
        fp32 = min(fp32, _seconds(step, "fp32"))
        bf16 = min(bf16, _seconds(step, "bf16"))
    return precision_for(bf16 / fp32), bf16 / fp32


def precision_for(ratio: float) -> str:
    """The precision, by the seconds in bfloat16 over those in float32."""
    return "bf16" if ratio * WORTH <= 1 else "fp32"


def recall_ratio(file: Path, step: str) -> float | None:
    """What was found for this step before: seconds in bfloat16 over seconds in float32; None where nothing was.

    `TOO_SHORT` for a step that was too short to be timed: on a busy machine it may be longer the next time.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # not there, or not what was written
        ratio = json.loads(file.read_text(encoding="utf-8"))[step]
        return float(ratio) if ratio > 0 or ratio == TOO_SHORT else None
    return None


def keep_ratio(file: Path, step: str, ratio: float) -> None:
    """Keep what was found for this step, or `TOO_SHORT`; a folder that cannot be written keeps nothing."""
    kept: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        kept = dict(json.loads(file.read_text(encoding="utf-8")))
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({**kept, step: ratio}, indent=1), encoding="utf-8")
        part.replace(file)


def _seconds(step: Callable[[str], object], precision: str) -> float:
    started = time.perf_counter()
    step(precision)
    return time.perf_counter() - started
