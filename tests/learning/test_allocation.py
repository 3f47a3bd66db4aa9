"""Memory that a training gives back stays with the process until it is over."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mlcls.learning.allocation import _OWN, kept_memory

LARGE = 24 * 2**20  # float32 numbers: 96 MB, above what glibc ever keeps by itself


class _Info(ctypes.Structure):
    """mallinfo2, malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for names in ("arena ordblks smblks hblks hblkhd", "usmblks fsmblks uordblks fordblks keepcost")
        for name in names.split()
    ]


def mapped_bytes() -> int:
    """What the allocator has mapped piece by piece from the kernel."""
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = _Info
    return int(ask().hblkhd)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2") or any(name in os.environ for name in _OWN),
    reason="glibc's allocator alone is changed, and only where nobody has set it",
)


@glibc
def test_large_tensors_stay_with_the_process_within_and_go_back_afterwards() -> None:
    before = mapped_bytes()
    with kept_memory():
        tensor = torch.zeros(LARGE)
        assert mapped_bytes() == before
        held = resident_bytes()
        del tensor
        assert resident_bytes() > held - 2**20
    assert resident_bytes() < held - 3 * LARGE
    tensor = torch.zeros(LARGE)
    assert mapped_bytes() >= before + 4 * LARGE
    del tensor


@glibc
@pytest.mark.parametrize("name", _OWN)
def test_what_somebody_has_set_is_left_alone(name: str) -> None:
    value = "glibc.malloc.mmap_threshold=1048576" if name == "GLIBC_TUNABLES" else "1048576"
    code = (
        "import torch; from mlcls.learning.allocation import kept_memory\n"
        "from tests.learning.test_allocation import mapped_bytes\n"
        "with kept_memory():\n    before = mapped_bytes(); kept = torch.zeros(24 * 2**20)\n"
        "    assert mapped_bytes() >= before + 96 * 2**20"
    )
    folder = Path(__file__).resolve().parents[2]
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, name: value}, cwd=folder, check=True, timeout=120
    )
