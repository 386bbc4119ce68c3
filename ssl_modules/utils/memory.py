"""CPU memory."""

import ctypes
import os

# Parameters and values of glibc's mallopt.
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4
_NEVER, _NONE = -1, 0


def keep_freed_memory() -> bool:
    """Make this process keep the memory that it frees, for the tensors of the next step.

    By default, glibc returns tensors above 32 MiB to the system at once. The system clears each page before it hands it
    out again. Training on a CPU spends a quarter of its time or more on that, because every step allocates such tensors
    again. The setting lasts until the process ends. The process keeps its peak memory, or half as much again if sizes
    vary. In addition, the first seven or so tensors of a size may each take new memory, because glibc sets aside the
    odd bytes beside an aligned tensor.

    Nothing changes if the environment configures the allocator (``MALLOC_...``, ``GLIBC_TUNABLES`` or ``LD_PRELOAD``),
    or if the C library isn't glibc.

    Returns:
        Whether the setting was made.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    chosen = any(name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD") for name in os.environ)
    mallopt = None if chosen or os.name != "posix" else getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_MAX, _NONE) and mallopt(_TRIM_THRESHOLD, _NEVER))
