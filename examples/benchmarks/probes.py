"""Compare our k-NN search with those of other libraries, and the time of the callbacks with that of an epoch.

    python examples/benchmarks/probes.py

All measurements use one thread.

k-NN: 60,000 bank features of 512 dimensions in ten classes, k = 20. A neighbour with similarity s has the vote
exp(s / 0.07). The script measures 1,000 queries instead of 10,000, so the work done once per bank (normalising,
checking) has a larger share of the time than with 10,000. The bare products only compute the similarities of normalised
features. All other rows take raw features. lightly's knn_predict and the bare product in chunks take 256 queries at
once. "Same prediction" is the share of queries for which the prediction equals that of ssl-modules ("ours"). "Peak MiB"
is the peak memory that PyTorch allocates in addition to the inputs.

Callbacks: the time of the callbacks with their default settings (5,000 images to learn from, 10,000 to evaluate on), as
a share of the time of an epoch of SimCLR. Times are CPU seconds, which other programs on the machine hardly change:

- All callbacks on Fashion-MNIST with a ResNet-18 and the stem for large images: a real fit of 12 of the 234 steps of an
  epoch. Of the three settings, this one gives the callbacks the largest share. The time of an epoch is the median time
  of a step, times 234. The time of the callbacks is that of their work at the end of the epoch. The outliers are the
  rotated test images. ViewGrid draws once per run, before the first step, and this time is not counted.
- Both probes on Fashion-MNIST with the settings of examples/configs/simclr_fashion.yaml: timed as above.
- Both probes on 50,000 random images of 32 px with three channels, ResNet-18 with the stem for small images: 4 steps of
  64 images and the features of 640 images, both scaled to the number of images; the classifiers are timed in full.
"""

import logging
import time
import warnings
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightly.utils.benchmarking import knn_predict
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits
from timing import interleaved, machine, peak_mib, print_table, threads
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from ssl_modules import SimCLR
from ssl_modules.augmentations import SimCLRViews
from ssl_modules.callbacks import (
    CollapseMonitor,
    EmbeddingPlot,
    NeighbourGrid,
    OnlineKNNProbe,
    OnlineLinearProbe,
    OnlineRetrieval,
    OutOfDistributionProbe,
    ViewGrid,
)
from ssl_modules.cli import ContrastiveCLI
from ssl_modules.datamodules import BaseDataModule, FashionMNISTDataModule, ImageDataModule
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.evaluation import knn_scores, ridge_classifier
from ssl_modules.evaluation.shared_features import SharedFeatures

BANK, QUERIES, DIM, CLASSES, K, TEMPERATURE, CHUNK = 60_000, 1_000, 512, 10, 20, 0.07, 256
LEARN, JUDGE = 5_000, 10_000
SETTINGS = ("bank_size", "every_n_epochs", "gallery", "images", "k", "queries", "scores", "size")


def knn_table() -> None:
    """Measure each k-NN classifier: seconds, ratio to the bare product, memory and agreement."""
    centres = torch.randn(CLASSES, DIM)
    bank, labels = clusters(centres, BANK)
    queries, _ = clusters(centres, QUERIES)
    columns, rows = F.normalize(bank, dim=1).T, F.normalize(queries, dim=1)

    def lightly() -> Tensor:
        bank_columns, normalized = F.normalize(bank, dim=1).T, F.normalize(queries, dim=1)
        guesses = [
            knn_predict(chunk, bank_columns, labels, CLASSES, K, TEMPERATURE)[:, 0] for chunk in normalized.split(CHUNK)
        ]
        return torch.cat(guesses)

    def scikit_learn() -> Tensor:
        classifier = KNeighborsClassifier(K, weights=votes, algorithm="brute", metric="cosine")
        return torch.from_numpy(classifier.fit(bank.numpy(), labels.numpy()).predict(queries.numpy()))

    def ours() -> Tensor:
        return knn_scores(bank, labels, queries, k=K, temperature=TEMPERATURE).argmax(dim=1)

    products = {
        "bare product, in chunks": lambda: [chunk @ columns for chunk in rows.split(CHUNK)],
        "bare product, in one": lambda: rows @ columns,
    }
    classifiers = {"ours": ours, "lightly's knn_predict": lightly, "scikit-learn's brute force": scikit_learn}
    seconds = interleaved({**products, **classifiers}, rounds=3)
    expected = ours()
    table = []
    for name, run in (products | classifiers).items():
        memory = "-" if name.startswith("scikit") else peak_mib(run)  # allocates outside PyTorch
        agreement = f"{(run() == expected).double().mean():.1%}" if name in classifiers else "-"
        ratio = seconds[name] / seconds["bare product, in chunks"]
        table.append((name, seconds[name], ratio, memory, agreement))
    header = ("way", f"seconds, {QUERIES:,} queries", "/ bare product", "peak MiB", "same prediction")
    print_table(f"k-NN of {BANK:,} x {DIM}, k = {K}", header, table)


