"""SimCLR's whole training step in images per second, beside the encoder alone and what people use today.

    python examples/benchmarks/step.py            # --all adds bf16 and compiled rows, --help says the rest

Rows, for each encoder, contiguous and channels_last:

- the encoder alone: forward and backward of the plain timm model on fixed tensors of all views, the limit; and the
  same with a pass for each view, which allocates half as much at a time;
- ours: SimCLR at its defaults;
- lightly's Lightning example of SimCLR, with 0 and 2 worker processes: its transform on one PIL image at a time, its
  head, its loss, one forward pass per view, SGD;
- stable-pretraining's SimCLR, likewise, where it is installed (it is no part of the extra "bench").

All have the same encoder with the stem for small images, a head of the same widths, the same images (Fashion-MNIST
with three channels at 32 pixels) and views of the same distribution; all but the first row are real fits of a
Lightning Trainer without logger, progress bar and callbacks.

Each row runs in a thread of its own that waits for its turn: a round is one whole step of each, one after the other,
from the end of its last step to the end of this one, so that waiting for data, logging and the optimiser are all in.
Workers fill their queue up and wait as well, so each step pays for one batch of theirs. The first round warms up;
medians of the others are shown.

glibc gives every tensor above 32 MiB back to the kernel, which clears its pages anew for the next one. With
MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 in front of the command it keeps them.
"""

import argparse
import ctypes
import importlib.util
import logging
import time
import warnings
from collections.abc import Callable
from functools import partial
from statistics import median
from threading import Semaphore, Thread
from typing import Any

import lightning.pytorch as pl
import timm
import torch
from lightly.data import LightlyDataset
from lightly.data.multi_view_collate import MultiViewCollate
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from timing import interleaved, machine, print_table, threads
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Dataset

from ssl_modules import SimCLR
from ssl_modules.datamodules import FashionMNISTDataModule, ImageDataModule
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.encoders import shrink_stem

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
WORKERS = (0, 2)
M_ARENA_MAX = -8  # of glibc's mallopt
SECTIONS = ("data", "augmentation", "encoder forward", "heads and loss", "backward", "optimiser", "rest")


class InTurn:
    """Runs a function in a thread of its own; each call of this lets it go on to the next call of its ``pause``."""

    def __init__(self, run: Callable[[Callable[[], None]], None]) -> None:
        self._turn, self._done = Semaphore(0), Semaphore(0)
        self._error: BaseException | None = None
        Thread(target=self._run, args=(run,), daemon=True).start()

    def _run(self, run: Callable[[Callable[[], None]], None]) -> None:
        self._turn.acquire()
        try:
            run(self._pause)
        except BaseException as error:  # of whatever kind, or the main thread waits for ever
            self._error = error
        self._done.release()

    def _pause(self) -> None:
        self._done.release()
        self._turn.acquire()

    def __call__(self) -> None:
        self._turn.release()
        self._done.acquire()
        if self._error is not None:
            raise self._error


def repeated(run: Callable[[], Any], steps: int) -> InTurn:
    def loop(pause: Callable[[], None]) -> None:
        for _ in range(steps):
            run()
            pause()

    return InTurn(loop)


