"""STL-10: 13,000 labelled colour photographs of 96 x 96 pixels in ten classes, and 100,000 without labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import STL10

from ssl_modules.datamodules.base import TrainSplit
from ssl_modules.datamodules.download import DownloadableDataModule
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.datamodules.unreadable import read_bytes
from ssl_modules.utils.checks import check_number

SIDE = 96
PIXELS = 3 * SIDE * SIDE
FOLDS = 10


class STL10DataModule(DownloadableDataModule):
    """STL-10 with its official parts: 100,000 unlabelled, 5,000 training and 8,000 test images, colour, in memory.

    By default, modules train on the unlabelled and the training images; targets of unlabelled images are -1. Probes
    learn from the training images, or from one of their ten official folds of 1,000, and are tested on the test images.

    Source: Coates, Lee and Ng, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning", AISTATS 2011.
    Mean and standard deviation are the commonly published values for the training images; we have not measured them.

    Args:
        root: folder of data sets; the files are in ``root/stl10_binary``.
        image_size: side length of validation and test images in pixels, at most 96; smaller sizes are resized with
            antialiasing. Training images always have 96 x 96 pixels; the augmentation crops them.
        train_split: images to train on: "train+unlabeled" (105,000 images), "unlabeled" or "train".
        fold: official fold of the training images that probes learn from, 0 to 9; None for all 5,000 images.
        download: whether ``prepare_data`` downloads the files (2.6 GB) to ``root`` if they are missing.
        settings: keyword arguments of :class:`BaseDataModule`: batch_size, val_size, seed, num_workers, return_index.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> data = STL10DataModule(fold=0)
        >>> data.num_classes, data.dims, data.class_names[7]
        (10, (3, 96, 96), 'monkey')
    """

    name = "stl10"
    num_classes = 10
    class_names = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
    dims = (3, SIDE, SIDE)
    mean = (0.4467, 0.4398, 0.4066)
    std = (0.2603, 0.2566, 0.2713)
    url = STL10.url
    download_size = "2.6 GB"
    sizes: Mapping[str, int] = {  # file sizes in bytes
        "train_X.bin": 5_000 * PIXELS,
        "train_y.bin": 5_000,
        "test_X.bin": 8_000 * PIXELS,
        "test_y.bin": 8_000,
        "unlabeled_X.bin": 100_000 * PIXELS,
    }

    def __init__(
        self,
        root: str | Path = "data",
        *,
        image_size: int = SIDE,
        train_split: TrainSplit = "train+unlabeled",
        fold: int | None = None,
        **settings: Any,
    ) -> None:
        check_number("image_size", image_size, least=1, most=SIDE)
        if fold is not None:
            check_number("fold", fold, least=0, most=FOLDS - 1)
        self.dims = (3, image_size, image_size)
        super().__init__(root, **settings)
        self.train_split = train_split
        self.fold = fold
        self._other_folds: list[TensorImages] = []

    def prepare_data(self) -> None:
        """Download the files with torchvision, if ``download`` is set and a file is missing or incomplete."""
        # Compare sizes: torchvision's checksums would take seconds at each start.
        if self.download and not all(self._is_complete(name) for name in self.sizes):
            STL10(self.root, split="test", download=True)

    def load(self) -> tuple[TensorImages, TensorImages]:
        """The training images, or the ``fold`` of them, and the test images, in memory.

        They are read without torchvision, which would compute the checksums of all files for each part.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if a file is damaged.
        """
        train, test = (
            TensorImages(self._images(f"{part}_X.bin").contiguous(), self._labels(f"{part}_y.bin"))
            for part in ("train", "test")
        )
        if self.fold is not None:
            path = self._file("fold_indices.txt")
            chosen = torch.tensor([int(row) for row in read_bytes(path).decode().splitlines()[self.fold].split()])
            others = torch.ones(len(train), dtype=torch.bool)
            others[chosen] = False
            self._other_folds = [train.select(others.nonzero().flatten())]
            train = train.select(chosen)
        return train, test

    def pretraining_part(self, labelled: Dataset) -> Dataset:
        """The images of ``train_split``, without the validation part.

        Args:
            labelled: training images that probes learn from.
        """
        assert isinstance(labelled, TensorImages)
        parts = [] if self.train_split == "unlabeled" else [labelled, *self._other_folds]
        self._other_folds = []
        if self.train_split != "train":
            parts.append(TensorImages(self._images("unlabeled_X.bin")))
        if len(parts) == 1:
            return TensorImages(parts[0].images.contiguous(), parts[0].targets)
        return TensorImages(torch.cat([part.images for part in parts]), torch.cat([part.targets for part in parts]))

    def _images(self, name: str) -> Tensor:
        """The images [N, 3, 96, 96] of a memory-mapped file, which stores the pixels column by column."""
        path = self._file(name)
        size = path.stat().st_size
        if size == 0 or size % PIXELS:
            raise ValueError(
                f"{path}: expected images of 3 x 96 x 96 bytes, got {size} bytes; remove it, then {self.how_to_get}"
            )
        return torch.from_file(str(path), size=size, dtype=torch.uint8).view(-1, 3, SIDE, SIDE).mT

    def _labels(self, name: str) -> Tensor:
        """Class indices [N] from a file, which counts from 1."""
        return torch.frombuffer(bytearray(read_bytes(self._file(name))), dtype=torch.uint8).long() - 1

    def _file(self, name: str) -> Path:
        path = self._folder / name
        if not path.is_file():
            raise self.missing(path)
        if name in self.sizes and not self._is_complete(name):  # truncated, or an intentionally smaller copy
            rank_zero_warn(f"{path}: expected {self.sizes[name]} bytes, got {path.stat().st_size}")
        return path

    def _is_complete(self, name: str) -> bool:
        path = self._folder / name
        return path.is_file() and path.stat().st_size == self.sizes[name]

    @property
    def _folder(self) -> Path:
        return Path(self.root) / STL10.base_folder
