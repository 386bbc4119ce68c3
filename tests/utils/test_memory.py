import ctypes

import lightning.pytorch as pl
import torch
from modules import build, pixels
from needs import needs_glibc
from processes import run_in_a_process
from torch.utils.data import DataLoader

from ssl_modules.utils.memory import keep_freed_memory

LIBC = ctypes.CDLL(None)

pytestmark = needs_glibc
SIZE = 64 * 2**20
NAMES = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]


class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES]


def held():
    """Return the number of bytes that malloc holds from the system."""
    LIBC.mallinfo2.restype = Mallinfo
    info = LIBC.mallinfo2()
    return info.arena + info.hblkhd


def taken(prepare):
    """Return the result of ``prepare``, and how many bytes malloc then takes from the system for a tensor.

    First it allocates and frees 24 tensors of the same size. One is not enough: the few bytes next to an aligned tensor
    go to a cache of small blocks, and until this is full, a freed tensor is too small for the next one.
    """
    result = prepare()
    for _ in range(24):
        torch.empty(SIZE, dtype=torch.uint8)
    before = held()
    tensor = torch.empty(SIZE, dtype=torch.uint8)
    after = held()
    del tensor
    return result, after - before


def in_a_process(prepare, **environment):
    return run_in_a_process(taken, prepare, environment={"PATH": "", **environment})


def nothing():
    pass


def fit():
    trainer = pl.Trainer(accelerator="cpu", fast_dev_run=1, logger=False, enable_progress_bar=False)
    trainer.fit(build(), DataLoader(pixels(), batch_size=4))


def test_the_memory_of_a_freed_tensor_is_used_again():
    assert in_a_process(nothing)[1] >= SIZE
    assert in_a_process(keep_freed_memory) == (True, 0)


def test_a_fit_on_a_processor_keeps_its_memory():
    assert in_a_process(fit) == (None, 0)


def test_the_environment_has_the_last_word():
    kept, size = in_a_process(keep_freed_memory, GLIBC_TUNABLES="glibc.malloc.mmap_max=65536")
    assert not kept
    assert size >= SIZE
