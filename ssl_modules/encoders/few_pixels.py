"""Convolutions of maps of few pixels as matrix products."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW_IMAGES = 32  # for fewer images, copying the weights takes longer than the matrix products save


class FewPixelsConv2d(nn.Conv2d):
    """A convolution that is faster on a CPU if the map has few pixels.

    On a map of 2 x 2 pixels, 5 of the 9 weights of a 3 x 3 kernel meet padding. On a map of one pixel, it is 8 of 9.
    PyTorch's convolution multiplies the padding too. This class computes each pixel of the output by a matrix product
    with the weights inside the map. It does so if most weights meet padding, or if the output has a single pixel. It
    uses PyTorch's convolution for all other maps, for fewer than 32 images, on accelerators, in compiled and traced
    networks, and if the convolution has groups, dilation or a padding other than zeros.

    Shape:
        ``[B, C, H, W]`` to ``[B, C', H', W']``, as :class:`torch.nn.Conv2d`.

    Example:
        >>> conv = FewPixelsConv2d(3, 8, 3, padding=1)
        >>> maps = torch.rand(64, 3, 2, 2)
        >>> torch.testing.assert_close(conv(maps), nn.Conv2d.forward(conv, maps))
    """

    def forward(self, maps: Tensor) -> Tensor:
        if not self._is_replaceable(maps):
            return super().forward(maps)
        rows, columns = self._windows(maps, axis=0), self._windows(maps, axis=1)
        places = len(rows) * len(columns)
        inside = sum(map(_length, rows)) * sum(map(_length, columns))
        if places != 1 and 2 * inside >= places * self.weight[0, 0].numel():
            return super().forward(maps)
        pixels, weight = maps.permute(0, 2, 3, 1), self.weight.permute(0, 2, 3, 1)
        out = [
            F.linear(pixels[:, row, column].flatten(1), weight[:, of_row, of_column].flatten(1), self.bias)
            for row, of_row in rows
            for column, of_column in columns
        ]
        return torch.stack(out, 1).unflatten(1, (len(rows), len(columns))).permute(0, 3, 1, 2)

    def _is_replaceable(self, maps: Tensor) -> bool:
        """Return whether matrix products may replace this convolution, and whether there are enough images."""
        # Fake tensors and proxies have other types. They trace the network for other devices and batch sizes.
        traced = type(maps) is not Tensor or torch.compiler.is_compiling() or torch.jit.is_tracing()
        if traced or maps.device.type != "cpu" or maps.ndim != 4 or len(maps) < FEW_IMAGES:
            return False
        plain = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"
        return plain and isinstance(self.padding, tuple) and max(self.padding) < min(self.kernel_size)

    def _windows(self, maps: Tensor, axis: int) -> list[tuple[slice, slice]]:
        """For each output pixel along an axis, return the pixels of the map and the weights that meet them."""
        kernel, padding, length = self.kernel_size[axis], int(self.padding[axis]), maps.shape[2 + axis]
        starts = range(-padding, length + padding - kernel + 1, self.stride[axis])
        return [
            (slice(max(start, 0), min(start + kernel, length)), slice(max(-start, 0), min(length - start, kernel)))
            for start in starts
        ]


def multiply_few_pixels(model: nn.Module) -> None:
    """Turn the plain 2-d convolutions of a network into :class:`FewPixelsConv2d`, in place.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
        >>> multiply_few_pixels(model)
        >>> model
        Sequential(
          (0): FewPixelsConv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
        )
    """
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = FewPixelsConv2d  # keeps parameters, buffers and hooks


def _length(window: tuple[slice, slice]) -> int:
    return window[0].stop - window[0].start
