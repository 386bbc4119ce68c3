"""Encoder weights as files that others load."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor


def save_weights(path: Path, weights: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write weights and what one must know to use them.

    Args:
        path: ends in ``.safetensors`` (the metadata as one JSON string under "ssl_modules") or ``.pt``.
        weights: names to tensors.
        metadata: plain data.

    Raises:
        ValueError: for another ending.
    """
    if path.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in weights.items()}, path, {"ssl_modules": json.dumps(metadata)})
    elif path.suffix == ".pt":
        torch.save({"state_dict": weights, "metadata": metadata}, path)
    else:
        raise ValueError(f"path: expected a file ending in .safetensors or .pt, got {path.name!r}")
