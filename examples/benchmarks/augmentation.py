"""Compare the speed of SimCLR's augmentation without blur with that of other libraries, in views per second.

    python examples/benchmarks/augmentation.py [--sizes 32 96 224] [--threads 1 2] [--busy 0 1 2] [--rounds 7]

All libraries apply a random resized crop, a flip, colour jitter of half strength and grayscale to the same images in
memory, and return float tensors in [0, 1]. The images have 32 px for views of 32 px, 96 px for views of 96 px, and 256
px for views of 224 px. torchvision and lightly process one image at a time, as a data set does. kornia and ssl-modules
("ours") process a whole batch. "Ours, exact" draws the order of the jitter's operations for each image. "Ours, linear"
replaces the jitter by one linear colour map per image. The process keeps the memory that it frees, as every fit of
ssl-modules on a CPU does. MiB is the peak memory that PyTorch allocates while it makes one batch (512, 64 and 32
images), including the views.

For each size, the last table shows the speed of the same pipelines while other processes keep 0, 1 or 2 cores busy. It
shows the views per second with the first number of threads, and how many times as fast the pipeline is with each of the
other numbers of threads.
"""

import argparse
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import kornia.augmentation as kornia
import torch
from lightly.transforms import SimCLRTransform
from PIL import Image
from timing import interleaved, machine, peak_mib, print_table, threads
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2

from ssl_modules.augmentations import SimCLRViews
from ssl_modules.utils.memory import keep_freed_memory

SOURCE = {32: 32, 96: 96, 224: 256}  # side of the images that the crops are taken from
BATCH = {32: 512, 96: 64, 224: 32}
JITTER = (0.4, 0.4, 0.4, 0.1)


def photographs(count: int, side: int) -> Tensor:
    """Return smooth coloured noise, uint8 [N, 3, side, side]. Like photographs, it is neither flat nor white noise."""
    noise = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, side, mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)


def pipelines(size: int) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Map the name of each pipeline to its number of views and the function that makes them."""
    images = photographs(BATCH[size], SOURCE[size])
    floats = images.float() / 255
    few = len(images) // 8  # fewer images for the slow pipelines; views per second don't depend on their number
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images[:few]]
    pil = transforms.Compose(
        [
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(*JITTER)], 0.8),
            transforms.RandomGrayscale(0.2),
            transforms.ToTensor(),
        ]
    )
    tensors = v2.Compose(
        [
            v2.RandomResizedCrop(size),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(*JITTER)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    lightly = SimCLRTransform(input_size=size, cj_strength=0.5, gaussian_blur=0.0, normalize=None)
    batched = kornia.AugmentationSequential(
        kornia.RandomResizedCrop((size, size), scale=(0.08, 1.0)),
        kornia.RandomHorizontalFlip(),
        kornia.ColorJiggle(*JITTER, p=0.8),
        kornia.RandomGrayscale(p=0.2),
    )
    exact = SimCLRViews(size, views=1, strength=0.5, blur=False)
    linear = SimCLRViews(size, views=1, strength=0.5, blur=False, jitter="linear")

    def each(transform: Callable[[Any], Any], inputs: Iterable[Any]) -> Callable[[], Any]:
        return lambda: [transform(image) for image in inputs]

    return {
        "torchvision v2": (few, each(tensors, images[:few])),
        "torchvision, PIL": (few, each(pil, pictures)),
        "lightly": (2 * few, each(lightly, pictures)),
        "kornia": (len(images), lambda: batched(floats)),
        "ours, exact": (len(images), lambda: exact(images)),
        "ours, linear": (len(images), lambda: linear(images)),
    }


def _spin() -> None:
    while True:
        pass


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Run ``count`` processes inside a ``with`` block, each of which keeps one core busy."""
    processes = [multiprocessing.get_context("spawn").Process(target=_spin, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def beside_neighbours(size: int, counts: list[int], busy: list[int], rounds: int) -> None:
    """Print a table of the pipelines' speed while other processes keep cores busy.

    One run alternates between all numbers of threads, so that they see the same load.
    """

    def on(count: int, run: Callable[[], Any]) -> Callable[[], None]:
        def limited() -> None:
            with threads(count):
                run()

        return limited

    candidates = pipelines(size)
    runs = {f"{name} {count}": on(count, run) for name, (_, run) in candidates.items() for count in counts}
    rows: dict[str, list[str | float]] = {name: [name] for name in candidates}
    header = ["pipeline"]
    for number in busy:
        with neighbours(number):
            seconds = interleaved(runs, rounds)
        header += [f"{number} busy: views/s, {_threads(counts[0])}", *(f"{_threads(c)}: x times" for c in counts[1:])]
        for name, (views, _) in candidates.items():
            one, *more = (seconds[f"{name} {count}"] for count in counts)
            rows[name] += [views / one, *(one / other for other in more)]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print_table(f"Augmentation, {size} px, beside busy processes (load averages {load})", header, rows.values())


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SOURCE))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--busy", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    keep_freed_memory()
    print(machine())
    for size in args.sizes:
        for count in args.threads:
            with threads(count):
                candidates = pipelines(size)
                seconds = interleaved({name: run for name, (_, run) in candidates.items()}, args.rounds)
                speeds = {name: views / seconds[name] for name, (views, _) in candidates.items()}
                memory = {name: peak_mib(run) for name, (_, run) in candidates.items()}
            rows = (
                (name, f"{speed:,.0f}", speeds["ours, exact"] / speed, speeds["ours, linear"] / speed, memory[name])
                for name, speed in speeds.items()
            )
            title = f"Augmentation, {size} px from {SOURCE[size]}, {_threads(count)}"
            print_table(title, ("pipeline", "views/s", "exact is x times", "linear is x times", "MiB"), rows)
        if args.busy:
            beside_neighbours(size, args.threads, args.busy, args.rounds)


if __name__ == "__main__":
    main()
