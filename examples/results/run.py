"""What each method learns with one budget: on Fashion-MNIST, and on Fashion-MNIST scattered.

    python examples/results/run.py --search           # choose recipe and learning rates on a validation part
    python examples/results/run.py                    # all rows; rows that the file has already are skipped
    python examples/results/run.py --only MoCo --seeds 0 --sets scattered
    python examples/results/run.py --large --device cuda --jobs 12

All methods have the same images, encoder (ResNet-10), batches of 256, steps (5 epochs, 1,170 steps) and optimiser
(AdamW, half a cosine after a warm-up of a tenth); AMDIM and CPC have their own encoders. ``--large`` takes a ResNet-18
and ten times the steps. Each run appends a line to ``<out>/<set>.jsonl`` or ``<set>_large.jsonl``.

The search uses 50,000 training images to learn and the other 10,000 to judge, by k-NN; the test images are never used.
First, SimCLR fixes the smallest crop (of 0.08, 0.2 and 0.4 of the area) by full runs. Then each method gets one of two
learning rates by short runs of 2 epochs. Both sets are searched apart, and the large runs take the same choices.

Metrics, on the 10,000 test images, in %: k-NN (k = 20, T = 0.07) and linear (ridge) with 60,000 labels; linear
(logistic) with 1 % of the labels, mean of 3 subsets; mean average precision of retrieval, by classes and by the five
coarse classes; AUROC of telling scikit-learn's digits, drawn on the same canvases, from garments by the distance to the
50th neighbour. Seconds and peak memory are those of the training.
"""

import argparse
import json
import logging
import resource
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from copy import deepcopy
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

CONFIGS = Path(__file__).parents[1] / "configs"
SETS = {"fashion": ("FashionMNISTDataModule", 28), "scattered": ("ScatteredFashionMNISTDataModule", 40)}
METHODS = {  # configuration, number of seeds, time of a step relative to SimCLR's
    "SimCLR": ("simclr", 3, 1.0),
    "MoCo": ("moco", 3, 0.7),
    "BYOL": ("byol", 1, 1.4),
    "SCE": ("sce", 3, 0.7),
    "RINCE, neighbours": ("rince_neighbours", 1, 0.7),
    "RINCE, labels": ("rince", 1, 0.7),
    "GroCo": ("groco", 3, 1.0),
    "GroCo, 4 views": ("groco", 1, 2.0),
    "S2R2, 4 views": ("s2r2", 3, 2.0),
    "YADIM": ("yadim", 3, 1.0),
    "AMDIM, its encoder": ("amdim", 1, 1.0),
    "CPC, its encoder": ("cpc", 1, 1.0),
}
OTHERS = {  # rows that take another row's module, number of seeds, time of a step
    "raw pixels": ("SimCLR", 1, 0.0),
    "untrained": ("SimCLR", 3, 0.0),
    "supervised": ("SimCLR", 3, 0.5),
    "lightly's SimCLR": ("SimCLR", 3, 1.0),
    "lightly's MoCo": ("MoCo", 3, 0.7),
}
ROWS = ["raw pixels", "untrained", *METHODS, "lightly's SimCLR", "lightly's MoCo", "supervised"]
RATES = (0.001, 0.003)
CROPS = (0.08, 0.2, 0.4)
EPOCHS = {"full": 5, "short": 2, "large": 50}
STEPS = 234  # of an epoch


# ---- modules ---------------------------------------------------------------------------------------------------------


def augmentation(row: str, size: int, crop: float) -> dict[str, Any]:
    """The same views for all methods; SCE's teacher sees no jitter, and CPC cuts its view into patches."""

    def of_class(name: str, **arguments: Any) -> dict[str, Any]:
        return {"class_path": name, "init_args": arguments}

    plain = [of_class("RandomResizedCrop", size=size, scale=[crop, 1.0]), of_class("RandomHorizontalFlip", p=0.5)]
    jitter = of_class("ColorJitter", brightness=0.4, contrast=0.4, saturation=0.0, hue=0.0, p=0.8)
    if row == "SCE":
        parts = [of_class("Views", views=1, transforms=t) for t in (plain, [*plain, jitter])]
        return of_class("JointViews", parts=parts)
    if row.startswith("CPC"):
        patches = of_class("PatchGrid", size=8, overlap=3 if size == 28 else 0)
        return of_class("Views", views=1, transforms=[*plain, jitter, patches])
    return of_class("Views", views=4 if "4 views" in row else 2, transforms=[*plain, jitter])


