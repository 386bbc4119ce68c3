"""The methods under test, each in a small form that trains fast. Add a new method as one entry of CASES."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from ssl_modules import (
    AMDIM,
    BYOL,
    CPC,
    RINCE,
    S2R2,
    SCE,
    YADIM,
    ContrastiveModule,
    GroCo,
    MoCo,
    ReSSL,
    SimCLR,
    SimSiam,
    SupCon,
    SwAV,
)
from ssl_modules.augmentations import (
    AMDIMViews,
    Augmentation,
    BYOLViews,
    CPCViews,
    GroCoViews,
    JointViews,
    MoCoViews,
    ReSSLViews,
    SCEViews,
    SimCLRViews,
    SwAVViews,
    YADIMViews,
)
from ssl_modules.datamodules import DigitsDataModule, ImageDataModule, TensorImages
from ssl_modules.extractions import (
    AllViews,
    Extraction,
    LocalMaps,
    NeighbourRanks,
    PatchContext,
    Predictor,
    Prototypes,
    Queue,
)
from ssl_modules.losses import GroCoLoss
from ssl_modules.optim import MultiStep

SIZE = 8
ENCODER = "test_resnet"  # timm's test network: 0.4 million parameters


@dataclass(frozen=True)
class Case:
    """A method with a tiny augmentation and other small settings. Modules copy the objects."""

    method: type[ContrastiveModule]
    augmentation: Augmentation
    extraction: Extraction | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    falls_to: float = 0.1  # the loss on one batch falls to this share of its first value
    name: str = ""  # if a method has several cases
    full: dict[str, Any] = field(default_factory=dict)  # arguments of the full-size form that aren't defaults

    def __str__(self) -> str:
        return self.name or self.method.__name__

    def build(self, **given: Any) -> ContrastiveModule:
        """Build the method with its own extraction, similarity and loss, for tiny images of one channel."""
        return self.method(**{**self.small(), **given})

    def small(self) -> dict[str, Any]:
        return {
            "augmentation": self.augmentation,
            "encoder": ENCODER,
            **({} if self.extraction is None else {"extraction": self.extraction}),
            "image_size": SIZE,
            "in_channels": 1,
            "optimizer": partial(torch.optim.AdamW, lr=1e-3),
            "base_batch_size": None,
            **self.settings,
        }


CASES = [
    Case(SimCLR, SimCLRViews(SIZE, strength=0.5, blur=False)),
    Case(
        SimCLR,
        SimCLRViews(SIZE, strength=0.5, blur=False),
        AllViews(output_norm="scale"),
        {"view_statistics": "each", "decay_norms": True, "schedule": MultiStep((0.5,)), "micro_batch": 3},
        name="SimCLR-options",
    ),
    Case(MoCo, MoCoViews(SIZE, blur=False), Queue(out_dim=16, size=20, momentum=0.9), falls_to=0.2),
    Case(
        SCE,
        SCEViews(SIZE, ["weak", "strong-gamma"]),
        Queue(out_dim=16, batch_norm=True, size=20, reference=True, momentum=0.9),
        falls_to=0.4,  # can't fall below the entropy of its target
    ),
    Case(
        SCE,
        JointViews([SCEViews(SIZE, ["strong-alpha", "strong-beta"]), SCEViews(7, ["strong-gamma"], (0.1, 0.5))]),
        Queue(out_dim=16, batch_norm=True, size=40, symmetric=True, teacher_count=2, reference=True, momentum=0.9),
        falls_to=0.4,
        name="SCE-multicrop",
        full={
            "augmentation": "sce-multicrop",
            "extraction": Queue(batch_norm=True, size=4096, symmetric=True, teacher_count=2, reference=True),
        },
    ),
    Case(
        SCE,
        SCEViews(SIZE, ["strong-alpha", "strong-beta"]),
        Queue(
            out_dim=16,
            layers=3,
            batch_norm=True,
            output_norm=True,
            size=40,
            symmetric=True,
            reference=True,
            predictor_dim=16,
            momentum=0.9,
            momentum_schedule="cosine-endpoint",
            teacher_update="before",
        ),
        {"view_statistics": "joint", "teacher_batch_norm_splits": 2},
        falls_to=0.4,
        name="SCE-options",
    ),
    Case(
        RINCE,
        MoCoViews(SIZE, blur=False),
        Queue(out_dim=16, size=20, ranks=NeighbourRanks((3,), warmup_steps=2), momentum=0.9),  # ranks without labels
        falls_to=0.2,
    ),
    Case(
        GroCo,
        GroCoViews(SIZE, small_views=1, small_size=6, blur=False),
        AllViews(32, 16, 3, output_norm=True, same_view_negatives=True, positive_count="large", stop_gradient=True),
        {"loss": GroCoLoss(negatives=4, steepness=10.0)},
        falls_to=0.4,
        name="GroCo-multicrop",
        full={"augmentation": "groco-multicrop"},
    ),
    Case(S2R2, SimCLRViews(SIZE, views=4, strength=0.5, blur=False)),
    Case(
        S2R2,
        JointViews([SimCLRViews(SIZE, strength=0.5, blur=False), SimCLRViews(6, strength=0.5, blur=False)]),
        name="S2R2-multicrop",
        full={"augmentation": "s2r2-multicrop"},
    ),
    Case(BYOL, BYOLViews(SIZE, blur=False), Predictor(32, 16, 32, momentum=0.9)),
    Case(
        AMDIM,
        AMDIMViews(SIZE, shift=1),
        LocalMaps("multi-pair", 16),
        falls_to=0.4,  # all locations of a map are positives, and the anchor is a random one
    ),
    Case(
        CPC,
        CPCViews(SIZE, (5, 4), shift=1),
        PatchContext(16, (2, 3), hidden_dim=16, blocks=2),
        falls_to=0.4,  # patches that are one pixel apart look alike
    ),
    Case(YADIM, YADIMViews(SIZE, shift=1), LocalMaps("last", 16)),
    Case(
        SwAV,
        SwAVViews(SIZE, 2, 1, 6, blur=False),
        Prototypes(32, 16, prototypes=6, queue=20),
        falls_to=0.8,  # can't fall below the entropy of its assignments
    ),
    Case(
        SimSiam,
        MoCoViews(SIZE, blur=False),
        Predictor(None, 32, 16, layers=3, output_norm=True, momentum=None),
        falls_to=0.6,  # the student makes the targets, so they change too
    ),
    Case(
        SupCon,
        MoCoViews(SIZE, blur=False),
        AllViews(batch_norm=False),  # without labels
        falls_to=0.2,
        full={"extraction": AllViews(batch_norm=False, label_levels=2)},
    ),
    Case(
        ReSSL,
        ReSSLViews(SIZE, blur=False),
        Queue(32, 16, size=20, reference=True, momentum=0.9),
        falls_to=0.9,  # can't fall below the entropy of its target
    ),
]


def digits(images: int = 48, batch_size: int = 8) -> ImageDataModule:
    """Return a data module of scikit-learn's first digits."""
    data = DigitsDataModule()
    data.setup()
    train = TensorImages(*data.train_set[:images])
    return ImageDataModule(train, num_classes=10, mean=data.mean, std=data.std, batch_size=batch_size)


def images(n: int = 8, channels: int = 1, size: int = SIZE) -> torch.Tensor:
    """Return random images, the same in each call."""
    return torch.randint(256, (n, channels, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def one_batch(batch: Any, steps: int = 1) -> DataLoader:
    """Return a loader that gives the same batch at every step."""
    return DataLoader([batch] * steps, batch_size=None)


def gradients(module: ContrastiveModule) -> dict[str, torch.Tensor]:
    """Return the gradients of the parameters that have one."""
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def fixed_views(
    case: Case, images: int = 8, dtype: torch.dtype = torch.float32, channels: int = 1
) -> list[torch.Tensor]:
    """Return views by the case's augmentation, the same in each call."""
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, channels, SIZE, SIZE), generator=g, dtype=torch.uint8)
    return [view.to(dtype) for view in case.augmentation(pixels, g)]


def trainer(**given: Any) -> Trainer:
    """Return a Trainer without logger, checkpoints and progress bar."""
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**{**quiet, **given})