class Clock(pl.Callback):
    """Takes the time of each section of a step; a mark ends the section that it names."""

    def __init__(self) -> None:
        self.pause: Callable[[], None] = lambda: None
        self.steps: list[dict[str, float]] = [{}]
        self.last = time.perf_counter()

    def mark(self, section: str) -> None:
        now = time.perf_counter()
        self.steps[-1][section] = self.steps[-1].get(section, 0.0) + now - self.last
        self.last = now

    def around(self, section: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            self.mark("rest")
            result = function(*args)
            self.mark(section)
            return result

        return timed

    def shares(self) -> dict[str, float]:
        """Of the step, in %; the median over all complete steps but the first."""
        steps = [step for step in self.steps[1:] if step]
        return {s: 100 * median(step.get(s, 0.0) / sum(step.values()) for step in steps) for s in SECTIONS}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if isinstance(module, SimCLR):
            module.augmentation.forward = self.around("augmentation", module.augmentation.forward)  # type: ignore[method-assign]
            module.encode = self.around("encoder forward", module.encode)  # type: ignore[method-assign]
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(lambda *_: self.mark("optimiser"))

    def on_train_batch_start(self, *_: Any) -> None:
        self.mark("data")

    def on_before_backward(self, *_: Any) -> None:
        self.mark("heads and loss")

    def on_after_backward(self, *_: Any) -> None:
        self.mark("backward")

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.mark("rest")

    def on_train_batch_end(self, *_: Any) -> None:
        self.mark("rest")
        self.steps.append({})
        self.pause()
        self.last = time.perf_counter()


class Fit(InTurn):
    """A Trainer's fit, a step at each call, and its clock."""

    def __init__(self, module: pl.LightningModule, data: Any, steps: int, precision: Any = "32-true") -> None:
        self.clock = Clock()

        def fit(pause: Callable[[], None]) -> None:
            self.clock.pause = pause
            trainer = pl.Trainer(
                max_steps=steps,
                accelerator="cpu",
                precision=precision,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            # Alone: stable-pretraining, once installed, adds a dozen to every Trainer.
            trainer.callbacks = [self.clock]
            trainer.fit(module, data)

        super().__init__(fit)


# ---- images ------------------------------------------------------------------------------------------------------


def colour_images() -> TensorImages:
    """Fashion-MNIST as [N, 3, 32, 32]."""
    source = FashionMNISTDataModule(subset=20_000)
    source.prepare_data()
    source.setup()
    images, targets = source.train_set.images, source.train_set.targets
    return TensorImages(pad(images, (2, 2, 2, 2)).repeat(1, 3, 1, 1), targets)


class PILImages(Dataset):
    """The images as torchvision's CIFAR10 gives them."""

    def __init__(self, images: TensorImages) -> None:
        self.pixels = images.images.permute(0, 2, 3, 1).contiguous().numpy()  # [N, H, W, 3]
        self.targets = images.targets.tolist()
        self.transform: Callable[[Image.Image], Any] = lambda image: image

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.targets[index]


# ---- rows --------------------------------------------------------------------------------------------------------


def backbone(name: str, channels_last: bool) -> nn.Module:
    """The plain timm model with the stem for small images: [B, 3, 32, 32] to [B, D]."""
    model = timm.create_model(name, num_classes=0)
    shrink_stem(model)
    return model.to(memory_format=torch.channels_last) if channels_last else model


def limit(name: str, batch_size: int, channels_last: bool, passes: int = 1) -> Callable[[], None]:
    model = backbone(name, channels_last)
    views = torch.rand(2 * batch_size // passes, 3, 32, 32)
    if channels_last:
        views = views.contiguous(memory_format=torch.channels_last)

    def run() -> None:
        model.zero_grad()
        torch.stack([model(views).sum() for _ in range(passes)]).sum().backward()

    return run


def ours(name: str, data: ImageDataModule, channels_last: bool, compiled: bool = False) -> SimCLR:
    return SimCLR(encoder=name, mean=data.mean, std=data.std, channels_last=channels_last, compile=compiled)


class LightlySimCLR(pl.LightningModule):
    """SimCLR as lightly's Lightning example has it."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.backbone = encoder
        self.projection_head = SimCLRProjectionHead(encoder.num_features, encoder.num_features, 128)
        self.criterion = NTXentLoss()

    def forward(self, x: Tensor) -> Tensor:
        return self.projection_head(self.backbone(x))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (x0, x1), _, _ = batch
        return self.criterion(self(x0), self(x1))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.06)


def lightly_loader(images: TensorImages, batch_size: int, workers: int) -> DataLoader:
    transform = SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0)
    dataset = LightlyDataset.from_torch_dataset(PILImages(images), transform=transform)
    return _loader(dataset, batch_size, workers, collate_fn=MultiViewCollate())


def stable_module(encoder: nn.Module) -> pl.LightningModule:
    """SimCLR as stable-pretraining's tutorial has it."""
    import stable_pretraining as spt  # noqa: PLC0415  # an option
    from stable_pretraining.forward import simclr  # noqa: PLC0415

    width = encoder.num_features
    projector = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True))
    projector.append(nn.Linear(width, 128))
    return spt.Module(
        forward=simclr,
        backbone=encoder,
        projector=projector,
        simclr_loss=spt.losses.NTXEntLoss(temperature=0.5),
        optim={"optimizer": {"type": "SGD", "lr": 0.06}, "scheduler": "CosineAnnealingLR", "interval": "epoch"},
    )


def stable_loader(images: TensorImages, data: ImageDataModule, batch_size: int, workers: int) -> DataLoader:
    import stable_pretraining as spt  # noqa: PLC0415  # an option

    t = spt.data.transforms
    view = t.Compose(
        t.RGB(),
        t.RandomResizedCrop((32, 32), scale=(0.08, 1.0)),
        t.RandomHorizontalFlip(p=0.5),
        t.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
        t.RandomGrayscale(p=0.2),
        t.ToImage(mean=data.mean, std=data.std),
    )
    transform = t.MultiViewTransform([view, view])
    dataset = spt.data.FromTorchDataset(PILImages(images), names=["image", "label"], transform=transform)
    return _loader(dataset, batch_size, workers)


def _loader(dataset: Dataset, batch_size: int, workers: int, **options: Any) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        **options,
    )


