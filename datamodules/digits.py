"""Handwritten digits of scikit-learn: 1,797 real images that need no download."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import interpolate

from ssl_modules.datamodules.base import ImageDataModule
from ssl_modules.datamodules.images import TensorImages

NATIVE_SIZE = 8
TEST_SIZE = 360


class DigitsDataModule(ImageDataModule):
    """The 1,797 digits of 8 x 8 pixels that come with scikit-learn, from the UCI optical recognition set.

    There is no official split in scikit-learn's copy, so this one is fixed here: 1,437 training and 360 test images,
    stratified by class, scikit-learn's ``train_test_split`` with ``random_state=0``. It doesn't depend on ``seed``.

    A pixel of 0 to 16 becomes 15 times that, 0 to 240, which keeps every ratio exactly. Mean and standard deviation are
    those of the 8 x 8 training images, at every ``image_size``.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.

    Args:
        batch_size: images per batch and process (device), at most 1,437.
        image_size: side in pixels, at least 8; larger images are interpolated (bilinear) once, in memory.
        val_size: number of training images to set aside, drawn by ``seed``, as a validation part.
        seed: of the order of the training images and of the validation part.
        return_index: whether batches hold the row of each image.

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

    def __init__(
        self,
        batch_size: int = 64,
        image_size: int = NATIVE_SIZE,
        val_size: int = 0,
        seed: int = 0,
        return_index: bool = False,
    ) -> None:
        if image_size < NATIVE_SIZE:
            raise ValueError(f"image_size: expected at least {NATIVE_SIZE}, the digits' own size, but got {image_size}")
        super().__init__(
            name="digits",
            num_classes=10,
            dims=(1, image_size, image_size),
            mean=(0.28741966515207334,),
            std=(0.3539945111435101,),
            batch_size=batch_size,
            val_size=val_size,
            seed=seed,
            return_index=return_index,
        )
        self._save_arguments()

    def load(self) -> tuple[TensorImages, TensorImages]:
        """The training and test part, in memory."""
        digits = load_digits()
        images = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1) * 15  # [N, 1, 8, 8]
        if self.image_size != NATIVE_SIZE:
            size = (self.image_size, self.image_size)
            images = interpolate(images.float(), size, mode="bilinear").round().to(torch.uint8)
        data = TensorImages(images, torch.from_numpy(digits.target))
        rows = torch.arange(len(data)).numpy()
        train, test = train_test_split(rows, test_size=TEST_SIZE, stratify=digits.target, random_state=0)
        return data.select(torch.from_numpy(train)), data.select(torch.from_numpy(test))
