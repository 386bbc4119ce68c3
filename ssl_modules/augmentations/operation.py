"""What all operations share: parameters drawn once per image, then one deterministic change of the whole batch."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssl_modules.utils.checks import check_instances, check_number
from ssl_modules.utils.configurable import Configurable

Rows = slice | Tensor


class Operation(Configurable, nn.Module):
    """Base of the random operations: ``forward`` is :meth:`transform` with the parameters of :meth:`draw`.

    A subclass writes those two. All randomness is in ``draw``, so equal parameters give equal images.

    Attributes:
        image_size: Side in pixels of the images it makes, or None where the size stays as it is.

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
            generator: Source of all randomness, on the images' device; None is PyTorch's global one.

        Returns:
            A tensor whose first axis is the N images, a tuple of such, or None.
        """
        raise NotImplementedError

    def check_channels(self, in_channels: int) -> None:
        """Raises unless it can change images of so many channels; any number, where a subclass says nothing else.

        Args:
            in_channels: Number of image channels.

        Raises:
            ValueError: if it can't; the error names the operations that can.
        """

    def group_key(self, parameters: Any) -> Tensor | None:
        """A number for each image, [N]: those of one number are faster together. None where it doesn't matter.

        Args:
            parameters: What :meth:`draw` returns.
        """
        return None

    def transform(self, images: Tensor, parameters: Any) -> Tensor:
        """Changes the images as the parameters say.

        Args:
            images: [N, ch, H, W], float32 in [0, 1].
            parameters: What :meth:`draw` returns.

        Returns:
            The changed images, float32 in [0, 1].
        """
        raise NotImplementedError

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws and applies.

        Args:
            images: [N, ch, H, W], uint8, or float in [0, 1].
            generator: Source of all randomness, on the images' device; None is PyTorch's global one.

        Returns:
            The changed images, float32 in [0, 1].
        """
        images = to_float(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.transform(images, self.draw(images, generator))

    def extra_repr(self) -> str:
        """The arguments, which ``repr`` shows."""
        return compact(self.arguments)


class ChoiceParameters(NamedTuple):
    """The parameters of an operation that does nothing but happen or not: which images change (bool, [N])."""

    applied: Tensor


def to_float(images: Tensor) -> Tensor:
    """Images as float32, uint8 ones divided by 255.

    Args:
        images: [N, ch, H, W], uint8 or float.

    Raises:
        TypeError: if they are no tensor, or one of another type.
        ValueError: if they have another rank or hold no pixel.

    Example:
        >>> to_float(torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8))
        tensor([[[[0.0000, 0.2000, 1.0000]]]])
    """
    check_images(images)
    return images.float().div_(255) if images.dtype == torch.uint8 else images.float()


def check_images(images: Tensor) -> None:
    """Raises unless images are [N, ch, H, W], uint8 or float; see :func:`to_float`.

    Example:
        >>> check_images(torch.zeros(1, 3, 8, 8))
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"images: expected a tensor, got {type(images).__name__}; collate or stack the images first")
    if images.ndim != 4:
        raise ValueError(
            f"images: expected the four axes [N, channels, height, width], got shape {tuple(images.shape)}; "
            "add what is missing, such as images.unsqueeze(1) for [N, height, width]"
        )
    if images.numel() == 0:
        raise ValueError(f"images: expected at least one image, got shape {tuple(images.shape)}; drop empty batches")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"images: expected uint8, or float in [0, 1], got {images.dtype}; use images.to(torch.uint8)")


def compact(arguments: Mapping[str, Any]) -> str:
    """Arguments on one line, numbers to four digits; without None, and without modules, which ``repr`` shows anyway.

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
    """One number of U[low, high) per image, [N]."""
    return low + (high - low) * torch.rand(len(images), generator=generator, device=images.device, dtype=torch.float32)


def chance(p: float, images: Tensor, generator: torch.Generator | None) -> Tensor:
    """One yes or no per image, [N], yes with probability ``p``."""
    return uniform(0.0, 1.0, images, generator) < p


def per_image(values: Tensor) -> Tensor:
    """[N] values as [N, 1, 1, 1], to meet images."""
    return values.view(-1, 1, 1, 1)


def change_chosen(
    images: Tensor, chosen: Tensor, change: Callable[[Tensor, Rows], Tensor], *, cheap: bool = False
) -> Tensor:
    """The images, of which the chosen ones are changed and the others exactly as they were.

    Args:
        images: [N, ch, H, W]; not changed in place.
        chosen: Which images change, bool [N].
        change: Function of ``(images[rows], rows)``, where ``rows`` index the chosen images, or all of them.
        cheap: Whether to change them all costs less than to pick the chosen ones out.

    Example:
        >>> change_chosen(torch.ones(2, 1, 1, 1), torch.tensor([True, False]), lambda some, rows: 0 * some).flatten()
        tensor([0., 1.])
    """
    everything = slice(None)
    if images.device.type == "cpu":  # elsewhere the processor would have to wait for the answer
        rows = chosen.nonzero()[:, 0]
        if len(rows) == 0:
            return images
        if len(rows) == len(images):
            return change(images, everything)
        if not cheap:
            return images.index_copy(0, rows, change(images.index_select(0, rows), rows))
    return torch.lerp(images, change(images, everything), per_image(chosen.to(images.dtype)))


def rows_of(parameters: Any, rows: Rows) -> Any:
    """The parameters of some images.

    Args:
        parameters: What :meth:`Operation.draw` returns.
        rows: Of the images.

    Example:
        >>> rows_of(ChoiceParameters(torch.tensor([True, False])), slice(1, 2))
        ChoiceParameters(applied=tensor([False]))
    """
    if isinstance(rows, slice):
        return map_parameters(parameters, lambda values: values[rows])
    return map_parameters(parameters, lambda values: values.index_select(0, rows))


def map_parameters(parameters: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Parameters with each of their tensors changed.

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
    """The probability ``p`` of an operation, or a ValueError."""
    check_number("p", p, least=0, most=1)
    return p


def check_operations(name: str, operations: Any) -> None:
    """Raise unless an argument is a list of operations.

    Args:
        name: of the argument.
        operations: of the argument.

    Raises:
        TypeError: names the argument, what came and the fix.

    Example:
        >>> check_operations("transforms", 5)
        Traceback (most recent call last):
        ...
        TypeError: transforms: expected a list of objects of the class Operation, got 5
    """
    fix = "other libraries' transforms make an augmentation, Foreign(transforms, size=...)"
    check_instances(name, operations, Operation, fix)
