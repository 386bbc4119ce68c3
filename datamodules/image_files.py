"""Labelled images in files."""

import os
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssl_modules.augmentations import Augmentation, policy
from ssl_modules.datamodules.conversion import WhiteLevel
from ssl_modules.datamodules.decoding import crop, decode_image, square
from ssl_modules.datamodules.finding import absolute
from ssl_modules.datamodules.images import as_targets
from ssl_modules.datamodules.unreadable import Unreadable, UnreadableFiles, read_bytes
from ssl_modules.utils.checks import Checked, check_instance, check_number


class ImageFiles(Checked, Dataset[tuple[Tensor, Tensor]]):
    """Labelled image files of any size, resized to one size when they are read.

    Item ``i`` is the image [C, image_size, image_size], uint8, not augmented, with its target: the shorter side is
    scaled to ``decode_size`` with antialiasing, then the central square of ``image_size`` is cropped. A data module
    makes training batches in one of two ways:

    - fast mode, the default: workers crop and resize each image to a square of ``decode_size``; the module augments the
      batch on its device. Its crops come from the central square only, at reduced resolution.
    - with ``augmentation``, as in the papers on large photographs: workers make the views from the full-size image;
      batches hold these views as uint8, rounded to the nearest level.

    Args:
        root: folder that holds the files.
        paths: paths of the files, relative to ``root``.
        targets: integers, [N, ...] as in :class:`~ssl_modules.datamodules.TensorImages`; None for no targets.
        image_size: side length of validation and test images in pixels.
        decode_size: side length of training images in fast mode, at least ``image_size``; None for 8/7 of it, such as
            256 for 224.
        in_channels: 3 for colour, 1 for gray.
        augmentation: policy, or its name, with which workers make training views; None for fast mode.
        unreadable: how to handle a corrupt, truncated or missing file. "skip": training replaces it by another image,
            validation and test leave it out (unless the batch would be empty), and a warning at the end of the epoch
            counts and names such files. The next epoch tries them again. "error": raise an error. System errors, such
            as a failing disk or too many open files, always raise.
        white: pixel value of white in gray images of 16 bits, such as 4095 for 12-bit data; larger values become white.
            None for 65535; a warning then reports images that are much darker.

    Raises:
        TypeError: if targets are not integers.
        ValueError: if there are no paths, their number differs from that of targets, or an argument is out of range.

    Attributes:
        unread: bool [N], True for each file that could not be read in this epoch; shared by all workers.

    Example:
        >>> from PIL import Image
        >>> Image.new("RGB", (40, 30), "red").save("red.png")
        >>> image, target = ImageFiles(".", ["red.png"], torch.tensor([7]), image_size=14)[0]
        >>> image.shape, target
        (torch.Size([3, 14, 14]), tensor(7))
    """

    def __init__(
        self,
        root: str | Path,
        paths: Sequence[str],
        targets: Tensor | np.ndarray | Sequence[Any] | None = None,
        *,
        image_size: int,
        decode_size: int | None = None,
        in_channels: int = 3,
        augmentation: str | Augmentation | None = None,
        unreadable: Unreadable = "skip",
        white: int | None = None,
    ) -> None:
        if not len(paths):
            raise ValueError(f"paths: expected at least one image in {root}, got none")
        targets = torch.full((len(paths),), -1) if targets is None else as_targets(targets)
        if targets.ndim == 0 or len(targets) != len(paths):
            found = len(targets) if targets.ndim else "a single number"
            raise ValueError(f"targets: expected one for each of {len(paths)} images, got {found}")
        check_number("image_size", image_size, least=1)
        decode_size = round(image_size * 8 / 7) if decode_size is None else decode_size
        if decode_size < image_size:
            raise ValueError(f"decode_size: expected at least image_size={image_size}, got {decode_size}")
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels: expected 1 (gray) or 3 (colour), got {in_channels}")
        augmentation = policy(augmentation, image_size, in_channels) if isinstance(augmentation, str) else augmentation
        if augmentation is not None:
            check_instance("augmentation", augmentation, Augmentation, "give one, or the name of a policy")
            augmentation.check_channels(in_channels)
        sizes = {size for size in augmentation.sizes if size is not None} if augmentation is not None else set()
        if sizes and image_size not in sizes:
            raise ValueError(
                f"augmentation: expected views of image_size={image_size} pixels, got views of {sorted(sizes)}; "
                "give both the same size"
            )
        self.root: str | Path = Path(absolute(root))
        # One array of bytes: each worker would copy a list of strings, as reading an item changes its reference count.
        self.paths = np.array([os.fsencode(path) for path in paths])
        self.targets = targets
        self.image_size = image_size
        self.decode_size = decode_size
        self.in_channels = in_channels
        self.augmentation = augmentation
        self.unreadable = unreadable
        self.unreadable_files = UnreadableFiles(root, len(paths), unreadable)
        self.white = white
        self.levels = WhiteLevel(white)

    @property
    def unread(self) -> Tensor:
        return self.unreadable_files.marks

    @property
    def dims(self) -> tuple[int, ...]:
        """(C, H, W) of every item's image."""
        return self.in_channels, self.image_size, self.image_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one image [C, image_size, image_size] with its target. Raise an error if the file can't be read."""
        pixels, *_ = self.read(index, training=False, generator=torch.Generator())
        [image] = self.views(pixels, training=False, generator=torch.Generator())
        return image, self.targets[index].long()

    def read(self, row: int, *, training: bool, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return the pixels of a file and the values that follow its row in a batch.

        The image may be smaller than in the file, but it is large enough for :meth:`views`.

        Args:
            row: row of the file.
            training: whether to read for a training batch.
            generator: source of randomness for files that are read only in part, such as videos.

        Raises:
            OSError: if the file can't be read.
        """
        at_least = None if training and self.augmentation is not None else self.decode_size
        return (self.pixels(row, at_least),)

    def views(self, pixels: Tensor, *, training: bool, generator: torch.Generator) -> list[Tensor]:
        """Return the views of a file as uint8. Without augmentation, there is one view, the resized image.

        Args:
            pixels: pixels of a file, from :meth:`read`.
            training: whether to make views for a training batch.
            generator: source of the randomness of the views.
        """
        if not training or self.augmentation is None:
            return [self.resized(pixels, training=training)]
        views = self.augmentation(pixels.contiguous()[None], generator)
        return [view[0].mul(255).round_().to(torch.uint8) for view in views]

    def resized(self, pixels: Tensor, *, training: bool) -> Tensor:
        """Return the central square.

        For training, its side is ``decode_size``. Otherwise, a square of ``image_size`` is cropped from this square.
        """
        image = square(pixels, self.decode_size)
        return image if training else crop(image, self.image_size)

    def pixels(self, index: int, at_least: int | None = None) -> Tensor:
        """Return one image in its own size, uint8 [C, H, W]; raise an error if the file can't be read.

        Args:
            index: row of the image.
            at_least: minimum length of the shorter side. A JPEG may then be decoded at a fraction of its size, which
                is faster. None = full size.
        """
        return decode_image(self.content(index), self.path(index), self.in_channels, at_least, self.levels)

    def content(self, index: int) -> bytes:
        """Return the bytes of a row's file."""
        return read_bytes(self.path(index))

    def path(self, index: int) -> str | Path:
        """Return the path of a row's file."""
        return Path(self.root, os.fsdecode(self.paths[index]))

    def names(self) -> list[str]:
        """Return the paths of all files, relative to ``root``."""
        return [os.fsdecode(path) for path in self.paths]

    def select(self, rows: Tensor) -> Self:
        """Return a data set of the given rows.

        Args:
            rows: [M], integers in [0, N), in the order wanted.
        """
        files = copy(self)  # the copy shares ``levels``, so that a single warning covers all parts
        files.paths, files.targets = self.paths[rows.numpy()], self.targets[rows]
        files.unreadable_files = UnreadableFiles(self.root, len(rows), self.unreadable)
        return files

    def for_loader(self) -> Self:
        """Return the data set that one loader reads. A subclass may return a copy that knows the loader's order."""
        return self

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """Return a random order of the rows, [N]. A subclass may choose an order that is fast to read."""
        return torch.randperm(len(self), generator=generator)

    def new_epoch(self) -> None:
        """Start an epoch: try unreadable files again from now on."""
        self.unreadable_files.new_epoch(self.path)

    def report(self) -> None:
        """Warn about the files that could not be read; later calls warn only if there are new ones."""
        self.unreadable_files.report(self.path)

    def warn_if_dark(self) -> None:
        """Warn once if ``white`` is None and all 16-bit images are much darker than 65535."""
        self.levels.warn_if_dark(str(self.root))
