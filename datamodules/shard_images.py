"""Data set of the images in shards."""

import os
from copy import copy
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ssl_modules.datamodules.image_files import ImageFiles
from ssl_modules.datamodules.shard_index import Index
from ssl_modules.datamodules.shards import Shards


class ShardImages(ImageFiles):
    """Labelled images in shards, decoded and resized like those of :class:`~ssl_modules.datamodules.ImageFiles`.

    Args:
        shards: the tar files.
        index: the place of each image.
        window: number of shards whose images are shuffled together; None = all shards.
        settings: keyword arguments of :class:`~ssl_modules.datamodules.ImageFiles`.
    """

    def __init__(self, shards: Shards, index: Index, window: int | None = None, **settings: Any) -> None:
        super().__init__(".", index.name.tolist(), index.target, **settings)
        self.root = os.path.dirname(shards.addresses[0])
        self.shards = shards
        self.index = index
        self.used = np.unique(index.shard)  # the shards that have rows of this data set
        self.window = window
        # The order in which a loader reads the shards, shared with its workers.
        self.order = torch.arange(len(shards)).share_memory_()
        self._first = -1  # the first shard of the window of the last read

    def path(self, index: int) -> str | Path:
        """Return the address of a row's shard, followed by the name of its file in the shard."""
        return f"{self.shards.addresses[self.index.shard[index]]}/{self.index.name[index]}"

    def content(self, index: int) -> bytes:
        """Return the bytes of a row's file."""
        shard, offset, size = (int(column[index]) for column in self.index[:3])
        self._copy_ahead(shard)
        return self.shards.read(shard, offset, size)

    def _copy_ahead(self, shard: int) -> None:
        """When the first shard of a window is read, copy this window and the next one in the background."""
        if not self.shards.are_remote:
            return
        window = self.window or 1
        start = int((self.order == shard).nonzero()) // window * window
        first = int(self.order[start])
        if first != self._first:
            self._first = first
            following = self.order[start : start + 2 * window].numpy()
            self.shards.copy_ahead(following[np.isin(following, self.used)].tolist())

    def for_loader(self) -> Self:
        """Return a copy for one loader, which has its own order of the shards."""
        images = copy(self)
        images.order = torch.arange(len(self.shards)).share_memory_()
        return images

    def names(self) -> list[str]:
        """Return the names of all files. Each name begins with the address of the file's shard."""
        return [str(self.path(row)) for row in range(len(self))]

    def select(self, rows: Tensor) -> Self:
        """Return a data set of the given rows."""
        images = super().select(rows)
        images.index = Index(*(column[rows.numpy()] for column in self.index))
        images.used = np.unique(images.index.shard)
        return images

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """Return a random order of the rows, [N], in which consecutive rows come from few shards.

        The shards are shuffled first, and then the images of each ``window`` of shards.
        """
        if self.window is None:
            return super().shuffled(generator)
        order = torch.randperm(len(self.shards), generator=generator)
        self.order.copy_(order)
        windows = order.argsort()[torch.from_numpy(self.index.shard).long()] // self.window  # window of each row, [N]
        shuffled = torch.randperm(len(self), generator=generator)
        # A stable sort by windows keeps the random order inside each window.
        return shuffled[windows[shuffled].argsort(stable=True)]