def build(job: dict[str, Any]) -> tuple[Any, Any]:
    """The module and the data module of a job."""
    from ssl_modules.cli import ContrastiveCLI  # noqa: PLC0415  # only jobs need these imports

    data, size = SETS[job["set"]]
    row = OTHERS[job["row"]][0] if job["row"] in OTHERS else job["row"]
    options = {
        "seed_everything": job["seed"],
        "data": data,
        "data.batch_size": 256,
        "data.coarse": "true",
        "data.seed": job["seed"],
        "data.val_size": 10_000 if job["part"] == "val" else 0,
        "model.augmentation": json.dumps(augmentation(row, size, job["crop"])),
        "model.optimizer.lr": job["rate"],
        "trainer.max_epochs": 1,
        "trainer.logger": "false",
    }
    if row.startswith("AMDIM"):
        options["model.encoder.image_size"] = size
    elif job["epochs"] == EPOCHS["large"] and not row.startswith("CPC"):
        options["model.encoder"] = "resnet18"
    config = CONFIGS / f"{METHODS[row][0]}_fashion.yaml"
    cli = ContrastiveCLI(run=False, args=["--config", str(config), *(f"--{k}={v}" for k, v in options.items())])
    cli.datamodule.load = partial(parts, job["set"])
    cli.datamodule.setup()
    return cli.model, cli.datamodule


@cache
def parts(name: str) -> Any:
    """The training and test parts of a set; a process makes the canvases once."""
    from ssl_modules import datamodules  # noqa: PLC0415

    data = getattr(datamodules, SETS[name][0])(coarse=True, download=True)
    data.prepare_data()
    return data.load()


class RawPixels(nn.Module):
    """Returns the pixels."""

    accepts_uint8 = True

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) / 255


class Peer(pl.LightningModule):
    """Another training step with the encoder, views, optimiser and schedule of one of our modules."""

    accepts_uint8 = True

    def __init__(self, ours: Any) -> None:
        super().__init__()
        self.encoder, self.augmentation = ours.encoder, ours.augmentation
        self.make_optimizer, self.schedule = ours.optimizer, ours.schedule

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images)[-1].flatten(2).mean(2)

    def views(self, batch: Any) -> list[Tensor]:
        return self.augmentation(batch[0], None)

    def configure_optimizers(self) -> Any:
        from ssl_modules.optim import build_optimizer, param_groups  # noqa: PLC0415

        return build_optimizer(self.make_optimizer, param_groups([self]), self.schedule, self.trainer)


