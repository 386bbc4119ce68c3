"""The network of CPC v2: a residual network for patches, whose norms don't mix patches.

Hénaff et al.: Data-Efficient Image Recognition with Contrastive Predictive Coding, ICML 2020, arXiv 1905.09272.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from ssl_modules.encoders.backbone import check_shape
from ssl_modules.encoders.few_pixels import multiply_few_pixels
from ssl_modules.utils.checks import check_number, check_numbers
from ssl_modules.utils.configurable import Configurable


class CPCEncoder(Configurable, nn.Module):
    """A ResNet of bottlenecks with layer norm over channels and locations, for the patches of an image.

    Batch norm would let the patches of an image see each other through its statistics. The third stage is wider than a
    ResNet's. The published network, "ResNet-161", has ``layers=(3, 4, 46, 3)``; a smaller one has ``(3, 4, 6, 3)``. The
    default has 326 million parameters. For patches up to 32 pixels the deepest map has one location. For larger patches
    it has several, and :class:`~ssl_modules.encoders.Encoder` takes their mean as the patch's vector.

    On a CPU, the convolutions of maps of few pixels are matrix products, see
    :class:`~ssl_modules.encoders.few_pixels.FewPixelsConv2d`.

    A layer norm has a weight per channel and location, so the number of parameters grows with the patch size. The two
    networks above have as many parameters as cpc_resnet101 and cpc_resnet50 of lightning-bolts.

    Args:
        image_size: side of a patch, pixels.
        in_channels: number of image channels.
        layers: number of bottlenecks in each of the four stages.
        width: channels after the first layer, 64 in the published network.

    Attributes:
        out_channels: channels of the four stages: 4, 8, 64 and 32 times the width.
        spatial_dims: 2.

    Shape:
        ``[B, ch, p, p]`` to the four stages' maps; for 8 pixels, ``[B, 4 width, 2, 2]`` and three of one location.

    Raises:
        ValueError: if a number is not positive, ``layers`` has not four entries, or patches have the wrong size.

    Example:
        >>> import torch
        >>> encoder = CPCEncoder(image_size=8, layers=(1, 1, 1, 1), width=8)
        >>> [tuple(m.shape) for m in encoder(torch.rand(2, 3, 8, 8))]
        [(2, 32, 2, 2), (2, 64, 1, 1), (2, 512, 1, 1), (2, 256, 1, 1)]
    """

    spatial_dims = 2

    def __init__(
        self, image_size: int = 8, in_channels: int = 3, *, layers: Sequence[int] = (3, 4, 46, 3), width: int = 64
    ) -> None:
        super().__init__()
        for name, value in (("image_size", image_size), ("in_channels", in_channels), ("width", width)):
            check_number(name, value, above=0)
        check_numbers("layers", layers, length=4, above=0, fix="give one per stage")
        self.image_size = image_size
        self.in_channels = in_channels
        self.out_channels = (4 * width, 8 * width, 64 * width, 32 * width)
        stem, first, second, third = (math.ceil(image_size / 2**k) for k in (1, 2, 3, 4))  # sides of the maps
        one, two, three, four = self.out_channels
        self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.ln1 = nn.LayerNorm([width, stem, stem])
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(LayerNormBottleneck(width, width, one, first), layers[0])
        self.layer2 = _stage(LayerNormBottleneck(one, 2 * width, two, first, stride=2), layers[1])
        self.layer3 = _stage(LayerNormBottleneck(two, 8 * width, three, second, stride=2), layers[2])
        self.layer4 = _stage(LayerNormBottleneck(three, 8 * width, four, third, stride=2), layers[3])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        multiply_few_pixels(self)  # patches of 8 pixels have maps of one pixel

    def forward(self, patches: Tensor) -> tuple[Tensor, ...]:
        check_shape(patches, self.in_channels, self.image_size)
        x = self.maxpool(self.ln1(self.conv1(patches)).relu_())
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return tuple(maps)


class LayerNormBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each with a layer norm over channels and locations, and a skip connection.

    Args:
        in_channels: channels of the input.
        width: channels between the convolutions.
        out_channels: channels of the output.
        side: side of the input map, pixels.
        stride: stride of the 3x3 convolution.

    Shape:
        ``[B, in_channels, side, side]`` to ``[B, out_channels, side / stride, side / stride]``, rounded up.
    """

    def __init__(self, in_channels: int, width: int, out_channels: int, side: int, *, stride: int = 1) -> None:
        super().__init__()
        out_side = math.ceil(side / stride)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.ln1 = nn.LayerNorm([width, side, side])
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.ln2 = nn.LayerNorm([width, out_side, out_side])
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.ln3 = nn.LayerNorm([out_channels, out_side, out_side])
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            skip = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(skip, nn.LayerNorm([out_channels, out_side, out_side]))

    def forward(self, x: Tensor) -> Tensor:
        h = self.ln1(self.conv1(x)).relu_()
        h = self.ln2(self.conv2(h)).relu_()
        return (self.ln3(self.conv3(h)) + self.downsample(x)).relu_()


def _stage(first: LayerNormBottleneck, blocks: int) -> nn.Sequential:
    width, side, _ = first.ln2.normalized_shape
    channels = first.conv3.out_channels
    return nn.Sequential(first, *(LayerNormBottleneck(channels, width, channels, side) for _ in range(blocks - 1)))
