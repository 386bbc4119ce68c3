import platform
import subprocess
import sys

import pytest

# Counts the pages that the system has to hand out for a tensor of 64 MiB.
SCRIPT = """
import resource, sys
import torch

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(2**24).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

{prepare}
pages()
print(pages())
"""
CALL = "from ssl_modules.memory import keep_freed_memory; assert keep_freed_memory() is {answer}"
FIT = """
from functools import partial
import lightning.pytorch as pl
from ssl_modules import SimCLR
from ssl_modules.augmentations import SimCLRViews
module = SimCLR(SimCLRViews(8, blur=False), torch.nn.Conv2d(3, 4, 3), image_size=8, optimizer=torch.optim.SGD)
pl.Trainer(accelerator="cpu", fast_dev_run=1, logger=False, enable_progress_bar=False).fit(
    module, torch.utils.data.DataLoader(torch.rand(4, 3, 8, 8), batch_size=4)
)
"""

# Another C library has neither this habit nor the two settings, so that there is nothing to see.
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the choice is glibc's")


def pages(prepare, **environment):
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(prepare=prepare)],
        env={"PATH": "", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(run.stdout.split()[-1])


@glibc
def test_freed_memory_is_used_again():
    assert pages("") >= 32  # of 2 MiB, where the system has huge ones; else 16,384
    assert pages(CALL.format(answer=True)) < 10


@glibc
def test_a_fit_on_a_processor_keeps_its_memory():
    assert pages(FIT) < 10


@glibc
def test_the_environment_has_the_last_word():
    assert pages(CALL.format(answer=False), GLIBC_TUNABLES="glibc.malloc.mmap_max=65536") >= 32
