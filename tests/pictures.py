"""Helpers that write images to disk, read an epoch of each loader, and serve files."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ssl_modules.datamodules import BaseDataModule
from ssl_modules.datamodules.targets import check_targets


def generator(seed: int = 0) -> torch.Generator:
    """Return a generator of random numbers with a seed."""
    return torch.Generator().manual_seed(seed)


def pixels(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """Return random pixels, uint8 [H, W, C]."""
    return np.random.default_rng(seed).integers(256, size=(height, width, channels), dtype=np.uint8)


def write_image(path: Path, height: int = 40, width: int = 56, value: int | None = None, **options) -> Path:
    """Write an image of one colour, or of noise, in the format of the path's extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = pixels(0, height, width) if value is None else np.full((height, width, 3), value, np.uint8)
    Image.fromarray(array).save(path, **options)
    return path


def one_epoch(data: BaseDataModule, train: int, labelled: int, test: int | None) -> None:
    """Set up the data as a Trainer does, read every part once, and check sizes, shapes and the range of targets."""
    data.prepare_data()
    data.setup()
    parts = [(data.train_set, data.train_dataloader(), train // data.batch_size * data.batch_size, train)]
    if data.target_type != "none":
        parts.append((data.labelled_set, data.probe_train_dataloader(), labelled, labelled))
    if test is not None:
        parts.append((data.test_set, data.test_dataloader(), test, test))
    for part, loader, read, size in parts:
        assert len(part) == size
        batches = list(loader)
        assert sum(len(targets) for _, targets, *_ in batches) == read
        for views, targets, *_ in batches:
            images = views[0] if isinstance(views, list) else views
            images = images[:, 0] if images.ndim == 6 else images  # the first clip of each video
            assert images.dtype == torch.uint8
            assert images.shape[1] == data.in_channels
            assert targets.dtype == torch.int64
            assert len(targets) == len(images)
            if loader.dataset is not parts[0][1].dataset:
                assert tuple(images.shape[1:]) == data.dims
                counts = [len(names) for names in data.levels.values()] or [data.num_classes]
                check_targets("batch", targets, data.target_type, counts)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """Serve a folder's files inside a ``with`` block; give the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def assert_same_levels(ours, theirs):
    """Compare images uint8 [..., H, W] up to one level: ATen rounds once more with some instruction sets."""
    assert ours.shape == theirs.shape
    assert (ours.int() - theirs.int()).abs().max() <= 1
