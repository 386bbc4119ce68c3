"""The budget of record: one encoder, fixed images and epochs, judged on the official test set of Fashion-MNIST.

    python examples/benchmarks/budget.py            # all rows, seeds 0 and 1

Rows: raw pixels; the untrained encoder; every config below; lightly's SimCLR with the same encoder, images, epochs,
batch size, optimiser, schedule, temperature and distribution of views, written as lightly's Lightning example is.
Prints a table in Markdown, with the seconds of training, and writes it as budget.json. k-NN: k = 20, T = 0.07; linear:
ridge; both learn from all 60,000 labelled training images and are judged on all 10,000 test images.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path
from statistics import mean
from typing import Any

import lightning.pytorch as pl
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ssl_modules import ContrastiveModule
from ssl_modules.callbacks import OnlineKNNProbe, OnlineLinearProbe
from ssl_modules.cli import ContrastiveCLI
from ssl_modules.datamodules import ImageDataModule
from ssl_modules.optim import param_groups, warmup_cosine

CONFIGS = {"SimCLR": "examples/configs/budget_fashion.yaml"}


def from_config(path: str, seed: int) -> tuple[ContrastiveModule, ImageDataModule, pl.Trainer]:
    cli = ContrastiveCLI(
        ContrastiveModule,
        ImageDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        run=False,
        args=["--config", path, f"--seed_everything={seed}"],
    )
    return cli.model, cli.datamodule, cli.trainer


def judge(module: nn.Module, data: ImageDataModule) -> dict[str, float]:
    """k-NN and linear accuracy with every labelled training image."""
    probes = (probe(datamodule=data, bank_size=None) for probe in (OnlineKNNProbe, OnlineLinearProbe))
    results: dict[str, float] = {}
    for probe in probes:
        results |= probe.evaluate(module)
    return {"knn": results["probe/knn_top1"], "linear": results["probe/linear_top1"]}


def fit(module: pl.LightningModule, train: Any, epochs: int) -> float:
    """Train without probes and checkpoints; returns the seconds it took."""
    trainer = pl.Trainer(max_epochs=epochs, logger=False, enable_checkpointing=False)
    start = time.perf_counter()
    trainer.fit(module, train)
    return time.perf_counter() - start


class RawPixels(nn.Module):
    accepts_uint8 = True

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) / 255


class LightlySimCLR(pl.LightningModule):
    """SimCLR of lightly's parts; ``module(images)`` is the representation of raw pixels."""

    accepts_uint8 = True

    def __init__(self, ours: ContrastiveModule) -> None:
        super().__init__()
        self.encoder = ours.encoder
        features = ours.encoder.out_channels[-1]
        self.head = SimCLRProjectionHead(features, features, ours.extraction.out_dim)
        self.criterion = NTXentLoss(temperature=ours.loss.temperature)
        self.make_optimizer, self.warmup = ours.optimizer, ours.warmup

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images)[-1].flatten(2).mean(2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x0, x1 = batch
        return self.criterion(self.head(self(x0)), self.head(self(x1)))

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(param_groups([self]))
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(steps, round(self.warmup * steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class LightlyViews(Dataset):
    """Views of lightly's own transform, of one image at a time, with the parameters of the config's augmentation."""

    def __init__(self, images: Tensor, ours: ContrastiveModule) -> None:
        crop, flip, jitter = ours.augmentation.transforms
        self.images = images
        self.transform = SimCLRTransform(
            input_size=crop.size,
            min_scale=crop.scale[0],
            hf_prob=flip.p,
            cj_prob=jitter.p,
            cj_strength=1.0,
            cj_bright=jitter.brightness,
            cj_contrast=jitter.contrast,
            cj_sat=jitter.saturation,
            cj_hue=jitter.hue,
            random_gray_scale=0.0,
            gaussian_blur=0.0,
            normalize=None,  # the encoder does it
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(Image.fromarray(self.images[index, 0].numpy()))


def rows(seeds: list[int], workers: int) -> dict[str, list[dict[str, float]]]:
    table: dict[str, list[dict[str, float]]] = {}

    def add(name: str, module: nn.Module, data: ImageDataModule, seconds: float) -> None:
        result = {**judge(module, data), "seconds": seconds}
        table.setdefault(name, []).append(result)
        print(name, {key: round(value, 4) for key, value in result.items()}, flush=True)

    for seed in seeds:
        for name, path in CONFIGS.items():
            module, data, trainer = from_config(path, seed)
            data.prepare_data()
            data.setup()
            if name == "SimCLR":
                if seed == seeds[0]:
                    add("raw pixels", RawPixels(), data, 0.0)
                add("untrained encoder", module, data, 0.0)
            add(name, module, data, fit(module, data, trainer.max_epochs))

        ours, data, trainer = from_config(CONFIGS["SimCLR"], seed)
        data.setup()
        lightly = LightlySimCLR(ours)
        views = LightlyViews(data.train_set.images, ours)
        loader = DataLoader(views, batch_size=data.batch_size, shuffle=True, drop_last=True, num_workers=workers)
        add("lightly's SimCLR", lightly, data, fit(lightly, loader, trainer.max_epochs))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--workers", type=int, default=2, help="of lightly's loader; ours needs none")
    parser.add_argument("--out", type=Path, default=Path("budget.json"))
    args = parser.parse_args()
    table = rows(args.seeds, args.workers)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}"
    args.out.write_text(json.dumps({"machine": machine, "seeds": args.seeds, "rows": table}, indent=1) + "\n")

    def cell(runs: list[dict[str, float]], key: str) -> str:
        values = [f"{100 * run[key]:.2f}" for run in runs]
        return " / ".join(values)

    print(f"\nseeds {args.seeds}, {machine}\n")
    print("| representation | k-NN | linear | seconds of training |")
    print("|---|---|---|---|")
    for name, runs in table.items():
        print(f"| {name} | {cell(runs, 'knn')} | {cell(runs, 'linear')} | {mean(r['seconds'] for r in runs):.0f} |")


if __name__ == "__main__":
    main()
