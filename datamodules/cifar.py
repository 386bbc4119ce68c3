"""CIFAR-10 and CIFAR-100: 60,000 small colour photographs each, in 10 and 100 classes."""

from pathlib import Path

import torch
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity

from ssl_modules.datamodules.download import DownloadableDataModule
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.datamodules.unreadable import retried

# The classes of each superclass. Classes and superclasses are numbered in alphabetical order.
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


class CIFAR10DataModule(DownloadableDataModule):
    """CIFAR-10 with its official parts: 50,000 training and 10,000 test images, 32 x 32, colour, in memory.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Mean and standard deviation are
    the commonly published values for the training images; we have not measured them.

    Args:
        root: folder of data sets; the original files are in ``root/cifar-10-batches-py``.
        download: whether ``prepare_data`` downloads the files (170 MB) to ``root`` if they are missing.
        settings: keyword arguments of :class:`BaseDataModule`: batch_size, val_size, seed, num_workers, return_index.

    Example:
        >>> data = CIFAR10DataModule()
        >>> data.num_classes, data.dims, data.class_names[3]
        (10, (3, 32, 32), 'cat')
    """

    name = "cifar10"
    num_classes = 10
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    dims = (3, 32, 32)
    mean = (0.49139968, 0.48215841, 0.44653091)
    std = (0.24703223, 0.24348513, 0.26158784)
    url = CIFAR10.url
    download_size = "170 MB"

    def prepare_data(self) -> None:
        """Download the files with torchvision, if ``download`` is set and they are missing."""
        if self.download:
            CIFAR10(self.root, download=True)

    def load(self) -> tuple[TensorImages, TensorImages]:
        """The training and test parts, in memory.

        Raises:
            FileNotFoundError: if the folder is missing.
            ValueError: if a file is missing or differs from the original.
        """
        return read_cifar(self, CIFAR10, train=True), read_cifar(self, CIFAR10, train=False)


class CIFAR100DataModule(DownloadableDataModule):
    """CIFAR-100 with its official parts: 50,000 training and 10,000 test images, 32 x 32, colour, in memory.

    A target is (class, superclass), [N, 2]: 100 classes, five in each of 20 superclasses.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Mean and standard deviation are
    the commonly published values for the training images; we have not measured them.

    Args:
        root: folder of data sets; the original files are in ``root/cifar-100-python``.
        download: whether ``prepare_data`` downloads the files (170 MB) to ``root`` if they are missing.
        settings: keyword arguments of :class:`BaseDataModule`: batch_size, val_size, seed, num_workers, return_index.

    Example:
        >>> data = CIFAR100DataModule()
        >>> data.num_classes, data.level_names, data.class_names[0], data.levels["superclass"][4]
        (100, ('class', 'superclass'), 'apple', 'fruit_and_vegetables')
    """

    name = "cifar100"
    num_classes = 100
    class_names = tuple(sorted(SUPERCLASS_OF))
    target_type = "hierarchical"
    levels = {"class": class_names, "superclass": tuple(sorted(SUPERCLASSES))}  # noqa: RUF012
    dims = (3, 32, 32)
    mean = (0.50707516, 0.48654887, 0.44091784)
    std = (0.26733429, 0.25643846, 0.27615047)
    url = CIFAR100.url
    download_size = "170 MB"

    def prepare_data(self) -> None:
        """Download the files with torchvision, if ``download`` is set and they are missing."""
        if self.download:
            CIFAR100(self.root, download=True)

    def load(self) -> tuple[TensorImages, TensorImages]:
        """The training and test parts, in memory.

        Raises:
            FileNotFoundError: if the folder is missing.
            ValueError: if a file is missing or differs from the original.
        """
        return self._part(train=True), self._part(train=False)

    def _part(self, train: bool) -> TensorImages:
        part = read_cifar(self, CIFAR100, train)
        names = self.levels["superclass"]
        superclass = torch.tensor([names.index(SUPERCLASS_OF[name]) for name in self.class_names])  # [100]
        return TensorImages(part.images, torch.stack([part.targets, superclass[part.targets]], dim=1))


def read_cifar(data: DownloadableDataModule, dataset: type[CIFAR10], train: bool) -> TensorImages:
    """A part of CIFAR-10 or CIFAR-100; torchvision reads the files and checks their checksums.

    Args:
        data: the data module, which holds the folder.
        dataset: torchvision's class.
        train: whether to read the training or the test part.

    Raises:
        FileNotFoundError: if the folder is missing.
        ValueError: if a file is missing or differs from the original.
    """
    folder = Path(data.root, dataset.base_folder)
    if not folder.is_dir():
        raise data.missing(folder)
    try:
        part = retried(folder, lambda: dataset(data.root, train=train))
    except RuntimeError as error:
        files = [*dataset.train_list, *dataset.test_list, (dataset.meta["filename"], dataset.meta["md5"])]
        wrong = [str(folder / name) for name, md5 in files if not check_integrity(str(folder / name), md5)]
        raise ValueError(
            f"root: expected the original files, got others, or none, in {', '.join(wrong)}; remove {folder} and pass "
            "download=True"
        ) from error
    images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()  # [N, 3, 32, 32]
    return TensorImages(images, torch.tensor(part.targets))
