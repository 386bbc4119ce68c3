"""CIFAR-100: 60,000 small colour photographs in 100 classes, and these in 20 superclasses."""

import os
from pathlib import Path

import torch
from torchvision.datasets import CIFAR100

from ssl_modules.datamodules.base import ImageDataModule
from ssl_modules.datamodules.cifar10 import read_cifar
from ssl_modules.datamodules.images import TensorImages

# Each superclass with its classes; both are numbered in alphabetical order.
SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
SUPERCLASS_OF = {name: superclass for superclass, names in SUPERCLASSES.items() for name in names.split()}
CLASS_NAMES = tuple(sorted(SUPERCLASS_OF))
SUPERCLASS_NAMES = tuple(sorted(SUPERCLASSES))


class CIFAR100DataModule(ImageDataModule):
    """CIFAR-100 with its official parts: 50,000 training and 10,000 test images, 32 x 32, colour, in memory.

    A target is (class, superclass), [N, 2]: 100 classes, five in each of 20 superclasses.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Mean and standard deviation are
    those of the training images as they are commonly published; we have not measured them.

    Args:
        root: folder of data sets; the files lie in ``root/cifar-100-python``, and have to be the original ones.
        batch_size: images per batch and process (device).
        download: whether ``prepare_data`` downloads them (170 MB) to ``root`` if they are not there.
        val_size: number of training images to set aside, drawn by ``seed``, as a validation part.
        seed: of the order of the training images and of the validation part.
        return_index: whether batches hold the row of each image.

    Example:
        >>> data = CIFAR100DataModule()
        >>> data.num_classes, data.level_names, data.class_names[0], data.levels["superclass"][4]
        (100, ('class', 'superclass'), 'apple', 'fruit_and_vegetables')
    """

    def __init__(
        self,
        root: str | Path = "data",
        batch_size: int = 256,
        *,
        download: bool = False,
        val_size: int = 0,
        seed: int = 0,
        return_index: bool = False,
    ) -> None:
        super().__init__(
            name="cifar100",
            num_classes=len(CLASS_NAMES),
            dims=(3, 32, 32),
            mean=(0.50707516, 0.48654887, 0.44091784),
            std=(0.26733429, 0.25643846, 0.27615047),
            target_type="hierarchical",
            levels={"class": CLASS_NAMES, "superclass": SUPERCLASS_NAMES},
            batch_size=batch_size,
            val_size=val_size,
            seed=seed,
            return_index=return_index,
        )
        self.root = os.path.expanduser(root)
        self.download = download
        self._save_arguments()

    def prepare_data(self) -> None:
        """Downloads the files by torchvision, if ``download`` and they are not there; nothing else."""
        if self.download:
            CIFAR100(self.root, download=True)

    def load(self) -> tuple[TensorImages, TensorImages]:
        """The training and test part, in memory.

        Raises:
            FileNotFoundError: if there is no such folder.
            ValueError: if a file in it is missing or not the original.
        """
        train, test = (read_cifar(CIFAR100, self.root, train) for train in (True, False))
        return _with_superclasses(train), _with_superclasses(test)


def _with_superclasses(part: TensorImages) -> TensorImages:
    superclass = torch.tensor([SUPERCLASS_NAMES.index(SUPERCLASS_OF[name]) for name in CLASS_NAMES])  # [100]
    return TensorImages(part.images, torch.stack([part.targets, superclass[part.targets]], dim=1))
