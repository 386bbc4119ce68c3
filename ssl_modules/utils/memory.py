"""Memory of a processor."""

import ctypes
import os

# Of glibc's mallopt.
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4
_NEVER, _NONE = -1, 0


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, for the tensors of the next step.

    By default glibc gives tensors above 32 MiB back to the system at once, which clears each of their pages before it
    hands them out again. Training on a processor spends a quarter of its time or more on that, because every step needs
    such tensors anew. It holds until the process ends, which keeps its peak of memory, or half as much again where
    sizes vary. Beyond that the first seven or so tensors of a size may each take new memory, because glibc sets aside
    the odd bytes beside an aligned tensor.

    Where the environment chooses for itself (``MALLOC_...``, ``GLIBC_TUNABLES``, an allocator by ``LD_PRELOAD``), or
    the C library isn't glibc, nothing changes.

    Returns:
        Whether it does so.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    chosen = any(name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD") for name in os.environ)
    mallopt = None if chosen or os.name != "posix" else getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_MAX, _NONE) and mallopt(_TRIM_THRESHOLD, _NEVER))
