"""Checks of images, shared by augmentations, encoders, probes, fine-tuning and evaluation.

Images are tensors ``[N, ch, ...]``, uint8, or float in [0, 1]. The range of every float batch is checked. On a GPU,
only the check of the first batch waits for the result; the range of a later batch is read when the next batch comes.
Graphs traced by ``torch.compile``, ``torch.export`` or ``torch.jit.trace`` contain no check. Under ``torch.func``, the
range is not checked either.
"""

import math
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

ROUNDING = 1e-3  # resized float images may exceed [0, 1] by this much
_OVERSHOOT = 0.25  # at an edge from black to white, bicubic interpolation exceeds [0, 1] by less than this
_LEVELS = 2**16 - 1  # the largest pixel value in an image file

_copied: WeakKeyDictionary[Any, tuple[Tensor, Any] | None] = WeakKeyDictionary()  # bounds being copied from a GPU


def check_form(images: Any, spatial_dims: int = 2) -> None:
    """Raise unless images are a tensor ``[N, ch, ...]``, uint8 or float.

    Args:
        images: a batch of images.
        spatial_dims: number of axes after the channels.

    Raises:
        TypeError: if they are not a tensor, or neither uint8 nor float.
        ValueError: if they have another number of axes.

    Example:
        >>> check_form(torch.zeros(1, 3, 8, 8))
        >>> check_form(torch.full((1, 3, 8, 8), 255))
        Traceback (most recent call last):
        ...
        TypeError: images: expected uint8, or float in [0, 1], got torch.int64; use images.to(torch.uint8)
    """
    if not isinstance(images, Tensor):
        from_array = "torch.from_numpy(images), and from [N, H, W, ch] also .permute(0, 3, 1, 2)"
        fix = (
            from_array if hasattr(images, "__array__") else "give a tensor; for a list of tensors, torch.stack(images)"
        )
        raise TypeError(f"images: expected a tensor, got {type(images).__name__}; {fix}")
    if images.ndim != 2 + spatial_dims:
        raise ValueError(
            f"images: expected the {_axes(spatial_dims)}, got shape {tuple(images.shape)}; "
            + _fix_of_axes(images.ndim, spatial_dims)
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"images: expected uint8, or float in [0, 1], got {images.dtype}; {fix_of_type(images)}")


def check_channels_first(images: Tensor, in_channels: int) -> None:
    """Raise if images are ``[N, ..., ch]``, as in arrays, instead of ``[N, ch, ...]``.

    Args:
        images: a batch of images.
        in_channels: number of channels.

    Raises:
        ValueError: if the last axis has length ``in_channels`` and axis 1 does not.

    Example:
        >>> check_channels_first(torch.zeros(2, 8, 8, 3), in_channels=3)
        Traceback (most recent call last):
        ...
        ValueError: images: expected 3 channels on axis 1, got shape (2, 8, 8, 3); give images.permute(0, 3, 1, 2)
    """
    if images.ndim > 2 and images.shape[1] != in_channels and images.shape[-1] == in_channels:
        order = ", ".join(map(str, (0, images.ndim - 1, *range(1, images.ndim - 1))))
        raise ValueError(
            f"images: expected {in_channels} channels on axis 1, got shape {tuple(images.shape)}; give "
            f"images.permute({order})"
        )


def check_range(images: Tensor, reader: Any) -> None:
    """Raise unless float images lie in [0, 1].

    Args:
        images: a batch of images; uint8 images are always in range.
        reader: the object that receives the images; on a GPU, the range of a batch is kept for it until the next batch.

    Raises:
        ValueError: if values are outside [0, 1] or NaN; the message says what to do.

    Example:
        >>> check_range(torch.tensor([0.0, 255.0]), torch.nn.Identity())
        Traceback (most recent call last):
        ...
        ValueError: images: float images have to lie in [0, 1], but these go from 0 to 255; divide by 255, or give uint8
    """
    bounds = read_bounds(images, reader) if images.is_floating_point() else None
    if bounds is None:
        return
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(
            "images: pixels hold NaN or infinity; find their source, or replace them, such as by "
            "images.nan_to_num(0, posinf=1, neginf=0)"
        )
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise ValueError(
            f"images: float images have to lie in [0, 1], but these go from {low:g} to {high:g}; "
            + fix_of_range(low, high)
        )


