"""A small fine-tuning, and images for it."""

from functools import partial

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ssl_modules import FineTuning
from ssl_modules.augmentations import Augmentation
from ssl_modules.encoders import Encoder

SGD = partial(torch.optim.SGD, lr=0.1)


class Net(nn.Module):
    """A small network with all kinds of layers that must not change when frozen."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1))

    def forward(self, x):
        return self.layers(x)


class Unchanged(Augmentation):
    """Returns one view, the image itself."""

    sizes = (None,)

    def make_views(self, images, generator):
        return [images]


def encoder(network="test_resnet"):
    return Encoder(network, image_size=8, in_channels=1, mean=[0.3], std=[0.35])


def build(network="test_resnet", num_classes=10, **given):
    given = {"optimizer": SGD, "augmentation": Unchanged()} | given
    return FineTuning(network if isinstance(network, Encoder) else encoder(network), num_classes, **given)


def images(n=16, seed=0):
    return torch.randint(256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def labels(n=16, classes=10):
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(1))


def loader(targets, batch_size=8):
    return DataLoader(TensorDataset(images(len(targets)), targets), batch_size=batch_size)


def weights(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
