"""Encoders as backbones of torchvision's detectors.

Lin, Dollár, Girshick, He, Hariharan, Belongie: Feature Pyramid Networks for Object Detection, CVPR 2017,
arXiv 1612.03144.
"""

import copy

import torch
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, FeaturePyramidNetwork, LastLevelMaxPool

from ssl_modules.encoders.backbone import TimmBackbone
from ssl_modules.encoders.encoder import Encoder
from ssl_modules.utils.checks import Checked, check_instance, check_number


class DetectionBackbone(Checked, nn.Module):
    """An encoder's deepest maps with a feature pyramid, as the ``backbone`` of torchvision's detectors.

    The detector's transform normalises: pass ``image_mean`` and ``image_std`` to the detector. The encoder is copied
    and must accept images of any size, as ResNets do. Features that it pools besides its maps, such as a class token,
    are dropped, and their parameters are frozen.

    Alternatively, load the exported weights of a plain ResNet into one of torchvision's detectors,
    ``fasterrcnn_resnet50_fpn(...).backbone.body.load_state_dict(weights)``. This needs ``small_stem=False``, as
    torchvision's ResNets don't have the stem for small images.

    Args:
        encoder: an encoder of whole images with two spatial axes.
        levels: number of the deepest maps that enter the pyramid. Faster R-CNN and Mask R-CNN use 4 and RetinaNet 3;
            each has one anchor size per map of the pyramid.
        out_channels: channels of each map of the pyramid.
        extra_blocks: makes further maps from the deepest; None = one, by a max-pool of stride 2, as for Faster R-CNN.
            RetinaNet uses two, ``LastLevelP6P7(out_channels, out_channels)``.
        freeze_batch_norm: whether to freeze the statistics, scales and shifts of the encoder's batch norms, as
            torchvision does, for batches too small for batch statistics.

    Attributes:
        out_channels: channels of each map.
        image_mean: mean per channel, of pixels in [0, 1].
        image_std: standard deviation per channel.

    Shape:
        ``[N, ch, H, W]``, normalised, to an ordered mapping of maps, large to small, named "0", "1", ...; the extra
        blocks name their own maps.

    Raises:
        ValueError: if the encoder takes patches, has other than two spatial axes, or has fewer maps than ``levels``.

    Example:
        >>> from torchvision.models.detection import FasterRCNN
        >>> backbone = DetectionBackbone(Encoder("resnet18", image_size=96, in_channels=3, mean=(0.5, 0.5, 0.5)))
        >>> {name: tuple(m.shape) for name, m in backbone(torch.zeros(1, 3, 64, 96)).items()}["pool"]
        (1, 256, 1, 2)
        >>> detector = FasterRCNN(backbone, 5, image_mean=backbone.image_mean, image_std=backbone.image_std)
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        levels: int = 4,
        out_channels: int = 256,
        extra_blocks: ExtraFPNBlock | None = None,
        freeze_batch_norm: bool = False,
    ) -> None:
        super().__init__()
        check_instance("encoder", encoder, Encoder, "give Encoder(...), load_encoder(path) or a method's encoder")
        if encoder.patches is not None or encoder.spatial_dims != 2:
            raise ValueError(
                f"encoder: a detector gives whole images of two spatial axes, but {encoder.name} takes "
                + ("patches" if encoder.patches else f"{encoder.spatial_dims} axes")
            )
        self.image_mean: list[float] = encoder.mean.flatten().tolist()
        self.image_std: list[float] = encoder.std.flatten().tolist()
        self.body = copy.deepcopy(encoder.backbone)
        in_channels = encoder.out_channels
        if isinstance(self.body, TimmBackbone) and self.body.own_pooling:
            in_channels = in_channels[:-1]
            self.body.own_pooling = False
            self._freeze_unused(encoder)
        check_number(
            "levels", levels, least=1, most=len(in_channels), fix=f"{encoder.name} has {len(in_channels)} maps"
        )
        check_number("out_channels", out_channels, above=0)
        if extra_blocks is not None:
            check_instance("extra_blocks", extra_blocks, ExtraFPNBlock)
        if freeze_batch_norm:
            self.body = freeze_batch_norm_2d(self.body)
        self.levels = levels
        self.fpn = FeaturePyramidNetwork(
            list(in_channels[-levels:]), out_channels, LastLevelMaxPool() if extra_blocks is None else extra_blocks
        )
        self.out_channels = out_channels

    @torch.enable_grad()
    def _freeze_unused(self, encoder: Encoder) -> None:
        """Freeze parameters that no map depends on, as data-parallel training would wait for their gradients."""
        size, device = encoder.image_size, encoder.mean.device
        maps = self.body.eval()(torch.zeros(1, encoder.in_channels, size, size, device=device))
        parameters = [p for p in self.body.parameters() if p.requires_grad]
        for parameter, is_used in zip(
            parameters, self.body.reached(torch.cat([m.flatten() for m in maps])), strict=True
        ):
            parameter.requires_grad_(is_used)
        self.body.train(encoder.training)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.body(images)[-self.levels :]
        return self.fpn({str(i): m for i, m in enumerate(maps)})
