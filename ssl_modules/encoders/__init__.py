"""Aspect 2, encoder: images [B, ch, ...] -> tuple of maps [B, C_j, ...], shallow to deep."""

from ssl_modules.encoders.backbone import shrink_stem
from ssl_modules.encoders.encoder import Encoder

__all__ = ["Encoder", "shrink_stem"]
