"""MS-COCO 2017: photographs of everyday scenes, most with several kinds of objects."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssl_modules.datamodules.base import TrainSplit
from ssl_modules.datamodules.download import download_and_unpack
from ssl_modules.datamodules.finding import absolute, not_found
from ssl_modules.datamodules.from_files import FilesDataModule
from ssl_modules.datamodules.image_files import ImageFiles
from ssl_modules.datamodules.unreadable import read_bytes
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.seeds import derive_generator

CLASS_NAMES = (
    "person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant|stop sign|"
    "parking meter|bench|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|"
    "handbag|tie|suitcase|frisbee|skis|snowboard|sports ball|kite|baseball bat|baseball glove|skateboard|"
    "surfboard|tennis racket|bottle|wine glass|cup|fork|knife|spoon|bowl|banana|apple|sandwich|orange|"
    "broccoli|carrot|hot dog|pizza|donut|cake|chair|couch|potted plant|bed|dining table|toilet|tv|laptop|"
    "mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|refrigerator|book|clock|vase|scissors|"
    "teddy bear|hair drier|toothbrush"
)


class COCODataModule(FilesDataModule):
    """MS-COCO 2017 with its official parts: 118,287 training, 5,000 validation and 123,000 unlabelled images.

    A target is [80], 0 or 1 for each category: whether the image shows an object of it, crowds included. The official
    validation images are the test part, because the labels of the official test part are not public. Targets of
    unlabelled images are -1. Our probes don't support several labels per image.

    The images are in ``root/train2017``, ``root/val2017`` and ``root/unlabeled2017``, the labels in
    ``root/annotations``. :class:`ImageFiles` describes the two ways to make training batches, and how validation and
    test images are resized.

    Source: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, arXiv:1405.0312. Mean and standard
    deviation are ImageNet's.

    Args:
        root: folder of the images and annotations.
        train_split: images to train on: "train", "unlabeled" or "train+unlabeled".
        subset: which images of ``train_split`` to train on: a number of images, drawn by ``seed`` (a smaller subset is
            part of a larger one), or the path of a text file with one file name or image id per line; None for all.
            Probes still learn from all training images.
        download: whether ``prepare_data`` downloads missing files to ``root``: 20 GB, and 20 GB more for the unlabelled
            images.
        settings: keyword arguments of :class:`BaseDataModule` and, for images in files, image_size, decode_size,
            augmentation and unreadable.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> data = COCODataModule(subset=1000)
        >>> data.target_type, data.num_classes, data.dims, data.class_names[77]
        ('multilabel', 80, (3, 224, 224), 'teddy bear')
    """

    name = "coco"
    num_classes = 80
    class_names = tuple(CLASS_NAMES.split("|"))
    target_type = "multilabel"
    url = "http://images.cocodataset.org"
    download_size = "20 GB, with the unlabelled images 40 GB"
    # The checksum of each archive, and the paths in it that are read.
    archives: Mapping[str, tuple[str, tuple[str, ...]]] = {
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

    def __init__(
        self,
        root: str | Path = "data/coco",
        *,
        train_split: TrainSplit = "train",
        subset: int | str | Path | None = None,
        download: bool = False,
        **settings: Any,
    ) -> None:
        if isinstance(subset, int):
            check_number("subset", subset, least=1)
        super().__init__(**settings)
        self.root = absolute(root)
        self.train_split = train_split
        self.subset = subset
        self.download = download

    def prepare_data(self) -> None:
        """Download and unpack the archives of missing files, if ``download`` is set."""
        for archive, (md5, places) in self.archives.items():
            wanted = self.download and ("unlabeled" not in archive or self.train_split != "train")
            if wanted and not all(Path(self.root, place).exists() for place in places):
                download_and_unpack(f"{self.url}/{archive}", self.root, md5)

    def load(self) -> tuple[ImageFiles, ImageFiles]:
        """Return the training images and the official validation images with their targets, in files.

        Raises:
            FileNotFoundError: if images or annotations are missing.
            ValueError: if the annotations are not COCO's.
        """
        return self._labelled_part("train2017"), self._labelled_part("val2017")

    def pretraining_part(self, labelled: Dataset) -> Dataset:
        """Return the images of ``train_split``, or the ``subset`` of them, without the validation part.

        Args:
            labelled: training images, without the validation part.
        """
        assert isinstance(labelled, ImageFiles)
        files = labelled
        if self.train_split != "train":
            images = self._annotations("image_info_unlabeled2017.json", "images")["images"]
            names = [f"unlabeled2017/{image['file_name']}" for image in images]
            targets = torch.full((len(names), len(self.class_names)), -1, dtype=torch.int8)
            if self.train_split == "train+unlabeled":
                names = [*labelled.names(), *names]
                targets = torch.cat([labelled.targets, targets])
            files = self._files(names, targets)
        return files if self.subset is None else files.select(self._subset_rows(files))

    def _subset_rows(self, files: ImageFiles) -> Tensor:
        if isinstance(self.subset, int):
            check_number("subset", self.subset, least=1, most=len(files))
            order = torch.randperm(len(files), generator=derive_generator(self.seed, "subset"))
            return order[: self.subset].sort().values
        rows = {Path(name).stem: row for row, name in enumerate(files.names())}
        # A file name is the image id, padded with zeros.
        path = Path(str(self.subset))
        if not path.is_file():
            raise FileNotFoundError(
                f"subset: expected a number, or a text file of names or ids, got {str(path)!r}, which is no file"
            )
        wanted = [Path(line).stem.zfill(12) for line in read_bytes(path).decode().split()]
        unknown = [name for name in wanted if name not in rows]
        if unknown or not wanted:
            raise ValueError(
                f"subset: expected images of {self.train_split!r}, got {len(wanted)} in {path}, of which "
                f"{len(unknown)} are others: {unknown[:3]}"
            )
        return torch.tensor(sorted({rows[name] for name in wanted}))

    def _labelled_part(self, split: str) -> ImageFiles:
        file = f"instances_{split}.json"
        annotations = self._annotations(file, "categories", "images", "annotations")
        categories = sorted(annotations["categories"], key=lambda category: category["id"])
        if tuple(category["name"] for category in categories) != self.class_names:
            raise ValueError(
                f"{self._path(file)}: expected COCO's 80 categories, got {len(categories)}, or others; remove it and "
                "pass download=True"
            )
        column = {category["id"]: index for index, category in enumerate(categories)}
        images = annotations["images"]
        row = {image["id"]: index for index, image in enumerate(images)}
        targets = torch.zeros(len(images), len(self.class_names), dtype=torch.int8)
        objects = annotations["annotations"]
        try:
            rows, columns = [row[o["image_id"]] for o in objects], [column[o["category_id"]] for o in objects]
        except KeyError as error:
            raise ValueError(
                f"{self._path(file)}: expected objects of its images and categories, got one of image or category "
                f"{error}; remove it and pass download=True"
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
            content = json.loads(read_bytes(path))
        except ValueError as error:
            raise ValueError(
                f"{path}: expected JSON, got an error ({error}); remove it and pass download=True"
            ) from error
        missing = [key for key in keys if key not in content]
        if missing:
            raise ValueError(f"{path}: expected {list(keys)}, got no {missing}; remove it and pass download=True")
        return content

    def _files(self, names: Sequence[str], targets: Tensor) -> ImageFiles:
        for folder in {name.partition("/")[0] for name in names}:
            if not Path(self.root, folder).is_dir():
                raise self._missing(Path(self.root, folder))
        return self.files(self.root, names, targets)

    def _missing(self, path: Path) -> FileNotFoundError:
        by_hand = f"unpack the archives of 2017 from cocodataset.org in {self.root}"
        return not_found(path, f"pass download=True ({self.download_size}), or {by_hand}")
