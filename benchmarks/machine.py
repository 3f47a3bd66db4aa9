"""Names the machine that a benchmark ran on, in words."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine_words() -> str:
    """The processor, its cores and arithmetic, and the versions that matter."""
    cpu = Path("/proc/cpuinfo")
    lines = dict(
        line.split(":", 1) for line in (cpu.read_text() if cpu.is_file() else "").splitlines() if ":" in line
    )
    facts = {key.strip(): value.strip() for key, value in lines.items()}
    held = facts.get("flags", "").split()
    arithmetic = ", ".join(
        f"{name} {'yes' if flag in held else 'no'}"
        for name, flag in (("AVX-512", "avx512f"), ("bf16", "avx512_bf16"), ("AMX", "amx_bf16"))
    )
    return (
        f"{facts.get('model name', 'a processor without a name')}, {os.cpu_count()} cores ({arithmetic}), "
        f"Python {platform.python_version()}, PyTorch {version('torch')}, timm {version('timm')}"
    )
