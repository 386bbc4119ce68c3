"""A folder of one's own images, with or without a folder for each class."""

import os
from collections.abc import Sequence
from pathlib import Path

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision.datasets.folder import IMG_EXTENSIONS

from ssl_modules.augmentations import Augmentation
from ssl_modules.datamodules.base import ImageDataModule
from ssl_modules.datamodules.files import (
    ENDINGS,
    ImageFiles,
    Unreadable,
    available_workers,
    find_images,
    find_labelled_images,
)
from ssl_modules.datamodules.images import TensorImages


class ImageFolderDataModule(ImageDataModule):
    """Any tree of images: JPEG, PNG, WebP, TIFF, BMP or PNM, of any sizes, gray or colour, of 8 or 16 bits.

    With ``class_folders`` each folder in ``root`` is a class, numbered in alphabetical order, and holds its images and
    any folders of them, as torchvision's ``ImageFolder`` has it. Without, all images below ``root`` are taken, and
    there are no targets. Hidden files and folders are left out.

    For the two ways of making training batches, and what an evaluated image is, see :class:`ImageFiles`.

    Args:
        root: folder of the training images.
        batch_size: images per batch and process (device).
        test: folder of the test images, with folders of the same classes; None if there is none.
        class_folders: whether the folders in ``root`` are classes.
        image_size: side of an image to evaluate, in pixels, and of a view to train on.
        in_channels: 3 for colour, 1 for gray; images of the other kind are converted.
        mean: of each channel, for pixels in [0, 1]; None for ImageNet's, or their mean for one channel.
        std: likewise.
        in_memory: whether all images are decoded once, at ``image_size``, and kept in memory; for small images.
        decode_size: side of the training images that are augmented on the device; None for 8/7 of ``image_size``.
        augmentation: policy, or its name, to draw training views by in the workers, from images of full size; None to
            leave it to the module.
        unreadable: "skip" files that can't be read, and count them in a warning, or raise an "error".
        val_size: number of training images to set aside, drawn by ``seed``, as a validation part.
        seed: of the order of the training images, of their views in the workers, and of the validation part.
        num_workers: processes that read images; None for one each core, at most 8.
        return_index: whether batches hold the row of each image.

    Raises:
        FileNotFoundError: if there is no ``root``.
        ValueError: if there should be class folders but there are none, or images beside them, or an argument is out of
            its range.

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
        batch_size: int = 256,
        *,
        test: str | Path | None = None,
        class_folders: bool = True,
        image_size: int = 224,
        in_channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        in_memory: bool = False,
        decode_size: int | None = None,
        augmentation: str | Augmentation | None = None,
        unreadable: Unreadable = "skip",
        val_size: int = 0,
        seed: int = 0,
        num_workers: int | None = None,
        return_index: bool = False,
    ) -> None:
        if in_memory and (augmentation is not None or decode_size is not None):
            raise ValueError(
                f"in_memory: images are decoded once, at image_size, but got decode_size={decode_size} and "
                f"augmentation={augmentation!r}; leave these out, or in_memory"
            )
        root = Path(root).expanduser()
        names = _class_names(root) if class_folders else []
        super().__init__(
            name=root.resolve().name,
            num_classes=len(names),
            dims=(in_channels, image_size, image_size),
            mean=_by_channel(IMAGENET_DEFAULT_MEAN, in_channels) if mean is None else mean,
            std=_by_channel(IMAGENET_DEFAULT_STD, in_channels) if std is None else std,
            class_names=names,
            target_type="single" if class_folders else "none",
            batch_size=batch_size,
            val_size=val_size,
            seed=seed,
            num_workers=available_workers() if num_workers is None else num_workers,
            return_index=return_index,
        )
        self.root = str(root)
        self.test = None if test is None else os.path.expanduser(test)
        self.class_folders = class_folders
        self.keep_in_memory = in_memory
        self.decode_size = image_size if in_memory else decode_size
        self.augmentation = augmentation
        self.unreadable = unreadable
        self._save_arguments()

    def load(self) -> tuple[ImageFiles | TensorImages, ImageFiles | TensorImages | None]:
        """The training images, and the test images if there are any, in files or in memory.

        Raises:
            FileNotFoundError: if a folder is not there.
            ValueError: if there are no images, in all or of a class.
        """
        return self._part(self.root), None if self.test is None else self._part(self.test)

    def _part(self, root: str) -> ImageFiles | TensorImages:
        folder = _existing(Path(root))
        if self.class_folders:
            paths, targets = find_labelled_images(folder, self.class_names)
        else:
            paths, targets = find_images(folder), None
            if not paths:
                raise ValueError(f"{folder}: no images in it ({ENDINGS}); give the folder that yours are in")
        files = ImageFiles(
            folder,
            paths,
            targets,
            image_size=self.image_size,
            decode_size=self.decode_size,
            in_channels=self.in_channels,
            augmentation=self.augmentation,
            unreadable=self.unreadable,
        )
        return files.in_memory(self.num_workers) if self.keep_in_memory else files


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; give the one that your images are in")
    return folder


def _class_names(root: Path) -> list[str]:
    places = [place for place in _existing(root).iterdir() if not place.name.startswith(".")]
    names = sorted(place.name for place in places if place.is_dir())
    if not names:
        raise ValueError(f"class_folders: there are no folders in {root}; without classes pass class_folders=False")
    stray = [place.name for place in places if place.suffix.lower() in IMG_EXTENSIONS and not place.is_dir()]
    if stray:
        raise ValueError(
            f"class_folders: {len(stray)} images in {root} are in no folder, such as {stray[0]}; move them to one, "
            "or pass class_folders=False to take all images without classes"
        )
    return names


def _by_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values if channels == len(values) else (sum(values) / len(values),)
