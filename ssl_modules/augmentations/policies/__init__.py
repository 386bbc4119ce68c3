"""The augmentations of the methods: one file for each method, with its classes and its rule for any image size."""

import difflib
from collections.abc import Callable

from ssl_modules.augmentations.policies import (
    amdim,
    byol,
    cpc,
    groco,
    moco,
    ressl,
    rince,
    s2r2,
    sce,
    simclr,
    simsiam,
    sup_con,
    swav,
    yadim,
)
from ssl_modules.augmentations.views import Augmentation

# Each is a function of the image size, in pixels, and the number of channels.
POLICIES: dict[str, Callable[[int, int], Augmentation]] = {
    "simclr": simclr.simclr,
    "moco": moco.moco,
    "byol": byol.byol,
    "sce": sce.sce,
    "rince": rince.rince,
    "s2r2": s2r2.s2r2,
    "groco": groco.groco,
    "amdim": amdim.amdim,
    "cpc": cpc.cpc,
    "yadim": yadim.yadim,
    "swav": swav.swav,
    "supcon": sup_con.supcon,
    "simsiam": simsiam.simsiam,
    "ressl": ressl.ressl,
    "sce-multicrop": sce.sce_multicrop,
    "s2r2-multicrop": s2r2.s2r2_multicrop,
    "groco-multicrop": groco.groco_multicrop,
    "ressl-multicrop": ressl.ressl_multicrop,
    "sce-video": sce.sce_video,
    "rince-video": rince.rince_video,
}


def policy(name: str, image_size: int, in_channels: int = 3) -> Augmentation:
    """Return the augmentation of a method by name, for any image size.

    Args:
        name: A key of ``POLICIES``: "simclr", "moco", "byol", "sce", "rince", "s2r2", "groco", "amdim", "cpc",
            "yadim", "swav", "supcon", "simsiam", "ressl", "sce-multicrop", "s2r2-multicrop", "groco-multicrop",
            "ressl-multicrop", "sce-video" or "rince-video".
        image_size: Side of a view, in pixels. For multi-crop, side of the large views.
        in_channels: Number of image channels. If it is neither 1 nor 3, saturation, hue and grayscale are left out.

    Returns:
        A new augmentation.

    Raises:
        ValueError: if there is no policy of this name, or the policy doesn't support this size.

    Example:
        >>> policy("simclr", image_size=96).sizes
        (96, 96)
    """
    if name not in POLICIES:
        raise ValueError(_unknown(name))
    for argument, value, unit in (("image_size", image_size, "pixels"), ("in_channels", in_channels, "channels")):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{argument}: expected a whole number of {unit}, at least 1, got {value!r}")
    return POLICIES[name](image_size, in_channels)


def _unknown(name: str) -> str:
    method, _, size = str(name).rpartition("-")
    if method in POLICIES and size.isdecimal():
        return f"augmentation: {name!r} is now {method!r} with image_size={size}"
    similar = difflib.get_close_matches(method if size.isdecimal() else str(name), POLICIES, n=1)
    hint = f"; did you mean {similar[0]!r}?" if similar else ""
    return f"augmentation: there is no policy {name!r}; there are {', '.join(POLICIES)}{hint}"
