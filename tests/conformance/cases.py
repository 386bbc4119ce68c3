"""The methods under test, each in a form that trains in moments: a new method joins with one line in CASES."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer

from ssl_modules import BYOL, RINCE, SCE, ContrastiveModule, MoCo, SimCLR
from ssl_modules.augmentations import Augmentation, BYOLViews, MoCoViews, SCEViews, SimCLRViews
from ssl_modules.datamodules import DigitsDataModule, ImageDataModule, TensorImages
from ssl_modules.extractions import Extraction, NeighbourRanks, Predictor, Queue

SIZE = 8
ENCODER = "test_resnet"  # timm's own for tests: 0.4 million parameters


@dataclass(frozen=True)
class Case:
    """A method, its augmentation at a size of a few pixels, and what else must be small; parts are made anew."""

    method: type[ContrastiveModule]
    augmentation: Callable[[], Augmentation]
    extraction: Callable[[], Extraction] | None = None
    numbers: dict[str, Any] = field(default_factory=dict)
    falls_to: float = 0.1  # share of its first value that the loss of one batch reaches, where a target stands still

    def __str__(self) -> str:
        return self.method.__name__

    def build(self, **given: Any) -> ContrastiveModule:
        """The method with its own extraction, similarity and loss, for tiny images of one channel."""
        return self.method(**{**self.small(), **given})

    def small(self) -> dict[str, Any]:
        return {
            "augmentation": self.augmentation(),
            "encoder": ENCODER,
            **({} if self.extraction is None else {"extraction": self.extraction()}),
            "image_size": SIZE,
            "in_channels": 1,
            "optimizer": partial(torch.optim.AdamW, lr=1e-3),
            **self.numbers,
        }


CASES = [
    Case(SimCLR, partial(SimCLRViews, SIZE, strength=0.5, blur=False)),
    Case(MoCo, partial(MoCoViews, SIZE, blur=False), partial(Queue, out_dim=16, size=20), {"momentum": 0.9}, 0.2),
    Case(
        SCE,
        partial(SCEViews, SIZE, ["weak", "strong-gamma"]),
        partial(Queue, out_dim=16, batch_norm=True, size=20, reference=True),
        {"momentum": 0.9},
        falls_to=0.4,  # not below the entropy of its target
    ),
    Case(
        RINCE,
        partial(MoCoViews, SIZE, blur=False),
        lambda: Queue(out_dim=16, size=20, ranks=NeighbourRanks((3,), warmup_steps=2)),  # which need no labels
        {"momentum": 0.9},
        0.2,
    ),
    Case(BYOL, partial(BYOLViews, SIZE, blur=False), partial(Predictor, 32, 16, 32), {"momentum": 0.9}),
]


def digits(images: int = 48, batch_size: int = 8) -> ImageDataModule:
    """The first few of scikit-learn's digits."""
    data = DigitsDataModule()
    data.setup()
    train = TensorImages(*data.train_set[:images])
    return ImageDataModule(train, num_classes=10, mean=data.mean, std=data.std, batch_size=batch_size)


def fixed_views(
    case: Case, images: int = 8, dtype: torch.dtype = torch.float32, channels: int = 1
) -> list[torch.Tensor]:
    """Views as the case's augmentation makes them, always the same."""
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, channels, SIZE, SIZE), generator=g, dtype=torch.uint8)
    return [view.to(dtype) for view in case.augmentation()(pixels, g)]


def trainer(**given: Any) -> Trainer:
    """A Trainer that trains and nothing else."""
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**{**quiet, **given})
