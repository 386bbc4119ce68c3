"""Marks of tests that not every machine can run. A comment says why each test needs what the machine may lack."""

import ctypes
import os

import pytest
import torch

from ssl_modules.datamodules import FashionMNISTDataModule

DEBIAN_FOLDER = FashionMNISTDataModule.debian_folder  # before a test replaces it

# Other tests check the same rules on the CPU. Only a GPU shows that its kernels agree, and that no check waits for it.
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

# Constants such as the mean of all pixels can only be compared with the real images, which tests don't download.
needs_fashion_mnist = pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason="needs the real images: apt install dataset-fashion-mnist"
)

# torch.compile generates vector code for the CPU. With ATen's default capability this code doesn't compile.
needs_vectors = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="ATen's default capability has no vector code"
)

# A test that fills a disk must use a small file system of its own, which only root can mount.
needs_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a small disk needs root")

# Only glibc's malloc has the settings under test, and mallinfo2 doesn't see an allocator loaded by LD_PRELOAD.
needs_glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2") or "LD_PRELOAD" in os.environ, reason="needs glibc's malloc"
)