def measure(name: str, images: TensorImages, batch_size: int, rounds: int, everything: bool) -> None:
    """One interleaved run of all rows of an encoder, and its tables."""
    steps = rounds + 1
    data = ImageDataModule(images, num_classes=10, batch_size=batch_size)
    peers: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "lightly's example": (LightlySimCLR, partial(lightly_loader, images, batch_size))
    }
    if importlib.util.find_spec("stable_pretraining"):
        peers["stable-pretraining"] = (stable_module, partial(stable_loader, images, data, batch_size))
    rows: dict[tuple[str, str], InTurn] = {}
    for memory, memory_format in FORMATS.items():
        last = memory_format == torch.channels_last
        rows["encoder alone", memory] = repeated(limit(name, batch_size, last), steps)
        rows["encoder alone, a pass for each view", memory] = repeated(limit(name, batch_size, last, 2), steps)
        rows["ours", memory] = Fit(ours(name, data, last), data, steps)
        for peer, (module, loader) in peers.items():
            for workers in WORKERS:
                key = (f"{peer}, {workers} workers", memory)
                rows[key] = Fit(module(backbone(name, last)), loader(workers), steps)
        if everything:
            rows["ours, bf16", memory] = Fit(ours(name, data, last), data, steps, "bf16-mixed")
            rows["ours, compiled", memory] = Fit(ours(name, data, last, True), data, steps)
            rows["ours, bf16, compiled", memory] = Fit(ours(name, data, last, True), data, steps, "bf16-mixed")
    augmentation = ours(name, data, channels_last=False).augmentation
    batch, generator = images.images[:batch_size], torch.Generator().manual_seed(0)
    rows["augmentation", ""] = repeated(lambda: augmentation(batch, generator), steps)

    seconds = interleaved(rows, rounds)
    for row in rows.values():
        row()  # the fits end
    alone = seconds.pop(("augmentation", ""))

    shares = {key: row.clock.shares() for key, row in rows.items() if isinstance(row, Fit)}
    print_table(
        f"{name}: SimCLR's training step, {batch_size} images of 3 x 32 x 32, {torch.get_num_threads()} threads",
        ["", "memory format", "images/s", "of the encoder alone", "ours is faster by", "waits for data"],
        (
            (
                row,
                memory,
                batch_size / s,
                f"{100 * seconds['encoder alone', memory] / s:.0f} %",
                f"{s / seconds['ours', memory]:.2f}x",
                f"{shares[row, memory]['data']:.1f} %" if (row, memory) in shares else "",
            )
            for (row, memory), s in seconds.items()
        ),
    )
    print_table(
        f"{name}: where the time of our step goes, %; the augmentation by itself takes {1000 * alone:.0f} ms",
        ["memory format", *SECTIONS, "augmentation by itself"],
        (
            (memory, *(f"{share:.1f}" for share in (*shares[row, memory].values(), 100 * alone / s)))
            for (row, memory), s in seconds.items()
            if row == "ours"
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=["resnet18", "resnet10t"], help="timm names")
    parser.add_argument("--batch-size", type=int, default=128, help="images; each makes two views")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--all", action="store_true", help="bf16 and compiled rows as well")
    args = parser.parse_args()
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning|stable_pretraining|lance")
    if not importlib.util.find_spec("stable_pretraining"):
        print("stable-pretraining is not installed: its rows are left out")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)  # the rows' threads allocate as a main thread does, which is faster
    print(machine())
    images = colour_images()
    with threads(args.threads):
        for name in args.encoders:
            measure(name, images, args.batch_size, args.rounds, args.all)


if __name__ == "__main__":
    main()
