"""Encoders of clips [B, ch, T, H, W]: video networks of torchvision, and a small network for experiments on a CPU."""

from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.video import S3D, VideoResNet

from ssl_modules.utils.checks import check_number
from ssl_modules.utils.configurable import Configurable

TORCHVISION_VIDEO = ("r3d_18", "mc3_18", "r2plus1d_18", "s3d")


class TorchvisionVideo(nn.Module):
    """A video network of torchvision that returns the maps of its stages.

    Args:
        model: a ``VideoResNet`` or an ``S3D``, whose classifier is removed. The maps of a ``VideoResNet`` are the
            outputs of its stem and its four layers. The maps of an ``S3D`` are the inputs of its pooling layers and its
            last output.

    Attributes:
        out_channels: channels of each map, shallow to deep.
        spatial_dims: 3.

    Shape:
        ``[B, ch, T, H, W]`` to five maps ``[B, C_j, t_j, h_j, w_j]``.
    """

    spatial_dims = 3

    def __init__(self, model: VideoResNet | S3D) -> None:
        super().__init__()
        self.model: Any = model
        if isinstance(model, S3D):
            model.classifier, model.avgpool = nn.Identity(), nn.Identity()
        else:
            model.fc = nn.Identity()
        self.out_channels = self._probe()

    @torch.no_grad()
    def _probe(self) -> tuple[int, ...]:
        modes = {m: m.training for m in self.modules()}
        first = next(self.model.parameters())
        clips = torch.zeros(1, first.shape[1], 8, 32, 32, device=first.device, dtype=first.dtype)
        maps = self.eval()(clips)
        for m, mode in modes.items():
            m.training = mode
        return tuple(m.shape[1] for m in maps)

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        m, maps = self.model, []
        if isinstance(m, S3D):
            for layer in m.features:
                if isinstance(layer, nn.MaxPool3d):
                    maps.append(clips)
                clips = layer(clips)
            return (*maps, clips)
        for stage in (m.stem, m.layer1, m.layer2, m.layer3, m.layer4):
            clips = stage(clips)
            maps.append(clips)
        return tuple(maps)


class SmallR3D(Configurable, nn.Module):
    """A ResNet of 3 x 3 x 3 convolutions, small enough to train on a CPU with clips of 32 px.

    The stem halves height and width. Four blocks of two convolutions follow. The second block halves height and width.
    The third and the fourth block halve height, width and the number of frames. With ``width=16``, the network has 0.9
    million parameters. It is not from a paper.

    Args:
        in_channels: number of channels of a frame.
        width: number of channels of the first block. Each further block has twice as many as the block before.

    Attributes:
        out_channels: channels of each block's map.
        spatial_dims: 3.

    Shape:
        ``[B, ch, T, H, W]`` to four maps ``[B, C_j, t_j, h_j, w_j]``.

    Example:
        >>> [list(m.shape) for m in SmallR3D()(torch.zeros(2, 3, 8, 32, 32))]
        [[2, 16, 8, 16, 16], [2, 32, 8, 8, 8], [2, 64, 4, 4, 4], [2, 128, 2, 2, 2]]
    """

    spatial_dims = 3

    def __init__(self, in_channels: int = 3, width: int = 16) -> None:
        super().__init__()
        check_number("in_channels", in_channels, above=0)
        check_number("width", width, above=0)
        self.stem = nn.Sequential(
            nn.Conv3d(in_channels, width, (3, 5, 5), (1, 2, 2), (1, 2, 2), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        self.out_channels = (width, 2 * width, 4 * width, 8 * width)
        strides = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2))
        inputs = (width, *self.out_channels)
        self.blocks: Any = nn.ModuleList(
            _Block(before, after, stride)
            for before, after, stride in zip(inputs, self.out_channels, strides, strict=False)
        )

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        x, maps = self.stem(clips), []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return tuple(maps)


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(after)
        self.conv2 = nn.Conv3d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(after)
        self.shortcut: nn.Module = nn.Identity()
        if before != after or stride != (1, 1, 1):
            self.shortcut = nn.Sequential(nn.Conv3d(before, after, 1, stride, bias=False), nn.BatchNorm3d(after))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.shortcut(x)).relu()


def create_video(name: str, in_channels: int, pretrained: bool) -> nn.Module:
    """Create a video network of torchvision by name.

    Args:
        name: one of ``TORCHVISION_VIDEO``.
        in_channels: number of channels of a frame. If it is not 3, the first convolution is replaced.
        pretrained: whether to load torchvision's weights for Kinetics-400.

    Raises:
        ValueError: if ``pretrained`` is True and ``in_channels`` is not 3.

    Example:
        >>> create_video("r3d_18", in_channels=1, pretrained=False).stem[0].in_channels
        1
    """
    if not pretrained:
        model = torchvision.models.get_model(name, weights=None)
        if in_channels != 3:
            _replace_first(model, in_channels)
        return model
    if in_channels != 3:
        raise ValueError(f"pretrained: the weights of {name} are for in_channels=3, got {in_channels}; pass False")
    weights = torchvision.models.get_model_weights(name).DEFAULT
    model = torchvision.models.get_model(name, weights=weights)
    pixels = weights.transforms()
    model.pretrained_cfg = {"mean": pixels.mean, "std": pixels.std}
    return model


def _replace_first(model: nn.Module, in_channels: int) -> None:
    """Replace the first convolution of a network by a new one for another number of channels."""
    name, first = next((name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv3d))
    new = nn.Conv3d(
        in_channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, new)
