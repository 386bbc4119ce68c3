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
    """An encoder's deepest maps through a feature pyramid: what torchvision's detectors take as ``backbone``.

    The detector's own transform normalises: hand ``image_mean`` and ``image_std`` on to it. The encoder is copied, and
    has to take images of any size, as ResNets do. What it pools beyond its maps, such as a class token, is left out,
    and the parameters of that are frozen.

    Alternatively, the weights that an encoder of a plain ResNet exports are loaded into a detector that torchvision
    built, ``fasterrcnn_resnet50_fpn(...).backbone.body.load_state_dict(weights)``, unless it has the stem for small
    images (``small_stem``), which torchvision's ResNets don't.

    Args:
        encoder: of images with two spatial axes, taken whole.
        levels: number of maps, the deepest ones, that enter the pyramid. Faster R-CNN and Mask R-CNN take 4 and
            RetinaNet 3; each has one anchor size for each map of the pyramid.
        out_channels: of each map of the pyramid.
        extra_blocks: maps beyond the deepest; None = one, by a max-pool of stride 2, as for Faster R-CNN.
            RetinaNet takes two, ``LastLevelP6P7(out_channels, out_channels)``.
        freeze_batch_norm: whether the encoder's batch norms keep their statistics, scales and shifts, as torchvision's
            do, for batches too small to take statistics of.

    Attributes:
        out_channels: of each map.
        image_mean: of each channel, of pixels in [0, 1].
        image_std: of each channel.

    Shape:
        ``[N, ch, H, W]``, normalised, to an ordered mapping of the maps, large to small, named "0", "1", ..., and as
        the extra blocks name theirs.

    Raises:
        ValueError: for an encoder of patches or of other than two spatial axes, or with fewer maps than ``levels``.

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
        """Data-parallel training would wait for the gradients of parameters that no map depends on."""
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
