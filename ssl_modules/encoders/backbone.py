"""Wrappers that make any backbone return a tuple of maps, shallow to deep; its parameters keep their names."""

from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from ssl_modules.encoders.video import TorchvisionVideo

SMALL_IMAGE = 64
CLASSIFIERS = ("classifier", "fc", "head", "heads")  # timm's and torchvision's names of the last layer


class TimmBackbone(nn.Module):
    """A timm model that returns the maps of its stages.

    If the model's own pooled features differ from the mean of its deepest map (a class token, or a norm or convolution
    after it), they are appended as a map of one location. So the mean of the last map always equals the output of the
    plain timm model.

    Args:
        model: any timm model with ``forward_intermediates``; its classifier is removed.

    Shape:
        ``[B, ch, H, W]`` to a tuple of ``[B, C_j, h_j, w_j]``.
    """

    model: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.model.reset_classifier(0)
        self.own_pooling = False

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        last, maps = self.model.forward_intermediates(images)
        if self.own_pooling:
            maps = [*maps, self.pooled(last)[:, :, None, None]]
        return tuple(maps)

    def pooled(self, last: Tensor) -> Tensor:
        """The model's own pooled features ``[B, D]`` from the output of its last, normalised layer."""
        return self.model.forward_head(last, pre_logits=True)

    @torch.enable_grad()
    def find_own_pooling(self, images: Tensor) -> None:
        """Set ``own_pooling``: whether the model's pooled features differ from the mean of its deepest map."""
        last, maps = self.model.forward_intermediates(images)
        own, mean = self.pooled(last), maps[-1].mean((2, 3))
        # A norm that is still the identity changes only which parameters the features depend on.
        self.own_pooling = (
            own.shape != mean.shape
            or not torch.allclose(own, mean, rtol=1e-3, atol=1e-5)
            or self.reached(own) != self.reached(mean)
        )

    def reached(self, features: Tensor) -> list[bool]:
        """Whether the features depend on each of the trainable parameters."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if not parameters:
            return []
        gradients = torch.autograd.grad(features.sum(), parameters, retain_graph=True, allow_unused=True)
        return [g is not None for g in gradients]


class TorchvisionResNet(nn.Module):
    """A torchvision ResNet that returns the maps of its four stages.

    Args:
        model: any of torchvision's ResNets, ResNeXts and wide ResNets; its classifier is removed.

    Shape:
        ``[B, ch, H, W]`` to four maps ``[B, C_j, h_j, w_j]``.
    """

    def __init__(self, model: torchvision.models.ResNet) -> None:
        super().__init__()
        model.fc = nn.Identity()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        m = self.model
        x = m.maxpool(m.relu(m.bn1(m.conv1(images))))
        maps = []
        for stage in (m.layer1, m.layer2, m.layer3, m.layer4):
            x = stage(x)
            maps.append(x)
        return tuple(maps)


class PlainBackbone(nn.Module):
    """Any module that returns a vector, a map or several maps.

    Args:
        model: returns ``[B, D]``, ``[B, C, ...]`` or a sequence of such maps, shallow to deep. Its output is the
            representation, so pass a classifier without its last layer.

    Shape:
        ``[B, ch, ...]`` to a tuple of ``[B, C_j, ...]``; a vector becomes a map of one location.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        out = self.model(images)
        maps = (out,) if isinstance(out, Tensor) else out
        # isinstance gets a tuple of types, because torch 2.6 can't trace a union of types.
        is_sequence = isinstance(maps, (list, tuple))
        if is_sequence and any(isinstance(m, Tensor) and m.ndim < 2 for m in maps):
            raise ValueError(
                f"encoder: expected a vector [B, C] or a map [B, C, ...] from {type(self.model).__name__}, got "
                f"{[list(m.shape) for m in maps]} for {len(images)} images; let it return features, one row per image"
            )
        if not (is_sequence and all(isinstance(m, Tensor) for m in maps)):
            raise TypeError(
                f"encoder: expected a vector, a map or a sequence of maps from {type(self.model).__name__}, "
                f"got a {type(out).__name__}; give a module that returns its features"
            )
        return tuple(m[:, :, None, None] if m.ndim == 2 else m for m in maps)


def shrink_stem(model: nn.Module) -> bool:
    """Give a ResNet the stem for small images: a 3x3 convolution of stride 1 and no max-pool.

    A stem of several convolutions keeps them; only its stride is set to 1.

    Returns:
        Whether the model has a ResNet stem; if not, it is unchanged.
    """
    conv = getattr(model, "conv1", None)
    first = conv[0] if isinstance(conv, nn.Sequential) else conv
    # Require bn1: a network with another norm here may have built it for the size of the stem's map.
    is_resnet = isinstance(getattr(model, "bn1", None), nn.Module) and hasattr(model, "maxpool")
    if not (is_resnet and isinstance(first, nn.Conv2d)):
        return False
    if isinstance(conv, nn.Conv2d):
        model.conv1 = nn.Conv2d(first.in_channels, first.out_channels, 3, padding=1, bias=first.bias is not None)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    else:
        first.stride = (1, 1)
    model.maxpool = nn.Identity()
    return True


def as_maps(model: nn.Module) -> nn.Module:
    """Wrap the model as a module that returns a tuple of maps."""
    if isinstance(model, torch._dynamo.OptimizedModule):
        raise ValueError("encoder: is compiled; give it as it was, and then compile in place: module.encoder.compile()")
    if hasattr(model, "out_channels") and hasattr(model, "spatial_dims"):
        return model
    if hasattr(model, "forward_intermediates"):
        return TimmBackbone(model)
    if isinstance(model, torchvision.models.ResNet):
        return TorchvisionResNet(model)
    if isinstance(model, torchvision.models.video.VideoResNet | torchvision.models.video.S3D):
        return TorchvisionVideo(model)
    classifier = next((n for n in CLASSIFIERS if hasattr(model, n)), None)
    if type(model).__module__.startswith("torchvision.models") and not isinstance(
        getattr(model, classifier or "", None), nn.Identity | None
    ):
        raise ValueError(
            f"encoder: this {type(model).__name__} would give its class scores; give timm's model of that name, or set "
            f"its {classifier} to torch.nn.Identity()"
        )
    return PlainBackbone(model)


class SizeError(ValueError):
    """Raised if images have another shape than the network was built for."""


def check_shape(images: Tensor, in_channels: int, image_size: int) -> None:
    """Raises unless images [B, ch, H, W] have the number of channels and the size that the network was built for."""
    if images.shape[1:] != (in_channels, image_size, image_size):
        raise SizeError(
            f"images: expected [B, {in_channels}, {image_size}, {image_size}], which this network is built for, got "
            f"{list(images.shape)}; build it with their in_channels and image_size"
        )


def channels(maps: Sequence[Tensor]) -> tuple[int, ...]:
    """The number of channels of each map."""
    return tuple(m.shape[1] for m in maps)
