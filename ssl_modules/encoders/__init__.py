"""Aspect 2, encoder: images [B, ch, ...] -> tuple of maps [B, C_j, ...], shallow to deep."""

from ssl_modules.encoders.backbone import shrink_stem
from ssl_modules.encoders.encoder import Encoder
from ssl_modules.encoders.split_norm import SplitBatchNorm2d

__all__ = ["Encoder", "SplitBatchNorm2d", "shrink_stem"]
