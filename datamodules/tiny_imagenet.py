"""Tiny-ImageNet: 110,000 labelled colour photographs of 64 x 64 in 200 classes."""

import os
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_warn

from ssl_modules.datamodules.archive import download_and_unpack
from ssl_modules.datamodules.base import ImageDataModule
from ssl_modules.datamodules.files import ImageFiles, available_workers, find_images
from ssl_modules.datamodules.images import TensorImages

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
FOLDER = "tiny-imagenet-200"
CLASSES = 200
SIDE = 64
TRAIN_SIZE = 100_000
VAL_SIZE = 10_000


class TinyImageNetDataModule(ImageDataModule):
    """Tiny-ImageNet: 100,000 training images and, to test on, the 10,000 official validation images; 64 x 64, colour.

    The labels of the official test part are not public. ``setup`` decodes all images into memory (1.3 GB), which takes
    seconds to a minute. Classes are numbered in the order of their WordNet ids; their names are there after ``setup``.

    Source: Stanford University's course CS231n; the images are ImageNet's. Mean and standard deviation are those of the
    training images' pixels as they are commonly published; we have not measured them. (A smaller standard deviation,
    about 0.23, is found as often.)

    Args:
        root: folder of data sets; the files lie in ``root/tiny-imagenet-200``.
        batch_size: images per batch and process (device).
        download: whether ``prepare_data`` downloads them (248 MB) to ``root`` if they are not there.
        val_size: number of training images to set aside, drawn by ``seed``, as a validation part.
        seed: of the order of the training images and of the validation part.
        num_workers: processes that decode, in ``setup`` alone; None for one each core, at most 8.
        return_index: whether batches hold the row of each image.

    Example:
        >>> data = TinyImageNetDataModule()
        >>> data.num_classes, data.dims
        (200, (3, 64, 64))
    """

    def __init__(
        self,
        root: str | Path = "data",
        batch_size: int = 256,
        *,
        download: bool = False,
        val_size: int = 0,
        seed: int = 0,
        num_workers: int | None = None,
        return_index: bool = False,
    ) -> None:
        super().__init__(
            name="tiny_imagenet",
            num_classes=CLASSES,
            dims=(3, SIDE, SIDE),
            mean=(0.4802, 0.4481, 0.3975),
            std=(0.2770, 0.2691, 0.2821),
            batch_size=batch_size,
            val_size=val_size,
            seed=seed,
            num_workers=available_workers() if num_workers is None else num_workers,
            return_index=return_index,
        )
        self.root = os.path.expanduser(root)
        self.download = download
        self._save_arguments()

    def prepare_data(self) -> None:
        """Downloads and unpacks the archive, if ``download`` and it is not there; nothing else."""
        if self.download and not self._folder.is_dir():
            download_and_unpack(URL, self.root, MD5)

    def load(self) -> tuple[TensorImages, TensorImages]:
        """The training images and the official validation images, in memory.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if the files are not those of Tiny-ImageNet.
        """
        wnids = sorted(self._read("wnids.txt").split())
        if len(wnids) != CLASSES:
            raise ValueError(
                f"{self._folder / 'wnids.txt'}: expected {CLASSES} classes, but got {len(wnids)}; {self._fix}"
            )
        words = dict(line.split("\t", 1) for line in self._read("words.txt").splitlines())
        self.class_names = tuple(words.get(wnid, wnid) for wnid in wnids)
        return self._train(wnids), self._val(wnids)

    def _train(self, wnids: list[str]) -> TensorImages:
        paths, targets = [], []
        for target, wnid in enumerate(wnids):
            place = Path("train", wnid, "images")
            found = find_images(self._folder / place)
            if not found:
                raise ValueError(f"{self._folder / place}: no images of class {wnid}; {self._fix}")
            paths += [str(place / name) for name in found]
            targets += [target] * len(found)
        self._compare("train", len(paths), TRAIN_SIZE)
        return self._decoded(paths, targets)

    def _val(self, wnids: list[str]) -> TensorImages:
        name = "val/val_annotations.txt"
        rows = [line.split("\t")[:2] for line in self._read(name).splitlines()]
        unknown = {wnid for _, wnid in rows} - {*wnids}
        if unknown:
            raise ValueError(f"{self._folder / name}: classes {sorted(unknown)} are not in wnids.txt; {self._fix}")
        self._compare(name, len(rows), VAL_SIZE)
        images = Path("val", "images")
        if not (self._folder / images).is_dir():
            raise self._missing(self._folder / images)
        return self._decoded([str(images / name) for name, _ in rows], [wnids.index(wnid) for _, wnid in rows])

    def _compare(self, name: str, found: int, expected: int) -> None:
        if found != expected:  # incomplete, or a smaller copy on purpose
            rank_zero_warn(f"{self._folder / name}: has {found} images, where Tiny-ImageNet has {expected}")

    def _decoded(self, paths: list[str], targets: list[int]) -> TensorImages:
        files = ImageFiles(self._folder, paths, torch.tensor(targets), image_size=SIDE, decode_size=SIDE)
        return files.in_memory(self.num_workers)

    @property
    def _folder(self) -> Path:
        return Path(self.root) / FOLDER

    def _read(self, name: str) -> str:
        path = self._folder / name
        if not path.is_file():
            raise self._missing(path)
        return path.read_text()

    def _missing(self, path: Path) -> FileNotFoundError:
        return FileNotFoundError(f"Tiny-ImageNet: there is no {path} (root={self.root!r}); {self._fix}")

    @property
    def _fix(self) -> str:
        remove = f"remove {self._folder}, then " if self._folder.exists() else ""
        return f"{remove}pass download=True (248 MB), or unpack {URL} in {self.root}"
