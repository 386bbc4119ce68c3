"""Measure how many images per second are loaded and augmented, and the cost of batches from a data set in memory.

    python examples/benchmarks/loading.py [--images 5000] [--small 100000] [--workers 2] [--rounds 3] [--threads 1]

Photographs: JPEGs of about 500 x 375 pixels, cut out of scikit-learn's two sample pictures and written to a temporary
folder. --images sets their number. In a round, each loader reads all of them once, 128 at a time, and makes two views
of 224 pixels of each image: random resized crop, flip, colour jitter of half strength, grayscale.

- torchvision: its ImageFolder and DataLoader with torchvision's usual transform on one PIL image at a time;
- ours, fast: workers decode, and this process augments whole batches, as in a training step;
- ours, views in the workers: the same policy on each image at its full size, as torchvision does; the views are uint8,
  and the module scales them to [0, 1] on its device;
- ours, shards: the same two ways, with images from shards, which hold JPEGs whose shorter side is 256 pixels.

The workers start once and work in all rounds. If the machine has few cores, give this process one thread (--threads 1).
More threads would compete with the workers for the cores.

Small images: images of 3 x 32 x 32 from memory, from a folder of PNG files and from shards of these files, without
views. --small sets their number.

In memory: an epoch of batches of 50,000 images of 3 x 32 x 32, like CIFAR-10's, compared with an epoch of a ResNet-18's
forward and backward passes on two views, as in SimCLR's step. The latter is extrapolated from a few batches.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from timing import interleaved, machine, print_table, threads
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from ssl_modules.augmentations import SimCLRViews
from ssl_modules.datamodules import (
    BaseDataModule,
    ImageDataModule,
    ImageFolderDataModule,
    StreamingDataModule,
    TensorImages,
    write_shards,
)
from ssl_modules.encoders import shrink_stem
from ssl_modules.utils.memory import keep_freed_memory

BATCH = 128
SHAPES = ((500, 375), (375, 500), (500, 333))


def write_photographs(folder: Path, count: int) -> float:
    """Write JPEGs into two class folders; return their mean size in kB."""
    pictures = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.default_rng(0)
    for index in range(count):
        picture = pictures[index % 2]
        width, height = SHAPES[rng.integers(len(SHAPES))]
        share = rng.uniform(0.5, 1.0) * min(picture.width / width, picture.height / height)
        cut = (round(width * share), round(height * share))
        left, top = (rng.integers(whole - part + 1) for whole, part in zip(picture.size, cut, strict=True))
        place = folder / str(index % 2) / f"{index}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        box = (left, top, left + cut[0], top + cut[1])
        picture.crop(box).resize((width, height), Image.Resampling.BICUBIC).save(place, quality=90)
    return sum(path.stat().st_size for path in folder.rglob("*.jpg")) / count / 1000


class TwoViews:
    """Applies torchvision's usual transform twice."""

    def __init__(self) -> None:
        self.view = transforms.Compose(
            [
                transforms.RandomResizedCrop(224),
                transforms.RandomHorizontalFlip(),
                transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
                transforms.RandomGrayscale(0.2),
                transforms.ToTensor(),
            ]
        )

    def __call__(self, image: Image.Image) -> list[torch.Tensor]:
        return [self.view(image), self.view(image)]


def torchvision_loader(folder: Path, workers: int) -> DataLoader:
    return DataLoader(
        ImageFolder(folder, TwoViews()),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
    )


def our_loader(kind: type[BaseDataModule], folder: Path, workers: int, **settings: Any) -> DataLoader:
    data = kind(folder, batch_size=BATCH, num_workers=workers, **settings)
    data.setup()
    return data.train_dataloader()


