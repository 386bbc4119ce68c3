"""The first ten minutes with the package: a function for each step. The script takes less than a minute on two cores.

    python examples/ten_minutes.py [--folder ten_minutes]

The script draws the images to train on and saves them in the folder, with a checkpoint. Each step prints a line.
Accuracy is k-NN accuracy on images that are set aside. The training is too short to tell which setting is better.
"""

import argparse
import logging
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ssl_modules import SimCLR
from ssl_modules.augmentations import ColorJitter, RandomHorizontalFlip, RandomResizedCrop, Views
from ssl_modules.batch import Batch
from ssl_modules.callbacks import OnlineKNNProbe
from ssl_modules.datamodules import ImageFolderDataModule
from ssl_modules.evaluation.features import undisturbed
from ssl_modules.losses import InfoNCE

SIDE = 40  # pixels
IMAGES = 30  # per class


def draw_images(folder: Path) -> ImageFolderDataModule:
    """Draw noisy shapes as PNG files, in a folder for each class; set a third of them aside."""
    rng = np.random.default_rng(0)
    y, x = abs(np.mgrid[:SIDE, :SIDE] - SIDE / 2)
    shapes = {
        "circle": lambda size: x**2 + y**2 < size**2,
        "cross": lambda size: (np.minimum(x, y) < size / 4) & (np.maximum(x, y) < size),
        "square": lambda size: np.maximum(x, y) < size,
    }
    for name, shape in shapes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(IMAGES):
            inside = shape(rng.uniform(8, 16))[..., None]
            ink, paper = rng.uniform(150, 255, 3), rng.uniform(0, 100, 3)
            pixels = np.where(inside, ink, paper) + rng.normal(0, 20, (SIDE, SIDE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.png")
    return ImageFolderDataModule(folder, batch_size=30, image_size=SIDE, in_memory=True, val_size=30)


def fit(module: SimCLR, data: ImageFolderDataModule, epochs: int = 1, resume: Path | None = None) -> pl.Trainer:
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[OnlineKNNProbe(k=5)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data, ckpt_path=resume)
    return trainer


def train_by_name(data: ImageFolderDataModule) -> pl.Trainer:
    """Train SimCLR with its defaults. Image size, mean and standard deviation come from the data."""
    return fit(SimCLR(image_size=SIDE, mean=data.mean, std=data.std), data)


def change_encoder(data: ImageFolderDataModule) -> pl.Trainer:
    """Choose an encoder by its timm name: the smallest ResNet, which most later steps use too."""
    return fit(SimCLR(encoder="test_resnet", image_size=SIDE), data)


class OwnEncoder(nn.Sequential):
    """The user's own encoder. It may be any network that returns a vector or a feature map for each image."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(
            nn.Conv2d(3, width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
        )


def bring_own_encoder(data: ImageFolderDataModule) -> pl.Trainer:
    return fit(SimCLR(encoder=OwnEncoder(), image_size=SIDE), data)


def change_temperature(data: ImageFolderDataModule) -> pl.Trainer:
    return fit(SimCLR(encoder="test_resnet", loss=InfoNCE(temperature=0.5), image_size=SIDE), data)


def change_augmentation(data: ImageFolderDataModule) -> pl.Trainer:
    """Make three views per image, with milder crops and without grayscale."""
    transforms = [RandomResizedCrop(SIDE, scale=(0.5, 1.0)), RandomHorizontalFlip(), ColorJitter(0.4, 0.4, 0.4, 0.1)]
    return fit(SimCLR(Views(transforms, views=3), encoder="test_resnet", image_size=SIDE), data)


class Decorrelated(SimCLR):
    """SimCLR with a penalty for features that vary together."""

    def extra_loss(self, batch: Batch, features: Tensor, embeddings: list[Any]) -> Tensor:
        correlation = torch.corrcoef(features.T + 1e-4 * torch.randn_like(features.T))
        return 0.1 * (correlation - torch.eye(len(correlation))).square().mean()


def add_loss(data: ImageFolderDataModule) -> pl.Trainer:
    return fit(Decorrelated(encoder="test_resnet", image_size=SIDE), data)


def resume(data: ImageFolderDataModule, checkpoint: Path) -> pl.Trainer:
    """Train an epoch, then resume from its checkpoint for two more."""
    fit(SimCLR(encoder="test_resnet", image_size=SIDE), data).save_checkpoint(checkpoint)
    trainer = fit(SimCLR(encoder="test_resnet", image_size=SIDE), data, epochs=3, resume=checkpoint)
    trainer.save_checkpoint(checkpoint)
    return trainer


# Another process runs this program, which loads the checkpoint without naming the class or an argument.
LOAD = """
import sys
import numpy as np
import torch
from ssl_modules import load_module

checkpoint, images, features = sys.argv[1:]
module = load_module(checkpoint).eval()
with torch.no_grad():
    np.save(features, module(torch.from_numpy(np.load(images))).numpy())
"""


def load_elsewhere(module: pl.LightningModule, images: Tensor, checkpoint: Path) -> float:
    """Return the largest difference between our features and those of another process that loads the checkpoint."""
    given, made = checkpoint.with_name("images.npy"), checkpoint.with_name("features.npy")
    np.save(given, images.numpy())
    subprocess.run([sys.executable, "-c", LOAD, checkpoint, given, made], check=True)
    with undisturbed(module):
        return (module(images) - torch.from_numpy(np.load(made))).abs().max().item()


def measured(trainer: pl.Trainer) -> str:
    metrics = trainer.callback_metrics
    names = {"loss": "train/loss", "by chance": "train/chance", "extra loss": "train/extra_loss"}
    values = ", ".join(f"{name} {metrics[key]:.3f}" for name, key in names.items() if key in metrics)
    return f"{values}, k-NN accuracy {metrics['probe/knn_top1']:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("ten_minutes"))
    folder = parser.parse_args().folder
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
    pl.seed_everything(0, verbose=False)
    torch.set_num_threads(1)  # the network is so small that several threads would only wait for each other

    data = draw_images(folder / "images")
    print(f"images: {3 * IMAGES} of {SIDE} x {SIDE} pixels in {', '.join(data.class_names)}")
    print(f"SimCLR by name: {measured(train_by_name(data))}")
    print(f"encoder by its timm name: {measured(change_encoder(data))}")
    print(f"own encoder: {measured(bring_own_encoder(data))}")
    print(f"temperature: {measured(change_temperature(data))}")
    print(f"own augmentation: {measured(change_augmentation(data))}")
    print(f"added loss: {measured(add_loss(data))}")
    checkpoint = folder / "last.ckpt"
    resumed = resume(data, checkpoint)
    print(f"resumed, {resumed.global_step} steps in all: {measured(resumed)}")
    difference = load_elsewhere(resumed.lightning_module, data.val_set.images, checkpoint)
    print(f"loaded in another process: features differ by at most {difference:.1g}")


if __name__ == "__main__":
    main()
