"""Official data sets in miniature: a few images in the official format on disk.

Each function writes the files and returns patches (object, attribute, value). The patches replace the official sizes
and checksums by those of the small files.
"""

import hashlib
import json
import pickle
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import videos
from pictures import pixels, write_image
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, STL10
from torchvision.models._meta import _COCO_CATEGORIES

from ssl_modules.datamodules import (
    CIFAR10DataModule,
    CIFAR100DataModule,
    FashionMNISTDataModule,
    ImageDataModule,
    STL10DataModule,
    TensorImages,
    TinyImageNetDataModule,
    UCF101DataModule,
)
from ssl_modules.datamodules import write_shards as write

Patches = list[tuple[Any, str, Any]]

# The superclass of each class of CIFAR-100, ordered by class name, as in the original files.
CIFAR100_SUPERCLASS = [
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7),
    *(6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10),
    *(16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16),
    *(12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
]


def write_cifar(root: Path, dataset: type[CIFAR10], rows: tuple[int, int] = (8, 10)) -> Patches:
    """Write CIFAR-10 or CIFAR-100, unpacked, with some images in each training file and in the test file."""
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    class_names = (CIFAR10DataModule if dataset is CIFAR10 else CIFAR100DataModule).class_names

    def save(name: str, content: Any) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def part(files: Sequence[Sequence[str]], count: int) -> list[list[str]]:
        saved = []
        for name, _ in files:
            labels = (np.arange(count) * 7 % len(class_names)).tolist()
            entry: dict[str, Any] = {"data": rng.integers(256, size=(count, 3072), dtype=np.uint8)}
            if dataset is CIFAR10:
                entry["labels"] = labels
            else:
                entry["fine_labels"] = labels
                entry["coarse_labels"] = [CIFAR100_SUPERCLASS[label] for label in labels]
            saved.append(save(name, entry))
        return saved

    train, test = part(dataset.train_list, rows[0]), part(dataset.test_list, rows[1])
    name, md5 = save(dataset.meta["filename"], {dataset.meta["key"]: list(class_names)})
    return [
        (dataset, "train_list", train),
        (dataset, "test_list", test),
        (dataset, "meta", {**dataset.meta, "filename": name, "md5": md5}),
    ]


def write_cifar10(root: Path) -> Patches:
    return write_cifar(root, CIFAR10)


def write_cifar100(root: Path) -> Patches:
    return write_cifar(root, CIFAR100, (100, 30))


FASHION_MNIST_SIZES = {"train": 40, "t10k": 12}


def idx(tensor: torch.Tensor) -> bytes:
    """Encode a uint8 tensor in MNIST's format."""
    return struct.pack(f">HBB{tensor.ndim}I", 0, 8, tensor.ndim, *tensor.shape) + tensor.numpy().tobytes()


