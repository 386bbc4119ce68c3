"""Tiny-ImageNet: 110,000 labelled colour photographs of 64 x 64 pixels in 200 classes."""

from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_warn

from ssl_modules.datamodules.batches import read_all
from ssl_modules.datamodules.download import DownloadableDataModule, download_and_unpack
from ssl_modules.datamodules.finding import find_files
from ssl_modules.datamodules.image_files import ImageFiles
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.datamodules.unreadable import read_bytes


class TinyImageNetDataModule(DownloadableDataModule):
    """Tiny-ImageNet: 100,000 training images, and 10,000 official validation images as test part; 64 x 64, colour.

    The labels of the official test part are not public. ``setup`` decodes all images into memory (1.3 GB), which takes
    up to a minute. Classes are numbered in the order of their WordNet ids; ``setup`` reads their names.

    Source: Stanford University's course CS231n; the images are ImageNet's. Mean and standard deviation are commonly
    published values for the pixels of the training images; we have not measured them. (A smaller standard deviation,
    about 0.23, is published as often.)

    Args:
        root: folder of data sets; the files are in ``root/tiny-imagenet-200``.
        download: whether ``prepare_data`` downloads the files (248 MB) to ``root`` if they are missing.
        settings: keyword arguments of :class:`BaseDataModule`: batch_size, val_size, seed, return_index, and
            num_workers, the number of processes that decode in ``setup``.

    Example:
        >>> data = TinyImageNetDataModule()
        >>> data.num_classes, data.dims
        (200, (3, 64, 64))
    """

    name = "tiny_imagenet"
    num_classes = 200
    dims = (3, 64, 64)
    mean = (0.4802, 0.4481, 0.3975)
    std = (0.2770, 0.2691, 0.2821)
    url = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    md5 = "90528d7ca1a48142e341f4ef8d21d0de"
    download_size = "248 MB"
    train_size = 100_000
    test_size = 10_000

    def prepare_data(self) -> None:
        """Download and unpack the archive, if ``download`` is set and the folder is missing."""
        if self.download and not self._folder.is_dir():
            download_and_unpack(self.url, self.root, self.md5)

    def load(self) -> tuple[TensorImages, TensorImages]:
        """Return the training images and the official validation images, in memory.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if the files are not Tiny-ImageNet's.
        """
        wnids = sorted(self._read("wnids.txt").split())
        if len(wnids) != self.num_classes:
            path = self._folder / "wnids.txt"
            raise ValueError(f"{path}: expected {self.num_classes} classes, got {len(wnids)}; {self.how_to_get}")
        words = dict(line.split("\t", 1) for line in self._read("words.txt").splitlines())
        self.class_names = tuple(words.get(wnid, wnid) for wnid in wnids)
        return self._train(wnids), self._val(wnids)

    def _train(self, wnids: list[str]) -> TensorImages:
        paths, targets = [], []
        for target, wnid in enumerate(wnids):
            place = Path("train", wnid, "images")
            found = find_files(self._folder / place)
            if not found:
                raise ValueError(f"{self._folder / place}: expected images, got none; {self.how_to_get}")
            paths += [str(place / name) for name in found]
            targets += [target] * len(found)
        self._compare("train", len(paths), self.train_size)
        return self._decoded(paths, targets)

    def _val(self, wnids: list[str]) -> TensorImages:
        name = "val/val_annotations.txt"
        rows = [line.split("\t")[:2] for line in self._read(name).splitlines()]
        unknown = {wnid for _, wnid in rows} - {*wnids}
        if unknown:
            raise ValueError(
                f"{self._folder / name}: expected classes of wnids.txt, got {sorted(unknown)}; {self.how_to_get}"
            )
        self._compare(name, len(rows), self.test_size)
        images = Path("val", "images")
        if not (self._folder / images).is_dir():
            raise self.missing(self._folder / images)
        return self._decoded([str(images / name) for name, _ in rows], [wnids.index(wnid) for _, wnid in rows])

    def _compare(self, name: str, found: int, expected: int) -> None:
        if found != expected:  # incomplete, or an intentionally smaller copy
            rank_zero_warn(f"{self._folder / name}: expected {expected} images, got {found}")

    def _decoded(self, paths: list[str], targets: list[int]) -> TensorImages:
        side = self.image_size
        files = ImageFiles(self._folder, paths, torch.tensor(targets), image_size=side, decode_size=side)
        return read_all(files, self.num_workers)

    @property
    def _folder(self) -> Path:
        return Path(self.root, "tiny-imagenet-200")

    def _read(self, name: str) -> str:
        path = self._folder / name
        if not path.is_file():
            raise self.missing(path)
        return read_bytes(path).decode()

    @property
    def how_to_get(self) -> str:
        """What to do if files are missing."""
        remove = f"remove {self._folder}, then " if self._folder.exists() else ""
        return remove + super().how_to_get
