"""A folder of your own images, with or without one folder per class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_modules.datamodules.batches import read_all
from ssl_modules.datamodules.conversion import WhiteLevel
from ssl_modules.datamodules.finding import absolute, check_test_classes, existing, find_classes, find_part
from ssl_modules.datamodules.from_files import FilesDataModule
from ssl_modules.datamodules.image_files import ImageFiles
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.utils.checks import check_choice, got


class ImageFolderDataModule(FilesDataModule):
    """Images in a folder: JPEG, PNG, WebP, TIFF, BMP or PNM, of any size, gray or colour, 8 or 16 bits.

    With ``class_folders``, each folder in ``root`` is a class, as for torchvision's ``ImageFolder``. It may have
    subfolders. Classes are numbered in alphabetical order. Without ``class_folders``, all images in ``root`` and its
    subfolders are used, without targets. Hidden files and folders are ignored, and so are folders that operating
    systems add, such as ``__MACOSX``. A folder without images is not a class, and a warning names it. A log message
    counts the files without an image extension. A link to a folder of another class is not followed.

    :class:`ImageFiles` describes the two ways to make training batches, and how validation and test images are resized.

    Args:
        root: folder of the training images.
        test: folder of the test images, with class folders of the same names; None if there is none. A warning names
            the classes without test images. Folders of other classes are left out, and a warning names them.
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
        self.class_names = tuple(find_classes(existing(root, "root"))) if class_folders else ()
        self.num_classes = len(self.class_names)
        self.target_type = "single" if class_folders else "none"
        self.dims = (in_channels, *self.dims[1:])
        self.mean = by_channel(self.mean, in_channels) if mean is None else tuple(mean)
        self.std = by_channel(self.std, in_channels) if std is None else tuple(std)
        super().__init__(**settings)
        if in_memory and (self.augmentation is not None or self.decode_size is not None):
            raise ValueError(
                f"in_memory: expected neither decode_size nor augmentation, as images are decoded once, at image_size, "
                f"got decode_size={self.decode_size} and augmentation={got(self.augmentation)}; leave these out, or "
                "in_memory"
            )
        self.root = absolute(root)
        self.test = None if test is None else absolute(test)
        self.class_folders = class_folders
        self.white = white
        self.keep_in_memory = in_memory
        if in_memory:
            self.decode_size = self.image_size

    def load(self) -> tuple[ImageFiles | TensorImages, ImageFiles | TensorImages | None]:
        """The training images, and the test images if there are any, in files or in memory.

        Raises:
            FileNotFoundError: if a folder is missing.
            ValueError: if there are no images, or if the test folder has none of the training folder's classes.
        """
        train = existing(self.root, "root")
        test = None if self.test is None else existing(self.test, "test")
        if self.class_folders and test is not None:
            check_test_classes(self.root, test, self.class_names)
        return self._part(train, is_train=True), None if test is None else self._part(test, is_train=False)

    def _part(self, folder: Path, *, is_train: bool) -> ImageFiles | TensorImages:
        paths, targets = find_part(folder, self.class_names if self.class_folders else None, is_train=is_train)
        files = self.files(folder, paths, targets, self.white)
        return read_all(files, self.num_workers) if self.keep_in_memory else files


def by_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Return a value for each channel; if the number of channels differs, return the mean as the only value."""
    return tuple(values) if channels == len(values) else (sum(values) / len(values),)
