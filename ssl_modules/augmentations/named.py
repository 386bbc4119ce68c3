"""The papers' augmentations by name."""

from collections.abc import Callable
from functools import partial

from ssl_modules.augmentations.policies import BYOLViews, MoCoViews, SCEViews, SimCLRViews
from ssl_modules.augmentations.views import Augmentation, JointViews


def _sce_multicrop() -> JointViews:
    """Two large crops, and four smaller ones that show as much less of the image as they have fewer lines."""
    scales = {192: (0.172, 0.86), 160: (0.143, 0.715), 128: (0.114, 0.571), 96: (0.086, 0.429)}
    small = [SCEViews(size, ["strong-gamma"], scale) for size, scale in scales.items()]
    return JointViews([SCEViews(224, ["strong-alpha", "strong-beta"]), *small])


# 32 px: CIFAR, 96 px: STL-10, 224 px: ImageNet; the classes' docstrings say which are inferred
POLICIES: dict[str, Callable[[], Augmentation]] = {
    "simclr-32": partial(SimCLRViews, 32, strength=0.5, blur=False),
    "simclr-96": partial(SimCLRViews, 96),
    "simclr-224": partial(SimCLRViews, 224),
    "moco-32": partial(MoCoViews, 32, blur=False),
    "moco-96": partial(MoCoViews, 96),
    "moco-224": partial(MoCoViews, 224),
    "byol-32": partial(BYOLViews, 32, blur=False),
    "byol-224": partial(BYOLViews, 224),
    "sce-32": partial(SCEViews, 32),
    "sce-96": partial(SCEViews, 96),
    "sce-224": partial(SCEViews, 224, ["strong-alpha", "strong-beta"]),
    "sce-multicrop-224": _sce_multicrop,
    "rince-32": partial(MoCoViews, 32, blur=False),
    "rince-224": partial(MoCoViews, 224, blur=False),
}


def policy(name: str) -> Augmentation:
    """A paper's augmentation by name.

    Args:
        name: A key of ``POLICIES``, such as "simclr-32": method and side in pixels.

    Returns:
        A new augmentation.

    Raises:
        ValueError: if there is none of this name.

    Example:
        >>> policy("simclr-96").sizes
        (96, 96)
    """
    if name not in POLICIES:
        raise ValueError(
            f"augmentation: there is no policy {name!r}; there are {', '.join(POLICIES)}. For another size say it in "
            "full, such as SimCLRViews(28, strength=0.5, blur=False)"
        )
    return POLICIES[name]()