def fashion_mnist_files() -> Iterator[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for part, size in FASHION_MNIST_SIZES.items():
        images = torch.randint(256, (size, 28, 28), dtype=torch.uint8, generator=generator)
        yield f"{part}-images-idx3-ubyte", images
        yield f"{part}-labels-idx1-ubyte", torch.arange(size, dtype=torch.uint8) % 10


def write_fashion_mnist(root: Path) -> Patches:
    """Write the files as torchvision unpacks them."""
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, tensor in fashion_mnist_files():
        (folder / name).write_bytes(idx(tensor))
    return [(FashionMNISTDataModule, "debian_folder", root / "debian")]


STL10_SIZES = {"train": 30, "test": 12, "unlabeled": 25}
STL10_FOLDS = [[(fold + step * 7) % STL10_SIZES["train"] for step in range(6)] for fold in range(10)]


def complete(dataset: STL10) -> bool:
    """Replace torchvision's comparison of checksums."""
    return True


def write_stl10(root: Path) -> Patches:
    """Write the unpacked files."""
    folder = root / STL10.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in STL10_SIZES.items():
        rng.integers(256, size=(count, 3, 96, 96), dtype=np.uint8).tofile(folder / f"{part}_X.bin")
        if part != "unlabeled":
            (np.arange(count, dtype=np.uint8) % 10 + 1).tofile(folder / f"{part}_y.bin")
    (folder / "fold_indices.txt").write_text("".join(" ".join(map(str, rows)) + " \n" for rows in STL10_FOLDS))
    (folder / "class_names.txt").write_text("\n".join(STL10DataModule.class_names) + "\n")
    sizes = {name: (folder / name).stat().st_size for name in STL10DataModule.sizes}
    return [(STL10DataModule, "sizes", sizes), (STL10, "_check_integrity", complete)]


TINY_IMAGENET_WNIDS = [f"n{index:08}" for index in range(200)]


def write_tiny_imagenet(root: Path) -> Patches:
    """Write the unpacked archive, with one training image per class and 40 validation images."""
    wnids = TINY_IMAGENET_WNIDS
    folder = root / "tiny-imagenet-200"
    for value, wnid in enumerate(wnids):
        write_image(folder / "train" / wnid / "images" / f"{wnid}_0.JPEG", 64, 64, value=value)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
    lines = []
    for index in range(40):
        write_image(folder / "val" / "images" / f"val_{index}.JPEG", 64, 64, value=index)
        lines.append(f"val_{index}.JPEG\t{wnids[index * 37 % 200]}\t0\t0\t63\t63\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    write_image(folder / "test" / "images" / "test_0.JPEG", 64, 64)
    gray = folder / "train" / wnids[3] / "images" / f"{wnids[3]}_0.JPEG"
    Image.open(gray).convert("L").save(gray)  # some original images are grey too
    (folder / "wnids.txt").write_text("\n".join(reversed(wnids)) + "\n")
    (folder / "words.txt").write_text("".join(f"{wnid}\tthing {wnid[-3:]}, item\n" for wnid in ["n99999999", *wnids]))
    return [(TinyImageNetDataModule, "train_size", 200), (TinyImageNetDataModule, "test_size", 40)]


IMAGENET_WNIDS = ("n01440764", "n01443537", "n02123045")


def write_imagenet(root: Path) -> Patches:
    """Write folders of three classes, with images of different sizes."""
    for target, wnid in enumerate(IMAGENET_WNIDS):
        for index in range(4):
            write_image(root / "train" / wnid / f"{wnid}_{index}.JPEG", 30 + index, 50, value=target)
        write_image(root / "val" / wnid / f"ILSVRC2012_val_{target:08}.JPEG", 60, 40, value=target)
    return []


# Ids of the 80 categories, from 1 to 90, and of some images.
COCO_IDS = [number for number, name in enumerate(_COCO_CATEGORIES) if name not in ("__background__", "N/A")]
COCO_TRAIN = (9, 25, 30, 34, 581929, 36, 42, 49, 61, 64)
COCO_VAL = (139, 285, 632)
COCO_UNLABELED = (8, 16, 23, 24)
# Pairs (image, category). The first pair comes three times; the last image has no objects.
COCO_OBJECTS = [(COCO_TRAIN[index % 9], COCO_IDS[index * 11 % 80]) for index in range(40)]
COCO_OBJECTS += [COCO_OBJECTS[0]] * 2


def coco_name(number: int) -> str:
    return f"{number:012}.jpg"


def write_coco_split(
    root: Path, split: str, ids: Sequence[int], file: str, objects: Sequence[tuple[int, int]] | None = None
) -> None:
    for number in ids:
        write_image(root / split / coco_name(number), 40, 30 + number % 7, value=number % 251)
    images = [{"id": number, "file_name": coco_name(number), "height": 40, "width": 30} for number in ids]
    categories = [{"id": number, "name": _COCO_CATEGORIES[number], "supercategory": "thing"} for number in COCO_IDS]
    content: dict[str, Any] = {"images": images, "categories": categories[::-1]}  # out of order
    if objects is not None:
        content["annotations"] = [
            {"id": row, "image_id": image, "category_id": category, "iscrowd": row % 2, "bbox": [0, 0, 1, 1]}
            for row, (image, category) in enumerate(objects)
        ]
    path = root / "annotations" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def write_coco(root: Path) -> Patches:
    """Write images and annotations of all parts."""
    write_coco_split(root, "train2017", COCO_TRAIN, "instances_train2017.json", COCO_OBJECTS)
    write_coco_split(root, "val2017", COCO_VAL, "instances_val2017.json", [(139, 90), (139, 1), (632, 13)])
    write_coco_split(root, "unlabeled2017", COCO_UNLABELED, "image_info_unlabeled2017.json")
    return []


def write_image_folder(root: Path) -> Patches:
    """Write two classes in ``train``, of mixed sizes, formats and modes, and two images in ``test``."""
    folder = root / "train"
    write_image(folder / "cat" / "1.jpg", 60, 80)
    write_image(folder / "cat" / "kittens" / "2.webp", 30, 20)
    write_image(folder / "cat" / "small.png", 5, 5)
    (folder / "dog").mkdir()
    Image.fromarray(pixels(1, 40, 50)[..., 0]).save(folder / "dog" / "gray.png")
    Image.fromarray(pixels(2, 40, 50, 4)).save(folder / "dog" / "rgba.png")
    Image.fromarray(pixels(3, 40, 50)[..., 0].astype(np.uint16) * 256).save(folder / "dog" / "16 bits.png")
    write_image(root / "test" / "cat" / "1.jpg")
    write_image(root / "test" / "dog" / "1.jpg")
    return []


def write_shards(root: Path) -> Patches:
    """Write shards of 12 gray images: 30 to train on and 8 to test, of two classes."""
    images = torch.from_numpy(np.stack([pixels(i, 8, 8)[..., 0] for i in range(38)]))[:, None]
    targets = torch.arange(38) % 2
    train, test = TensorImages(images[:30], targets[:30]), TensorImages(images[30:], targets[30:])
    write(ImageDataModule(train, test, num_classes=2), root, images_per_shard=12)
    return []


def write_video_folder(root: Path) -> Patches:
    """Write two classes in ``train``, of mixed formats, lengths and rates, and two videos in ``test``."""
    videos.index_first(videos.write(root / "train" / "jump" / "1.mp4", 30))
    videos.write(root / "train" / "jump" / "high" / "2.avi", 20, 10, codec="mpeg4")
    videos.write(root / "train" / "run" / "3.mkv", 40, 30)
    videos.write(root / "train" / "run" / "short.mp4", 3)
    (root / "train" / "run" / "notes.txt").write_text("three of four are long")
    videos.write(root / "test" / "jump" / "1.mp4", 30)
    videos.write(root / "test" / "run" / "1.mp4", 35)
    return []


UCF101_CLASSES = ("ApplyEyeMakeup", "HandstandPushups", "YoYo")
UCF101_TRAIN = (
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi",
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c02.avi",
    "HandstandPushups/v_HandStandPushups_g08_c01.avi",  # the original spells the class in two ways
    "YoYo/v_YoYo_g08_c01.avi",
)
UCF101_TEST = ("HandstandPushups/v_HandStandPushups_g01_c01.avi", "YoYo/v_YoYo_g01_c01.avi")


def write_ucf101(root: Path) -> Patches:
    """Write three classes with the official lists of split 1; test lists hold no numbers."""
    for count, path in enumerate([*UCF101_TRAIN, *UCF101_TEST], start=25):
        written = videos.write((root / "UCF-101" / path).with_suffix(".mp4"), count)
        videos.index_first(written).rename(root / "UCF-101" / path)
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    numbers = {name: number for number, name in enumerate(UCF101_CLASSES, start=1)}
    (lists / "classInd.txt").write_text("".join(f"{number} {name}\r\n" for name, number in numbers.items()))
    train = "".join(f"{path} {numbers[path.split('/')[0]]}\r\n" for path in UCF101_TRAIN)
    (lists / "trainlist01.txt").write_text(train)
    (lists / "testlist01.txt").write_text("".join(f"{path} \r\n" for path in UCF101_TEST) + "\r\n")
    return [(UCF101DataModule, "num_classes", len(UCF101_CLASSES))]


KINETICS_TRAIN = {"playing chess": ("-0a_bC_000003_000013", "zz_000010_000020"), "abseiling": ("Q1_000000_000010",)}


def write_kinetics(root: Path) -> Patches:
    """Write class folders with blanks in their names, and lists that name more videos than there are."""
    for part, videos_of in (("train", KINETICS_TRAIN), ("val", {"abseiling": ("v_000001_000011",)})):
        lines = ["label,youtube_id,time_start,time_end,split\n"]
        for label, names in videos_of.items():
            for count, name in enumerate(names, start=25):
                videos.index_first(videos.write(root / part / label / f"{name}.mp4", count))
                identity, start, end = name.rsplit("_", 2)
                lines.append(f"{label},{identity},{int(start)},{int(end)},{part}\n")
        lines.append(f"abseiling,lost,5,15,{part}\n")
        (root / f"{part}.csv").write_text("".join(lines))
    return []


def write_kinetics_folders(root: Path) -> Patches:
    """Write class folders without lists."""
    write_kinetics(root)
    for part in ("train", "val"):
        (root / f"{part}.csv").unlink()
    return []


def apply(monkeypatch: Any, patches: Patches) -> None:
    """Apply the patches until the test ends."""
    for target, attribute, value in patches:
        monkeypatch.setattr(target, attribute, value)
