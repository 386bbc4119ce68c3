"""The network of AMDIM, whose layers have no zero padding.

Bachman, Hjelm, Buchwalter: Learning Representations by Maximizing Mutual Information Across Views, NeurIPS 2019,
arXiv 1906.00910. Layouts, initialisation and parameter counts match the authors' code.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ssl_modules.encoders.backbone import check_shape
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.configurable import Configurable

STEM = 80  # pixels: larger images are halved first, until they are at most this large
PAIR = 18  # pixels: larger maps are halved by a kernel of 4
TAIL = 5, 9  # pixels: smallest and largest side of the first map that is returned


class AMDIMEncoder(Configurable, nn.Module):
    """AMDIM's residual network: maps of 7x7, 5x5 and 1x1 locations from images of 32, 64 or 128 pixels.

    Layers, and the side of their maps for images of 32, 64 and 128 pixels:

        conv 5x5 / 2              64    width channels; the only padded layer, with mirrored pixels
        conv 3x3         30   62  62    width channels
        unit 1x1         30             width channels
        block 4x4 / 2         30  30    twice as many channels as before
        block 4x4 / 2    14   14  14    twice as many channels as before
        block 2x2 / 2     7    7   7    twice as many channels as before: 4 or 8 x width
        block 3x3         5    5   5    as many channels as before
        block 3x3         3    3   3    as many channels as before
        unit              1    1   1    features channels, and a batch norm

    A unit is ``y = W2 relu(W1 x) + skip(x)``. The skip is an average pool with the kernel size of W1, with zeros for
    additional channels; W2 is initialised to zero. A block is such a unit, followed by ``depth - 1`` units of 1x1.

    Other sizes follow the same rule: images above 80 pixels are halved first, then maps above 18 pixels by 4x4 kernels,
    and a map of 10 to 18 by 2x2. The last unit's kernel covers the remaining map. A size fits if no halving drops a row
    of pixels, such as 8, 16, 28, 48, 96 and 224.

    The number of parameters is that of the layers in use. lightning-bolts also counts the two 1x1 heads, which here
    belong to the extraction, and batch norms that it builds but doesn't use unless ``batch_norm``.

    Args:
        image_size: side of the images, pixels.
        in_channels: number of image channels.
        width: channels after the first layer; the authors' ``ndf``.
        features: channels of the deepest map, at least as many as of the map before it; the authors' ``n_rkhs``.
        depth: number of units in a block; the authors' ``n_depth``.
        batch_norm: whether units and the first map have batch norm; the deepest map always has.

    Attributes:
        out_channels: channels of the three maps, shallow to deep.
        spatial_dims: 2.
        normalised: True; the deepest map ends in a batch norm.

    Shape:
        ``[B, ch, H, W]`` to three maps, shallow to deep; for 64 pixels ``[B, 8 width, 7, 7]``, ``[B, 8 width, 5, 5]``
        and ``[B, features, 1, 1]``.

    Raises:
        ValueError: if ``image_size`` doesn't fit, ``features`` is too small, or images have the wrong size.

    Example:
        >>> import torch
        >>> encoder = AMDIMEncoder(image_size=32, width=8, features=64)
        >>> [tuple(m.shape) for m in encoder(torch.rand(2, 3, 32, 32))]
        [(2, 32, 7, 7), (2, 32, 5, 5), (2, 64, 1, 1)]
        >>> encoder.out_channels
        (32, 32, 64)
    """

    spatial_dims = 2
    normalised = True

    def __init__(
        self,
        image_size: int = 32,
        in_channels: int = 3,
        *,
        width: int = 128,
        features: int = 1024,
        depth: int = 3,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("width", width), ("depth", depth)):
            check_number(name, value, above=0)
        stems, kernels, side = _checked_layout(image_size)
        channels = width * 2 ** len(kernels)
        if features < channels:
            raise ValueError(
                f"features: expected at least the {channels} channels of the map before (width={width}), got {features}"
            )
        self.image_size = image_size
        self.in_channels = in_channels
        self.out_channels = (channels, channels, features)

        unit = partial(ResidualUnit, batch_norm=batch_norm)

        def block(i: int, o: int, kernel: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(unit(i, o, kernel, stride), *(unit(o, o) for _ in range(depth - 1)))

        local: list[nn.Module] = []
        for i in range(stems):
            first = width if i else in_channels
            local += [nn.Conv2d(first, width, 5, 2, padding=2, padding_mode="reflect"), nn.ReLU(inplace=True)]
        local += [nn.Conv2d(width if stems else in_channels, width, 3), nn.ReLU(inplace=True)]
        if kernels.count(4) < 2:
            local.append(unit(width, width))
        for i, kernel in enumerate(kernels):
            local.append(block(width * 2**i, width * 2 ** (i + 1), kernel, stride=2))
        local.append(nn.BatchNorm2d(channels) if batch_norm else nn.Identity())
        last = unit(channels, features, side - 4)
        self.stages: Any = nn.ModuleList(
            [
                nn.Sequential(*local),
                block(channels, channels, 3),
                nn.Sequential(block(channels, channels, 3), last, nn.BatchNorm2d(features)),
            ]
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        check_shape(images, self.in_channels, self.image_size)
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return tuple(maps)


class ResidualUnit(nn.Module):
    """Two convolutions without bias, and an average pool as skip; the second convolution is 1x1 and starts at zero.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, at least ``in_channels``.
        kernel: side of the first convolution and of the pool, pixels.
        stride: stride of both.
        batch_norm: whether batch norm follows the first convolution.

    Shape:
        ``[B, in_channels, H, W]`` to ``[B, out_channels, h, w]``, without padding.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, *, batch_norm: bool = False
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.new_channels = out_channels - in_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel, stride, bias=False)
        self.norm = nn.BatchNorm2d(out_channels) if batch_norm else nn.Identity()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.conv2(self.norm(self.conv1(x)).relu_())
        skip = x if self.kernel == 1 else F.avg_pool2d(x, self.kernel, self.stride)
        if self.new_channels:
            skip = F.pad(skip, (0, 0, 0, 0, 0, self.new_channels))
        return residual + skip


def _layout(image_size: int) -> tuple[int, list[int], int] | None:
    """Number of stride-2 convolutions, kernels of the halving blocks, side of the first map; None if none fits."""
    stems, kernels, side = 0, [], image_size
    while side > STEM and side % 2 == 0:
        stems, side = stems + 1, side // 2
    side -= 2
    while side > TAIL[1] and side % 2 == 0:
        kernels.append(4 if side > PAIR else 2)
        side = side // 2 - (1 if side > PAIR else 0)
    return (stems, kernels, side) if TAIL[0] <= side <= TAIL[1] else None


def _checked_layout(image_size: int) -> tuple[int, list[int], int]:
    layout = _layout(image_size)
    if layout is None:
        near = [s for s in range(1, 2 * max(image_size, 8)) if _layout(s)]
        near = sorted(near, key=lambda size: abs(size - image_size))[:2]
        raise ValueError(
            f"image_size: {image_size} pixels don't halve down to a map of {TAIL[0]} to {TAIL[1]} without a row left "
            f"over; the nearest sizes that do are {' and '.join(map(str, sorted(near)))}"
        )
    return layout
