"""Aspect 2, encoder: images [B, ch, ...] -> tuple of maps [B, C_j, ...], shallow to deep."""

from ssl_modules.encoders.amdim import AMDIMEncoder
from ssl_modules.encoders.backbone import shrink_stem
from ssl_modules.encoders.cpc import CPCEncoder
from ssl_modules.encoders.detection import DetectionBackbone
from ssl_modules.encoders.encoder import Encoder
from ssl_modules.encoders.export import load_encoder, load_weights
from ssl_modules.encoders.representation import Representation
from ssl_modules.encoders.split_norm import SplitBatchNorm2d, SplitBatchNorm3d
from ssl_modules.encoders.video import SmallR3D

__all__ = [
    "AMDIMEncoder",
    "CPCEncoder",
    "DetectionBackbone",
    "Encoder",
    "Representation",
    "SmallR3D",
    "SplitBatchNorm2d",
    "SplitBatchNorm3d",
    "load_encoder",
    "load_weights",
    "shrink_stem",
]
