"""Fashion-MNIST: 70,000 small images of clothing, in ten classes and, optionally, five coarse ones."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.datasets import FashionMNIST

from ssl_modules.datamodules.download import DownloadableDataModule
from ssl_modules.datamodules.finding import not_found
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.datamodules.unreadable import read_bytes
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.seeds import derive_generator

# The coarse class of each class.
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


class FashionMNISTDataModule(DownloadableDataModule):
    """Fashion-MNIST with its official parts: 60,000 training and 10,000 test images, 28 x 28, one channel.

    The files are read from ``root``, where torchvision puts them, or else from the folder of Debian's package
    dataset-fashion-mnist. They may be compressed or not.

    With ``coarse=True`` targets are (class, coarse class), [N, 2]. The coarse classes are, in this order: tops
    (T-shirt/top, Pullover, Coat, Shirt), bottoms (Trouser), dress (Dress), shoes (Sandal, Sneaker, Ankle boot) and bag
    (Bag).

    Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
    Algorithms", 2017, arXiv:1708.07747. Mean and standard deviation are those of the 60,000 training images.

    Args:
        root: folder of data sets; the files are in ``root/FashionMNIST/raw``.
        coarse: whether targets also hold the coarse class.
        subset: number of training images to use, 1 to 60,000; None for all. The choice doesn't depend on ``seed``, and
            a smaller subset is part of a larger one.
        download: whether ``prepare_data`` downloads the files (30 MB) to ``root`` if neither folder has them.
        settings: keyword arguments of :class:`BaseDataModule`: batch_size, val_size, seed, num_workers, return_index.

    Raises:
        ValueError: if ``subset`` is out of range.

    Example:
        >>> data = FashionMNISTDataModule(coarse=True)
        >>> data.num_classes, data.class_names[9], data.level_names
        (10, 'Ankle boot', ('class', 'coarse'))
    """

    name = "fashion_mnist"
    num_classes = 10
    class_names = tuple(COARSE)
    dims = (1, 28, 28)
    mean = (0.2860405969887955,)
    std = (0.35302424456591125,)
    url = FashionMNIST.mirrors[0]
    download_size = "30 MB"
    train_size = 60_000
    debian_folder = Path("/usr/share/datasets/fashion-mnist")

    def __init__(
        self, root: str | Path = "data", *, coarse: bool = False, subset: int | None = None, **settings: Any
    ) -> None:
        if subset is not None:
            check_number("subset", subset, least=1, most=self.train_size)
        if coarse:
            self.target_type = "hierarchical"
            self.levels = {"class": self.class_names, "coarse": ("tops", "bottoms", "dress", "shoes", "bag")}
        super().__init__(root, **settings)
        self.coarse = coarse
        self.subset = subset

    def prepare_data(self) -> None:
        """Download the files with torchvision, if ``download`` is set and neither folder has them."""
        if self.download and self._folder() is None:
            FashionMNIST(self.root, download=True)

    def load(self) -> tuple[TensorImages, TensorImages]:
        """Return the training part, or a subset of it, and the test part, in memory.

        Raises:
            FileNotFoundError: if neither folder has the files.
            ValueError: if a file is damaged.
        """
        folder = self._folder()
        if folder is None:
            fix = f"pass download=True ({self.download_size}), or install it: apt install dataset-fashion-mnist"
            raise not_found(f"{self._raw()} or {self.debian_folder}", fix)
        train, test = (self._part(folder, part) for part in ("train", "t10k"))
        if self.subset is not None:
            order = torch.randperm(len(train), generator=derive_generator("fashion_mnist", "subset"))
            train = train.select(order[: self.subset].sort().values)
        return train, test

    def _part(self, folder: Path, part: str) -> TensorImages:
        images = read_idx(_file(folder, f"{part}-images-idx3-ubyte")).unsqueeze(1)  # [N, 1, 28, 28]
        targets = read_idx(_file(folder, f"{part}-labels-idx1-ubyte")).long()
        if self.coarse:
            names = self.levels["coarse"]
            coarse = torch.tensor([names.index(name) for name in COARSE.values()])
            targets = torch.stack([targets, coarse[targets]], dim=1)  # [N, 2]
        return TensorImages(images, targets)

    def _raw(self) -> Path:
        return Path(self.root) / "FashionMNIST" / "raw"

    def _folder(self) -> Path | None:
        files = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
        for folder in (self._raw(), self.debian_folder):
            if all(_file(folder, file).is_file() for file in files):
                return folder
        return None


def _file(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.is_file() else plain.with_name(f"{name}.gz")


def read_idx(path: Path) -> Tensor:
    """Read a file of bytes in the idx format of MNIST.

    Format: two zero bytes, type (8: unsigned byte), number of axes; the length of each axis as a big-endian 32-bit
    number; the values, last axis fastest.

    Args:
        path: path of the file; a file that ends in ``.gz`` is decompressed.

    Returns:
        uint8 tensor of the shape given in the file.

    Raises:
        ValueError: if the file has another format or is incomplete.
    """
    content = read_bytes(path)
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{path}: expected gzip, got an error ({error}); remove it, and download it again"
            ) from error
    if content[:3] != b"\0\0\x08" or len(content) < 4 or len(content) < (start := 4 + 4 * content[3]):
        raise ValueError(
            f"{path}: expected an idx file of bytes, got one that begins {content[:4]!r}; remove it, "
            "and download it again"
        )
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"{path}: expected {math.prod(shape)} values for shape {list(shape)}, got {len(content) - start}; "
            "remove it, and download it again"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)
