"""Marks for tests that can't run on every machine. The comment above each mark says why."""

import ctypes
import os

import pytest
import torch

from ssl_modules.datamodules import FashionMNISTDataModule

DEBIAN_FOLDER = FashionMNISTDataModule.debian_folder  # before a test replaces it

HAS_IMAGES = DEBIAN_FOLDER.is_dir()
HAS_VECTORS = torch.backends.cpu.get_cpu_capability() != "DEFAULT"
IS_ROOT = os.name == "posix" and os.geteuid() == 0
HAS_GLIBC = hasattr(ctypes.CDLL(None), "mallinfo2") and "LD_PRELOAD" not in os.environ

# These tests compare a GPU with the CPU, or check that code doesn't wait for the GPU.
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="checks results of a GPU, so it needs one")
# Mean, std and number of images can only be checked with the real images, which a Debian package has.
needs_fashion_mnist = pytest.mark.skipif(not HAS_IMAGES, reason="reads the images of apt's dataset-fashion-mnist")
# The code that torch.compile generates doesn't build for CPUs without vector instructions.
needs_vectors = pytest.mark.skipif(not HAS_VECTORS, reason="torch.compile's code needs a CPU's vector instructions")
# The test mounts a small disk and fills it. The system allows this to root only.
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can mount the small disk that the test fills")
# The tests read glibc's memory statistics and change its settings. Other allocators have neither.
needs_glibc = pytest.mark.skipif(not HAS_GLIBC, reason="sets options of malloc that only glibc has")
