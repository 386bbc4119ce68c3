"""Aspect 2, encoder: images [B, ch, ...] -> tuple of maps [B, C_j, ...], shallow to deep."""

from ssl_modules.encoders.amdim import AMDIMEncoder
from ssl_modules.encoders.backbone import shrink_stem
from ssl_modules.encoders.cpc import CPCEncoder
from ssl_modules.encoders.encoder import Encoder
from ssl_modules.encoders.split_norm import SplitBatchNorm2d

__all__ = ["AMDIMEncoder", "CPCEncoder", "Encoder", "SplitBatchNorm2d", "shrink_stem"]
