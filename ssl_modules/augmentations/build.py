"""Building a module's augmentation from a policy name or an object, checked against image size and channels."""

import inspect
from copy import deepcopy
from typing import Any

from torch import nn

from ssl_modules.augmentations.operation import Operation
from ssl_modules.augmentations.policies import policy
from ssl_modules.augmentations.transforms import describe
from ssl_modules.augmentations.views import Augmentation


def build_augmentation(augmentation: str | Augmentation, image_size: int, in_channels: int) -> Augmentation:
    """Build the augmentation of one module: the named policy, or a copy of the object.

    Args:
        augmentation: the name of a policy, or an :class:`Augmentation`.
        image_size: side of a view, pixels.
        in_channels: number of image channels.

    Raises:
        TypeError: if it is neither, or has no ``sizes``.
        ValueError: if it doesn't fit the image size or the number of channels.
    """
    if isinstance(augmentation, str):
        augmentation = policy(augmentation, image_size, in_channels)
    if not isinstance(augmentation, Augmentation):
        raise not_an_augmentation(augmentation, image_size)
    augmentation.check_channels(in_channels)
    if not hasattr(augmentation, "sizes"):
        raise TypeError(
            f"augmentation: {type(augmentation).__name__} has no sizes; set it to the sizes of its views in pixels, "
            f"such as sizes = ({image_size}, {image_size}), None for one of the images' own size"
        )
    sizes = {size for size in augmentation.sizes if size is not None}
    if sizes and image_size not in sizes:
        raise ValueError(
            f"augmentation: makes views of {sorted(sizes)} pixels, but image_size={image_size}; give both the same size"
        )
    return deepcopy(augmentation)


def not_an_augmentation(value: Any, image_size: int) -> TypeError:
    """Return the error for a value that is not an augmentation; the message says how to make an augmentation from it.

    Args:
        value: The value passed as an augmentation.
        image_size: Side of a view, in pixels.

    Example:
        >>> from torchvision.transforms import v2
        >>> not_an_augmentation(v2.RandomResizedCrop(32), image_size=32)
        TypeError('augmentation: got a torchvision RandomResizedCrop; wrap it: Foreign(transform, size=32)')
    """
    several = isinstance(value, list | tuple) and len(value) > 0
    first = value[0] if several else value
    if isinstance(value, type):
        fix = f"; give an instance, {value.__name__}(...)" if issubclass(value, nn.Module) else ""
        return TypeError(f"augmentation: expected an object, got the class {value.__name__}{fix}")
    if isinstance(first, Operation):
        name = type(value).__name__
        what = "a list of operations; wrap it: Views(operations)"
        return TypeError(
            f"augmentation: got {what if several else f'the operation {name}; wrap it: Views([{name}(...)])'}"
        )
    if isinstance(first, Augmentation):
        return TypeError("augmentation: got a list of augmentations; join their views: JointViews(augmentations)")
    if callable(first):
        what = f"a list of {len(value)} callables" if several else describe(value)
        fix = f"wrap it: Foreign({'transforms' if several else 'transform'}, size={image_size})"
        if _takes_generator(first):
            fix = "move its code to a subclass of Augmentation, into make_views(self, images, generator)"
        return TypeError(f"augmentation: got {what}; {fix}")
    if isinstance(value, str):
        fix = f"; give an object, such as SimCLRViews({image_size}, views=1) for one view"
        return TypeError(f"augmentation: expected an Augmentation, got {value!r}{fix}")
    return TypeError(f"augmentation: expected an Augmentation or the name of a policy, got {value!r}")


def _takes_generator(transform: Any) -> bool:
    """Return whether a function has two required arguments, like an augmentation's images and generator."""
    if not inspect.isroutine(transform):
        return False
    try:
        inspect.signature(transform).bind(None, None)
        inspect.signature(transform).bind(None)
    except ValueError:
        return False  # a builtin without a signature
    except TypeError as error:
        return "missing a required" in str(error)
    return False
