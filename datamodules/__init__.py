"""A LightningDataModule per dataset."""

if __name__ == "datamodules":
    raise ImportError("import ssl_modules.datamodules: this folder is a part of ssl_modules, not a package of its own")

from ssl_modules.datamodules.base import ImageDataModule
from ssl_modules.datamodules.digits import DigitsDataModule
from ssl_modules.datamodules.fashion_mnist import FashionMNISTDataModule
from ssl_modules.datamodules.images import TensorImages, pixel_statistics
from ssl_modules.datamodules.loader import ResumableDataLoader
from ssl_modules.datamodules.sampler import EpochSampler

__all__ = [
    "DigitsDataModule",
    "EpochSampler",
    "FashionMNISTDataModule",
    "ImageDataModule",
    "ResumableDataLoader",
    "TensorImages",
    "pixel_statistics",
]
