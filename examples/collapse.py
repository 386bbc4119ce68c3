"""Train SimSiam and SwAV on scikit-learn's digits, with and without the setting that prevents a collapse.

    python examples/collapse.py [--epochs 6] [--output docs/pictures/collapse.png]

The script trains each method twice with the same initial weights and views: once unchanged, and once so that it
collapses. In the second run, a gradient flows through SimSiam's targets, and SwAV's assignment is too soft, with
epsilon 1 instead of 0.05. The script draws three values after each epoch. CollapseMonitor measures the first two:

- the spread of the embeddings, which is 0 if they are all the same
- the effective rank of the embeddings
- the loss

It takes about 3 minutes on one core.
"""

import argparse
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from ssl_modules import ContrastiveModule, SimSiam, SwAV
from ssl_modules.augmentations import ColorJitter, RandomResizedCrop, Views
from ssl_modules.callbacks import CollapseMonitor
from ssl_modules.datamodules import DigitsDataModule
from ssl_modules.extractions import Extraction, Predictor, Prototypes
from ssl_modules.optim import WarmupCosine

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "collapse.png"
METRICS = {
    "embedding/std": "spread of the embeddings",
    "embedding/rankme": "effective rank of the embeddings",
    "train/loss_epoch": "loss",
}


def simsiam(**given: bool) -> Predictor:
    """Return SimSiam's extraction with small heads and without the last batch norm, which would delay a collapse."""
    return Predictor(512, 128, 64, layers=3, momentum=None, **given)


RUNS: dict[str, tuple[type[ContrastiveModule], Extraction]] = {
    "SimSiam": (SimSiam, simsiam()),
    "SimSiam, gradient through the targets": (SimSiam, simsiam(stop_gradient=False)),
    "SwAV, epsilon 0.05": (SwAV, Prototypes(512, 128, prototypes=60)),
    "SwAV, epsilon 1": (SwAV, Prototypes(512, 128, prototypes=60, epsilon=1.0)),
}


class Curve(pl.Callback):
    """Stores the metrics of each epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def train(method: type[ContrastiveModule], extraction: Extraction, epochs: int) -> list[dict[str, float]]:
    """Train for some epochs; return the metrics after each."""
    pl.seed_everything(0, verbose=False)
    data = DigitsDataModule(batch_size=128)
    module = method(
        Views([RandomResizedCrop(8, scale=(0.7, 1.0)), ColorJitter(brightness=0.4, contrast=0.4)], views=2),
        "resnet10t",
        extraction,
        image_size=8,
        in_channels=1,
        mean=data.mean,
        std=data.std,
        optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=1e-4),
        schedule=WarmupCosine(0.1),
        base_batch_size=None,
    )
    curve = Curve()
    monitor = CollapseMonitor(features="extraction.heads", name="embedding")
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    pl.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[monitor, curve], **quiet).fit(module, data)
    return curve.epochs


def draw(curves: dict[str, list[dict[str, float]]]) -> Figure:
    """Draw a row for each method and a panel for each metric. The run that collapses has dashed lines."""
    methods = list(dict.fromkeys(name.partition(",")[0] for name in curves))
    figure, axes = plt.subplots(len(methods), len(METRICS), figsize=(11, 3 * len(methods)), layout="constrained")
    for row, method in zip(axes, methods, strict=True):
        own = [name for name in curves if name.partition(",")[0] == method]
        for axis, (metric, title) in zip(row, METRICS.items(), strict=True):
            for name, color, style in zip(own, ("tab:blue", "tab:red"), ("-", "--"), strict=True):
                values = [epoch[metric] for epoch in curves[name]]
                axis.plot(range(1, len(values) + 1), values, style, color=color, label=name, linewidth=1.8)
            axis.set_title(title, fontsize=10)
            axis.set_xlabel("epoch", fontsize=9)
            axis.grid(alpha=0.3)
            if metric != "train/loss_epoch":
                axis.set_ylim(bottom=0)
        row[-1].legend(fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--output", type=Path, default=PICTURE, help="file to write")
    arguments = parser.parse_args()
    curves = {}
    for name, (method, extraction) in RUNS.items():
        curves[name] = train(method, extraction, arguments.epochs)
        last = {metric: round(value, 3) for metric, value in curves[name][-1].items() if metric in METRICS}
        print(f"{name}: {last}")
    draw(curves).savefig(arguments.output, dpi=110)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
