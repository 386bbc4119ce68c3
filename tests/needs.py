"""Marks of tests that need something that not every machine has. The reason of a mark says why the tests need it."""

import ctypes
import os

import pytest
import torch

from ssl_modules.datamodules import FashionMNISTDataModule

DEBIAN_FOLDER = FashionMNISTDataModule.debian_folder  # before a test replaces it

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="needs a GPU: the CPU can't show that GPU kernels give the same results and that no code waits for them",
)
needs_fashion_mnist = pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(),
    reason="needs the real images, to check mean, std and counts: apt install dataset-fashion-mnist",
)
needs_vectors = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="needs a CPU with vector instructions: the code that torch.compile generates doesn't build without them",
)
needs_root = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="needs root, to mount a small disk that the test can fill"
)
needs_glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2") or "LD_PRELOAD" in os.environ,
    reason="needs glibc's malloc: other allocators have neither the settings under test nor mallinfo2",
)
