"""A module that computes an encoder's representation."""

from torch import Tensor, nn

from ssl_modules.encoders.pooling import represent
from ssl_modules.utils.checks import check_instance


class Representation(nn.Module):
    """Network that computes the representation of images, the mean of an encoder's deepest map.

    A method's ``module(images)`` returns the same representation. The representation of a video is the mean over its
    clips.

    Args:
        encoder: an :class:`~ssl_modules.encoders.Encoder`, which is shared, not copied.

    Shape:
        Images ``[N, ch, ...]`` or videos ``[N, k, ch, T, H, W]``, uint8 or float in [0, 1], to ``[N, D]``.

    Example:
        >>> import torch
        >>> from ssl_modules.encoders import Encoder
        >>> representation = Representation(Encoder("resnet18", image_size=32, in_channels=1))
        >>> representation(torch.zeros(2, 1, 32, 32, dtype=torch.uint8)).shape
        torch.Size([2, 512])
    """

    accepts_uint8 = True

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        check_instance("encoder", encoder, nn.Module)
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        return represent(self.encoder, images)