def photographs(folder: Path, shards: Path, workers: int) -> dict[str, Callable[[], Any]]:
    """Map each loader's name to a function that reads all photographs once and makes their views."""
    exact, linear = (SimCLRViews(224, strength=0.5, blur=False, jitter=mode) for mode in ("exact", "linear"))
    write_shards(ImageFolderDataModule(folder, num_workers=workers), shards, size=256)
    files, stream = partial(our_loader, ImageFolderDataModule, folder), partial(our_loader, StreamingDataModule, shards)

    def drawn(loader: DataLoader) -> Callable[[], Any]:
        return lambda: [None for _ in loader]

    def augmented(loader: DataLoader, augmentation: SimCLRViews) -> Callable[[], Any]:
        return lambda: [None for images, _ in loader if augmentation(images)]

    return {
        "torchvision": drawn(torchvision_loader(folder, workers)),
        "ours, fast, exact": augmented(files(workers), exact),
        "ours, fast, linear": augmented(files(workers), linear),
        "ours, views in the workers, exact": drawn(files(workers, augmentation=exact)),
        "ours, views in the workers, linear": drawn(files(workers, augmentation=linear)),
        "ours, shards, fast, linear": augmented(stream(workers), linear),
        "ours, shards, views in the workers, linear": drawn(stream(workers, augmentation=linear)),
    }


def small_images(folder: Path, count: int, workers: int, rounds: int) -> None:
    """Measure and print how many small images per second each kind of data module reads."""
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
    (folder / "files" / "0").mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "files" / "0" / f"{number:06}.png")
    sides = {"image_size": 32, "decode_size": 32}
    write_shards(ImageFolderDataModule(folder / "files", num_workers=workers, **sides), folder / "shards")
    memory = ImageDataModule(TensorImages(images), num_classes=0, target_type="none", batch_size=BATCH)
    memory.setup()
    loaders = {
        "in memory": memory.train_dataloader(),
        "folder": our_loader(ImageFolderDataModule, folder / "files", workers, **sides),
        "shards": our_loader(StreamingDataModule, folder / "shards", workers, **sides),
    }
    seconds = interleaved({name: partial(_read, loader) for name, loader in loaders.items()}, rounds)
    rows = [(name, count / s, seconds["folder"] / s) for name, s in seconds.items()]
    print_table(f"{count:,} images of 3 x 32 x 32, {workers} workers", ("", "images/s", "x folder"), rows)


def _read(loader: DataLoader) -> None:
    for _ in loader:
        pass


def memory(rounds: int) -> None:
    """Measure and print the cost of batches of images in memory."""
    count, size, few = 50_000, 128, 2
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
    data = ImageDataModule(TensorImages(images), num_classes=0, target_type="none", batch_size=size)
    data.setup()
    loader = data.train_dataloader()
    model = timm.create_model("resnet18", num_classes=0)
    shrink_stem(model)
    model = model.to(memory_format=torch.channels_last)
    views = torch.rand(2 * size, 3, 32, 32).contiguous(memory_format=torch.channels_last)

    def steps() -> None:
        for _ in range(few):
            model.zero_grad()
            model(views).sum().backward()

    seconds = interleaved({"loader": lambda: [None for _ in loader], "steps": steps}, rounds)
    epoch = seconds["steps"] / few * count / size
    rows = [("the batches", seconds["loader"], 100 * seconds["loader"] / epoch), ("ResNet-18", epoch, 100.0)]
    print_table("An epoch of 50,000 images of 3 x 32 x 32 in memory", ("", "seconds", "%"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--small", type=int, default=100_000, help="number of small images")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of this process")
    args = parser.parse_args()
    keep_freed_memory()
    print(machine())
    with threads(args.threads), tempfile.TemporaryDirectory() as folder:
        photos, shards = Path(folder, "photos"), Path(folder, "shards")
        size = write_photographs(photos, args.images)
        seconds = interleaved(photographs(photos, shards, args.workers), args.rounds)
        images = args.images // BATCH * BATCH
        rows = [(name, images / s, seconds["torchvision"] / s) for name, s in seconds.items()]
        title = f"{args.images} JPEGs of about 500 x 375 px and {size:.0f} kB, {args.workers} workers"
        print_table(title, ("", "images/s", "x torchvision"), rows)
        small_images(Path(folder, "small"), args.small, args.workers, args.rounds)
        memory(args.rounds)


if __name__ == "__main__":
    main()
