"""SimCLR learns handwritten digits without their labels: k-NN and linear accuracy before and after, and a picture.

    make demo

Trains on the 1,437 training images of scikit-learn's digits, judges on the 360 test images, and writes demo.png:
what the augmentation makes of a few images, the test images' representations before and after (t-SNE), and the k-NN
accuracy after each epoch.
"""

import logging
import os
import time
import warnings
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from lightning.pytorch.callbacks import Callback
from sklearn.manifold import TSNE
from torch import Tensor

from ssl_modules import SimCLR
from ssl_modules.augmentations import ColorJitter, RandomResizedCrop, Views
from ssl_modules.callbacks import OnlineKNNProbe, OnlineLinearProbe
from ssl_modules.datamodules import DigitsDataModule
from ssl_modules.losses import InfoNCE

EPOCHS = 30
PICTURE = Path("demo.png")


class KNNCurve(Callback):
    """Keeps the k-NN accuracy of every epoch."""

    def __init__(self, before: float) -> None:
        self.values = [before]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.values.append(trainer.callback_metrics["probe/knn_top1"].item())


def main() -> None:
    quieten()
    pl.seed_everything(0, verbose=False)
    data = DigitsDataModule(batch_size=128)
    data.prepare_data()
    data.setup()
    module = SimCLR(
        # No flip, which would make another digit of some.
        augmentation=Views([RandomResizedCrop(8, scale=(0.7, 1.0)), ColorJitter(brightness=0.4, contrast=0.4)]),
        encoder="resnet10t",
        loss=InfoNCE(temperature=0.2),
        image_size=data.image_size,
        in_channels=data.in_channels,
        mean=data.mean,
        std=data.std,
        optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=1e-4),
    )
    knn, linear = OnlineKNNProbe(datamodule=data), OnlineLinearProbe(datamodule=data)

    before = knn.evaluate(module) | linear.evaluate(module)
    points_before = project(module, data)
    curve = KNNCurve(before["probe/knn_top1"])
    trainer = pl.Trainer(max_epochs=EPOCHS, callbacks=[knn, linear, curve], logger=False, enable_checkpointing=False)
    start = time.perf_counter()
    trainer.fit(module, data)
    seconds = time.perf_counter() - start
    after = knn.evaluate(module) | linear.evaluate(module)

    print(f"\n{'':24}{'before':>8}{'after':>8}")
    for name, metric in (("k-NN, k = 20", "probe/knn_top1"), ("linear (ridge)", "probe/linear_top1")):
        print(f"{name:24}{before[metric]:8.1%}{after[metric]:8.1%}")
    draw(data, module, points_before, project(module, data), curve.values)
    print(
        f"\n{EPOCHS} epochs of {len(data.train_set)} digits without labels: {seconds:.0f} s on {os.cpu_count()} cores"
    )
    print(f"picture: {PICTURE.resolve()}")


def quieten() -> None:
    """Keep what a newcomer needs to read: the progress bar and the table."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module="lightning")


@torch.no_grad()
def features(module: SimCLR, images: Tensor) -> Tensor:
    module.eval()
    return torch.cat([module(batch) for batch in images.split(256)])


def project(module: SimCLR, data: DigitsDataModule) -> Tensor:
    """The test images' representations in two dimensions."""
    z = torch.nn.functional.normalize(features(module, data.test_set.images), dim=1)
    return torch.from_numpy(TSNE(init="pca", random_state=0, perplexity=30).fit_transform(z.numpy()))


def draw(data: DigitsDataModule, module: SimCLR, before: Tensor, after: Tensor, knn: list[float]) -> None:
    figure = plt.figure(figsize=(13, 7.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.6])

    images = data.train_set.images[:14]
    rows = [("image", images / 255)]
    rows += [(f"view {v}", view) for v, view in enumerate(module.augmentation(images, torch.Generator()), start=1)]
    axes = top.subplots(len(rows), len(images), gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    top.suptitle("What the augmentation makes of the digits: the two views of an image are a positive pair")
    for row, (label, batch) in zip(axes, rows, strict=True):
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for axis, image in zip(row, batch, strict=True):
            axis.imshow(image[0], cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])

    left, middle, right = bottom.subplots(1, 3)
    labels = data.test_set.targets
    for axis, points, title in ((left, before, "before training"), (middle, after, f"after {EPOCHS} epochs")):
        for digit in range(10):
            axis.scatter(*points[labels == digit].T, s=9, color=f"C{digit}", label=str(digit))
        axis.set(xticks=[], yticks=[], title=f"test digits, {title} (t-SNE)")
    middle.legend(title="digit", loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, markerscale=2, frameon=False)
    right.plot(range(len(knn)), knn, color="C0")
    right.set(xlabel="epoch", ylabel="k-NN accuracy on the test digits", title="learned without labels")
    right.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=1))
    right.grid(alpha=0.3)
    figure.savefig(PICTURE, dpi=120)


if __name__ == "__main__":
    main()
