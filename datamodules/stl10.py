"""STL-10: 13,000 labelled colour photographs of 96 x 96 in ten classes, and 100,000 without labels."""

import os
from pathlib import Path
from typing import Literal, get_args

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import STL10

from ssl_modules.datamodules.base import ImageDataModule
from ssl_modules.datamodules.images import TensorImages

CLASS_NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
SIDE = 96
FOLDS = 10
PIXELS = 3 * SIDE * SIDE
SIZES = {  # of the files, in bytes
    "train_X.bin": 5_000 * PIXELS,
    "train_y.bin": 5_000,
    "test_X.bin": 8_000 * PIXELS,
    "test_y.bin": 8_000,
    "unlabeled_X.bin": 100_000 * PIXELS,
}

TrainSplit = Literal["unlabeled", "train+unlabeled", "train"]


class STL10DataModule(ImageDataModule):
    """STL-10 with its official parts: 100,000 unlabelled, 5,000 training and 8,000 test images, colour, in memory.

    Training reads the unlabelled images, with or without the training images, and their targets are -1. Probes learn
    from the training images, or one of their ten official folds of 1,000, and are judged on the test images.

    Source: Coates, Lee and Ng, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning", AISTATS 2011.
    Mean and standard deviation are those of the 5,000 training images as they are commonly published; we have not
    measured them.

    Args:
        root: folder of data sets; the files lie in ``root/stl10_binary``.
        batch_size: images per batch and process (device).
        image_size: side of the images that are evaluated, in pixels, at most 96; smaller ones are resized (with
            antialiasing). Training images are always of 96 pixels, which the augmentation crops.
        train_split: what to train on: "train+unlabeled" (105,000 images), "unlabeled" or "train".
        fold: 0 to 9, the official fold of training images that probes learn from; None for all 5,000.
        download: whether ``prepare_data`` downloads the files (2.6 GB) to ``root`` if they are not there.
        val_size: number of labelled training images to set aside, drawn by ``seed``, as a validation part.
        seed: of the order of the training images and of the validation part.
        return_index: whether batches hold the row of each image.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> data = STL10DataModule(fold=0)
        >>> data.num_classes, data.dims, data.class_names[7]
        (10, (3, 96, 96), 'monkey')
    """

    def __init__(
        self,
        root: str | Path = "data",
        batch_size: int = 256,
        *,
        image_size: int = SIDE,
        train_split: TrainSplit = "train+unlabeled",
        fold: int | None = None,
        download: bool = False,
        val_size: int = 0,
        seed: int = 0,
        return_index: bool = False,
    ) -> None:
        if not 1 <= image_size <= SIDE:
            raise ValueError(f"image_size: expected 1 to {SIDE}, the images' own size, but got {image_size}")
        if train_split not in get_args(TrainSplit):
            raise ValueError(f"train_split: expected one of {get_args(TrainSplit)}, but got {train_split!r}")
        if fold is not None and not 0 <= fold < FOLDS:
            raise ValueError(f"fold: expected 0 to {FOLDS - 1}, or None for all training images, but got {fold}")
        super().__init__(
            name="stl10",
            num_classes=len(CLASS_NAMES),
            dims=(3, image_size, image_size),
            mean=(0.4467, 0.4398, 0.4066),
            std=(0.2603, 0.2566, 0.2713),
            class_names=CLASS_NAMES,
            batch_size=batch_size,
            val_size=val_size,
            seed=seed,
            return_index=return_index,
        )
        self.root = os.path.expanduser(root)
        self.train_split = train_split
        self.fold = fold
        self.download = download
        self._other_folds: list[TensorImages] = []
        self._save_arguments()

    def prepare_data(self) -> None:
        """Downloads the files by torchvision, if ``download`` and they are not all there and whole; nothing else."""
        # By their sizes: torchvision compares checksums, which would take seconds at each start.
        if self.download and not all(self._has(name) for name in SIZES):
            STL10(self.root, split="test", download=True)

    def load(self) -> tuple[TensorImages, TensorImages]:
        """The training images, or a fold of them, and the test images, in memory.

        They are read without torchvision, which would go through the checksums of all files for each part.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if one is damaged.
        """
        train, test = (
            TensorImages(self._images(f"{part}_X.bin").contiguous(), self._labels(f"{part}_y.bin"))
            for part in ("train", "test")
        )
        if self.fold is not None:
            path = self._file("fold_indices.txt")
            chosen = torch.tensor([int(row) for row in path.read_text().splitlines()[self.fold].split()])
            others = torch.ones(len(train), dtype=torch.bool)
            others[chosen] = False
            self._other_folds = [train.select(others.nonzero().flatten())]
            train = train.select(chosen)
        return train, test

    def pretraining_part(self, labelled: Dataset) -> Dataset:
        """The images of ``train_split``, less the validation part.

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
        """The images [N, 3, 96, 96] of a file, which is mapped and not read: columns come first in it."""
        path = self._file(name)
        size = path.stat().st_size
        if size == 0 or size % PIXELS:
            raise ValueError(f"{path}: {size} bytes are no whole number of images of 3 x 96 x 96; {self._fix} again")
        return torch.from_file(str(path), size=size, dtype=torch.uint8).view(-1, 3, SIDE, SIDE).mT

    def _labels(self, name: str) -> Tensor:
        """Classes [N] of a file, which counts from 1."""
        return torch.frombuffer(bytearray(self._file(name).read_bytes()), dtype=torch.uint8).long() - 1

    def _file(self, name: str) -> Path:
        path = self._folder / name
        if not path.is_file():
            raise FileNotFoundError(f"STL-10: there is no {path} (root={self.root!r}); {self._fix}")
        if name in SIZES and not self._has(name):  # cut short, or a smaller copy on purpose
            rank_zero_warn(f"{path}: has {path.stat().st_size} bytes, where STL-10's has {SIZES[name]}")
        return path

    @property
    def _fix(self) -> str:
        return f"pass download=True (2.6 GB), or unpack {STL10.url} in {self.root}"

    def _has(self, name: str) -> bool:
        path = self._folder / name
        return path.is_file() and path.stat().st_size == SIZES[name]

    @property
    def _folder(self) -> Path:
        return Path(self.root) / STL10.base_folder