def read_bounds(values: Tensor, reader: Any) -> tuple[float, float] | None:
    """Return the minimum and maximum of a batch; on a GPU, from the second batch on, those of the previous batch.

    Args:
        values: tensor with the values of a batch.
        reader: the object that receives the batches; batches of one reader belong together.

    Returns:
        Minimum and maximum, which are NaN if a value is NaN. None if there are no values, a graph is traced, or the
        bounds of the previous batch do not exist.

    Example:
        >>> read_bounds(torch.tensor([3, 1, 2]), torch.nn.Identity())
        (1, 3)
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or values.is_meta or values.numel() == 0:
        return None
    if torch._C._functorch.is_functorch_wrapped_tensor(values):  # the values of torch.func's tensors can't be read
        return None
    bounds = torch.stack(values.detach().aminmax())
    if bounds.is_cuda:
        is_first, before = reader not in _copied, _copied.get(reader)
        if is_first:
            _copied[reader] = None
        else:
            _copied[reader] = (
                bounds.to("cpu", non_blocking=True),
                torch.cuda.current_stream(bounds.device).record_event(),
            )
            if before is None:
                return None
            bounds, copied = before
            copied.synchronize()
    low, high = bounds.tolist()
    return low, high


def _axes(spatial_dims: int) -> str:
    if spatial_dims == 2:
        return "four axes [N, channels, height, width]"
    return f"axes [N, channels] and {spatial_dims} spatial ones"


def _fix_of_axes(ndim: int, spatial_dims: int) -> str:
    if spatial_dims != 2:
        return "give a tensor with all of these axes"
    if ndim < 2 + spatial_dims:
        return fix_of_missing_axes(ndim)
    return "clips [N, channels, T, height, width] need an encoder of clips; a frame is an image, clips[:, :, 0]"


def fix_of_missing_axes(ndim: int) -> str:
    """Return advice, for an error, on how to make ``[N, channels, height, width]`` from a tensor with fewer axes."""
    return {
        3: "use images[:, None] for gray images [N, height, width], or images[None] for one image [channels, height, "
        "width]",
        2: "use images[None, None] for one gray image [height, width], or images.view(N, channels, height, width) for "
        "flattened images",
    }.get(ndim, "give images, not a list of numbers")


def fix_of_type(images: Tensor) -> str:
    """Return advice, for an error, on how to convert images that are neither uint8 nor float."""
    if images.dtype == torch.bool:
        return "use images.float()"
    if images.is_complex():
        return "give the magnitudes, images.abs(), divided by their largest value"
    low, high = (int(bound) for bound in images.long().aminmax()) if images.numel() else (0, 255)
    if low < 0 or high > _LEVELS:
        return _SCALE
    if high <= 255:
        with_one = "images.float() if 1 means white, or images.to(torch.uint8) if 255 does"
        return f"use {with_one if high <= 1 else 'images.to(torch.uint8)'}"
    return "divide by the level that means white, images.float() / 65535 for 16 bits or / 4095 for 12"


_SCALE = (
    "choose the levels that mean black and white, the same for all images, and give ((images.float() - black) / (white "
    "- black)).clamp(0, 1)"
)


def overshoots(low: float, high: float) -> bool:
    """Return whether the range exceeds [0, 1] by so little that interpolation may be the cause."""
    return low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT


def fix_of_range(low: float, high: float) -> str:
    """Return advice, for an error, on how to convert float images with this minimum and maximum to [0, 1]."""
    if overshoots(low, high):
        return (
            "if resizing has moved pixels out of [0, 1], give images.clamp(0, 1); if images are normalised, give raw "
            "pixels"
        )
    if low >= 0:
        if high > _LEVELS:
            return _SCALE
        of_bytes = high <= 255
        return "divide by 255, or give uint8" if of_bytes else "divide by the level that means white, 4095 or 65535"
    if low >= -1 and high <= 1:
        return "give (images + 1) / 2, and leave normalisation to the encoder (mean=, std=)"
    return "give raw pixels, uint8 or in [0, 1], and leave normalisation to the encoder (mean=, std=)"
