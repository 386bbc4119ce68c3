"""The data modules under test, with small files in the official formats. Add a new one as one entry of CASES."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import miniatures
import torch

from ssl_modules.augmentations import ClipViews, RandomResizedCrop, Views
from ssl_modules.datamodules import (
    BaseDataModule,
    CIFAR10DataModule,
    CIFAR100DataModule,
    COCODataModule,
    DigitsDataModule,
    FashionMNISTDataModule,
    ImageDataModule,
    ImageFolderDataModule,
    ImageNetDataModule,
    KineticsDataModule,
    ScatteredFashionMNISTDataModule,
    STL10DataModule,
    StreamingDataModule,
    TensorImages,
    TinyImageNetDataModule,
    UCF101DataModule,
    VideoFolderDataModule,
)


@dataclass(frozen=True)
class Case:
    """A data module with a miniature copy of its official files."""

    data: type[BaseDataModule]
    write: Callable[[Path], miniatures.Patches] | None  # writes the files to a folder; None if there are none
    sizes: tuple[int, int, int]  # numbers of images to train on, labelled images and test images
    corrupt: str = ""  # a file that the data module reads
    missing: str = ""  # a file or folder that the data module needs
    root: str = "."  # place of the files, relative to the folder
    argument: str = "root"  # name of the argument for this place
    arguments: dict[str, Any] = field(default_factory=dict)
    name: str = ""  # if a data module has several cases

    def __str__(self) -> str:
        return self.name or self.data.__name__

    def build(self, folder: Path, **given: Any) -> BaseDataModule:
        in_files = {} if self.write is None else {self.argument: folder / self.root}
        return self.data(**{**in_files, "batch_size": 4, "num_workers": 0, **self.arguments, **given})


def of_digits(rows: slice) -> TensorImages:
    data = DigitsDataModule()
    data.setup()
    return TensorImages(*data.train_set[rows])


FASHION_MNIST = Case(
    FashionMNISTDataModule,
    miniatures.write_fashion_mnist,
    (40, 40, 12),
    "FashionMNIST/raw/train-images-idx3-ubyte",
    "FashionMNIST/raw",
)
CLIPS = {"image_size": 14, "frames": 3, "seconds": 0.4, "eval_clips": 2, "batch_size": 2}
CASES = [
    Case(DigitsDataModule, None, (1437, 1437, 360), arguments={"batch_size": 64}),
    Case(
        CIFAR10DataModule,
        miniatures.write_cifar10,
        (40, 40, 10),
        "cifar-10-batches-py/data_batch_2",
        "cifar-10-batches-py/test_batch",
    ),
    Case(
        CIFAR100DataModule,
        miniatures.write_cifar100,
        (100, 100, 30),
        "cifar-100-python/train",
        "cifar-100-python/test",
    ),
    FASHION_MNIST,
    replace(
        FASHION_MNIST,
        corrupt="FashionMNIST/raw/t10k-labels-idx1-ubyte",
        arguments={"coarse": True},
        name="FashionMNISTDataModule-coarse",
    ),
    replace(FASHION_MNIST, data=ScatteredFashionMNISTDataModule, arguments={"coarse": True}),
    Case(
        STL10DataModule,
        miniatures.write_stl10,
        (55, 30, 12),
        "stl10_binary/unlabeled_X.bin",
        "stl10_binary/test_X.bin",
    ),
    Case(
        TinyImageNetDataModule,
        miniatures.write_tiny_imagenet,
        (200, 200, 40),
        "tiny-imagenet-200/val/val_annotations.txt",
        "tiny-imagenet-200/words.txt",
    ),
    Case(
        ImageNetDataModule,
        miniatures.write_imagenet,
        (12, 12, 3),
        "train/n01443537/n01443537_2.JPEG",
        "val",
        arguments={"classes": list(miniatures.IMAGENET_WNIDS), "image_size": 28},
    ),
    Case(
        COCODataModule,
        miniatures.write_coco,
        (10, 10, 3),
        "annotations/instances_val2017.json",
        "train2017",
        arguments={"image_size": 14, "batch_size": 2},
    ),
    Case(
        ImageFolderDataModule,
        miniatures.write_image_folder,
        (6, 6, 0),
        "train/cat/1.jpg",
        "train",
        root="train",
        arguments={"image_size": 14, "batch_size": 2},
    ),
    Case(
        StreamingDataModule,
        miniatures.write_shards,
        (30, 30, 8),
        "train.npz",
        "train/00001.tar",
        argument="url",
        arguments={"window": 2},
    ),
    Case(
        ImageFolderDataModule,
        miniatures.write_image_folder,
        (6, 6, 0),
        "train/cat/1.jpg",
        "train",
        root="train",
        arguments={"image_size": 8, "batch_size": 2, "augmentation": Views([RandomResizedCrop(8)])},
        name="ImageFolderDataModule-views",
    ),
    Case(
        VideoFolderDataModule,
        miniatures.write_video_folder,
        (4, 4, 0),
        "train/jump/1.mp4",
        "train",
        root="train",
        arguments=CLIPS,
    ),
    Case(
        VideoFolderDataModule,
        miniatures.write_video_folder,
        (4, 4, 0),
        "train/jump/1.mp4",
        "train",
        root="train",
        arguments={**CLIPS, "augmentation": ClipViews([Views([RandomResizedCrop(14)], views=1)] * 2, (0, 1))},
        name="VideoFolderDataModule-views",
    ),
    Case(
        UCF101DataModule,
        miniatures.write_ucf101,
        (4, 4, 2),
        f"UCF-101/{miniatures.UCF101_TRAIN[1]}",
        "ucfTrainTestlist/trainlist01.txt",
        arguments=CLIPS,
    ),
    Case(
        KineticsDataModule,
        miniatures.write_kinetics,
        (3, 3, 1),
        "train/abseiling/Q1_000000_000010.mp4",
        "val",
        arguments={**CLIPS, "num_classes": 2},
    ),
    Case(
        KineticsDataModule,
        miniatures.write_kinetics_folders,
        (3, 3, 1),
        "train/abseiling/Q1_000000_000010.mp4",
        "train",
        arguments={**CLIPS, "num_classes": 2},
        name="KineticsDataModule-folders",
    ),
    Case(
        ImageDataModule,
        None,
        (20, 20, 8),
        arguments={"train": of_digits(slice(20)), "test": of_digits(slice(20, 28)), "num_classes": 10},
    ),
]
IN_FILES = [case for case in CASES if case.write is not None]


@functools.cache
def written(write: Callable[[Path], miniatures.Patches]) -> tuple[Path, miniatures.Patches]:
    """Write the files once; return their folder and their patches. Tests must not change the files."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return folder, write(folder)


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return len(first) == len(second) and all(equal(a, b) for a, b in zip(first, second, strict=True))


def epoch(data: BaseDataModule, number: int = 0) -> list[Any]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def loaded(case: Case, folder: Path, **given: Any) -> BaseDataModule:
    data = case.build(folder, **given)
    data.setup()
    return data
