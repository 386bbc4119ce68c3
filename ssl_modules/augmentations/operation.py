"""Base class of operations: draw parameters per image, then change the whole batch deterministically."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssl_modules.utils.checks import check_instances, check_number
from ssl_modules.utils.configurable import Configurable
from ssl_modules.utils.pixels import check_form

Rows = slice | Tensor


class Operation(Configurable, nn.Module):
    """Base class of random operations: ``forward`` is :meth:`transform` with the parameters of :meth:`draw`.

    A subclass implements both. All randomness is in ``draw``, so equal parameters give equal images. On a CPU, several
    threads call ``transform`` at once, each with a few of the images. It must therefore not change the operation's
    attributes.

    Attributes:
        image_size: Side in pixels of the resulting images, or None if the operation keeps the size.

    Example:
        >>> class Invert(Operation):
        ...     def __init__(self, p: float = 0.5) -> None:
        ...         super().__init__()
        ...         self.p = p
        ...     def draw(self, images, generator=None):
        ...         return chance(self.p, images, generator)
        ...     def transform(self, images, parameters):
        ...         return torch.where(per_image(parameters), 1 - images, images)
        >>> Invert(p=1.0)(torch.zeros(1, 1, 1, 2))
        tensor([[[[1., 1.]]]])
    """

    image_size: int | None = None

    def draw(self, images: Tensor, generator: torch.Generator | None = None) -> Any:
        """Draws the parameters of every image.

        Args:
            images: [N, ch, H, W]; only their shape and device are read.
            generator: Source of all randomness, on the device of the images. None = PyTorch's global generator.

        Returns:
            A tensor whose first axis is the N images, a tuple of such tensors, or None.
        """
        raise NotImplementedError

    def check_channels(self, in_channels: int) -> None:
        """Raises unless it can change images with this number of channels; by default, any number is allowed.

        Args:
            in_channels: Number of image channels.

        Raises:
            ValueError: if it can't; the message names the operations that can.
        """

    def group_key(self, parameters: Any) -> Tensor | None:
        """A number per image, [N], to group images by: equal numbers are faster together. None if that doesn't matter.

        Args:
            parameters: What :meth:`draw` returns.
        """
        return None

    def transform(self, images: Tensor, parameters: Any) -> Tensor:
        """Changes the images according to the parameters.

        Args:
            images: [N, ch, H, W], float32 in [0, 1].
            parameters: What :meth:`draw` returns.

        Returns:
            The changed images, float32 in [0, 1].
        """
        raise NotImplementedError

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws parameters and applies them.

        Args:
            images: [N, ch, H, W], or clips [N, ch, T, H, W], uint8, or float in [0, 1].
            generator: Source of all randomness, on the device of the images. None = PyTorch's global generator.

        Returns:
            The changed images or clips, float32 in [0, 1]. All frames of a clip change in the same way.
        """
        images = to_float(images)
        with torch.autocast(images.device.type, enabled=False):
            return over_frames(self.transform, images, self.draw(first_frames(images), generator))

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return compact(self.arguments)


class ChoiceParameters(NamedTuple):
    """The parameters of an operation without further parameters: which images to change (bool, [N])."""

    applied: Tensor


def to_float(images: Tensor) -> Tensor:
    """Convert images to float32; divide uint8 images by 255.

    Args:
        images: [N, ch, H, W], or clips [N, ch, T, H, W], uint8 or float.

    Raises:
        TypeError: if the images are not a tensor, or neither uint8 nor float.
        ValueError: if the images don't have four or five axes, or are empty.

    Example:
        >>> to_float(torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8))
        tensor([[[[0.0000, 0.2000, 1.0000]]]])
    """
    check_images(images)
    return images.float().div_(255) if images.dtype == torch.uint8 else images.float()


def check_images(images: Tensor) -> None:
    """Raise an error unless images are [N, ch, H, W] or clips [N, ch, T, H, W], uint8 or float; see :func:`to_float`.

    Example:
        >>> check_images(torch.zeros(1, 3, 8, 8))
    """
    check_form(images, 3 if is_clips(images) else 2)
    if images.numel() == 0:
        raise ValueError(f"images: expected at least one image, got shape {tuple(images.shape)}; drop empty batches")


def is_clips(images: Any) -> bool:
    """Return whether images are clips [N, ch, T, H, W]."""
    return isinstance(images, Tensor) and images.ndim == 5


def first_frames(images: Tensor) -> Tensor:
    """Return the first frame of each clip, so that parameters are sampled once for a clip; return images unchanged."""
    return images[:, :, 0] if is_clips(images) else images


def over_frames(apply: Callable[[Tensor, Any], Tensor], images: Tensor, parameters: Any) -> Tensor:
    """Apply a function to images and their parameters, or to all frames of clips with the parameters of their clip.

    Args:
        apply: Function from ``(images [N, ch, H, W], parameters)`` to images.
        images: [N, ch, H, W], or clips [N, ch, T, H, W].
        parameters: Result of :meth:`Operation.draw`, one row per image or clip.

    Returns:
        Images [N, ch, h, w], or clips [N, ch, T, h, w].

    Raises:
        ValueError: if the function cuts the frames of clips into patches.

    Example:
        >>> clips = torch.zeros(2, 1, 3, 4, 4)
        >>> over_frames(lambda frames, added: frames + per_image(added), clips, torch.tensor([1, 2]))[:, 0, :, 0, 0]
        tensor([[1., 1., 1.],
                [2., 2., 2.]])
    """
    if not is_clips(images):
        return apply(images, parameters)
    frames = images.shape[2]
    repeated = map_parameters(parameters, lambda values: values.repeat_interleave(frames, dim=0))
    changed = apply(images.transpose(1, 2).flatten(0, 1), repeated)  # [N T, ch, H, W]
    if changed.ndim != 4:
        raise ValueError(f"images: patches are cut from images, got clips {list(images.shape)}; leave out PatchGrid")
    return changed.unflatten(0, (-1, frames)).transpose(1, 2)


