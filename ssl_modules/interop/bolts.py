"""Loading encoders from checkpoints of lightning-bolts 0.7 (``pl_bolts``)."""

import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from ssl_modules.encoders import AMDIMEncoder, CPCEncoder

Weights = dict[str, Tensor]
_ENCODER = "encoder."


def load_encoder(path: str | Path) -> nn.Module:
    """Load the encoder from a checkpoint of AMDIM, CPC_v2 or SimCLR of lightning-bolts, with its weights.

    Its outputs equal those of the bolts encoder for the same input; AMDIM's maps are those before its two 1x1 heads.
    Bolts normalises images in its transforms, so pass its mean and std to the module. Nothing of bolts is imported, and
    no code in the file is run: contents other than tensors and plain data, such as a data module among the
    hyper-parameters, are skipped.

    Args:
        path: a Lightning checkpoint.

    Returns:
        An :class:`~ssl_modules.encoders.AMDIMEncoder`, a :class:`~ssl_modules.encoders.CPCEncoder` or torchvision's
        ResNet, depending on the file, in training mode; pass it to a method as ``encoder``.

    Raises:
        ValueError: if the file is not a Lightning checkpoint, or has another kind of encoder.

    Example:
        >>> weights = CPCEncoder(image_size=8, layers=(1, 1, 1, 1), width=2).state_dict()  # named as in bolts
        >>> state = {f"encoder.{name}": value for name, value in weights.items()}
        >>> torch.save({"state_dict": state, "hyper_parameters": {"patch_size": 8}}, "cpc.ckpt")
        >>> load_encoder("cpc.ckpt").out_channels
        (8, 16, 128, 64)
    """
    checkpoint = read_checkpoint(path)
    weights = {
        name.removeprefix(_ENCODER): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith(_ENCODER)
    }
    arguments = checkpoint["hyper_parameters"]
    if "layer_list.0.conv.weight" in weights:
        return amdim_encoder(weights, arguments["use_bn"])
    if "ln1.weight" in weights:
        return cpc_encoder(weights, arguments["patch_size"])
    if "bn1.weight" in weights:
        return resnet(weights, arguments.get("maxpool1", True))
    raise ValueError(
        f"path: {Path(path).name} has no encoder that bolts' AMDIM, CPC_v2 or SimCLR build, but "
        f"{', '.join(list(weights)[:3]) or 'none'}; load its state_dict into a module of your own"
    )


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a Lightning checkpoint whose classes need not be installed; only torch's classes keep their contents.

    Args:
        path: the file.

    Returns:
        The contents of the file, with tensors on the CPU.

    Raises:
        ValueError: if it is not a Lightning checkpoint.
    """
    try:
        classes = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(_Nothing, name) for name in classes]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (ValueError, UnpicklingError) as error:
        raise ValueError(f"path: {Path(path).name} is not a file of tensors and plain data: {error}") from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters"} <= checkpoint.keys():
        raise ValueError(
            f"path: {Path(path).name} has no state_dict and hyper_parameters, as Lightning's checkpoints do"
        )
    return checkpoint


class _Nothing:
    """Replaces any class that a file names."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Nothing":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None: ...


def amdim_encoder(weights: Weights, batch_norm: bool) -> AMDIMEncoder:
    """Our encoder with the weights of bolts' ``AMDIMEncoder``.

    Args:
        weights: the bolts encoder's state dict.
        batch_norm: whether it was built with ``use_bn``; the state dict doesn't say.
    """
    layers: dict[int, Weights] = {}
    for name, value in weights.items():
        if name.startswith("layer_list."):  # all others belong to the heads
            _, index, name_in_layer = name.split(".", 2)
            # Our names lack the prefix of a stem, a block or a batch norm; a unit's norm has a different name.
            ours = re.sub(r"^(conv|layer_list|bn)\.", "", name_in_layer).replace("bn1.bn.", "norm.")
            layers.setdefault(int(index), {})[ours] = value
    width, in_channels, kernel, _ = layers[0]["weight"].shape
    encoder = AMDIMEncoder(
        128 if kernel == 5 else 32 if "conv1.weight" in layers[1] else 64,
        in_channels,
        width=width,
        features=len(layers[max(layers)]["weight"]),
        depth=sum(name.endswith("conv1.weight") for name in layers[2]),
        batch_norm=batch_norm,
    )
    local, middle, deep = encoder.stages
    modules = (module for module in (*local, middle, *deep) if not isinstance(module, nn.ReLU))
    for i, module in enumerate(modules):  # load only our names, as bolts also stores norms that it doesn't use
        module.load_state_dict({name: layers[i][name] for name in module.state_dict()})
    return encoder


def cpc_encoder(weights: Weights, patch_size: int) -> CPCEncoder:
    """Our encoder with the weights of bolts' ``cpc_resnet101`` or ``cpc_resnet50``.

    Args:
        weights: the bolts encoder's state dict.
        patch_size: side of the patches, pixels.
    """
    width, in_channels = weights["conv1.weight"].shape[:2]
    encoder = CPCEncoder(patch_size, in_channels, layers=_blocks(weights), width=width)
    encoder.load_state_dict(weights)
    return encoder


def resnet(weights: Weights, maxpool: bool = True) -> ResNet:
    """torchvision's ResNet without classifier, with the weights of one of bolts' ResNets, of any depth and width.

    Args:
        weights: the bolts encoder's state dict.
        maxpool: whether it was built with ``maxpool1``.
    """
    block = Bottleneck if "layer1.0.conv3.weight" in weights else BasicBlock
    channels, per_group = weights["layer1.0.conv2.weight"].shape[:2]
    encoder = ResNet(block, _blocks(weights), groups=channels // per_group, width_per_group=per_group)
    if weights["conv1.weight"].shape[2] == 3:
        encoder.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    if not maxpool:
        encoder.maxpool = nn.Identity()
    encoder.fc = nn.Identity()
    encoder.load_state_dict({name: value for name, value in weights.items() if not name.startswith("fc.")})
    return encoder


def _blocks(weights: Weights) -> list[int]:
    """The number of residual blocks of each of the four stages."""
    return [len({name.split(".")[1] for name in weights if name.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4)]
