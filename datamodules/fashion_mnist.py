"""Fashion-MNIST: 70,000 small images of clothing, in ten classes and, if asked for, five coarser ones."""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import FashionMNIST

from ssl_modules.datamodules.base import ImageDataModule
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.utils.seeds import derive_generator

TRAIN_SIZE = 60_000
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist

# Each class with its coarse class.
COARSE = {
    "T-shirt/top": "tops",
    "Trouser": "bottoms",
    "Pullover": "tops",
    "Dress": "dress",
    "Coat": "tops",
    "Sandal": "shoes",
    "Shirt": "tops",
    "Sneaker": "shoes",
    "Bag": "bag",
    "Ankle boot": "shoes",
}
COARSE_NAMES = ("tops", "bottoms", "dress", "shoes", "bag")


class FashionMNISTDataModule(ImageDataModule):
    """Fashion-MNIST with its official parts: 60,000 training and 10,000 test images, 28 x 28, one channel.

    The files are looked for where torchvision puts them, in ``root``, and then where Debian's package
    dataset-fashion-mnist does. They are read as they are, compressed or not.

    With ``coarse=True`` a target is (class, coarse class), [N, 2]: tops (T-shirt/top, Pullover, Coat, Shirt), bottoms
    (Trouser), dress (Dress), shoes (Sandal, Sneaker, Ankle boot), bag (Bag), numbered in this order.

    Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
    Algorithms", 2017, arXiv:1708.07747. Mean and standard deviation are those of the 60,000 training images.

    Args:
        root: folder of data sets; the files lie in ``root/FashionMNIST/raw``.
        batch_size: images per batch and process (device).
        coarse: whether targets have the second, coarser level.
        subset: number of training images to take, 1 to 60,000; None for all. Always the same ones, whatever the
            ``seed``, and a smaller subset is part of a larger one.
        download: whether ``prepare_data`` downloads the files (30 MB) to ``root`` if they are in neither place.
        val_size: number of training images to set aside, drawn by ``seed``, as a validation part.
        seed: of the order of the training images and of the validation part.
        return_index: whether batches hold the row of each image.

    Raises:
        ValueError: if ``subset`` is out of range.

    Example:
        >>> data = FashionMNISTDataModule(coarse=True)
        >>> data.num_classes, data.class_names[9], data.level_names
        (10, 'Ankle boot', ('class', 'coarse'))
    """

    def __init__(
        self,
        root: str | Path = "data",
        batch_size: int = 256,
        *,
        coarse: bool = False,
        subset: int | None = None,
        download: bool = False,
        val_size: int = 0,
        seed: int = 0,
        return_index: bool = False,
    ) -> None:
        if subset is not None and not 1 <= subset <= TRAIN_SIZE:
            raise ValueError(f"subset: expected 1 to {TRAIN_SIZE} training images, or None for all, but got {subset}")
        super().__init__(
            name="fashion_mnist",
            num_classes=len(COARSE),
            dims=(1, 28, 28),
            mean=(0.2860405969887955,),
            std=(0.35302424456591125,),
            class_names=tuple(COARSE),
            target_type="hierarchical" if coarse else "single",
            levels={"class": tuple(COARSE), "coarse": COARSE_NAMES} if coarse else None,
            batch_size=batch_size,
            val_size=val_size,
            seed=seed,
            return_index=return_index,
        )
        self.root = os.path.expanduser(root)
        self.coarse = coarse
        self.subset = subset
        self.download = download
        self._save_arguments()

    def prepare_data(self) -> None:
        """Downloads the files by torchvision, if ``download`` and they are nowhere; nothing else."""
        if self.download and self._folder() is None:
            FashionMNIST(self.root, download=True)

    def load(self) -> tuple[TensorImages, TensorImages]:
        """The training part, or its subset, and the test part, in memory.

        Raises:
            FileNotFoundError: if the files are in neither place.
            ValueError: if a file is damaged.
        """
        folder = self._folder()
        if folder is None:
            raise FileNotFoundError(
                f"Fashion-MNIST is neither in {self._raw()} (root={self.root!r}) nor in {DEBIAN_FOLDER}; "
                "pass download=True (30 MB), or install it: apt install dataset-fashion-mnist"
            )
        train, test = (self._part(folder, part) for part in ("train", "t10k"))
        if self.subset is not None:
            order = torch.randperm(len(train), generator=derive_generator("fashion_mnist", "subset"))
            train = train.select(order[: self.subset].sort().values)
        return train, test

    def _part(self, folder: Path, part: str) -> TensorImages:
        images = read_idx(_file(folder, f"{part}-images-idx3-ubyte")).unsqueeze(1)  # [N, 1, 28, 28]
        targets = read_idx(_file(folder, f"{part}-labels-idx1-ubyte")).long()
        if self.coarse:
            coarse = torch.tensor([COARSE_NAMES.index(name) for name in COARSE.values()])
            targets = torch.stack([targets, coarse[targets]], dim=1)  # [N, 2]
        return TensorImages(images, targets)

    def _raw(self) -> Path:
        return Path(self.root) / "FashionMNIST" / "raw"

    def _folder(self) -> Path | None:
        files = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
        for folder in (self._raw(), DEBIAN_FOLDER):
            if all(_file(folder, file).is_file() for file in files):
                return folder
        return None


def _file(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.is_file() else plain.with_name(f"{name}.gz")


def read_idx(path: Path) -> Tensor:
    """An idx file of bytes, the format of MNIST, as a uint8 tensor.

    Format: two zero bytes, type (8: unsigned byte), number of axes; the length of each axis as a big-endian 32-bit
    number; the values, last axis fastest.

    Args:
        path: the file; one that ends in ``.gz`` is decompressed.

    Returns:
        uint8, as many axes as the file says.

    Raises:
        ValueError: if the file is of another format or not whole.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: can't be decompressed ({error}); remove it, and get it again") from error
    if content[:3] != b"\0\0\x08" or len(content) < 4 or len(content) < (start := 4 + 4 * content[3]):
        raise ValueError(
            f"{path}: expected an idx file of bytes, but got one that begins {content[:4]!r}; remove it, "
            "and get it again"
        )
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"{path}: expected {math.prod(shape)} values for shape {list(shape)}, but got {len(content) - start}; "
            "remove it, and get it again"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)
