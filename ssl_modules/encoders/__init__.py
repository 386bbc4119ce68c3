"""Aspect 2, encoder: images [B, ch, ...] -> tuple of maps [B, C_j, ...], shallow to deep."""

from ssl_modules.encoders.amdim import AMDIMEncoder
from ssl_modules.encoders.backbone import shrink_stem
from ssl_modules.encoders.cpc import CPCEncoder
from ssl_modules.encoders.detection import DetectionBackbone
from ssl_modules.encoders.encoder import Encoder
from ssl_modules.encoders.export import load_encoder, load_weights
from ssl_modules.encoders.representation import Representation
from ssl_modules.encoders.split_norm import SplitBatchNorm2d

__all__ = [
    "AMDIMEncoder",
    "CPCEncoder",
    "DetectionBackbone",
    "Encoder",
    "Representation",
    "SplitBatchNorm2d",
    "load_encoder",
    "load_weights",
    "shrink_stem",
]
