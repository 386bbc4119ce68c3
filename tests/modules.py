"""A small SimCLR and images for it."""

from functools import partial

import torch
from conformance.cases import trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ssl_modules import SimCLR
from ssl_modules.augmentations import SimCLRViews


class Net(nn.Module):
    """A small network whose map has the size of the image."""

    def __init__(self, channels=3):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x):
        return self.layers(x)


def build(encoder=None, **given):
    small = {
        "augmentation": SimCLRViews(8, strength=0.5, blur=False),
        "encoder": Net() if encoder is None else encoder,
        "image_size": 8,
        "optimizer": partial(torch.optim.SGD, lr=0.1),
        "base_batch_size": None,
    }
    return SimCLR(**{**small, **given})


def pixels(n=8, size=8, channels=3):
    return torch.randint(256, (n, channels, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def loader(batch_size=8, n=8):
    return DataLoader(TensorDataset(pixels(n)), batch_size=batch_size)


def fit(module, **given):
    t = trainer(**{"max_epochs": 1, **given})
    t.fit(module, loader(batch_size=4, n=32))
    return t
