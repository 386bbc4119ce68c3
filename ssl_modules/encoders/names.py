"""Create encoders by name: networks of this package and of timm, and video networks of torchvision."""

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

import timm
from torch import nn

from ssl_modules.encoders.amdim import AMDIMEncoder
from ssl_modules.encoders.cpc import CPCEncoder
from ssl_modules.encoders.video import TORCHVISION_VIDEO, SmallR3D, create_video

# Each is a function of image_size, in_channels and the other arguments that a file of its weights stores.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "amdim": AMDIMEncoder,
    "cpc": partial(CPCEncoder, layers=(3, 4, 6, 3)),  # the paper's network has 46 blocks in its third stage
    "r3d_small": lambda image_size=None, **arguments: SmallR3D(**arguments),  # the network takes any size
}
_NAMES = {AMDIMEncoder: "amdim", CPCEncoder: "cpc", SmallR3D: "r3d_small"}


def name_of(network: nn.Module) -> str:
    """Return the name of a network's architecture: one of ``NETWORKS``, or the name of its class.

    Example:
        >>> name_of(nn.Flatten())
        'Flatten'
    """
    return _NAMES.get(type(network), type(network).__name__)


def create_backbone(name: str, *, image_size: int, in_channels: int, pretrained: bool) -> nn.Module:
    """Create a network by name, without classifier, for the given image size if its architecture needs one.

    Args:
        name: one of ``NETWORKS``, a timm name, or one of ``TORCHVISION_VIDEO``.
        image_size: side of the images, pixels.
        in_channels: number of image channels.
        pretrained: whether to load pretrained weights of timm or torchvision.

    Raises:
        ValueError: if the name is unknown, or ``pretrained`` is True for a network of this package.

    Example:
        >>> create_backbone("amdim", image_size=32, in_channels=3, pretrained=False).out_channels
        (512, 512, 1024)
    """
    if name in NETWORKS:
        if pretrained:
            raise ValueError(f"pretrained: expected False for {name!r}, of which there are no published weights")
        return NETWORKS[name](image_size=image_size, in_channels=in_channels)
    if not is_name(name):
        near = difflib.get_close_matches(name, [*NETWORKS, *TORCHVISION_VIDEO, *timm.list_models()], n=4, cutoff=0.5)
        if name.rpartition(".")[2][:1].isupper():  # probably the name of a class
            raise ValueError(
                f"encoder: timm knows no model {name!r}; for a network of your own, give an object; on the command "
                "line, give its dotted name, such as mine.Net, and run python -m ssl_modules in place of ssl-modules "
                "if its file is in the current folder"
            )
        raise ValueError(
            f"encoder: timm knows no model {name!r}"
            + (f"; did you mean {', '.join(near)}?" if near else "; timm.list_models() lists them all")
        )
    try:
        if name in TORCHVISION_VIDEO:
            return create_video(name, in_channels, pretrained)
        config = timm.get_pretrained_cfg(name)
        size: dict[str, Any] = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
        return timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=in_channels, **size)
    except OSError as error:
        if not pretrained:
            raise
        said = str(error).partition("\n")[0]
        raise ValueError(
            f"pretrained: the weights of {name} can't be downloaded ({said}); connect to the internet once, or pass "
            "pretrained=False and load the weights from a file"
        ) from error


def is_name(name: str) -> bool:
    """Return whether timm has a model of this name, or torchvision has a video network of this name.

    Example:
        >>> is_name("resnet18"), is_name("r3d_18"), is_name("resnet-18")
        (True, True, False)
    """
    return name in TORCHVISION_VIDEO or timm.is_model(name)
