"""Marks of tests that need something that not every machine has. The comment of a mark says why the tests need it."""

import ctypes
import os

import pytest
import torch

from ssl_modules.datamodules import FashionMNISTDataModule

DEBIAN_FOLDER = FashionMNISTDataModule.debian_folder  # before a test replaces it

# Tests on the CPU check the same rules. Only a GPU shows that its kernels give the same results, and that the code
# never waits for the GPU.
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

# Tests compare constants such as the mean of all pixels with the real images. They don't download them.
needs_fashion_mnist = pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason="needs the real images: apt install dataset-fashion-mnist"
)

# torch.compile generates vector code for the CPU. With ATen's default capability this code doesn't compile.
needs_vectors = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="ATen's default capability has no vector code"
)

# A test fills a disk. It uses its own small file system, which only root can mount.
needs_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a small disk needs root")

# Only glibc's malloc has the settings under test. mallinfo2 doesn't report an allocator that LD_PRELOAD loads.
needs_glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2") or "LD_PRELOAD" in os.environ, reason="needs glibc's malloc"
)
