"""Building a module's augmentation from a policy name or an object, checked against image size and channels."""

from copy import deepcopy

from ssl_modules.augmentations.foreign import not_an_augmentation
from ssl_modules.augmentations.policies import policy
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
