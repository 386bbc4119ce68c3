"""Fixtures for tests of shards."""

import fsspec
import numpy as np
import pytest
from PIL import Image

from ssl_modules.datamodules import DigitsDataModule, write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "digits"
    write_shards(DigitsDataModule(num_workers=0), folder, images_per_shard=200)
    return folder


@pytest.fixture(scope="module")
def digits():
    data = DigitsDataModule()
    data.setup()
    return data


@pytest.fixture
def address(shards):
    """Copy the shards to a storage in memory and return its address."""
    files = fsspec.filesystem("memory")
    for path in shards.rglob("*"):
        if path.is_file():
            files.pipe_file(f"/bucket/{path.relative_to(shards)}", path.read_bytes())
    yield "memory://bucket"
    files.rm("/bucket", recursive=True)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = tmp_path / "pets" / name
        folder.mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (60 + i, 50, 3), np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "pets"
