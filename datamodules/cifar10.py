"""CIFAR-10: 60,000 small colour photographs of animals and vehicles in ten classes."""

import os
from pathlib import Path

import torch
from torchvision.datasets import CIFAR10

from ssl_modules.datamodules.base import ImageDataModule
from ssl_modules.datamodules.images import TensorImages

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10 with its official parts: 50,000 training and 10,000 test images, 32 x 32, colour, in memory.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Mean and standard deviation are
    those of the training images as they are commonly published; we have not measured them.

    Args:
        root: folder of data sets; the files lie in ``root/cifar-10-batches-py``, and have to be the original ones.
        batch_size: images per batch and process (device).
        download: whether ``prepare_data`` downloads them (170 MB) to ``root`` if they are not there.
        val_size: number of training images to set aside, drawn by ``seed``, as a validation part.
        seed: of the order of the training images and of the validation part.
        return_index: whether batches hold the row of each image.

    Example:
        >>> data = CIFAR10DataModule()
        >>> data.num_classes, data.dims, data.class_names[3]
        (10, (3, 32, 32), 'cat')
    """

    def __init__(
        self,
        root: str | Path = "data",
        batch_size: int = 256,
        *,
        download: bool = False,
        val_size: int = 0,
        seed: int = 0,
        return_index: bool = False,
    ) -> None:
        super().__init__(
            name="cifar10",
            num_classes=len(CLASS_NAMES),
            dims=(3, 32, 32),
            mean=(0.49139968, 0.48215841, 0.44653091),
            std=(0.24703223, 0.24348513, 0.26158784),
            class_names=CLASS_NAMES,
            batch_size=batch_size,
            val_size=val_size,
            seed=seed,
            return_index=return_index,
        )
        self.root = os.path.expanduser(root)
        self.download = download
        self._save_arguments()

    def prepare_data(self) -> None:
        """Downloads the files by torchvision, if ``download`` and they are not there; nothing else."""
        if self.download:
            CIFAR10(self.root, download=True)

    def load(self) -> tuple[TensorImages, TensorImages]:
        """The training and test part, in memory.

        Raises:
            FileNotFoundError: if there is no such folder.
            ValueError: if a file in it is missing or not the original.
        """
        return read_cifar(CIFAR10, self.root, train=True), read_cifar(CIFAR10, self.root, train=False)


def read_cifar(dataset: type[CIFAR10], root: str | Path, train: bool) -> TensorImages:
    """A part of CIFAR-10 or CIFAR-100, read and its checksums compared by torchvision.

    Args:
        dataset: torchvision's class.
        root: folder of data sets.
        train: the training or the test part.

    Raises:
        FileNotFoundError: if the data set has no folder in ``root``.
        ValueError: if a file in it is missing or not the original.
    """
    folder = Path(root) / dataset.base_folder
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{dataset.__name__} is not in {folder} (root={str(root)!r}); pass download=True (170 MB), or unpack "
            f"{dataset.url} in {root}"
        )
    try:
        part = dataset(root, train=train)
    except RuntimeError as error:
        raise ValueError(
            f"{folder}: a file is missing or its checksum is wrong; remove the folder and pass download=True"
        ) from error
    images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()  # [N, 3, 32, 32]
    return TensorImages(images, torch.tensor(part.targets))
