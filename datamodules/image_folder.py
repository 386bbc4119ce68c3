"""A folder of your own images, with or without one folder per class."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchvision.datasets.folder import IMG_EXTENSIONS

from ssl_modules.datamodules.batches import read_all
from ssl_modules.datamodules.conversion import WhiteLevel
from ssl_modules.datamodules.download import not_found
from ssl_modules.datamodules.finding import ENDINGS, find_images, find_labelled_images
from ssl_modules.datamodules.from_files import FilesDataModule
from ssl_modules.datamodules.image_files import ImageFiles
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.datamodules.unreadable import retried
from ssl_modules.utils.checks import check_choice


class ImageFolderDataModule(FilesDataModule):
    """Images in a folder: JPEG, PNG, WebP, TIFF, BMP or PNM, of any size, gray or colour, 8 or 16 bits.

    With ``class_folders``, each folder in ``root`` is a class, as for torchvision's ``ImageFolder``. It may have
    subfolders. Classes are numbered in alphabetical order. Without ``class_folders``, all images in ``root`` and its
    subfolders are used, without targets. Hidden files and folders are ignored.

    :class:`ImageFiles` describes the two ways to make training batches, and how validation and test images are resized.

    Args:
        root: folder of the training images.
        test: folder of the test images, with the same class folders; None if there is none.
        class_folders: whether the folders in ``root`` are classes.
        in_channels: 3 for colour, 1 for gray; other images are converted.
        mean: mean of each channel, for pixels in [0, 1]; None for ImageNet's, averaged over its channels for gray.
        std: standard deviation of each channel; None for ImageNet's, averaged over its channels for gray.
        white: pixel value of white in gray images of 16 bits, such as 4095 for 12-bit and 1023 for 10-bit data; larger
            values become white. None for 65535; a warning then reports images that are much darker.
        in_memory: whether to decode all images once, at ``image_size``, and keep them in memory; for small images.
        settings: keyword arguments of :class:`BaseDataModule` and, for images in files, image_size, decode_size,
            augmentation and unreadable.

    Raises:
        FileNotFoundError: if ``root`` is missing.
        ValueError: if there are no class folders, images lie beside them, or an argument is out of range.

    Example:
        >>> from PIL import Image
        >>> for name in ("cat", "dog"):
        ...     Path("pets", name).mkdir(parents=True)
        ...     Image.new("RGB", (40, 30)).save(f"pets/{name}/1.png")
        >>> data = ImageFolderDataModule("pets", batch_size=2, image_size=28, num_workers=0)
        >>> data.setup()
        >>> images, targets = next(iter(data.probe_train_dataloader()))
        >>> data.class_names, images.shape, targets
        (('cat', 'dog'), torch.Size([2, 3, 28, 28]), tensor([0, 1]))
    """

    def __init__(
        self,
        root: str | Path,
        *,
        test: str | Path | None = None,
        class_folders: bool = True,
        in_channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        white: int | None = None,
        in_memory: bool = False,
        **settings: Any,
    ) -> None:
        check_choice("in_channels", in_channels, (1, 3))
        WhiteLevel(white)  # raises if white is out of range
        root = Path(root).expanduser()
        self.name = root.resolve().name
        self.class_names = tuple(_class_names(root)) if class_folders else ()
        self.num_classes = len(self.class_names)
        self.target_type = "single" if class_folders else "none"
        self.dims = (in_channels, *self.dims[1:])
        self.mean = _by_channel(self.mean, in_channels) if mean is None else tuple(mean)
        self.std = _by_channel(self.std, in_channels) if std is None else tuple(std)
        super().__init__(**settings)
        if in_memory and (self.augmentation is not None or self.decode_size is not None):
            raise ValueError(
                f"in_memory: expected neither decode_size nor augmentation, as images are decoded once, at image_size, "
                f"got decode_size={self.decode_size} and augmentation={self.augmentation!r}; leave these out, or "
                "in_memory"
            )
        self.root = str(root)
        self.test = None if test is None else os.path.expanduser(test)
        self.class_folders = class_folders
        self.white = white
        self.keep_in_memory = in_memory
        if in_memory:
            self.decode_size = self.image_size

    def load(self) -> tuple[ImageFiles | TensorImages, ImageFiles | TensorImages | None]:
        """The training images, and the test images if there are any, in files or in memory.

        Raises:
            FileNotFoundError: if a folder is missing.
            ValueError: if there are no images, or a class has none.
        """
        return self._part(self.root), None if self.test is None else self._part(self.test)

    def _part(self, root: str) -> ImageFiles | TensorImages:
        folder = _existing(Path(root))
        if self.class_folders:
            paths, targets = find_labelled_images(folder, self.class_names)
        else:
            paths, targets = find_images(folder), None
            if not paths:
                raise ValueError(f"{folder}: expected images ({ENDINGS}), got none; give the folder of your images")
        files = self.files(folder, paths, targets, self.white)
        return read_all(files, self.num_workers) if self.keep_in_memory else files


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise not_found(folder, "give the folder of your images")
    return folder


def _class_names(root: Path) -> list[str]:
    entries = retried(root, lambda: [*_existing(root).iterdir()])
    places = [place for place in entries if not place.name.startswith(".")]
    names = sorted(place.name for place in places if place.is_dir())
    if not names:
        raise ValueError(
            f"class_folders: expected folders in {root}, got none; without classes pass class_folders=False"
        )
    stray = [place.name for place in places if place.suffix.lower() in IMG_EXTENSIONS and not place.is_dir()]
    if stray:
        raise ValueError(
            f"class_folders: expected all images in class folders, got {len(stray)} beside them in {root}, such as "
            f"{stray[0]}; move them to one, or pass class_folders=False to use all images without classes"
        )
    return names


def _by_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    return tuple(values) if channels == len(values) else (sum(values) / len(values),)