def clusters(centres: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Draw non-negative features around class centres, spread so widely that some neighbours have the wrong class."""
    labels = torch.randint(len(centres), (count,))
    return (centres[labels] + 6 * torch.randn(count, centres.shape[1])).relu(), labels


def votes(distance: Any) -> Any:
    """Weight scikit-learn's neighbours by cosine distance as ours are weighted by cosine."""
    return torch.from_numpy((1 - distance) / TEMPERATURE).exp().numpy()


class Clock(pl.Callback):
    """Records the CPU time at the end of every training step and of the last epoch."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.epoch_end = 0.0

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.ends.append(time.process_time())

    def on_train_epoch_end(self, *arguments: Any) -> None:
        self.epoch_end = time.process_time()

    @property
    def step(self) -> float:
        return median(end - start for start, end in zip(self.ends, self.ends[1:], strict=False))


def timed_fit(
    module: pl.LightningModule, data: BaseDataModule, steps: int, callbacks: list[pl.Callback]
) -> tuple[float, float]:
    """Return the seconds of a step, and of the callbacks at the epoch's end."""
    before, after = Clock(), Clock()
    trainer = pl.Trainer(
        max_epochs=1,
        limit_train_batches=steps,
        limit_val_batches=0,
        callbacks=[before, *callbacks, after],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    return before.step, after.epoch_end - before.epoch_end


def all_callbacks() -> tuple[Any, ...]:
    """Return the row of all callbacks: name, seconds of the epoch and of the callbacks, and share."""
    data = FashionMNISTDataModule()
    data.setup()
    views = SimCLRViews(28, strength=0.5, blur=False)
    module = SimCLR(views, "resnet18", image_size=28, in_channels=1, mean=data.mean, std=data.std, small_stem=False)
    turned = DataLoader(TensorDataset(data.test_set[:][0].rot90(dims=(2, 3))), batch_size=256)
    with TemporaryDirectory() as folder:
        callbacks = [
            OnlineKNNProbe(),
            OnlineLinearProbe(),
            OnlineRetrieval(),
            OutOfDistributionProbe(outliers=turned),
            CollapseMonitor(),
            EmbeddingPlot(folder=folder),
            NeighbourGrid(folder=folder),
            ViewGrid(folder=folder),
        ]
        for callback in callbacks:
            settings = {name: value for name, value in vars(callback).items() if name in SETTINGS and value is not None}
            print(f"{type(callback).__name__}: {settings}")
        step, seconds = timed_fit(module, data, 12, callbacks)
    epoch = step * len(data.train_dataloader())
    return "all, Fashion-MNIST, ResNet-18, 28 px", epoch, seconds, f"{seconds / epoch:.2%}"


def fashion_mnist() -> tuple[Any, ...]:
    """Return the row of both probes with a ResNet-10."""
    cli = ContrastiveCLI(run=False, args=["--config", "examples/configs/simclr_fashion.yaml"])
    module, data = cli.model, cli.datamodule
    data.prepare_data()
    data.setup()
    step, probes = timed_fit(module, data, 12, [OnlineKNNProbe(), OnlineLinearProbe()])
    epoch = step * len(data.train_dataloader())
    return "both probes, Fashion-MNIST, ResNet-10, 28 px", epoch, probes, f"{probes / epoch:.2%}"


def cifar_sized() -> tuple[Any, ...]:
    """Return the row of both probes for data of CIFAR-10's size, scaled from a smaller run."""
    images = torch.randint(256, (640, 3, 32, 32), dtype=torch.uint8)
    data = ImageDataModule(
        TensorImages(images, torch.arange(640) % CLASSES), num_classes=CLASSES, batch_size=64, dims=(3, 32, 32)
    )
    module = SimCLR(encoder="resnet18")
    step, _ = timed_fit(module, data, 4, [])
    epoch = step * 50_000 / 64

    start = time.process_time()
    SharedFeatures().read(module, data.probe_train_dataloader())
    features = time.process_time() - start
    start = time.process_time()
    classify(torch.rand(LEARN, DIM), torch.arange(LEARN) % CLASSES, torch.rand(JUDGE, DIM))
    probes = features * (LEARN + JUDGE) / 640 + time.process_time() - start
    return "both probes, CIFAR-10's size, ResNet-18, 32 px (scaled)", epoch, probes, f"{probes / epoch:.2%}"


def classify(features: Tensor, labels: Tensor, queries: Tensor) -> None:
    """Run the classifiers of both probes on features."""
    knn_scores(features, labels, queries)
    F.linear(queries, *ridge_classifier(features, labels))


def main() -> None:
    warnings.filterwarnings("ignore")
    for package in ("lightning.fabric", "lightning.pytorch", "pytorch_lightning"):  # lightly imports pytorch_lightning
        logging.getLogger(package).setLevel(logging.ERROR)
    print(machine())
    torch.manual_seed(0)
    with threads(1), threadpool_limits(1):
        knn_table()
        rows = [all_callbacks(), fashion_mnist(), cifar_sized()]
    header = ("callbacks, data, encoder", "seconds, epoch", "seconds, callbacks", "share")
    print_table("Callbacks at their defaults beside an epoch of SimCLR", header, rows)


if __name__ == "__main__":
    main()
