"""A LightningDataModule per dataset."""

if __name__ == "datamodules":
    raise ImportError("import ssl_modules.datamodules: this folder is a part of ssl_modules, not a package of its own")

from ssl_modules.datamodules.base import BaseDataModule
from ssl_modules.datamodules.cifar import CIFAR10DataModule, CIFAR100DataModule
from ssl_modules.datamodules.coco import COCODataModule
from ssl_modules.datamodules.digits import DigitsDataModule
from ssl_modules.datamodules.fashion_mnist import FashionMNISTDataModule
from ssl_modules.datamodules.from_datasets import ImageDataModule
from ssl_modules.datamodules.image_files import ImageFiles
from ssl_modules.datamodules.image_folder import ImageFolderDataModule
from ssl_modules.datamodules.imagenet import ImageNetDataModule
from ssl_modules.datamodules.images import TensorImages, pixel_statistics
from ssl_modules.datamodules.kinetics import KineticsDataModule
from ssl_modules.datamodules.loader import ResumableDataLoader
from ssl_modules.datamodules.sampler import EpochSampler
from ssl_modules.datamodules.scattered_fashion_mnist import ScatteredFashionMNISTDataModule
from ssl_modules.datamodules.sharding import write_shards
from ssl_modules.datamodules.stl10 import STL10DataModule
from ssl_modules.datamodules.streaming import StreamingDataModule
from ssl_modules.datamodules.tiny_imagenet import TinyImageNetDataModule
from ssl_modules.datamodules.ucf101 import UCF101DataModule
from ssl_modules.datamodules.video_files import VideoFiles
from ssl_modules.datamodules.video_folder import ClipDataModule, VideoFolderDataModule

__all__ = [
    "BaseDataModule",
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "COCODataModule",
    "ClipDataModule",
    "DigitsDataModule",
    "EpochSampler",
    "FashionMNISTDataModule",
    "ImageDataModule",
    "ImageFiles",
    "ImageFolderDataModule",
    "ImageNetDataModule",
    "KineticsDataModule",
    "ResumableDataLoader",
    "STL10DataModule",
    "ScatteredFashionMNISTDataModule",
    "StreamingDataModule",
    "TensorImages",
    "TinyImageNetDataModule",
    "UCF101DataModule",
    "VideoFiles",
    "VideoFolderDataModule",
    "pixel_statistics",
    "write_shards",
]
