"""Compare the speed of SimCLR's training step with that of the encoder alone and of other libraries.

    python examples/benchmarks/step.py            # --all adds bf16 and compiled rows, --help lists the rest

For each encoder, the first table shows images per second. It has these rows, with contiguous and channels_last tensors:

- the encoder alone: forward and backward pass of the plain timm model on fixed tensors of all views. These passes are
  also a part of every training step, so this speed, with memory kept, is the limit in the column "of the limit";
- ours: SimCLR of ssl-modules with its default arguments;
- lightly's Lightning example of SimCLR, with 0 and 2 worker processes: its transform on one PIL image at a time, its
  head, its loss, one forward pass per view, SGD;
- stable-pretraining's SimCLR, in the same way, if it is installed (the extra "bench" doesn't include it).

All use the same encoder with the stem for small images, heads of the same widths, the same images (Fashion-MNIST
with three channels at 32 pixels) and views of the same distribution. All but the first are real fits of a Lightning
Trainer without logger, progress bar and callbacks. In the row "ours", the process keeps the memory that it frees, as in
every fit of this package on a CPU. Rows with "memory kept" measure the other programs in processes that do the same.

Each row runs in its own process, which waits for its turn. In a round, each row makes one whole step, one row after the
other. A step is timed from the end of the last one to its own end, so it includes loading, logging and the optimiser.
Workers fill their queue and then wait too, so each step pays for one batch of theirs. The first round warms up; the
tables show medians of the others.
"""

import argparse
import importlib.util
import logging
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from statistics import median
from typing import Any, Literal, NamedTuple

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
from ssl_modules.utils.memory import keep_freed_memory

SECTIONS = ("data", "augmentation", "encoder forward", "heads and loss", "backward", "optimiser", "rest")


class Run(NamedTuple):
    """Settings of a row."""

    encoder: str
    channels_last: bool
    batch_size: int
    steps: int
    kept: bool = False
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    compiled: bool = False
    workers: int = 0


class InTurn:
    """Runs a function in its own process. Each call of this object lets the function run until it calls ``pause``."""

    result: Any = None

    def __init__(self, run: Callable[[Callable[[], None]], Any]) -> None:
        context = get_context("forkserver")  # its server imports this script once
        context.set_forkserver_preload(["__main__"])
        self._pipe, other = context.Pipe()
        context.Process(target=_take_turns, args=(other, run, torch.get_num_threads())).start()
        self._pipe.recv()  # wait until the process is ready

    def __call__(self) -> None:
        self._pipe.send(None)
        error, self.result = self._pipe.recv()
        if error is not None:
            raise RuntimeError(error)


def _take_turns(pipe: Any, run: Callable[[Callable[[], None]], Any], count: int) -> None:
    def pause() -> None:
        pipe.send((None, None))
        pipe.recv()

    quieten()
    torch.set_num_threads(count)
    pipe.send(None)
    pipe.recv()
    try:
        pipe.send((None, run(pause)))
    except Exception:
        pipe.send((traceback.format_exc(), None))


def quieten() -> None:
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning|stable_pretraining|lance")


class Clock(pl.Callback):
    """Times each section of a step; a mark ends the section that it names."""

    def __init__(self, pause: Callable[[], None]) -> None:
        self.pause = pause
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
        """Return each section's share of the step in %, as the median over all complete steps but the first."""
        steps = [step for step in self.steps[1:] if step]
        return {s: 100 * median(step.get(s, 0.0) / sum(step.values()) for step in steps) for s in SECTIONS}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if isinstance(module, SimCLR):
            module.augmentation.forward = self.around("augmentation", module.augmentation.forward)  # type: ignore[method-assign]
            module.encoder.forward = self.around("encoder forward", module.encoder.forward)  # type: ignore[method-assign]
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


def fit(module: pl.LightningModule, data: Any, run: Run, pause: Callable[[], None]) -> dict[str, float]:
    """Fit with a Trainer, pausing after each step; return the share of each section."""
    clock = Clock(pause)
    trainer = pl.Trainer(
        max_steps=run.steps,
        accelerator="cpu",
        precision=run.precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.callbacks = [clock]  # stable-pretraining, once installed, adds a dozen callbacks to every Trainer
    trainer.fit(module, data)
    return clock.shares()


# ---- images ------------------------------------------------------------------------------------------------------


def colour_images() -> TensorImages:
    """Return Fashion-MNIST as [N, 3, 32, 32]."""
    source = FashionMNISTDataModule(subset=20_000)
    source.prepare_data()
    source.setup()
    images, targets = source.train_set.images, source.train_set.targets
    return TensorImages(pad(images, (2, 2, 2, 2)).repeat(1, 3, 1, 1), targets)


class PILImages(Dataset):
    """Returns the images as torchvision's CIFAR10 does."""

    def __init__(self, images: TensorImages) -> None:
        self.pixels = images.images.permute(0, 2, 3, 1).contiguous().numpy()  # [N, H, W, 3]
        self.targets = images.targets.tolist()
        self.transform: Callable[[Image.Image], Any] = lambda image: image

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.targets[index]


# ---- rows --------------------------------------------------------------------------------------------------------


def backbone(run: Run) -> nn.Module:
    """Build the plain timm model with the stem for small images: [B, 3, 32, 32] to [B, D]."""
    model = timm.create_model(run.encoder, num_classes=0)
    shrink_stem(model)
    return model.to(memory_format=torch.channels_last) if run.channels_last else model


def alone(run: Run, pause: Callable[[], None]) -> None:
    if run.kept:
        keep_freed_memory()
    model = backbone(run)
    views = torch.rand(2 * run.batch_size, 3, 32, 32)
    if run.channels_last:
        views = views.contiguous(memory_format=torch.channels_last)
    for _ in range(run.steps):
        model.zero_grad()
        model(views).sum().backward()
        pause()


def ours(run: Run, pause: Callable[[], None]) -> dict[str, float]:
    data = ImageDataModule(colour_images(), num_classes=10, batch_size=run.batch_size)
    module = SimCLR(
        encoder=run.encoder, mean=data.mean, std=data.std, channels_last=run.channels_last, compile=run.compiled
    )
    return fit(module, data, run, pause)


def peer(name: str, run: Run, pause: Callable[[], None]) -> dict[str, float]:
    if run.kept:
        keep_freed_memory()
    module, loader = PEERS[name]
    return fit(module(backbone(run)), loader(colour_images(), run), run, pause)


class LightlySimCLR(pl.LightningModule):
    """SimCLR as in lightly's Lightning example."""

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


def lightly_loader(images: TensorImages, run: Run) -> DataLoader:
    transform = SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0)
    dataset = LightlyDataset.from_torch_dataset(PILImages(images), transform=transform)
    return _loader(dataset, run, collate_fn=MultiViewCollate())


