"""Measure peak memory and time of SimCLR's step with a large batch: `micro_batch` and gradient accumulation.

    python examples/benchmarks/large_batch.py [--encoder resnet18] [--size 32] [--batch 4096] [--micro 256] [--steps 1]

A step computes gradients from raw images, with SimCLR's augmentation. Each of the two ways runs in its own process:

- micro_batch: the loss compares the whole batch. Encoder and heads process --micro images at a time, and process each
  image twice.
- accumulation: gradients are added up over batches of --micro images. Negatives come only from the same batch.

MiB is the peak resident memory of the process minus its memory before the first step. If --steps is 2 or more, the time
of the first step is left out.
"""

import argparse
import resource
import time
import warnings
from multiprocessing import get_context
from statistics import median
from typing import Any

import torch
from timing import machine, print_table

from ssl_modules import SimCLR
from ssl_modules.utils.memory import keep_freed_memory


def measure(way: str, settings: argparse.Namespace, results: Any) -> None:
    """Measure the seconds and MiB of a step, and put them into a queue."""
    warnings.filterwarnings("ignore", "You are trying to `self.log")
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
    torch.manual_seed(0)
    micro_batch = settings.micro if way == "micro_batch" else None
    module = SimCLR("simclr", settings.encoder, image_size=settings.size, micro_batch=micro_batch)
    images = torch.randint(256, (settings.batch, 3, settings.size, settings.size), dtype=torch.uint8)
    parts = images.split(settings.micro) if way == "accumulation" else [images]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(settings.steps):
        start = time.perf_counter()
        for part in parts:
            (module.training_step(part, 0)["loss"] / len(parts)).backward()
        module.zero_grad()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results.put((median(times[1:] or times), (peak - before) / 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="resnet18", help="a timm name")
    parser.add_argument("--size", type=int, default=32, help="side of the images, pixels")
    parser.add_argument("--batch", type=int, default=4096, help="images in a batch")
    parser.add_argument("--micro", type=int, default=256, help="images at a time")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    settings = parser.parse_args()
    context, rows = get_context("spawn"), []
    for way in ("micro_batch", "accumulation"):
        results = context.Queue()
        process = context.Process(target=measure, args=(way, settings, results))
        process.start()
        rows.append((way, *results.get()))
        process.join()
    title = f"{settings.encoder}, {settings.batch} images of {settings.size} px, {settings.micro} at a time"
    print_table(f"{title}, {settings.threads} threads, {machine()}", ("", "seconds", "MiB"), rows)


if __name__ == "__main__":
    main()
