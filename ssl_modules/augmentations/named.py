"""The papers' augmentations by name."""

from collections.abc import Callable
from functools import partial

from ssl_modules.augmentations.policies import (
    AMDIMViews,
    BYOLViews,
    CPCViews,
    GroCoViews,
    MoCoViews,
    SCEViews,
    SimCLRViews,
    YADIMViews,
)
from ssl_modules.augmentations.views import Augmentation, JointViews


def _sce_multicrop() -> JointViews:
    """Two large crops, and four smaller ones that show as much less of the image as they have fewer lines."""
    scales = {192: (0.172, 0.86), 160: (0.143, 0.715), 128: (0.114, 0.571), 96: (0.086, 0.429)}
    small = [SCEViews(size, ["strong-gamma"], scale) for size, scale in scales.items()]
    return JointViews([SCEViews(224, ["strong-alpha", "strong-beta"]), *small])


def _s2r2_multicrop() -> JointViews:
    """SwAV's two large and six small crops, as SimCLR changes them."""
    return JointViews([SimCLRViews(224, min_scale=0.14), SimCLRViews(96, views=6, min_scale=0.05, max_scale=0.14)])


# 32 px: CIFAR, 64 and 96 px: STL-10, 128 and 224 px: ImageNet; the classes' docstrings say which are inferred
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
    # Inferred: the paper's abstract says no more than many random views.
    "s2r2-32": partial(SimCLRViews, 32, views=4, strength=0.5, blur=False, min_scale=0.2),
    "s2r2-96": partial(SimCLRViews, 96, views=4),
    "s2r2-224": partial(SimCLRViews, 224, views=4),
    "s2r2-multicrop-224": _s2r2_multicrop,
    "groco-32": partial(GroCoViews, 32, blur=False),
    "groco-96": partial(GroCoViews, 96),
    "groco-224": partial(GroCoViews, 224),
    "groco-multicrop-224": partial(GroCoViews, 224, small_views=6),
    "amdim-32": partial(AMDIMViews, 32, shift=4),
    "amdim-64": partial(AMDIMViews, 64),
    "amdim-128": partial(AMDIMViews, 128, hue=0.1),
    "cpc-32": partial(CPCViews, 32, (8, 4), shift=4),
    "cpc-64": partial(CPCViews, 64, (16, 8)),
    "cpc-128": partial(CPCViews, 128, (32, 16), hue=0.1),
    "yadim-32": partial(YADIMViews, 32, shift=4),
    "yadim-64": partial(YADIMViews, 64),
    "yadim-128": partial(YADIMViews, 128, hue=0.1),
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
            f"full, such as {_in_full(name)}"
        )
    return POLICIES[name]()


def _in_full(name: str) -> str:
    """A method's policy for small images, as it is written for any size."""
    method, _, size = name.rpartition("-")
    like = POLICIES.get(f"{method}-32", POLICIES["simclr-32"])
    assert isinstance(like, partial)
    named = (f"{name}={value}" for name, value in like.keywords.items())
    arguments = [size if size.isdecimal() else "28", *map(str, like.args[1:]), *named]
    return f"{like.func.__name__}({', '.join(arguments)})"
