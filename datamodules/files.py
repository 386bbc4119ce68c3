"""Images in files: found in folders, decoded by workers, and left out where they can't be read."""

import os
import warnings
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS

from ssl_modules.augmentations import Augmentation, policy
from ssl_modules.datamodules.decoding import crop, read_image, square
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.utils.seeds import derive_generator

Unreadable = Literal["skip", "error"]
ENDINGS = ", ".join(IMG_EXTENSIONS)
MOST_WORKERS = 8
IN_MEMORY_BATCH = 256
SHOWN = 20  # paths in a warning


class ImageFiles(Dataset[tuple[Tensor, Tensor]]):
    """Labelled image files of any sizes, and how they are brought to one.

    Item ``i`` is the image [C, image_size, image_size], uint8, un-augmented, with its target: the shorter side is
    scaled to ``decode_size`` and the centre of ``image_size`` taken, both with antialiasing. A data module's training
    batches are made another way:

    - fast, by default: each image at ``decode_size``, which the module then augments by the batch, on its device. A
      crop sees what the central square and this resolution have left.
    - true to the papers on large photographs, with ``augmentation``: the policy draws from each image at its full
      size, in the workers; batches hold the finished views, uint8, rounded to the nearest level.

    Args:
        root: folder that the paths start from.
        paths: of the files, relative to ``root``.
        targets: integers, [N, ...] as those of :class:`~ssl_modules.datamodules.TensorImages`; None for no targets.
        image_size: side of an image to evaluate, in pixels.
        decode_size: side of a training image in fast mode, at least ``image_size``; None for 8/7 of it, 256 for 224.
        in_channels: 3 for colour, 1 for gray.
        augmentation: policy, or its name, to draw training views by in the workers; None for the fast mode.
        unreadable: what to do about a corrupt, truncated or missing file. "skip": another image takes its place in
            training, evaluation goes without it (unless a batch would be empty), and a warning at the end of the epoch
            counts and names them; "error": raise.

    Raises:
        TypeError: if targets are not integers.
        ValueError: if there are no paths, not as many targets, or an argument is out of range.

    Attributes:
        unread: bool [N], the files that could not be read so far, known to all workers.

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
        targets: Tensor | None = None,
        *,
        image_size: int,
        decode_size: int | None = None,
        in_channels: int = 3,
        augmentation: str | Augmentation | None = None,
        unreadable: Unreadable = "skip",
    ) -> None:
        if not len(paths):
            raise ValueError(f"paths: expected at least one image in {root}, but got none")
        if targets is None:
            targets = torch.full((len(paths),), -1)
        if targets.is_floating_point() or targets.is_complex():
            raise TypeError(f"targets: expected integers, but got {targets.dtype}; give class indices, targets.long()")
        if len(targets) != len(paths):
            raise ValueError(f"targets: expected one for each of {len(paths)} images, but got {len(targets)}")
        if image_size < 1:
            raise ValueError(f"image_size: expected at least one pixel, but got {image_size}")
        decode_size = round(image_size * 8 / 7) if decode_size is None else decode_size
        if decode_size < image_size:
            raise ValueError(f"decode_size: expected at least image_size={image_size}, but got {decode_size}")
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels: expected 1 (gray) or 3 (colour), but got {in_channels}")
        if unreadable not in get_args(Unreadable):
            raise ValueError(f"unreadable: expected one of {get_args(Unreadable)}, but got {unreadable!r}")
        augmentation = policy(augmentation, image_size, in_channels) if isinstance(augmentation, str) else augmentation
        sizes = {size for size in augmentation.sizes if size is not None} if augmentation is not None else set()
        if sizes and image_size not in sizes:
            raise ValueError(
                f"augmentation: makes views of {sorted(sizes)} pixels, but image_size={image_size}; "
                "give both the same size"
            )
        self.root = Path(root)
        # One block of bytes: of a list of strings every worker would get a copy, by counting references.
        self.paths = np.array([os.fsencode(path) for path in paths])
        self.targets = targets
        self.image_size = image_size
        self.decode_size = decode_size
        self.in_channels = in_channels
        self.augmentation = augmentation
        self.unreadable = unreadable
        self.unread = torch.zeros(len(paths), dtype=torch.bool).share_memory_()
        self._reported = 0

    @property
    def dims(self) -> tuple[int, int, int]:
        """(C, H, W) of every image to evaluate."""
        return self.in_channels, self.image_size, self.image_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One image [C, image_size, image_size] to evaluate, with its target; raises if it can't be read."""
        pixels = read_image(self.path(index), self.in_channels, self.decode_size)
        return crop(square(pixels, self.decode_size), self.image_size), self.targets[index].long()

    def path(self, index: int) -> Path:
        """Where the file of a row lies."""
        return self.root / os.fsdecode(self.paths[index])

    def names(self) -> list[str]:
        """The paths of all files, relative to ``root``."""
        return [os.fsdecode(path) for path in self.paths]

    def select(self, rows: Tensor) -> "ImageFiles":
        """The given rows as a set of their own.

        Args:
            rows: [M], integers in [0, N), in the order wanted.
        """
        return ImageFiles(
            self.root,
            [os.fsdecode(path) for path in self.paths[rows.numpy()]],
            self.targets[rows],
            image_size=self.image_size,
            decode_size=self.decode_size,
            in_channels=self.in_channels,
            augmentation=self.augmentation,
            unreadable=self.unreadable,
        )

    def in_memory(self, num_workers: int = 0) -> TensorImages:
        """All images that can be read, decoded once, as :meth:`__getitem__` gives them.

        Args:
            num_workers: processes that decode.
        """
        loader = DataLoader(
            BatchedFiles(self, return_index=True),
            batch_size=IN_MEMORY_BATCH,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),
        )
        # In place of a batch of which nothing could be read stands an image of another.
        own = [batch for number, (*batch, rows) in enumerate(loader) if rows[0] // IN_MEMORY_BATCH == number]
        images, targets = (torch.cat(parts) for parts in zip(*own, strict=True))
        self.report()
        return TensorImages(images, targets)

    def report(self) -> None:
        """Warns of the files that could not be read, once for each number of them."""
        rows = self.unread.nonzero().flatten().tolist()
        if len(rows) == self._reported:
            return
        self._reported = len(rows)
        names = [str(self.path(row)) for row in rows[:SHOWN]]
        if len(rows) > SHOWN:
            names.append(f"and {len(rows) - SHOWN} more")
        warnings.warn(
            f"{len(rows)} of {len(self)} images could not be read and were left out (unreadable='error' says why): "
            + ", ".join(names),
            stacklevel=2,
        )


class BatchedFiles(Dataset[tuple]):
    """What a data module's loaders read of :class:`ImageFiles`: whole batches, of images or of finished views.

    What an image looks like follows from (seed, epoch, row) alone, whichever worker makes it.

    Args:
        files: the files.
        training: whether to make training batches; see :class:`ImageFiles`.
        seed: of the views.
        return_index: whether the rows in ``files`` follow images and targets.

    Attributes:
        epoch: of which views are made, known to all workers; see :meth:`set_epoch`.
    """

    def __init__(self, files: ImageFiles, *, training: bool = False, seed: int = 0, return_index: bool = False) -> None:
        self.files = files
        self.training = training
        self.seed = seed
        self.return_index = return_index
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Draws the views of this epoch from now on."""
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple:
        """One image [C, H, W], or its views, with its target and, if asked for, its row."""
        images, *rest = self.__getitems__([index])
        image = [view[0] for view in images] if self._in_workers else images[0]
        return (image, *(values[0] for values in rest))

    def __getitems__(self, indices: list[int]) -> tuple:
        """A finished batch: images [B, C, H, W] or a list of views, targets, and rows [B] if asked for.

        Raises:
            OSError: if an image can't be read and ``unreadable`` is "error".
            ValueError: if there is not one that can be read.
        """
        everything = range(len(self))
        rows: list[int] = []
        made: list[list[Tensor]] = []
        for index in indices:
            # In training a batch must be full: the images that follow take the place of one that can't be read.
            self._take(index, chain(everything[index:], everything[:index]) if self.training else [index], rows, made)
        if not rows:
            self._take(indices[0], everything, rows, made)
        if not rows:
            raise ValueError(
                f"none of the {len(self)} images in {self.files.root} can be read; unreadable='error' says why"
            )
        views = [torch.stack(same).contiguous() for same in zip(*made, strict=True)]
        images = views if self._in_workers else views[0]
        batch = (images, self.files.targets[rows].long())
        return (*batch, torch.tensor(rows)) if self.return_index else batch

    @property
    def _in_workers(self) -> bool:
        return self.training and self.files.augmentation is not None

    def _take(self, index: int, candidates: Iterable[int], rows: list[int], made: list[list[Tensor]]) -> None:
        """Adds the first of the candidates that can be read, with the views that fall to ``index``."""
        for row in candidates:
            if (pixels := self._read(row)) is not None:
                rows.append(row)
                made.append(self._views(pixels, index))
                return

    def _read(self, row: int) -> Tensor | None:
        files = self.files
        if files.unread[row]:
            return None
        try:
            return read_image(files.path(row), files.in_channels, None if self._in_workers else files.decode_size)
        except Exception as error:  # Pillow's plugins raise whatever they meet
            if files.unreadable == "error":
                raise OSError(
                    f"{files.path(row)}: can't be read ({error}); remove it, or pass unreadable='skip'"
                ) from error
            files.unread[row] = True
            return None

    def _views(self, pixels: Tensor, index: int) -> list[Tensor]:
        files = self.files
        if not self._in_workers:
            image = square(pixels, files.decode_size)
            return [image if self.training else crop(image, files.image_size)]
        assert files.augmentation is not None
        generator = derive_generator(self.seed, "view", int(self.epoch), index)
        views = files.augmentation(pixels.contiguous()[None], generator)
        return [view[0].mul(255).round_().to(torch.uint8) for view in views]


def find_images(folder: Path) -> list[str]:
    """The image files below a folder, sorted, relative to it, known by their endings; hidden ones are left out.

    Links are followed, but no folder is searched twice, so that one that leads back does no harm.

    Args:
        folder: which is searched with all folders in it.

    Example:
        >>> Path("trip", "day 2").mkdir(parents=True)
        >>> Path("trip", "day 2", "sea.JPG").touch()
        >>> Path("trip", "notes.txt").touch()
        >>> find_images(Path("trip"))
        ['day 2/sea.JPG']
    """
    found = []
    searched: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = os.path.realpath(place)
        if real in searched:
            folders.clear()
            continue
        searched.add(real)
        relative = os.path.relpath(place, folder)
        for name in files:
            if name.lower().endswith(IMG_EXTENSIONS) and not name.startswith("."):
                found.append(os.path.normpath(os.path.join(relative, name)))
    return sorted(found)


def find_labelled_images(folder: Path, names: Sequence[str]) -> tuple[list[str], Tensor]:
    """The image files of each class, and their classes [N].

    Args:
        folder: with a folder for each class.
        names: of these folders, in the order of the classes.

    Raises:
        FileNotFoundError: if a class has no folder.
        ValueError: if a class has no images.
    """
    paths: list[str] = []
    targets: list[int] = []
    for target, name in enumerate(names):
        if not (folder / name).is_dir():
            raise FileNotFoundError(f"{folder}: there is no folder of class {name!r}")
        found = find_images(folder / name)
        if not found:
            raise ValueError(
                f"{folder / name}: no images of class {name!r} ({ENDINGS}); add some, or remove the folder"
            )
        paths += [os.path.join(name, path) for path in found]
        targets += [target] * len(found)
    return paths, torch.tensor(targets)


def available_workers() -> int:
    """A number of worker processes: one for each core that this process may use, but no more than 8.

    Example:
        >>> available_workers() >= 1
        True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_WORKERS, cores)


def _as_it_is(batch: Any) -> Any:
    """The collate function where the data set makes whole batches."""
    return batch
