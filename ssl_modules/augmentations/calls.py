"""Calls other libraries' transforms: converts images to the transform's format, and checks the view that it returns."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_modules.augmentations.operation import to_float
from ssl_modules.augmentations.transforms import Form, describe
from ssl_modules.utils.pixels import fix_of_range, fix_of_type

# Tolerance around [0, 1]. Cubic resizing and noise exceed [0, 1] by less, and normalised images exceed it by more.
BEYOND = 0.5
PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def call_for_batch(transform: Any, images: Tensor, size: int | None) -> Tensor:
    """Call a transform with a batch of images and return one view of each, a float tensor [N, ch, size, size].

    Args:
        transform: the transform.
        images: [N, ch, H, W], uint8 or float in [0, 1]; they are not changed.
        size: side of the view, in pixels.

    Raises:
        TypeError: if the transform returns anything but a tensor.
        ValueError: if the tensor has another shape.

    Example:
        >>> call_for_batch(torch.neg, torch.ones(2, 3, 4, 4), size=4).shape
        torch.Size([2, 3, 4, 4])
    """
    floats = to_float(images)
    view = transform(floats.clone() if floats is images else floats)  # cloned, as the transform may work in place
    if not isinstance(view, Tensor):
        raise TypeError(
            f"transform: {describe(transform)} has to return a tensor {list(images.shape[:2])} + [{size}, "
            f"{size}] for a batch, but returned {_kind(view)}; use per='image'"
        )
    if view.ndim != 4 or len(view) != len(images):
        raise ValueError(
            f"transform: {describe(transform)} has to return {len(images)} images [N, ch, {size}, {size}], but "
            f"returned {list(view.shape)}; use per='image' if it takes one image"
        )
    _check_side(transform, view, size)
    return _floats(transform, view)


def call_for_image(transform: Any, form: Form, image: Tensor, size: int | None) -> Tensor:
    """Call a transform with one image and return the view, a float tensor [ch, size, size].

    Args:
        transform: the transform.
        form: its input format.
        image: [ch, H, W], uint8 or float in [0, 1]; it is not changed.
        size: side of the view, in pixels.

    Raises:
        TypeError: if the transform returns no image.
        ValueError: if the image has another shape.

    Example:
        >>> call_for_image(torch.neg, "float", torch.ones(3, 4, 4), size=4).shape
        torch.Size([3, 4, 4])
    """
    made = _as_tensor(transform, _call(transform, form, image))
    if made.ndim == 4 and len(made) == 1:  # kornia adds a batch axis
        made = made[0]
    if made.ndim != 3:
        fix = "use per='batch' if it takes batches" if made.ndim > 3 else "add the axis of channels, image[None]"
        raise ValueError(
            f"transform: {describe(transform)} has to return one image [ch, {size}, {size}], but returned "
            f"{list(made.shape)}; {fix}"
        )
    _check_side(transform, made, size)
    return _floats(transform, made)


def check_values(transform: Any, view: Tensor) -> None:
    """Raise if a view has pixels far outside [0, 1], or NaN.

    Args:
        transform: the transform that made the view.
        view: float tensor.

    Raises:
        ValueError: if a pixel is NaN or far outside [0, 1]; the message says what to do.

    Example:
        >>> check_values(torch.relu, torch.tensor([0.0, 1.0]))
    """
    low, high = (bound.item() for bound in view.aminmax())
    if math.isnan(low):
        raise ValueError(f"transform: {describe(transform)} made NaN pixels from images without NaN; correct it")
    if low < -BEYOND or high > 1 + BEYOND:
        raise ValueError(
            f"transform: {describe(transform)} made pixels from {low:g} to {high:g}, which have to lie in [0, 1]; "
            f"{fix_of_range(low, high)}"
        )


def _call(transform: Any, form: Form, image: Tensor) -> Any:
    """Apply the transform to an image [ch, H, W], converted to the transform's input format."""
    if form == "tensor":
        return transform(image.clone())
    if form == "float":
        return transform(to_float(image[None])[0].clone())
    if form == "numpy":
        return transform(image=_array(image))
    array = _array((image * 255).round().byte() if image.is_floating_point() else image)
    return transform(Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array, PIL_MODES[array.shape[2]]))


def _array(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).clone(memory_format=torch.contiguous_format).cpu().numpy()  # [H, W, ch]


def _as_tensor(transform: Any, made: Any) -> Tensor:
    if isinstance(made, Mapping) and "image" in made:
        made = made["image"]
    if isinstance(made, Image.Image):
        made = np.asarray(made)
    if isinstance(made, np.ndarray) and made.ndim in (2, 3) and made.dtype.kind in "uif":
        made = torch.from_numpy(np.array(made, order="C"))
        return made[None] if made.ndim == 2 else made.permute(2, 0, 1)
    if not isinstance(made, Tensor):
        several = isinstance(made, list | tuple)
        hint = ""
        if several:
            hint = (
                "; give a transform that makes one view, which is then called for each view, or a list of one "
                "transform for each view, Foreign([transform, ...], ...)"
            )
        raise TypeError(
            f"transform: {describe(transform)} has to return one image, as a tensor, a numpy array or a PIL image, but "
            f"returned {_kind(made)}{hint}"
        )
    return made


def _kind(made: Any) -> str:
    if isinstance(made, np.ndarray):
        return f"a numpy array {list(made.shape)} of {made.dtype}"
    return f"a {type(made).__name__}" + (f" of {len(made)}" if isinstance(made, list | tuple) else "")


def _check_side(transform: Any, made: Tensor, size: int | None) -> None:
    if made.shape[-2:] != (size, size):
        raise ValueError(
            f"size: expected views of {size} x {size} pixels, but {describe(transform)} made {list(made.shape)}; give "
            "the size that the transform makes, or let the transform resize"
        )


def _floats(transform: Any, made: Tensor) -> Tensor:
    made = made.as_subclass(Tensor)  # torchvision returns a subclass
    if made.dtype == torch.uint8:
        return made.float().div_(255)
    if not made.is_floating_point():
        raise TypeError(
            f"transform: {describe(transform)} has to return uint8, or float in [0, 1], but returned {made.dtype}; "
            f"{fix_of_type(made)}"
        )
    return made.float()
