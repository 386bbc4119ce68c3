"""Train SimCLR without labels; print k-NN and linear accuracy before and after training, and draw a picture.

    make demo
    make demo DATA=path/to/folder

By default, this script trains on the 1,437 training images of scikit-learn's digits and evaluates on the 360 test
images. If you give a folder of your own images, it resizes them to 64 px and evaluates on a fifth of them, which it
doesn't train on. Subfolders are classes if there are at least two of them and no images beside them. Without classes
there is no accuracy.

The script writes demo.png. It shows augmented views of a few images, the representations of the evaluated images before
and after training (t-SNE), and the k-NN accuracy after each epoch, or the loss if there are no classes.
"""

import argparse
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
from ssl_modules.augmentations import Augmentation, ColorJitter, RandomResizedCrop, SimCLRViews, Views
from ssl_modules.callbacks import OnlineKNNProbe, OnlineLinearProbe, OnlineProbe
from ssl_modules.datamodules import BaseDataModule, DigitsDataModule, ImageFolderDataModule, TensorImages
from ssl_modules.datamodules.finding import IMAGES, find_files
from ssl_modules.evaluation.features import undisturbed
from ssl_modules.losses import InfoNCE

EPOCHS = 30
PICTURE = Path("demo.png")
SIDE = 64  # pixels; images of a folder are resized to this
BUDGET = 45_000  # images of a folder over all epochs: takes minutes on a laptop
FEWEST = 20  # smallest number of images in a folder; t-SNE draws a fifth of them, and needs at least four images
SHOWN = 2_000  # largest number of points in the picture


class Curve(Callback):
    """Keeps a metric of every epoch."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.first = 1  # epoch of the first value
        self.values: list[float] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.values.append(trainer.callback_metrics[self.metric].item())


def digits() -> tuple[BaseDataModule, Augmentation]:
    """Load scikit-learn's digits. No flip: it would turn some digits into others."""
    views = Views([RandomResizedCrop(8, scale=(0.7, 1.0)), ColorJitter(brightness=0.4, contrast=0.4)])
    return DigitsDataModule(batch_size=128), views