def compact(arguments: Mapping[str, Any]) -> str:
    """Arguments on one line, with four significant digits; None and modules are left out, as ``repr`` shows modules.

    Args:
        arguments: Names to values.

    Example:
        >>> compact({"size": 32, "ratio": (3 / 4, 4 / 3), "interpolation": "bicubic", "transforms": None})
        "size=32, ratio=(0.75, 1.333), interpolation='bicubic'"
    """
    plain = {name: value for name, value in arguments.items() if not (value is None or _holds_modules(value))}
    return ", ".join(f"{name}={_compact(value)}" for name, value in plain.items())


def _holds_modules(value: Any) -> bool:
    return isinstance(value, nn.Module) or (isinstance(value, list | tuple) and any(map(_holds_modules, value)))


def _compact(value: Any) -> str:
    if isinstance(value, float):
        return repr(float(f"{value:.4g}"))
    if isinstance(value, list | tuple):
        inside = ", ".join(map(_compact, value))
        if isinstance(value, list):
            return f"[{inside}]"
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, bool | int | str | None):
        return repr(value)
    return getattr(value, "__name__", type(value).__name__)


def uniform(low: float, high: float, images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw a number from U[low, high) per image, [N]."""
    return low + (high - low) * torch.rand(len(images), generator=generator, device=images.device, dtype=torch.float32)


def chance(p: float, images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw a bool per image, [N], True with probability ``p``."""
    return uniform(0.0, 1.0, images, generator) < p


def per_image(values: Tensor) -> Tensor:
    """Values [N] as [N, 1, 1, 1], to broadcast with images."""
    return values.view(-1, 1, 1, 1)


def change_chosen(
    images: Tensor, chosen: Tensor, change: Callable[[Tensor, Rows], Tensor], *, cheap: bool = False
) -> Tensor:
    """Change the chosen images; the others keep exactly their values.

    Args:
        images: [N, ch, H, W]; not changed in place.
        chosen: Which images to change, bool [N].
        change: Function of ``(images[rows], rows)``, where ``rows`` index the chosen images, or all of them.
        cheap: Apply to all images and mask, instead of indexing.

    Example:
        >>> change_chosen(torch.ones(2, 1, 1, 1), torch.tensor([True, False]), lambda some, rows: 0 * some).flatten()
        tensor([0., 1.])
    """
    everything = slice(None)
    if images.device.type == "cpu":  # elsewhere, nonzero would make the CPU wait for the device
        rows = chosen.nonzero()[:, 0]
        if len(rows) == 0:
            return images
        if len(rows) == len(images):
            return change(images, everything)
        if not cheap:
            return images.index_copy(0, rows, change(images.index_select(0, rows), rows))
    return torch.lerp(images, change(images, everything), per_image(chosen.to(images.dtype)))


def rows_of(parameters: Any, rows: Rows) -> Any:
    """The parameters of the images ``rows``.

    Args:
        parameters: What :meth:`Operation.draw` returns.
        rows: Indices of the images.

    Example:
        >>> rows_of(ChoiceParameters(torch.tensor([True, False])), slice(1, 2))
        ChoiceParameters(applied=tensor([False]))
    """
    if isinstance(rows, slice):
        return map_parameters(parameters, lambda values: values[rows])
    return map_parameters(parameters, lambda values: values.index_select(0, rows))


def map_parameters(parameters: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to each tensor in the parameters.

    Args:
        parameters: What :meth:`Operation.draw` returns.
        change: Function of a tensor.

    Example:
        >>> map_parameters((None, ChoiceParameters(torch.tensor([True, False]))), torch.logical_not)
        (None, ChoiceParameters(applied=tensor([False,  True])))
    """
    if parameters is None:
        return None
    if isinstance(parameters, Tensor):
        return change(parameters)
    changed = (map_parameters(values, change) for values in parameters)
    return tuple(changed) if type(parameters) is tuple else type(parameters)(*changed)


def check_probability(p: float) -> float:
    """Return the probability ``p``, or raise a ValueError if it is outside [0, 1]."""
    check_number("p", p, least=0, most=1)
    return p


def check_operations(name: str, operations: Any) -> None:
    """Raise unless an argument is a list of operations.

    Args:
        name: Name of the argument.
        operations: Value of the argument.

    Raises:
        TypeError: if it is not; the message names the argument, its value and the fix.

    Example:
        >>> check_operations("transforms", 5)
        Traceback (most recent call last):
        ...
        TypeError: transforms: expected a list of objects of the class Operation, got 5
    """
    fix = "other libraries' transforms make an augmentation, Foreign(transforms, size=...)"
    check_instances(name, operations, Operation, fix)
