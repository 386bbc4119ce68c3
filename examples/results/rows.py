"""Build the module and the data module of each row of the results. All trained rows have the same number of steps."""

import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from ssl_modules import datamodules
from ssl_modules.cli import ContrastiveCLI
from ssl_modules.datamodules import TensorImages

CONFIGS = Path(__file__).parents[1] / "configs"
SETS = {"fashion": ("FashionMNISTDataModule", 28), "scattered": ("ScatteredFashionMNISTDataModule", 40)}
SEARCHED = "scattered"  # the search for crop and learning rates uses this set
METHODS = {  # configuration, time of a step relative to SimCLR's
    "SimCLR": ("simclr", 1.0),
    "MoCo": ("moco", 0.7),
    "BYOL": ("byol", 1.4),
    "SCE": ("sce", 0.7),
    "RINCE, neighbours": ("rince_neighbours", 0.7),
    "RINCE, labels": ("rince", 0.7),
    "GroCo": ("groco", 1.0),
    "GroCo, 4 views": ("groco", 2.0),
    "S2R2, 4 views": ("s2r2", 2.0),
    "YADIM": ("yadim", 1.0),
    "AMDIM, its encoder": ("amdim", 2.2),
    "CPC, its encoder": ("cpc", 1.0),
    "SwAV": ("swav", 1.0),
    "SimSiam": ("simsiam", 1.0),
    "ReSSL": ("ressl", 0.7),
    "SupCon, labels": ("supcon", 1.0),
}
OTHERS = {  # row whose module is used, time of a step relative to SimCLR's
    "raw pixels": ("SimCLR", 0.0),
    "untrained": ("SimCLR", 0.0),
    "untrained, AMDIM's encoder": ("AMDIM, its encoder", 0.0),
    "untrained, CPC's encoder": ("CPC, its encoder", 0.0),
    "supervised": ("SimCLR", 0.5),
    "lightly's SimCLR": ("SimCLR", 1.0),
    "lightly's MoCo": ("MoCo", 0.7),
    "SimCLR, 4 views": ("SimCLR", 2.0),
    "RINCE, one rank": ("RINCE, labels", 0.7),
    "RINCE, noisy ranks": ("RINCE, labels", 0.7),
}
THREE_SEEDS = ("untrained", "SimCLR", "MoCo", "SCE", "GroCo", "S2R2, 4 views", "YADIM")  # the others have one
REFERENCES = [row for row in OTHERS if row == "raw pixels" or row.startswith("untrained")]  # these have no training
ROWS = [*REFERENCES, *METHODS, *[row for row in OTHERS if row not in REFERENCES]]
NOISE = 0.2  # share of training images whose coarse class is drawn again in "RINCE, noisy ranks"
RATES = (0.001, 0.003)
CROPS = (0.08, 0.2, 0.4)
EPOCHS = {"full": 5, "short": 2, "large": 50}
STEPS = 234  # per epoch


def augmentation(row: str, size: int, crop: float) -> dict[str, Any]:
    """Return the augmentation of a row. It is the same for all methods, with two exceptions.

    The teachers of SCE and ReSSL get views without jitter, and CPC cuts its view into patches.
    """

    def of_class(name: str, **arguments: Any) -> dict[str, Any]:
        return {"class_path": name, "init_args": arguments}

    plain = [of_class("RandomResizedCrop", size=size, scale=[crop, 1.0]), of_class("RandomHorizontalFlip", p=0.5)]
    jitter = of_class("ColorJitter", brightness=0.4, contrast=0.4, saturation=0.0, hue=0.0, p=0.8)
    if row in ("SCE", "ReSSL"):
        parts = [of_class("Views", views=1, transforms=t) for t in (plain, [*plain, jitter])]
        return of_class("JointViews", parts=parts)
    if "CPC" in row:
        patches = of_class("PatchGrid", size=8, overlap=3 if size == 28 else 0)
        return of_class("Views", views=1, transforms=[*plain, jitter, patches])
    return of_class("Views", views=4 if "4 views" in row else 2, transforms=[*plain, jitter])


def build(job: dict[str, Any]) -> tuple[Any, Any]:
    """Build the module and the data module of a job."""
    data, size = SETS[job["set"]]
    row = OTHERS[job["row"]][0] if job["row"] in OTHERS else job["row"]
    options = {
        "seed_everything": job["seed"],
        "data": data,
        "data.batch_size": 256,
        "data.coarse": "true",
        "data.seed": job["seed"],
        "data.val_size": 10_000 if job["part"] == "val" else 0,
        "model.augmentation": json.dumps(augmentation(job["row"], size, job["crop"])),
        "model.optimizer.lr": job["rate"],
        "trainer.max_epochs": 1,
        "trainer.logger": "false",
    }
    if row.startswith("AMDIM"):
        options["model.encoder.image_size"] = size
    elif job["epochs"] == EPOCHS["large"] and not row.startswith("CPC"):
        options["model.encoder"] = "resnet18"
    if job["row"] == "RINCE, one rank":
        options["model.extraction.init_args.ranks.init_args.label_levels"] = 1
        options["model.loss.init_args.temperatures"] = "[0.1]"
    config = CONFIGS / f"{METHODS[row][0]}_fashion.yaml"
    cli = ContrastiveCLI(run=False, args=["--config", str(config), *(f"--{k}={v}" for k, v in options.items())])
    cli.datamodule.load = partial(parts, job["set"], noisy=job["row"] == "RINCE, noisy ranks")
    cli.datamodule.setup()
    if job["row"] in ("SupCon, labels", "RINCE, one rank"):
        cli.model.on_before_batch_transfer = without_coarse_classes
    return cli.model, cli.datamodule


@cache
def parts(name: str, noisy: bool = False) -> tuple[TensorImages, TensorImages]:
    """Return the training and test parts of a set. A process makes the canvases only once."""
    if noisy:
        return with_noise(*parts(name))
    data = getattr(datamodules, SETS[name][0])(coarse=True, download=True)
    data.prepare_data()
    return data.load()


def with_noise(train: TensorImages, test: TensorImages) -> tuple[TensorImages, TensorImages]:
    """Return the parts with random coarse classes for a share of the training images, the same in each run."""
    generator, targets = torch.Generator().manual_seed(0), train.targets.clone()
    noisy = torch.rand(len(targets), generator=generator) < NOISE
    drawn = torch.randint(int(targets[:, 1].max()) + 1, (len(targets),), generator=generator)
    targets[:, 1] = torch.where(noisy, drawn, targets[:, 1])
    return TensorImages(train.images, targets), test


def without_coarse_classes(batch: list[Any], dataloader_idx: int) -> list[Any]:
    """Remove the coarse classes from a batch. This is a hook of modules that learn from one level of labels."""
    images, targets = batch
    return [images, targets[:, 0]]
