"""Owns how the C library hands out the memory that a training takes and gives back all the time.

glibc maps each tensor above 32 MB from the kernel and gives it back at once, so that every layer of every step has its
pages made and cleared anew: a third of the time of a network of depthwise convolutions at 224 px. Elsewhere, and on
other systems, nothing is changed.
"""

import ctypes
import os
from collections.abc import Generator
from contextlib import contextmanager

# malloc.h
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER, _NO_MAPPING = -1, 0
_TRIM_AT, _MAPPINGS = 64 * 2**20, 65536  # afterwards: glibc's own limits, the first as it grows by itself
_OWN = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


@contextmanager
def kept_memory() -> Generator[None]:
    """Within it, memory that is given back stays with the process, for the next tensor; afterwards the system has it.

    Somebody's own settings of glibc's allocator (environment) are left alone. Does not nest.
    """
    library = _allocator()
    if library is None:
        yield
        return
    library.mallopt(_MMAP_MAX, _NO_MAPPING)
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.mallopt(_MMAP_MAX, _MAPPINGS)
        library.mallopt(_TRIM_THRESHOLD, _TRIM_AT)
        library.malloc_trim(0)


def _allocator() -> ctypes.CDLL | None:
    """The C library, where it is glibc and nobody has set its allocator; else None."""
    if os.name != "posix" or any(name in os.environ for name in _OWN):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt") else None
