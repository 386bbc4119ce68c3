"""ImageNet-1k, and any of its classes, such as the hundred of ImageNet-100."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision.datasets import imagenet

from ssl_modules.augmentations import Augmentation
from ssl_modules.datamodules.base import ImageDataModule
from ssl_modules.datamodules.files import ImageFiles, Unreadable, available_workers, find_labelled_images

CLASSES = 1000

# The hundred classes of Tian, Krishnan and Isola, "Contrastive Multiview Coding", ECCV 2020: imagenet100.txt in the
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


class ImageNetDataModule(ImageDataModule):
    """ImageNet-1k (ILSVRC 2012): 1,281,167 training images and, to test on, the 50,000 official validation images.

    The images lie in a folder for each class, ``root/train/n01440764/...`` and ``root/val/n01440764/...``, as
    torchvision unpacks them from the official archives; there is no download without an account at image-net.org.
    Classes are numbered in the order of their WordNet ids, those taken alone if only some are.

    For the two ways of making training batches, and what an evaluated image is, see :class:`ImageFiles`.

    Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015. Mean and standard
    deviation are the usual ones, of ImageNet's training images.

    Args:
        root: folder with ``train`` and ``val``, or with the official archives.
        batch_size: images per batch and process (device).
        image_size: side of an image to evaluate, in pixels, and of a view to train on.
        classes: WordNet ids, or the path of a text file of them, to take these classes alone; "imagenet-100" for the
            usual hundred; None for all 1,000.
        decode_size: side of the training images that are augmented on the device; None for 8/7 of ``image_size``.
        augmentation: policy, or its name, to draw training views by in the workers, from images of full size; None to
            leave it to the module.
        unreadable: "skip" files that can't be read, and count them in a warning, or raise an "error".
        extract: whether ``prepare_data`` unpacks the official archives (155 GB) in ``root`` if the folders are not
            there.
        val_size: number of training images to set aside, drawn by ``seed``, as a validation part.
        seed: of the order of the training images, of their views in the workers, and of the validation part.
        num_workers: processes that read images; None for one each core, at most 8.
        return_index: whether batches hold the row of each image.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> data = ImageNetDataModule(classes="imagenet-100")
        >>> data.num_classes, data.dims, data.class_names[0]
        (100, (3, 224, 224), 'n01558993')
    """

    def __init__(
        self,
        root: str | Path = "data/imagenet",
        batch_size: int = 256,
        *,
        image_size: int = 224,
        classes: str | Path | Sequence[str] | None = None,
        decode_size: int | None = None,
        augmentation: str | Augmentation | None = None,
        unreadable: Unreadable = "skip",
        extract: bool = False,
        val_size: int = 0,
        seed: int = 0,
        num_workers: int | None = None,
        return_index: bool = False,
    ) -> None:
        self.classes = _read_classes(classes)
        super().__init__(
            name="imagenet" if self.classes is None else f"imagenet-{len(self.classes)}",
            num_classes=CLASSES if self.classes is None else len(self.classes),
            dims=(3, image_size, image_size),
            mean=IMAGENET_DEFAULT_MEAN,
            std=IMAGENET_DEFAULT_STD,
            class_names=self.classes,
            batch_size=batch_size,
            val_size=val_size,
            seed=seed,
            num_workers=available_workers() if num_workers is None else num_workers,
            return_index=return_index,
        )
        self.root = os.path.expanduser(root)
        self.decode_size = decode_size
        self.augmentation = augmentation
        self.unreadable = unreadable
        self.extract = extract
        self._save_arguments()

    def prepare_data(self) -> None:
        """Unpacks the official archives by torchvision, if ``extract`` and a part is not there; nothing else."""
        for split, unpack in (("train", imagenet.parse_train_archive), ("val", imagenet.parse_val_archive)):
            place = Path(self.root, split)
            if not self.extract or place.is_dir():
                continue
            unpacked = place.with_name(f"{split}.unpacking")
            shutil.rmtree(unpacked, ignore_errors=True)  # of a run that was interrupted
            if not Path(self.root, imagenet.META_FILE).is_file():
                imagenet.parse_devkit_archive(self.root)
            unpack(self.root, folder=unpacked.name)
            unpacked.rename(place)

    def load(self) -> tuple[ImageFiles, ImageFiles]:
        """The training images and the official validation images, in files.

        Raises:
            FileNotFoundError: if a part, or a class of it, is not there.
            ValueError: if a class has no images, or all classes are asked for and there are not 1,000.
        """
        train = Path(self.root, "train")
        if self.classes is None and train.is_dir():
            names = sorted(folder.name for folder in train.iterdir() if folder.is_dir())
            if len(names) != CLASSES:
                raise ValueError(
                    f"{train}: expected {CLASSES} class folders, but got {len(names)}; pass classes= for some"
                )
            self.class_names = tuple(names)
        return self._part("train"), self._part("val")

    def _part(self, split: str) -> ImageFiles:
        folder = Path(self.root, split)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"ImageNet: there is no {folder} (root={self.root!r}); get the archives of ILSVRC 2012 (155 GB) from "
                f"image-net.org into {self.root} and pass extract=True, or give the root of a folder for each class in "
                "train and val"
            )
        paths, targets = find_labelled_images(folder, self.class_names)
        return ImageFiles(
            folder,
            paths,
            targets,
            image_size=self.image_size,
            decode_size=self.decode_size,
            augmentation=self.augmentation,
            unreadable=self.unreadable,
        )


def _read_classes(classes: str | Path | Sequence[str] | None) -> list[str] | None:
    if classes is None:
        return None
    if classes == "imagenet-100":
        classes = IMAGENET_100.split()
    elif isinstance(classes, str | Path):
        if not Path(classes).is_file():
            raise ValueError(
                f"classes: expected WordNet ids, a text file of them, or 'imagenet-100', but there is no {classes}"
            )
        classes = Path(classes).read_text().split()
    if not classes or len({*classes}) < len(classes):
        raise ValueError(f"classes: expected WordNet ids, each once, but got {classes!r}")
    return sorted(classes)
