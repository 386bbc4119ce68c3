"""A folder of your own images, with or without one folder per class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_modules.datamodules.batches import read_all
from ssl_modules.datamodules.class_folders import ClassFolders
from ssl_modules.datamodules.conversion import WhiteLevel
from ssl_modules.datamodules.finding import IMAGES
from ssl_modules.datamodules.image_files import ImageFiles
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.utils.checks import got


class ImageFolderDataModule(ClassFolders):
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

    kind = IMAGES

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
        WhiteLevel(white)  # raises if white is out of range
        self.read_facts(root, test, class_folders, in_channels=in_channels, mean=mean, std=std)
        super().__init__(**settings)
        if in_memory and (self.augmentation is not None or self.decode_size is not None):
            raise ValueError(
                f"in_memory: expected neither decode_size nor augmentation, as images are decoded once, at image_size, "
                f"got decode_size={self.decode_size} and augmentation={got(self.augmentation)}; leave these out, or "
                "in_memory"
            )
        self.white = white
        self.keep_in_memory = in_memory
        if in_memory:
            self.decode_size = self.image_size

    def data_set(self, folder: Path, paths: Sequence[str], targets: Any) -> ImageFiles | TensorImages:
        """Return the images of a part, in files or in memory."""
        files = self.files(folder, paths, targets, self.white)
        return read_all(files, self.num_workers) if self.keep_in_memory else files
