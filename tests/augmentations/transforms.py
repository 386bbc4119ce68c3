"""Transforms of other libraries and of users, wrapped by Foreign."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from pictures import generator
from torch import nn
from torchvision import transforms as v1
from torchvision.transforms import v2

from ssl_modules.augmentations import (
    Foreign,
)


def pictures(channels=3, count=6, side=20):
    return torch.randint(256, (count, channels, side, side), generator=generator(), dtype=torch.uint8)


def crops(api):
    return [api.RandomResizedCrop(16), api.RandomHorizontalFlip(), api.ColorJitter(0.4, 0.4)]


def noisy_of_torch(image):
    return (image[:, :16, :16] + 0.1 * torch.rand(16, 16)).clamp(0, 1)


def noisy_of_numpy(image):
    return np.random.rand(16, 16, 3) * 0.1 + image.permute(1, 2, 0).numpy()[:16, :16] * 0.9  # noqa: NPY002


def noisy_of_python(image):
    return image[:, :16, :16] * random.random()


def noisy_batch(images):
    return images[:, :, :16, :16] * torch.rand(len(images), 1, 1, 1)


class Crop(nn.Module):
    """A module with a buffer and in-place changes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("most", torch.tensor(0.5))

    def forward(self, image):
        return image.mul_(1 - self.most * torch.rand(()))[..., :16, :16]


class Albumented:
    """A transform like those of albumentations: it takes an array, returns a dict and has its own random generators."""

    __module__ = "albumentations.core.composition"  # Foreign recognises albumentations by this name

    def __init__(self, *transforms):
        self.transforms = list(transforms)
        self.set_random_state(np.random.default_rng(), random.Random())

    def __reduce__(self):
        return albumented, tuple(self.transforms)

    def set_random_state(self, of_numpy, of_python):
        self.of_numpy, self.of_python = of_numpy, of_python
        for transform in self.transforms:
            transform.set_random_state(of_numpy, of_python)

    def __call__(self, *, image):
        assert isinstance(image, np.ndarray)
        top, left = self.of_numpy.integers(0, 5), self.of_python.randrange(5)
        image = image[top : top + 16, left : left + 16]
        for transform in self.transforms:
            image = transform(image=image)["image"]
        return {"image": image}


def albumented(*transforms):
    return Albumented(*transforms)


class Seeded:
    """A callable with a generator of its own, which takes a seed."""

    def __init__(self):
        self.own = np.random.default_rng()

    def set_random_seed(self, seed):
        self.own = np.random.default_rng(seed)

    def __call__(self, image):
        return image[:, :16, :16] * float(self.own.random())


FOREIGN = {
    "torchvision": partial(Foreign, v2.Compose(crops(v2)), 16),
    "torchvision, floats": partial(Foreign, v2.Compose([*crops(v2), v2.ToDtype(torch.float32, scale=True)]), 16),
    "torchvision, first API": partial(Foreign, v1.Compose(crops(v1)), 16),
    "torchvision, PIL": partial(Foreign, v1.Compose([*crops(v1), v1.ToTensor()]), 16),
    "torchvision, sequential": partial(Foreign, nn.Sequential(*crops(v2)), 16),
    "albumentations": partial(Foreign, Albumented(), 16),
    "torch": partial(Foreign, noisy_of_torch, 16),
    "numpy": partial(Foreign, noisy_of_numpy, 16),
    "python": partial(Foreign, noisy_of_python, 16),
    "a seed of its own": partial(Foreign, Seeded(), 16),
    "module": partial(Foreign, Crop(), 16),
    "partial": partial(Foreign, partial(noisy_of_torch), 16),
    "batch": partial(Foreign, noisy_batch, 16, per="batch"),
    "module, batch": partial(Foreign, nn.Sequential(Crop()), 16, per="batch"),
    "one for each view": partial(Foreign, [noisy_of_torch, v2.RandomCrop(16)], 16),
}


every = pytest.mark.parametrize("build_foreign", FOREIGN.values(), ids=FOREIGN)


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
