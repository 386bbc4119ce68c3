"""Read the files of recorded runs, and build their encoder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FILES = sorted(Path(__file__).parent.glob("*.npz"))


class Run:
    """The arrays, the method and the settings of a recorded run."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.arrays = {name: file[name] for name in file.files}
        meta = json.loads(str(self.arrays["meta"]))
        self.name, self.method, self.source = path.stem, meta["method"], meta["source"]
        self.settings: dict[str, Any] = meta["settings"]
        self.views = [torch.as_tensor(self.arrays[f"views_{i}"]) for i in range(self._count("views"))]
        self.epochs, self.batches = self.settings["epochs"], self.settings["batches_per_epoch"]

    def _count(self, prefix: str) -> int:
        return sum(name.startswith(f"{prefix}_") and name[len(prefix) + 1 :].isdigit() for name in self.arrays)

    def weights(self, part: str) -> list[Tensor]:
        """Return the initial weights of a part: enc, head, pred, or the teacher's tenc and thead."""
        return [torch.as_tensor(self.arrays[f"{part}_{i}"]) for i in range(self._count(part))]

    @property
    def warmup(self) -> float:
        """Return the warm-up as a share of the run."""
        return self.settings.get("warmup_epochs", 0) / self.epochs


class TinyNet(nn.Module):
    """The encoder of all runs except AMDIM's: two convolutions, with or without batch norm."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, 2, 1, bias=not norm), nn.BatchNorm2d(6) if norm else nn.Identity()
        self.conv2, self.bn2 = nn.Conv2d(6, 10, 3, 2, 1, bias=not norm), nn.BatchNorm2d(10) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()


def put(part: nn.Module, weights: list[Tensor]) -> None:
    """Set the parameters of a part to recorded ones."""
    own = list(part.parameters())
    found, expected = [list(p.shape) for p in own], [list(w.shape) for w in weights]
    if found != expected:
        raise ValueError(f"parameters: ours have the shapes {found}, the recorded ones {expected}")
    with torch.no_grad():
        for p, w in zip(own, weights, strict=True):
            p.copy_(w)
