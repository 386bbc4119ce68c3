"""Measure SimCLR's step from ready-made views to gradients, with `view_statistics` "joint" and "each".

    python examples/benchmarks/view_statistics.py [--encoder resnet18] [--size 32] [--batch 128] [--rounds 7]
        [--views 2] [--device cpu] [--precision 32]

"joint" makes one pass with all views, "each" makes one pass per view. The step has no augmentation and no optimiser,
because they are the same for both. MiB is the peak of PyTorch's allocator during a step.
"""

import argparse
import warnings
from collections.abc import Callable

import torch
from timing import interleaved, machine, peak_mib, print_table

from ssl_modules import SimCLR
from ssl_modules.augmentations import ReadyViews
from ssl_modules.utils.memory import keep_freed_memory


def step(statistics: str, settings: argparse.Namespace) -> Callable[[], None]:
    """Return a function that computes the gradients of one batch."""
    torch.manual_seed(0)
    augmentation = ReadyViews([settings.size] * settings.views)
    module = SimCLR(augmentation, settings.encoder, image_size=settings.size, view_statistics=statistics)
    module.to(settings.device)
    views = [torch.rand(settings.batch, 3, settings.size, settings.size, device=settings.device)] * settings.views

    def run() -> None:
        with torch.autocast(settings.device, torch.bfloat16, enabled=settings.precision == "bf16"):
            loss = module.training_step((views, None), 0)["loss"]
        loss.backward()
        module.zero_grad()
        if settings.device == "cuda":
            torch.cuda.synchronize()

    return run


def peak(run: Callable[[], None], device: str) -> float:
    """Return the peak memory of a step in MiB, in addition to the module's own."""
    if device == "cpu":
        return peak_mib(run)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="resnet18", help="a timm name")
    parser.add_argument("--size", type=int, default=32, help="side of the views, pixels")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="32", choices=["32", "bf16"])
    settings = parser.parse_args()
    warnings.filterwarnings("ignore", "You are trying to `self.log")
    keep_freed_memory()
    runs = {statistics: step(statistics, settings) for statistics in ("joint", "each")}
    seconds = interleaved(runs, settings.rounds)
    rows = [(n, settings.batch / s, s / seconds["joint"], peak(runs[n], settings.device)) for n, s in seconds.items()]
    where = torch.cuda.get_device_name() if settings.device == "cuda" else machine()
    title = f"{settings.encoder}, {settings.views} views of {settings.batch} images of {settings.size} px"
    print_table(
        f"{title}, precision {settings.precision}, {where}",
        ("view_statistics", "images/s", "time, joint = 1", "MiB"),
        rows,
    )


if __name__ == "__main__":
    main()