def folder(root: Path) -> tuple[BaseDataModule, Augmentation]:
    """Load a folder of images into memory, with a fifth for validation."""
    names = find_files(root)
    count = len(names)
    if count < FEWEST:
        raise ValueError(
            f"{root}: {count} images found, but the demo needs {FEWEST}; image files have one of the extensions "
            f"{IMAGES.listed}"
        )
    folders = {name.split(os.sep)[0] for name in names if os.sep in name}
    classes = len(folders) > 1 and all(os.sep in name for name in names)
    print(f"{count} images in {root}, {'its folders are the classes' if classes else 'without classes'}")
    data = ImageFolderDataModule(
        root,
        batch_size=max(2, min(128, count // 4)),
        class_folders=classes,
        image_size=SIDE,
        in_memory=True,
        val_size=count // 5,
    )
    return data, SimCLRViews(SIDE, strength=0.5, blur=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of your own images; scikit-learn's digits without it")
    args = parser.parse_args()
    quieten()
    pl.seed_everything(0, verbose=False)
    try:
        data, views = digits() if args.folder is None else folder(args.folder)
        data.setup()
    except (OSError, ValueError) as error:
        parser.error(str(error))
    module = SimCLR(
        augmentation=views,
        encoder="resnet10t",
        small_stem=args.folder is None,
        loss=InfoNCE(temperature=0.2),
        image_size=data.image_size,
        in_channels=data.in_channels,
        mean=data.mean,
        std=data.std,
        optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=1e-4),
        base_batch_size=None,  # use the learning rate as it is, at any batch size
    )
    size = len(data.train_set)
    epochs = EPOCHS if args.folder is None else max(2, min(EPOCHS, BUDGET // size))
    k = min(20, size)
    probes = [OnlineKNNProbe(datamodule=data, k=k), OnlineLinearProbe(datamodule=data)] if data.num_classes else []
    curve = Curve("probe/knn_top1" if probes else "train/loss_epoch")

    before = evaluate(probes, module)
    points_before = project(module, evaluated(data).images)
    trainer = pl.Trainer(max_epochs=epochs, callbacks=[*probes, curve], logger=False, enable_checkpointing=False)
    start = time.perf_counter()
    trainer.fit(module, data)
    seconds = time.perf_counter() - start
    after = evaluate(probes, module)

    if probes:
        print(f"\n{'':24}{'before':>8}{'after':>8}")
        for name, metric in ((f"k-NN, k = {k}", "probe/knn_top1"), ("linear (ridge)", "probe/linear_top1")):
            print(f"{name:24}{before[metric]:8.1%}{after[metric]:8.1%}")
        curve.first, curve.values = 0, [before[curve.metric], *curve.values]
    draw(data, module, points_before, project(module, evaluated(data).images), curve)
    print(f"\n{epochs} epochs of {size} images without labels: {seconds:.0f} s on {os.cpu_count()} cores")
    print(f"picture: {PICTURE.resolve()}")


def evaluated(data: BaseDataModule) -> TensorImages:
    """Return the images to evaluate on: the validation part, or the test images."""
    return data.val_set if data.val_size else data.test_set


def evaluate(probes: list[OnlineProbe], module: SimCLR) -> dict[str, float]:
    return {metric: value for probe in probes for metric, value in probe.evaluate(module).items()}


def quieten() -> None:
    """Silence all output but the progress bar and the table."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module="lightning")


def project(module: SimCLR, images: Tensor) -> Tensor:
    """Project the representations of at most ``SHOWN`` images to two dimensions."""
    with undisturbed(module):
        features = torch.cat([module(batch) for batch in images[:SHOWN].split(256)])
    z = torch.nn.functional.normalize(features, dim=1)
    tsne = TSNE(init="pca", random_state=0, perplexity=min(30, (len(z) - 1) // 3))
    return torch.from_numpy(tsne.fit_transform(z.numpy()))


def draw(data: BaseDataModule, module: SimCLR, before: Tensor, after: Tensor, curve: Curve) -> None:
    figure = plt.figure(figsize=(13, 7.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.6])

    images = data.train_set.images[:14]
    rows = [("image", images / 255)]
    rows += [(f"view {v}", view) for v, view in enumerate(module.augmentation(images, torch.Generator()), start=1)]
    axes = top.subplots(len(rows), len(images), gridspec_kw={"wspace": 0.05, "hspace": 0.05}, squeeze=False)
    top.suptitle("What the augmentation makes of the images: the two views of an image are a positive pair")
    for row, (label, batch) in zip(axes, rows, strict=True):
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for axis, image in zip(row, batch, strict=True):
            axis.imshow(image.permute(1, 2, 0), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])

    left, middle, right = bottom.subplots(1, 3)
    labels = evaluated(data).targets[:SHOWN]
    for axis, points, title in ((left, before, "before training"), (middle, after, "after training")):
        for label in labels.unique().tolist():  # -1 if there are no classes
            name = data.class_names[label] if label >= 0 else None
            axis.scatter(*points[labels == label].T, s=9, color=plt.cm.tab10(label % 10), label=name)
        axis.set(xticks=[], yticks=[], title=f"evaluated images, {title} (t-SNE)")
    if 0 < data.num_classes <= 10:
        middle.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, markerscale=2, frameon=False)
    right.plot(range(curve.first, curve.first + len(curve.values)), curve.values, color="C0")
    if data.num_classes:
        right.set(xlabel="epoch", ylabel="k-NN accuracy on the evaluated images", title="learned without labels")
        right.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=1))
    else:
        right.set(xlabel="epoch", ylabel="loss", title="learned without labels")
    right.grid(alpha=0.3)
    figure.savefig(PICTURE, dpi=120)


if __name__ == "__main__":
    main()
