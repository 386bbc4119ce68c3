"""Marks for tests that can't run on every machine. The comment beside each mark says why."""

import ctypes
import os

import pytest
import torch

from ssl_modules.datamodules import FashionMNISTDataModule

DEBIAN_FOLDER = FashionMNISTDataModule.debian_folder  # before a test replaces it

needs_gpu = pytest.mark.skipif(  # the tests check results on a GPU, and that no code waits for the GPU
    not torch.cuda.is_available(), reason="needs a GPU"
)
needs_fashion_mnist = pytest.mark.skipif(  # only the real images show that mean, std and counts are right
    not DEBIAN_FOLDER.is_dir(), reason="needs Fashion-MNIST: apt install dataset-fashion-mnist"
)
needs_vectors = pytest.mark.skipif(  # the code that torch.compile generates doesn't build without vector instructions
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="needs a CPU with vector instructions"
)
needs_root = pytest.mark.skipif(  # the test mounts a small disk and fills it
    os.name != "posix" or os.geteuid() != 0, reason="needs root"
)
needs_glibc = pytest.mark.skipif(  # other allocators have neither the settings under test nor mallinfo2
    not hasattr(ctypes.CDLL(None), "mallinfo2") or "LD_PRELOAD" in os.environ, reason="needs glibc's malloc"
)
