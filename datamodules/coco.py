"""MS-COCO 2017: photographs of everyday scenes, most with several kinds of objects in them."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import Dataset

from ssl_modules.augmentations import Augmentation
from ssl_modules.datamodules.archive import download_and_unpack
from ssl_modules.datamodules.base import ImageDataModule
from ssl_modules.datamodules.files import ImageFiles, Unreadable, available_workers
from ssl_modules.utils.seeds import derive_generator

_NAMES = (
    "person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant|stop sign|"
    "parking meter|bench|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|"
    "handbag|tie|suitcase|frisbee|skis|snowboard|sports ball|kite|baseball bat|baseball glove|skateboard|"
    "surfboard|tennis racket|bottle|wine glass|cup|fork|knife|spoon|bowl|banana|apple|sandwich|orange|"
    "broccoli|carrot|hot dog|pizza|donut|cake|chair|couch|potted plant|bed|dining table|toilet|tv|laptop|"
    "mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|refrigerator|book|clock|vase|scissors|"
    "teddy bear|hair drier|toothbrush"
)
CLASS_NAMES = tuple(_NAMES.split("|"))

SITE = "http://images.cocodataset.org"
# Each archive with its checksum, and with what we read of it.
ARCHIVES = {
    "zips/train2017.zip": ("cced6f7f71b7629ddf16f17bbcfab6b2", ("train2017",)),
    "zips/val2017.zip": ("442b8da7639aecaf257c1dceb8ba8c80", ("val2017",)),
    "zips/unlabeled2017.zip": ("7ebc562819fdb32847aab79530457326", ("unlabeled2017",)),
    "annotations/annotations_trainval2017.zip": (
        "f4bbac642086de4f52a3fdda2de5fa2c",
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
    ),
    "annotations/image_info_unlabeled2017.zip": (
        "ede38355d5c3e5251bb7f8b68e2c068f",
        ("annotations/image_info_unlabeled2017.json",),
    ),
}

TrainSplit = Literal["train", "unlabeled", "train+unlabeled"]


class COCODataModule(ImageDataModule):
    """MS-COCO 2017 with its official parts: 118,287 training, 5,000 validation and 123,000 unlabelled images.

    A target is a 0 or 1 for each of 80 kinds of objects, [N, 80]: whether one is in the image, crowds included. The
    official validation images are the test part, as the labels of the official test part are not public. Targets of
    unlabelled images are -1. Training needs none; probes on several labels are the user's own.

    The images lie in ``root/train2017``, ``root/val2017`` and ``root/unlabeled2017``, what is known of them in
    ``root/annotations``. For the two ways of making training batches, and what an evaluated image is, see
    :class:`ImageFiles`.

    Source: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, arXiv:1405.0312. Mean and standard
    deviation are ImageNet's.

    Args:
        root: folder of the images and annotations.
        batch_size: images per batch and process (device).
        image_size: side of an image to evaluate, in pixels, and of a view to train on.
        train_split: what to train on: "train", "unlabeled" or "train+unlabeled".
        subset: to train on few images: their number, drawn by ``seed``, where fewer are part of more; or the path of a
            text file with a file name or id of an image in each line. None for all. Probes still learn from all
            training images.
        decode_size: side of the training images that are augmented on the device; None for 8/7 of ``image_size``.
        augmentation: policy, or its name, to draw training views by in the workers, from images of full size; None to
            leave it to the module.
        unreadable: "skip" files that can't be read, and count them in a warning, or raise an "error".
        download: whether ``prepare_data`` downloads what is missing to ``root``: 20 GB, and 20 GB more for the
            unlabelled images.
        val_size: number of labelled training images to set aside, drawn by ``seed``, as a validation part.
        seed: of the subset, of the order of the training images, of their views in the workers, and of the validation
            part.
        num_workers: processes that read images; None for one each core, at most 8.
        return_index: whether batches hold the row of each image.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> data = COCODataModule(subset=1000)
        >>> data.target_type, data.num_classes, data.dims, data.class_names[77]
        ('multilabel', 80, (3, 224, 224), 'teddy bear')
    """

    def __init__(
        self,
        root: str | Path = "data/coco",
        batch_size: int = 256,
        *,
        image_size: int = 224,
        train_split: TrainSplit = "train",
        subset: int | str | Path | None = None,
        decode_size: int | None = None,
        augmentation: str | Augmentation | None = None,
        unreadable: Unreadable = "skip",
        download: bool = False,
        val_size: int = 0,
        seed: int = 0,
        num_workers: int | None = None,
        return_index: bool = False,
    ) -> None:
        if train_split not in get_args(TrainSplit):
            raise ValueError(f"train_split: expected one of {get_args(TrainSplit)}, but got {train_split!r}")
        super().__init__(
            name="coco",
            num_classes=len(CLASS_NAMES),
            dims=(3, image_size, image_size),
            mean=IMAGENET_DEFAULT_MEAN,
            std=IMAGENET_DEFAULT_STD,
            class_names=CLASS_NAMES,
            target_type="multilabel",
            batch_size=batch_size,
            val_size=val_size,
            seed=seed,
            num_workers=available_workers() if num_workers is None else num_workers,
            return_index=return_index,
        )
        self.root = os.path.expanduser(root)
        self.train_split = train_split
        self.subset = subset
        self.decode_size = decode_size
        self.augmentation = augmentation
        self.unreadable = unreadable
        self.download = download
        self._save_arguments()

    def prepare_data(self) -> None:
        """Downloads and unpacks the archives of what is missing, if ``download``; nothing else."""
        for archive, (md5, places) in ARCHIVES.items():
            wanted = self.download and ("unlabeled" not in archive or self.train_split != "train")
            if wanted and not all(Path(self.root, place).exists() for place in places):
                download_and_unpack(f"{SITE}/{archive}", self.root, md5)

    def load(self) -> tuple[ImageFiles, ImageFiles]:
        """The training and the official validation images, with their targets, in files.

        Raises:
            FileNotFoundError: if images or annotations are not there.
            ValueError: if the annotations are not those of COCO.
        """
        return self._labelled_part("train2017"), self._labelled_part("val2017")

    def pretraining_part(self, labelled: Dataset) -> Dataset:
        """The images of ``train_split``, less the validation part, or the subset of them.

        Args:
            labelled: training images, without the validation part.
        """
        assert isinstance(labelled, ImageFiles)
        files = labelled
        if self.train_split != "train":
            images = self._annotations("image_info_unlabeled2017.json", "images")["images"]
            names = [f"unlabeled2017/{image['file_name']}" for image in images]
            targets = torch.full((len(names), len(CLASS_NAMES)), -1, dtype=torch.int8)
            if self.train_split == "train+unlabeled":
                names = [*labelled.names(), *names]
                targets = torch.cat([labelled.targets, targets])
            files = self._files(names, targets)
        return files if self.subset is None else files.select(self._subset_rows(files))

    def _subset_rows(self, files: ImageFiles) -> Tensor:
        if isinstance(self.subset, int):
            if not 1 <= self.subset <= len(files):
                raise ValueError(f"subset: expected 1 to {len(files)} images, or None for all, but got {self.subset}")
            order = torch.randperm(len(files), generator=derive_generator(self.seed, "subset"))
            return order[: self.subset].sort().values
        rows = {Path(name).stem: row for row, name in enumerate(files.names())}
        # An id is the number that names the file, with zeros before it.
        path = Path(str(self.subset))
        if not path.is_file():
            raise FileNotFoundError(
                f"subset: expected a number, or a text file of names or ids, but there is no {path}"
            )
        wanted = [Path(line).stem.zfill(12) for line in path.read_text().split()]
        unknown = [name for name in wanted if name not in rows]
        if unknown or not wanted:
            raise ValueError(
                f"subset: of the {len(wanted)} images in {path}, {len(unknown)} are not in {self.train_split!r}: "
                f"{unknown[:3]}"
            )
        return torch.tensor(sorted({rows[name] for name in wanted}))

    def _labelled_part(self, split: str) -> ImageFiles:
        file = f"instances_{split}.json"
        annotations = self._annotations(file, "categories", "images", "annotations")
        categories = sorted(annotations["categories"], key=lambda category: category["id"])
        if tuple(category["name"] for category in categories) != CLASS_NAMES:
            raise ValueError(f"{self._path(file)}: its {len(categories)} categories are not COCO's 80")
        column = {category["id"]: index for index, category in enumerate(categories)}
        images = annotations["images"]
        row = {image["id"]: index for index, image in enumerate(images)}
        targets = torch.zeros(len(images), len(CLASS_NAMES), dtype=torch.int8)
        objects = annotations["annotations"]
        try:
            rows, columns = [row[o["image_id"]] for o in objects], [column[o["category_id"]] for o in objects]
        except KeyError as error:
            raise ValueError(
                f"{self._path(file)}: an object is of image or category {error}, which is not in the file; remove it "
                "and pass download=True"
            ) from error
        targets[rows, columns] = 1
        return self._files([f"{split}/{image['file_name']}" for image in images], targets)

    def _path(self, name: str) -> Path:
        return Path(self.root, "annotations", name)

    def _annotations(self, name: str, *keys: str) -> dict[str, Any]:
        path = self._path(name)
        if not path.is_file():
            raise self._missing(path)
        try:
            content = json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: is no JSON or cut short ({error}); remove it and pass download=True") from error
        missing = [key for key in keys if key not in content]
        if missing:
            raise ValueError(f"{path}: expected {list(keys)}, but there is no {missing}; give COCO's own file")
        return content

    def _files(self, names: Sequence[str], targets: Tensor) -> ImageFiles:
        for folder in {name.partition("/")[0] for name in names}:
            if not Path(self.root, folder).is_dir():
                raise self._missing(Path(self.root, folder))
        return ImageFiles(
            self.root,
            names,
            targets,
            image_size=self.image_size,
            decode_size=self.decode_size,
            augmentation=self.augmentation,
            unreadable=self.unreadable,
        )

    def _missing(self, path: Path) -> FileNotFoundError:
        return FileNotFoundError(
            f"COCO: there is no {path} (root={self.root!r}); pass download=True (20 GB, with the unlabelled images "
            f"40 GB), or unpack the archives of 2017 from cocodataset.org in {self.root}"
        )
