"""Handwritten digits that come with scikit-learn: 1,797 real images, no download needed."""

from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import interpolate

from ssl_modules.datamodules.base import BaseDataModule
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.utils.checks import check_number

NATIVE_SIZE = 8
TEST_SIZE = 360


class DigitsDataModule(BaseDataModule):
    """The 1,797 digits of 8 x 8 pixels that come with scikit-learn, from the UCI optical recognition set.

    scikit-learn's copy has no official split, so this class fixes one: 1,437 training and 360 test images, stratified
    by class, from scikit-learn's ``train_test_split`` with ``random_state=0``. It doesn't depend on ``seed``.

    Pixel values of 0 to 16 are multiplied by 15, which keeps all ratios. Mean and standard deviation are those of the
    8 x 8 training images, at every ``image_size``.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.

    Args:
        image_size: side length in pixels, at least 8; above 8, images are interpolated (bilinear) once, in memory.
        batch_size: images per batch and process (device). The default is a quarter of the other data modules', so that
            an epoch of these few images has 22 steps.
        settings: keyword arguments of :class:`BaseDataModule`: val_size, seed, num_workers, return_index.

    Raises:
        ValueError: if ``image_size`` is below 8.

    Example:
        >>> data = DigitsDataModule(batch_size=128)
        >>> data.num_classes, data.dims
        (10, (1, 8, 8))
        >>> data.setup()
        >>> images, targets = next(iter(data.test_dataloader()))
        >>> images.shape, images.dtype, targets[:5]
        (torch.Size([128, 1, 8, 8]), torch.uint8, tensor([7, 6, 3, 7, 7]))
    """

    name = "digits"
    num_classes = 10
    dims = (1, NATIVE_SIZE, NATIVE_SIZE)
    mean = (0.28741966515207334,)
    std = (0.3539945111435101,)

    def __init__(self, *, image_size: int = NATIVE_SIZE, batch_size: int = 64, **settings: Any) -> None:
        check_number("image_size", image_size, least=NATIVE_SIZE)
        self.dims = (1, image_size, image_size)
        super().__init__(batch_size=batch_size, **settings)

    def load(self) -> tuple[TensorImages, TensorImages]:
        """The training and test parts, in memory."""
        digits = load_digits()
        images = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1) * 15  # [N, 1, 8, 8]
        if self.image_size != NATIVE_SIZE:
            size = (self.image_size, self.image_size)
            images = interpolate(images.float(), size, mode="bilinear").round().to(torch.uint8)
        data = TensorImages(images, torch.from_numpy(digits.target))
        rows = torch.arange(len(data)).numpy()
        train, test = train_test_split(rows, test_size=TEST_SIZE, stratify=digits.target, random_state=0)
        return data.select(torch.from_numpy(train)), data.select(torch.from_numpy(test))
