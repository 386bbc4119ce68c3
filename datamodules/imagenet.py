"""ImageNet-1k, and subsets of its classes such as ImageNet-100."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchvision.datasets import imagenet

from ssl_modules.datamodules.finding import absolute, find_labelled, is_ignored, not_found
from ssl_modules.datamodules.from_files import FilesDataModule
from ssl_modules.datamodules.image_files import ImageFiles
from ssl_modules.datamodules.unreadable import read_bytes, retried

# The 100 classes of Tian, Krishnan and Isola, "Contrastive Multiview Coding", ECCV 2020: imagenet100.txt in the
# authors' repository HobbitLong/CMC.
IMAGENET_100 = """
n01558993 n01692333 n01729322 n01735189 n01749939 n01773797 n01820546 n01855672 n01978455 n01980166 n01983481
n02009229 n02018207 n02085620 n02086240 n02086910 n02087046 n02089867 n02089973 n02090622 n02091831 n02093428
n02099849 n02100583 n02104029 n02105505 n02106550 n02107142 n02108089 n02109047 n02113799 n02113978 n02114855
n02116738 n02119022 n02123045 n02138441 n02172182 n02231487 n02259212 n02326432 n02396427 n02483362 n02488291
n02701002 n02788148 n02804414 n02859443 n02869837 n02877765 n02974003 n03017168 n03032252 n03062245 n03085013
n03259280 n03379051 n03424325 n03492542 n03494278 n03530642 n03584829 n03594734 n03637318 n03642806 n03764736
n03775546 n03777754 n03785016 n03787032 n03794056 n03837869 n03891251 n03903868 n03930630 n03947888 n04026417
n04067472 n04099969 n04111531 n04127249 n04136333 n04229816 n04238763 n04336792 n04418357 n04429376 n04435653
n04485082 n04493381 n04517823 n04589890 n04592741 n07714571 n07715103 n07753275 n07831146 n07836838 n13037406
n13040303
"""


class ImageNetDataModule(FilesDataModule):
    """ImageNet-1k (ILSVRC 2012): 1,281,167 training images, and the 50,000 official validation images as test part.

    Each class has a folder of images, ``root/train/n01440764/...`` and ``root/val/n01440764/...``, as torchvision
    unpacks them from the official archives. To download the archives, you need an account at image-net.org. The
    selected classes are numbered in the order of their WordNet ids.

    :class:`ImageFiles` describes the two ways to make training batches, and how validation and test images are resized.

    Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015. Mean and standard
    deviation are the usual values for the training images.

    Args:
        root: folder with ``train`` and ``val``, or with the official archives.
        classes: WordNet ids of the classes to use, or the path of a text file that lists them; "imagenet-100" for the
            usual 100 classes; None for all 1,000.
        extract: whether ``prepare_data`` unpacks the official archives (155 GB) in ``root`` if the folders are missing.
        settings: keyword arguments of :class:`BaseDataModule` and, for images in files, image_size, decode_size,
            augmentation and unreadable.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> data = ImageNetDataModule(classes="imagenet-100")
        >>> data.num_classes, data.dims, data.class_names[0]
        (100, (3, 224, 224), 'n01558993')
    """

    name = "imagenet"
    num_classes = 1000

    def __init__(
        self,
        root: str | Path = "data/imagenet",
        *,
        classes: str | Path | Sequence[str] | None = None,
        extract: bool = False,
        **settings: Any,
    ) -> None:
        self.classes = _read_classes(classes)
        if self.classes is not None:
            self.num_classes = len(self.classes)
            self.name = f"imagenet-{self.num_classes}"
            self.class_names = tuple(self.classes)
        super().__init__(**settings)
        self.root = absolute(root)
        self.extract = extract

    def prepare_data(self) -> None:
        """Unpack the official archives with torchvision, if ``extract`` is set and a folder is missing."""
        for split, unpack in (("train", imagenet.parse_train_archive), ("val", imagenet.parse_val_archive)):
            place = Path(self.root, split)
            if not self.extract or place.is_dir():
                continue
            unpacked = place.with_name(f"{split}.unpacking")
            shutil.rmtree(unpacked, ignore_errors=True)  # left by an interrupted run
            if not Path(self.root, imagenet.META_FILE).is_file():
                imagenet.parse_devkit_archive(self.root)
            unpack(self.root, folder=unpacked.name)
            unpacked.rename(place)

    def load(self) -> tuple[ImageFiles, ImageFiles]:
        """Return the training images and the official validation images, in files.

        Raises:
            FileNotFoundError: if the folder of a part or of a class is missing.
            ValueError: if a class has no images, or all classes are requested and there are not 1,000 folders.
        """
        train = Path(self.root, "train")
        if self.classes is None and train.is_dir():
            entries = retried(train, lambda: [*train.iterdir()])
            names = sorted(folder.name for folder in entries if folder.is_dir() and not is_ignored(folder.name))
            if len(names) != self.num_classes:
                raise ValueError(
                    f"{train}: expected {self.num_classes} class folders, got {len(names)}; pass classes= for some"
                )
            self.class_names = tuple(names)
        return self._part("train"), self._part("val")

    def _part(self, split: str) -> ImageFiles:
        folder = Path(self.root, split)
        if not folder.is_dir():
            raise not_found(
                folder,
                f"put the archives of ILSVRC 2012 (155 GB) from image-net.org in {self.root} and pass extract=True, or "
                "give a root whose train and val have one folder per class",
            )
        paths, targets = find_labelled(folder, self.class_names)
        return self.files(folder, paths, targets)


def _read_classes(classes: str | Path | Sequence[str] | None) -> list[str] | None:
    if classes is None:
        return None
    if classes == "imagenet-100":
        classes = IMAGENET_100.split()
    elif isinstance(classes, str | Path):
        if not Path(classes).is_file():
            raise ValueError(
                f"classes: expected WordNet ids, a text file of them, or 'imagenet-100', got {str(classes)!r}, "
                "which is no file"
            )
        classes = read_bytes(classes).decode().split()
    if not classes or len({*classes}) < len(classes):
        raise ValueError(f"classes: expected WordNet ids, each once, got {classes!r}")
    return sorted(classes)