def stable_module(encoder: nn.Module) -> pl.LightningModule:
    """Build SimCLR as in stable-pretraining's tutorial."""
    import stable_pretraining as spt  # noqa: PLC0415  # optional
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


def stable_loader(images: TensorImages, run: Run) -> DataLoader:
    import stable_pretraining as spt  # noqa: PLC0415  # optional

    t = spt.data.transforms
    view = t.Compose(
        t.RGB(),
        t.RandomResizedCrop((32, 32), scale=(0.08, 1.0)),
        t.RandomHorizontalFlip(p=0.5),
        t.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
        t.RandomGrayscale(p=0.2),
        t.ToImage(mean=[0.2860] * 3, std=[0.3530] * 3),
    )
    transform = t.MultiViewTransform([view, view])
    dataset = spt.data.FromTorchDataset(PILImages(images), names=["image", "label"], transform=transform)
    return _loader(dataset, run)


def _loader(dataset: Dataset, run: Run, **options: Any) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=run.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=run.workers,
        persistent_workers=run.workers > 0,
        **options,
    )


PEERS = {
    "lightly's example": (LightlySimCLR, lightly_loader),
    "stable-pretraining": (stable_module, stable_loader),
}


def measure(run: Run, rounds: int, everything: bool) -> tuple[list[tuple[Any, ...]], tuple[str, ...]]:
    """Run all rows interleaved; return their part of the two tables."""
    runs: dict[str, Callable[..., Any]] = {
        "encoder alone": partial(alone, run),
        "encoder alone, memory kept": partial(alone, run._replace(kept=True)),
        "ours": partial(ours, run),
    }
    for name in PEERS:
        if name == "stable-pretraining" and not importlib.util.find_spec("stable_pretraining"):
            continue
        for workers, kept in ((0, False), (2, False), (0, True)):
            row = f"{name}, {workers} workers" + kept * ", memory kept"
            runs[row] = partial(peer, name, run._replace(workers=workers, kept=kept))
    if everything:
        runs["ours, bf16"] = partial(ours, run._replace(precision="bf16-mixed"))
        runs["ours, compiled"] = partial(ours, run._replace(compiled=True))
        runs["ours, bf16, compiled"] = partial(ours, run._replace(precision="bf16-mixed", compiled=True))
    rows = {row: InTurn(run) for row, run in runs.items()}
    seconds = interleaved(rows, rounds)
    for turns in rows.values():
        turns()  # let the process end

    memory = "channels_last" if run.channels_last else "contiguous"
    limit, own = seconds["encoder alone, memory kept"], seconds["ours"]
    table = [
        (row, memory, run.batch_size / s, f"{100 * limit / s:.0f} %", f"{s / own:.2f}x") for row, s in seconds.items()
    ]
    return table, (memory, *(f"{share:.1f}" for share in rows["ours"].result.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=["resnet18", "resnet10t"], help="timm names")
    parser.add_argument("--batch-size", type=int, default=128, help="images; each makes two views")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--all", action="store_true", help="bf16 and compiled rows as well")
    args = parser.parse_args()
    if not importlib.util.find_spec("stable_pretraining"):
        print("stable-pretraining is not installed: its rows are left out")
    print(machine())
    with threads(args.threads):
        for name in args.encoders:
            run = Run(name, False, args.batch_size, steps=args.rounds + 1)
            parts = [measure(run._replace(channels_last=last), args.rounds, args.all) for last in (False, True)]
            print_table(
                f"{name}: SimCLR's training step, {args.batch_size} images of 3 x 32 x 32, {args.threads} threads",
                ["", "memory format", "images/s", "of the limit", "ours is faster by"],
                [row for table, _ in parts for row in table],
            )
            print_table(
                f"{name}: where the time of our step goes, %", ["memory format", *SECTIONS], [p for _, p in parts]
            )


if __name__ == "__main__":
    main()
