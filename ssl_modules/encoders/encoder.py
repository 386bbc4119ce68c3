"""Aspect 2, encoder: raw pixels to a tuple of maps; it also normalises the pixels."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_modules.augmentations.patches import PatchGrid, check_patches
from ssl_modules.encoders.amdim import AMDIMEncoder
from ssl_modules.encoders.backbone import (
    CLASSIFIERS,
    SMALL_IMAGE,
    PlainBackbone,
    SizeError,
    TimmBackbone,
    TorchvisionResNet,
    as_maps,
    channels,
    shrink_stem,
)
from ssl_modules.encoders.few_pixels import multiply_few_pixels
from ssl_modules.encoders.names import create_backbone, name_of
from ssl_modules.encoders.split_norm import split_batch_norms
from ssl_modules.encoders.video import SmallR3D, TorchvisionVideo
from ssl_modules.utils.checks import check_number, check_numbers
from ssl_modules.utils.configurable import Configurable
from ssl_modules.utils.pixels import check_channels_first, check_form, check_range

_LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}  # memory format by the number of spatial axes


class Encoder(Configurable, nn.Module):
    """Network that normalises raw pixels and encodes them to maps, shallow to deep.

    With ``patches``, each image is cut into a grid of patches, and the backbone encodes each patch separately. Each map
    of a patch is averaged to one vector. These vectors form a map with the shape of the grid.

    If ``encoder`` is a name, the plain 2-d convolutions of the network become
    :class:`~ssl_modules.encoders.few_pixels.FewPixelsConv2d`, which are faster on a CPU for small images.

    Args:
        encoder: a name or a module, which may be

            - the name of a timm model,
            - "amdim" or "cpc", the networks of these methods,
            - for clips, "r3d_small", or "r3d_18", "mc3_18", "r2plus1d_18" or "s3d" of torchvision,
            - a timm or torchvision model,
            - any module that returns a vector, a map or a tuple of maps,
            - a module that has this class's attributes ``out_channels``, ``spatial_dims`` and, if it normalises its
              deepest map, ``normalised``.
        image_size: side of the images, pixels.
        in_channels: number of image channels.
        mean: mean of each channel, for pixels in [0, 1]. None = the mean of the pretrained weights, or 0 without them.
        std: standard deviation of each channel. None = that of the pretrained weights, or 1 without them.
        small_stem: whether to replace a ResNet's stem by a 3x3 convolution of stride 1 without max-pool. None = True
            for images of 64 pixels and below, if ``encoder`` is a name and ``pretrained`` is False.
        pretrained: whether to load pretrained weights of timm or torchvision. ``encoder`` must be one of their names.
        channels_last: whether to use the channels-last memory format, which speeds up convolutions. None = True for the
            convolutional image networks of timm and torchvision, for "amdim" and for "r3d_small".
        compile: whether to compile the backbone by ``torch.compile``, at its first batch.
        patches: side and overlap, pixels, of the patches that images are cut into; None = whole images. See
            :class:`~ssl_modules.augmentations.PatchGrid`.
        batch_norm_splits: number of parts of a batch that batch norms normalise separately, as if each were on its own
            device; see :class:`~ssl_modules.encoders.SplitBatchNorm2d`. None = the whole batch.

    Attributes:
        out_channels: channels of each map, shallow to deep.
        spatial_dims: number of spatial axes of an image.
        normalised: whether the network normalises its deepest map.
        map_shapes: spatial shape of each map for images of ``image_size``; None unless images have two spatial axes.

    Shape:
        ``[B, ch, ...]``, uint8 or float in [0, 1], to a tuple of ``[B, C_j, ...]``; with ``patches``, of
        ``[B, C_j, rows, cols]``.

    Raises:
        ValueError: in one of these cases:

            - The name of the encoder is unknown.
            - ``small_stem`` is True, but the network has no ResNet stem.
            - ``mean`` or ``std`` has the wrong length.
            - ``pretrained`` is True, but the encoder is a module.
            - ``patches`` are larger than the images, or the images don't have two spatial axes.
            - ``channels_last`` is True, but the images have neither two nor three spatial axes.
            - When called: images have the wrong number of channels or axes, or values outside [0, 1].

    Example:
        >>> encoder = Encoder("resnet18", image_size=32, in_channels=1)
        >>> [tuple(m.shape) for m in encoder(torch.zeros(2, 1, 32, 32))][-2:]
        [(2, 256, 8, 8), (2, 512, 4, 4)]
        >>> encoder.out_channels
        (64, 64, 128, 256, 512)
        >>> encoder = Encoder("resnet18", image_size=32, in_channels=3, patches=(8, 4))
        >>> encoder(torch.zeros(2, 3, 32, 32))[-1].shape
        torch.Size([2, 512, 7, 7])
    """

    backbone: Any
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: str | nn.Module,
        *,
        image_size: int,
        in_channels: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        small_stem: bool | None = None,
        pretrained: bool = False,
        channels_last: bool | None = None,
        compile: bool = False,
        patches: tuple[int, int] | None = None,
        batch_norm_splits: int | None = None,
    ) -> None:
        super().__init__()
        check_number("image_size", image_size, above=0)
        check_number("in_channels", in_channels, above=0)
        self.patches = None if patches is None else _patch_grid(patches, image_size)
        self._side = image_size if self.patches is None else self.patches.size  # side of the backbone's input
        if isinstance(encoder, str):
            name = encoder
            model = create_backbone(name, image_size=self._side, in_channels=in_channels, pretrained=pretrained)
            multiply_few_pixels(model)
        elif not isinstance(encoder, nn.Module):
            raise TypeError(f"encoder: expected a name or a module, got {_described(encoder)}")
        elif isinstance(encoder, Encoder):
            raise ValueError("encoder: is an Encoder, which normalises; give the network in it, encoder.backbone.model")
        else:
            name, model = name_of(encoder), encoder
            if pretrained:
                raise ValueError(f"pretrained: goes with a timm name, but encoder is a {name}; load its weights first")
        by_default = isinstance(encoder, str) and self._side <= SMALL_IMAGE and not pretrained
        self.small_stem = (by_default if small_stem is None else small_stem) and shrink_stem(model)
        if small_stem and not self.small_stem:
            raise ValueError(f"small_stem: {name} has no ResNet stem to replace; pass small_stem=None")
        if batch_norm_splits is not None:
            split_batch_norms(model, batch_norm_splits)
        if pretrained:
            config: Any = model.pretrained_cfg
            mean = config["mean"] if mean is None else mean
            std = config["std"] if std is None else std
        self.name = name
        self.image_size = image_size
        self.in_channels = in_channels
        self.backbone = as_maps(model)
        self.channels_last = self._choose_layout(channels_last)
        self.spatial_dims: int = getattr(self.backbone, "spatial_dims", 2)
        self.normalised = bool(getattr(self.backbone, "normalised", False))
        if self.patches and self.spatial_dims != 2:
            raise ValueError(f"patches: are cut along two spatial axes, but {name} has {self.spatial_dims}")
        self.map_shapes: tuple[torch.Size, ...] | None = None
        if self.spatial_dims == 2:
            maps = self._probe(self._side)
            self.map_shapes = self._grids(image_size, len(maps)) if self.patches else tuple(m.shape[2:] for m in maps)
        self.out_channels: tuple[int, ...] = (
            tuple(self.backbone.out_channels) if hasattr(self.backbone, "out_channels") else channels(maps)
        )
        self.register_buffer("mean", self._per_channel("mean", mean, 0.0))
        self.register_buffer("std", self._per_channel("std", std, 1.0))
        if compile:
            self.compile_backbone()

    def compile_backbone(self) -> None:
        """Compile the backbone by ``torch.compile``, at its next batch; copies of the encoder are not compiled."""
        self.backbone.compile()

    def _choose_layout(self, channels_last: bool | None) -> bool:
        if channels_last is None:
            known = isinstance(self.backbone, TimmBackbone | TorchvisionResNet | AMDIMEncoder | SmallR3D)
            channels_last = known and any(isinstance(m, nn.Conv2d | nn.Conv3d) for m in self.backbone.modules())
        if channels_last:
            self.backbone.to(memory_format=self._layout())
        return channels_last

    def _layout(self) -> torch.memory_format:
        dims = getattr(self.backbone, "spatial_dims", 2)
        if dims not in _LAYOUTS:
            raise ValueError(f"channels_last: is for two or three spatial axes, but {self.name} has {dims}; pass False")
        return _LAYOUTS[dims]

    def _per_channel(self, name: str, values: Sequence[float] | None, default: float) -> Tensor:
        values = [default] * self.in_channels if values is None else list(values)
        of_bytes = max(values, default=0) > 1
        fix = "pixels are in [0, 1]: divide by 255" if of_bytes else "give one per channel"
        limits = {"above": 0} if name == "std" else {"least": 0}
        check_numbers(name, values, length=self.in_channels, **limits, most=1, fix=fix)
        return torch.tensor(values, dtype=torch.float32).view(-1, *[1] * self.spatial_dims)  # [ch, 1, ..., 1]

    def shapes_of(self, size: int) -> tuple[torch.Size, ...] | None:
        """Return the spatial shape of each map for images of a given size, such as small crops.

        Args:
            size: side of the images in pixels.

        Returns:
            One shape per map; None for an encoder without two spatial axes.

        Raises:
            ValueError: if the network or the grid of patches can't take images of this size.

        Example:
            >>> [list(shape) for shape in Encoder("resnet18", image_size=32, in_channels=3).shapes_of(16)][-2:]
            [[4, 4], [2, 2]]
        """
        if self.map_shapes is None or size == self.image_size:
            return self.map_shapes
        if self.patches is not None:
            return self._grids(size, len(self.map_shapes))
        return tuple(m.shape[2:] for m in self._probe(size))

    def _grids(self, size: int, maps: int) -> tuple[torch.Size, ...]:
        """The shape of the grid of patches, repeated for each map."""
        return (torch.Size(self.patches.grid(torch.empty(1, 1, size, size))),) * maps  # type: ignore[union-attr]

    @torch.no_grad()
    def _probe(self, side: int) -> tuple[Tensor, ...]:
        """The maps of two random images, by a forward pass in evaluation mode that changes no state."""
        modes = {m: m.training for m in self.backbone.modules()}
        self.backbone.eval()
        images = torch.rand(2, self.in_channels, side, side, generator=torch.Generator())
        images = images.to(next(self.backbone.parameters(), images).device)
        try:
            if isinstance(self.backbone, TimmBackbone) and side == self._side:
                self.backbone.find_own_pooling(images)
            return self.backbone(images)
        except (RuntimeError, AssertionError, SizeError) as error:
            if side == self._side:
                source, fix = "patches" if self.patches else "image_size", ""
            else:
                source = "a view of the augmentation"
                fix = f"; give an augmentation of views of {self._side} pixels alone, or a network for any size"
            raise ValueError(
                f"encoder: {self.name} can't take images of {self.in_channels} channels (in_channels) and "
                f"{side} pixels ({source}): {error}{fix}"
            ) from error
        finally:
            for m, mode in modes.items():
                m.training = mode

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        check_form(images, self.spatial_dims)
        check_channels_first(images, self.in_channels)
        if images.shape[1] != self.in_channels:
            raise ValueError(
                f"images: have {images.shape[1]} channels, but the encoder was built with in_channels="
                f"{self.in_channels}; build it with in_channels={images.shape[1]}"
            )
        check_range(images, self)
        if images.dtype == torch.uint8:
            images = images / 255
        images = (images - self.mean) / self.std
        layout = _LAYOUTS[self.spatial_dims] if self.channels_last else torch.preserve_format
        # Use the module's dtype, so that half and double modules work too.
        images = images.to(self.mean.dtype, memory_format=layout)
        if self.patches is None:
            return self.backbone(images)
        patches = self.patches.transform(images)  # [B, rows, cols, ch, h, w]
        maps = self.backbone(patches.flatten(0, 2).to(memory_format=layout))
        grid = patches.shape[:3]
        return tuple(m.flatten(2).mean(2).unflatten(0, grid).movedim(-1, 1) for m in maps)  # [B, C_j, rows, cols]

    @property
    def network(self) -> nn.Module:
        """The wrapped model, whose state dict has the model's own names."""
        wrapped = isinstance(self.backbone, TimmBackbone | TorchvisionResNet | TorchvisionVideo | PlainBackbone)
        return self.backbone.model if wrapped else self.backbone

    def export(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The network's state dict, copied to the CPU, and the metadata needed to use it, as plain data."""
        model = self.network
        metadata = {
            "architecture": self.name,
            "image_size": self.image_size,
            "in_channels": self.in_channels,
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
            "small_stem": self.small_stem,
            "patches": [self.patches.size, self.patches.overlap] if self.patches else None,
        }
        if isinstance(model, Configurable):  # a network of this package
            metadata["arguments"] = dict(model.arguments)
        weights = model.state_dict()
        return {key: weights[key].cpu().clone(memory_format=torch.contiguous_format) for key in weights}, metadata

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load the weights of a network of this architecture, under the network's own names.

        A classifier's weights that this network doesn't have (``fc``, ``head``, ``heads``, ``classifier``) are skipped.

        Args:
            weights: names to tensors, complete for the network; see :meth:`export`.

        Raises:
            ValueError: if a weight is missing, unknown or has the wrong shape; the encoder is then unchanged.
        """
        own = self.network.state_dict()
        given = {k: w for k, w in weights.items() if k in own or k.split(".")[0] not in CLASSIFIERS}
        faults = {
            "missing": [k for k in own if k not in given and not k.endswith("num_batches_tracked")],
            "unknown": [k for k in given if k not in own],
            "of another shape": [
                f"{k} {list(given[k].shape)}, not {list(own[k].shape)}"
                for k in own.keys() & given.keys()
                if given[k].shape != own[k].shape
            ],
        }
        if any(faults.values()):
            said = "; ".join(f"{fault}: {_first(sorted(names))}" for fault, names in faults.items() if names)
            raise ValueError(
                f"weights: don't fit {self.name} of image_size={self.image_size}, in_channels={self.in_channels}, "
                f"small_stem={self.small_stem}; {said}; give the network's own names, and build the encoder alike"
            )
        self.network.load_state_dict(given)


def _described(value: Any) -> str:
    return f"the class {value.__name__}; give an instance" if isinstance(value, type) else repr(value)


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _patch_grid(patches: tuple[int, int], image_size: int) -> PatchGrid:
    check_patches(patches)
    grid = PatchGrid(*patches)
    if grid.size > image_size:
        raise ValueError(f"patches: of {grid.size} pixels are larger than the images, image_size={image_size}")
    return grid
