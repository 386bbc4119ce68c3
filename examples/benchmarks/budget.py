"""The budget of record: one encoder, fixed images and epochs, judged on the official test set of Fashion-MNIST.

    python examples/benchmarks/budget.py                        # all rows, seeds 0 and 1
    python examples/benchmarks/budget.py --only MoCo "lightly's MoCo" --seeds 0

Rows: raw pixels; untrained encoders; every config below; lightly's SimCLR and MoCo. lightly's rows follow its Lightning
examples, with the same encoder, images, epochs, batch size, optimiser, schedule, temperature and distribution of views.
Prints a Markdown table with the training time in seconds, and writes it to budget.json. Rows that the file already has
are kept. k-NN: k = 20, T = 0.07; linear: ridge; both learn from all 60,000 labelled training images and are judged on
all 10,000 test images. Coarse: mean average precision of retrieval by cosine among the test images, with the five
coarse classes as labels (tops, bottoms, dress, shoes, bag).
"""

import argparse
import json
import time
from copy import deepcopy
from pathlib import Path
from statistics import mean
from typing import Any

import lightning.pytorch as pl
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead, SimCLRProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms import SimCLRTransform
from PIL import Image
from timing import machine
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ssl_modules import ContrastiveModule
from ssl_modules.callbacks import OnlineKNNProbe, OnlineLinearProbe
from ssl_modules.cli import ContrastiveCLI
from ssl_modules.datamodules import BaseDataModule, FashionMNISTDataModule
from ssl_modules.evaluation import retrieval
from ssl_modules.optim import build_optimizer, param_groups

CONFIGS = {
    "SimCLR": "examples/configs/budget_fashion.yaml",
    "MoCo": "examples/configs/moco_fashion.yaml",
    "BYOL": "examples/configs/byol_fashion.yaml",
    "SCE": "examples/configs/sce_fashion.yaml",
    "RINCE, neighbours": "examples/configs/rince_neighbours_fashion.yaml",
    "RINCE, labels of one level": "examples/configs/rince_fashion.yaml",
    "RINCE, labels of two levels": "examples/configs/rince_fashion.yaml",
    "GroCo": "examples/configs/groco_fashion.yaml",
    "S2R2, 4 views": "examples/configs/s2r2_fashion.yaml",
    "YADIM": "examples/configs/yadim_fashion.yaml",
    "AMDIM, its encoder": "examples/configs/amdim_fashion.yaml",
    "CPC, its encoder": "examples/configs/cpc_fashion.yaml",
}
UNTRAINED = {
    "untrained encoder": "SimCLR",
    "untrained encoder of AMDIM": "AMDIM, its encoder",
    "untrained encoder of CPC": "CPC, its encoder",
}
# RINCE with its first rank only: images of the same class.
ONE_LEVEL = [
    "--data.init_args.coarse=false",
    "--model.init_args.extraction.init_args.ranks.init_args.label_levels=1",
    "--model.init_args.loss.init_args.temperatures=[0.1]",
]


def from_config(name: str, seed: int) -> tuple[ContrastiveModule, BaseDataModule, pl.Trainer]:
    args = ["--config", CONFIGS[name], f"--seed_everything={seed}", *(ONE_LEVEL if "one level" in name else [])]
    cli = ContrastiveCLI(run=False, args=args)
    cli.datamodule.prepare_data()
    cli.datamodule.setup()
    return cli.model, cli.datamodule, cli.trainer


def judge(module: nn.Module, data: FashionMNISTDataModule) -> dict[str, float]:
    """Measure k-NN and linear accuracy with all labelled training images, and coarse retrieval among test images."""
    probes = (probe(datamodule=data, bank_size=None, level=0) for probe in (OnlineKNNProbe, OnlineLinearProbe))
    results: dict[str, float] = {}
    for probe in probes:
        results |= probe.evaluate(module)
    images, targets = data.test_set[:]
    with torch.no_grad():
        features = torch.cat([module.eval()(part) for part in images.split(256)])
    coarse = retrieval(features, targets[:, 1], k=(1,))["map"]
    return {"knn": results["probe/knn_top1"], "linear": results["probe/linear_top1"], "coarse": coarse}


def fit(module: pl.LightningModule, train: Any, epochs: int) -> float:
    """Train without probes and checkpoints; return the time in seconds."""
    trainer = pl.Trainer(max_epochs=epochs, logger=False, enable_checkpointing=False)
    start = time.perf_counter()
    trainer.fit(module, train)
    return time.perf_counter() - start


class RawPixels(nn.Module):
    accepts_uint8 = True

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) / 255


