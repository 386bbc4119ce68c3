"""Does a ranking of all views learn in fewer epochs? k-NN accuracy after each epoch of S2R2, GroCo and SimCLR.

    python examples/claims/s2r2_epochs.py                    # scikit-learn's digits, 6 epochs, 3 seeds: 12 minutes
    python examples/claims/s2r2_epochs.py --data scattered   # Fashion-MNIST scattered, 6 times 39 batches: 2 hours

S2R2's paper claims that an objective over all views at once converges in fewer epochs. Here the three methods see the
same images in the same order and the same four views of each, with the same encoder, starting weights, projector width
and optimiser. They differ in the loss. GroCo also takes negatives only from the same view, stops the gradient of its
candidates and ends its projector in a batch norm. One percentage point of accuracy is less than four of the 360 test
digits, and 100 of Fashion-MNIST's test images.

The script prints a table, draws s2r2_epochs.png and judges the claim. For the verdict, it takes the accuracy of a run
minus that of the SimCLR run with the same seed, as a mean over all epochs. The times above are those of one core.
"""

import argparse
import logging
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import lightning.pytorch as pl
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from lightning.pytorch.callbacks import Callback
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ssl_modules import S2R2, ContrastiveModule, GroCo, SimCLR
from ssl_modules.augmentations import ColorJitter, Operation, RandomHorizontalFlip, RandomResizedCrop, Views
from ssl_modules.callbacks import OnlineKNNProbe
from ssl_modules.datamodules import (
    BaseDataModule,
    DigitsDataModule,
    FashionMNISTDataModule,
    ScatteredFashionMNISTDataModule,
)
from ssl_modules.extractions import AllViews
from ssl_modules.losses import InfoNCE
from ssl_modules.optim import WarmupCosine

sys.path.append(str(Path(__file__).parents[1] / "results"))

from paired import verdict

PICTURE = Path("s2r2_epochs.png")


class KNNCurve(Callback):
    """Keeps the k-NN accuracy of every epoch."""

    def __init__(self, before: float) -> None:
        self.values = [before]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.values.append(trainer.callback_metrics["probe/knn_top1"].item())


class Setting(NamedTuple):
    """Data, with the settings that suit them."""

    data: Callable[[], BaseDataModule]
    batches: int | None  # per epoch
    transforms: Callable[[], list[Operation]]
    learning_rate: float
    temperature: float  # of SimCLR
    small_stem: bool


def garments(data: Callable[..., BaseDataModule], size: int) -> Setting:
    """Return the setting of a data module with garments of ``size`` pixels."""
    return Setting(
        partial(data, batch_size=256, download=True),
        39,
        lambda: [
            RandomResizedCrop(size, scale=(0.4, 1.0)),
            RandomHorizontalFlip(),
            ColorJitter(brightness=0.4, contrast=0.4, p=0.8),
        ],
        learning_rate=3e-3,
        temperature=0.1,
        small_stem=False,
    )


SETTINGS = {
    "digits": Setting(
        partial(DigitsDataModule, batch_size=128),
        None,
        # No flip: it would turn some digits into others.
        lambda: [RandomResizedCrop(8, scale=(0.7, 1.0)), ColorJitter(brightness=0.4, contrast=0.4)],
        1e-3,
        0.2,
        True,
    ),
    "fashion": garments(FashionMNISTDataModule, 28),
    "scattered": garments(ScatteredFashionMNISTDataModule, 40),
}


def build(name: str, setting: Setting, data: BaseDataModule) -> ContrastiveModule:
    """Build the method with the settings that all methods have in common."""
    common = {
        "augmentation": Views(setting.transforms(), views=4),
        "encoder": "resnet10t",
        "image_size": data.image_size,
        "in_channels": data.in_channels,
        "mean": data.mean,
        "std": data.std,
        "small_stem": setting.small_stem,
        "view_statistics": "joint",
        "optimizer": partial(torch.optim.AdamW, lr=setting.learning_rate, weight_decay=1e-4),
        "schedule": WarmupCosine(warmup=0.1, ramp="(s+1)/W"),
        "base_batch_size": None,
        "decay_norms": False,
    }
    if name == "SimCLR":
        return SimCLR(extraction=AllViews(), loss=InfoNCE(temperature=setting.temperature), **common)
    if name == "S2R2":
        return S2R2(extraction=AllViews(), **common)
    return GroCo(extraction=AllViews(output_norm=True, same_view_negatives=True, stop_gradient=True), **common)


def knn_by_epoch(name: str, setting: Setting, seed: int, epochs: int) -> list[float]:
    """Return the accuracy before training and after each epoch."""
    pl.seed_everything(seed, verbose=False)
    data = setting.data()
    data.prepare_data()
    data.setup()
    module, knn = build(name, setting, data), OnlineKNNProbe(datamodule=data)
    curve = KNNCurve(knn.evaluate(module)["probe/knn_top1"])
    trainer = pl.Trainer(
        max_epochs=epochs,
        limit_train_batches=setting.batches,
        callbacks=[knn, curve],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, data)
    return curve.values


def leads(ours: list[list[float]], others: list[list[float]]) -> list[float]:
    """Return the mean difference of accuracy over the epochs of training, in percentage points, for each seed."""
    return [100 * (mean(a[1:]) - mean(b[1:])) for a, b in zip(ours, others, strict=True)]


def draw(curves: dict[str, list[list[float]]], batches: int | None) -> None:
    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for color, (name, runs) in enumerate(curves.items()):
        for run in runs:
            axis.plot(run, color=f"C{color}", alpha=0.35, linewidth=1)
        axis.plot([mean(values) for values in zip(*runs, strict=True)], color=f"C{color}", linewidth=2, label=name)
    axis.set(
        xlabel="epoch" if batches is None else f"epoch of {batches} batches",
        ylabel="k-NN accuracy on the test images",
        title="Equal images and views; thin: one seed",
    )
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.savefig(PICTURE, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=SETTINGS, default="digits")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module="lightning")

    print("| method | seed |", " | ".join(f"epoch {epoch}" for epoch in range(args.epochs + 1)), "|")
    print("|" + "---|" * (args.epochs + 3))
    curves: dict[str, list[list[float]]] = {}
    for name in ("S2R2", "GroCo", "SimCLR"):
        for seed in args.seeds:
            curves.setdefault(name, []).append(knn_by_epoch(name, SETTINGS[args.data], seed, args.epochs))
            print(f"| {name} | {seed} |", " | ".join(f"{value:.1%}" for value in curves[name][-1]), "|", flush=True)
    for name in ("S2R2", "GroCo"):
        print(f"{name} - SimCLR, mean over epochs: {verdict(leads(curves[name], curves['SimCLR']))}")
    draw(curves, SETTINGS[args.data].batches)
    print(f"picture: {PICTURE.resolve()}")


if __name__ == "__main__":
    main()