class Supervised(Peer):
    """Learns the classes from one view of each image."""

    def __init__(self, ours: Any) -> None:
        super().__init__(ours)
        self.classifier = nn.Linear(ours.encoder.out_channels[-1], 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return cross_entropy(self.classifier(self(self.views(batch)[0])), batch[1][:, 0])


class LightlySimCLR(Peer):
    """SimCLR of lightly's head and loss."""

    def __init__(self, ours: Any) -> None:
        from lightly.loss import NTXentLoss  # noqa: PLC0415
        from lightly.models.modules import SimCLRProjectionHead  # noqa: PLC0415

        super().__init__(ours)
        features = ours.encoder.out_channels[-1]
        self.head = SimCLRProjectionHead(features, ours.extraction.hidden_dim, ours.extraction.out_dim)
        self.criterion = NTXentLoss(temperature=ours.loss.temperature)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x0, x1 = self.views(batch)
        return self.criterion(self.head(self(x0)), self.head(self(x1)))


class LightlyMoCo(Peer):
    """MoCo of lightly's head, queue and loss."""

    def __init__(self, ours: Any) -> None:
        from lightly.loss import NTXentLoss  # noqa: PLC0415
        from lightly.models.modules import MoCoProjectionHead  # noqa: PLC0415

        super().__init__(ours)
        features, extraction = ours.encoder.out_channels[-1], ours.extraction
        self.head = MoCoProjectionHead(features, extraction.hidden_dim, extraction.out_dim)
        self.key_encoder, self.key_head = deepcopy(self.encoder), deepcopy(self.head)
        self.key_encoder.requires_grad_(False)
        self.key_head.requires_grad_(False)
        self.criterion = NTXentLoss(ours.loss.temperature, memory_bank_size=(extraction.size, extraction.out_dim))
        self.momentum = ours.teacher.momentum

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        from lightly.models.utils import update_momentum  # noqa: PLC0415

        update_momentum(self.encoder, self.key_encoder, self.momentum)
        update_momentum(self.head, self.key_head, self.momentum)
        x0, x1 = self.views(batch)
        with torch.no_grad():
            keys = self.key_head(self.key_encoder(x0)[-1].flatten(2).mean(2))
        return self.criterion(self.head(self(x1)), keys)


PEERS = {"supervised": Supervised, "lightly's SimCLR": LightlySimCLR, "lightly's MoCo": LightlyMoCo}


# ---- one run ---------------------------------------------------------------------------------------------------------


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Train and judge one row with one seed."""
    module, data = build(job)
    if job["row"] == "raw pixels":
        module = RawPixels()
    elif job["row"] in PEERS:
        module = PEERS[job["row"]](module)
    seconds, memory = 0.0, 0.0
    if job["row"] not in ("raw pixels", "untrained"):
        seconds, memory = fit(module, data, job)
    return {**judge(module.to(job["device"]).eval(), data, job), "seconds": seconds, "mib": memory}


def fit(module: pl.LightningModule, data: Any, job: dict[str, Any]) -> tuple[float, float]:
    """Train; return seconds and peak memory in MiB."""
    trainer = pl.Trainer(
        max_epochs=job["epochs"],
        accelerator="gpu" if job["device"] == "cuda" else "cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if job["device"] == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    trainer.fit(module, data.train_dataloader())
    seconds = time.perf_counter() - start
    if job["device"] == "cuda":
        return seconds, torch.cuda.max_memory_allocated() / 2**20
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def judge(module: nn.Module, data: Any, job: dict[str, Any]) -> dict[str, float]:
    """The metrics of a representation."""
    from ssl_modules.evaluation.protocols import (  # noqa: PLC0415
        Labelled,
        few_label_protocol,
        knn_protocol,
        linear_protocol,
        ood_protocol,
        retrieval_protocol,
    )

    def features(images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([module(part.to(job["device"])).float() for part in images.split(500)])

    def labelled(part: Any) -> Labelled:
        return Labelled(features(part.images), part.targets[:, 0].to(job["device"]).contiguous())

    train = labelled(data.train_set)
    if job["part"] == "val":
        return {"knn": knn_protocol(train, labelled(data.val_set))["top1"]}
    test = labelled(data.test_set)
    coarse = Labelled(test.features, data.test_set.targets[:, 1].to(job["device"]))
    few = few_label_protocol(train, test, shares=(0.01,))
    ood = ood_protocol(train, test, features(digits(data)), scores=["neighbours"])
    return {
        "knn": knn_protocol(train, test)["top1"],
        "linear": linear_protocol(train, test)["top1"],
        "few": few["1%/top1"],
        "retrieval": retrieval_protocol(train, test)["map"],
        "coarse": retrieval_protocol(coarse, coarse)["map"],
        "ood": next(value for name, value in ood.items() if name.endswith("auroc")),
    }


def digits(data: Any) -> Tensor:
    """scikit-learn's digits in the form of a data set: 28 pixels, or on cluttered canvases of their own."""
    from ssl_modules.datamodules import DigitsDataModule  # noqa: PLC0415
    from ssl_modules.datamodules.scattered_fashion_mnist import scatter  # noqa: PLC0415

    source = DigitsDataModule()
    source.setup()
    images = torch.cat([source.train_set.images, source.test_set.images])
    images = interpolate(images.float(), (28, 28), mode="bilinear").round().to(torch.uint8)
    if data.image_size == 28:
        return images
    return scatter(images, data.image_size, data.pieces, torch.Generator().manual_seed(0))


# ---- all runs --------------------------------------------------------------------------------------------------------


class Table:
    """The lines of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def find(self, **wanted: Any) -> list[dict[str, Any]]:
        return [line for line in self.lines if all(line[name] == value for name, value in wanted.items())]

    def add(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def crop(self) -> float:
        """The smallest crop that SimCLR chose."""
        return self._best(row="SimCLR", kind="recipe")["crop"]

    def rate(self, row: str) -> float:
        """The learning rate that a row's method chose."""
        return self._best(row=OTHERS[row][0] if row in OTHERS else row, kind="rate")["rate"]

    def _best(self, **wanted: Any) -> dict[str, Any]:
        found = self.find(**wanted)
        if not found:
            raise SystemExit(f"{self.path}: has no search of {wanted}; run with --search first")
        return max(found, key=lambda line: line["knn"])


def recipe_jobs(name: str, device: str) -> list[dict[str, Any]]:
    """SimCLR's full runs with each crop and rate."""
    common = {"kind": "recipe", "row": "SimCLR", "set": name, "seed": 0, "part": "val", "device": device}
    return [{**common, "crop": crop, "rate": rate, "epochs": EPOCHS["full"]} for crop in CROPS for rate in RATES]


def rate_jobs(name: str, table: Table, device: str) -> list[dict[str, Any]]:
    """Each method's short runs with both rates."""
    common = {"kind": "rate", "set": name, "seed": 0, "part": "val", "device": device, "crop": table.crop()}
    return [{**common, "row": row, "rate": rate, "epochs": EPOCHS["short"]} for row in METHODS for rate in RATES]


def row_jobs(name: str, search: Table, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of the table."""
    common = {"kind": "row", "set": name, "part": "test", "device": args.device, "crop": search.crop()}
    common["epochs"] = EPOCHS["large" if args.large else "full"]
    return [
        {**common, "row": row, "seed": seed, "rate": search.rate(row)}
        for row in args.only
        for seed in args.seeds[: {**METHODS, **OTHERS}[row][1]]
    ]


def finish(jobs: list[dict[str, Any]], table: Table, count: int) -> None:
    """Run the jobs that a table lacks, several at a time, each with one thread."""
    missing = [job for job in jobs if not table.find(**{k: v for k, v in job.items() if k != "device"})]
    if not missing:
        return
    fresh = 1 if any(job["device"] == "cpu" for job in missing) else None  # peak memory is that of a process
    with ProcessPoolExecutor(count, get_context("spawn"), _start, max_tasks_per_child=fresh) as pool:
        futures = {pool.submit(run, job): job for job in missing}
        for future in as_completed(futures):
            job = futures[future]
            if error := future.exception():
                print(f"{job['row']} {job['seed']} failed: {error!r}", flush=True)
            else:
                table.add({**job, **future.result(), "hardware": hardware(job["device"])})
                print({k: v for k, v in table.lines[-1].items() if k not in ("device", "hardware", "part")}, flush=True)


def _start() -> None:
    """Prepare a process that runs jobs."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def estimate(jobs: list[dict[str, Any]], count: int) -> None:
    """Print what the jobs will take, if a step of SimCLR takes 1.3 s of a core at 40 pixels and half of it at 28."""
    cost = {name: step for name, (_, _, step) in {**METHODS, **OTHERS}.items()}
    step = {"fashion": 0.65, "scattered": 1.3}
    hours = sum(cost[job["row"]] * step[job["set"]] * STEPS * job["epochs"] for job in jobs) / 3600
    print(f"{len(jobs)} runs, about {hours:.1f} core-hours on a CPU with AVX-512, {count} at a time", flush=True)


def hardware(device: str) -> str:
    name = torch.cuda.get_device_name() if device == "cuda" else f"1 thread, {torch.backends.cpu.get_cpu_capability()}"
    return f"{name}, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", action="store_true", help="choose crop and learning rates, and stop")
    parser.add_argument("--large", action="store_true", help="a ResNet-18 and ten times the steps")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, metavar="ROW")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in args.sets:
        search = Table(args.out / f"{name}_search.jsonl")
        if args.search:
            jobs = recipe_jobs(name, args.device)
            estimate(jobs, args.jobs)
            finish(jobs, search, args.jobs)
            jobs = rate_jobs(name, search, args.device)
            estimate(jobs, args.jobs)
            finish(jobs, search, args.jobs)
        else:
            jobs = row_jobs(name, search, args)
            estimate(jobs, args.jobs)
            finish(jobs, Table(args.out / f"{name}{'_large' if args.large else ''}.jsonl"), args.jobs)


if __name__ == "__main__":
    main()