class Lightly(pl.LightningModule):
    """Takes the encoder, optimiser and schedule of one of our modules; ``module(images)`` encodes raw pixels."""

    accepts_uint8 = True

    def __init__(self, ours: ContrastiveModule) -> None:
        super().__init__()
        self.encoder = ours.encoder
        self.make_optimizer, self.schedule = ours.optimizer, ours.schedule

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images)[-1].flatten(2).mean(2)

    def configure_optimizers(self) -> Any:
        return build_optimizer(self.make_optimizer, param_groups([self]), self.schedule, self.trainer)


class LightlySimCLR(Lightly):
    """SimCLR built from lightly's parts."""

    def __init__(self, ours: ContrastiveModule) -> None:
        super().__init__(ours)
        features = ours.encoder.out_channels[-1]
        self.head = SimCLRProjectionHead(features, features, ours.extraction.out_dim)
        self.criterion = NTXentLoss(temperature=ours.loss.temperature)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x0, x1 = batch
        return self.criterion(self.head(self(x0)), self.head(self(x1)))


class LightlyMoCo(Lightly):
    """MoCo built from lightly's parts."""

    def __init__(self, ours: ContrastiveModule) -> None:
        super().__init__(ours)
        features, extraction = ours.encoder.out_channels[-1], ours.extraction
        self.head = MoCoProjectionHead(features, extraction.hidden_dim, extraction.out_dim)
        self.key_encoder, self.key_head = deepcopy(self.encoder), deepcopy(self.head)
        for part in (self.key_encoder, self.key_head):
            deactivate_requires_grad(part)
        self.criterion = NTXentLoss(ours.loss.temperature, memory_bank_size=(extraction.size, extraction.out_dim))
        self.momentum, self.symmetric = ours.teacher.momentum, extraction.symmetric

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        update_momentum(self.encoder, self.key_encoder, self.momentum)
        update_momentum(self.head, self.key_head, self.momentum)
        x0, x1 = batch
        pairs = [(x0, x1), (x1, x0)] if self.symmetric else [(x1, x0)]
        return torch.stack([self.criterion(self.head(self(q)), self._key(k)) for q, k in pairs]).mean()

    @torch.no_grad()
    def _key(self, images: Tensor) -> Tensor:
        return self.key_head(self.key_encoder(images)[-1].flatten(2).mean(2))


class LightlyViews(Dataset):
    """Makes views with lightly's transform, one image at a time, with the parameters of the config's augmentation."""

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
            normalize=None,  # the encoder normalises
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(Image.fromarray(self.images[index, 0].numpy()))


LIGHTLY = {"lightly's SimCLR": ("SimCLR", LightlySimCLR), "lightly's MoCo": ("MoCo", LightlyMoCo)}
ROWS = ["raw pixels", *UNTRAINED, *CONFIGS, *LIGHTLY]


def measure(name: str, seed: int, workers: int) -> dict[str, float]:
    """Measure one row with one seed."""
    data = FashionMNISTDataModule(coarse=True, download=True)
    data.prepare_data()
    data.setup()
    if name == "raw pixels":
        return {**judge(RawPixels(), data), "seconds": 0.0}
    config, peer = LIGHTLY.get(name, (name, None))
    ours, train, trainer = from_config(UNTRAINED.get(name, config), seed)
    module: pl.LightningModule = ours
    seconds = 0.0
    if peer is not None:
        module, views = peer(ours), LightlyViews(train.train_set.images, ours)
        loader = DataLoader(views, batch_size=train.batch_size, shuffle=True, drop_last=True, num_workers=workers)
        seconds = fit(module, loader, trainer.max_epochs)
    elif name not in UNTRAINED:
        seconds = fit(module, train, trainer.max_epochs)
    return {**judge(module, data), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--workers", type=int, default=2, help="of lightly's loader; ours needs none")
    parser.add_argument("--out", type=Path, default=Path("budget.json"))
    args = parser.parse_args()
    table: dict[str, dict[str, dict[str, float]]] = json.loads(args.out.read_text()) if args.out.exists() else {}
    for seed in args.seeds:
        for name in args.only:
            if name != "raw pixels" or seed == args.seeds[0]:
                result = measure(name, seed, args.workers)
                print(name, seed, {key: round(value, 4) for key, value in result.items()}, flush=True)
                table.setdefault(name, {})[str(seed)] = result
                args.out.write_text(json.dumps(table, indent=1) + "\n")

    print(f"\n{machine()}; values of one seed each\n")
    print("| representation | k-NN | linear | coarse mAP | seconds of training |")
    print("|---|---|---|---|---|")
    for name in [name for name in ROWS if name in table]:
        runs = table[name].values()
        scores = [" / ".join(f"{100 * run[key]:.2f}" for run in runs) for key in ("knn", "linear", "coarse")]
        print("|", name, "|", " | ".join(scores), "|", f"{mean(run['seconds'] for run in runs):.0f} |")


if __name__ == "__main__":
    main()
