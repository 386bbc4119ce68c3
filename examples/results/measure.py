"""Train and evaluate a row of the results with one seed."""

import resource
import time
from typing import Any

import lightning.pytorch as pl
import torch
from peers import PEERS, RawPixels
from rows import REFERENCES, build
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ssl_modules.datamodules import DigitsDataModule
from ssl_modules.datamodules.scattered_fashion_mnist import scatter
from ssl_modules.evaluation import protocols
from ssl_modules.evaluation.protocols import Labelled


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Train and evaluate one row with one seed; return metrics, time, memory and hardware."""
    module, data = build(job)
    if job["row"] == "raw pixels":
        module = RawPixels()
    elif job["row"] in PEERS:
        module = PEERS[job["row"]](module)
    seconds, memory = 0.0, 0.0
    if job["row"] not in REFERENCES:
        seconds, memory = fit(module, data, job)
    return {
        **evaluate(module.to(job["device"]).eval(), data, job),
        "seconds": seconds,
        "mib": memory,
        "hardware": hardware(job["device"]),
    }


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


def evaluate(module: nn.Module, data: Any, job: dict[str, Any]) -> dict[str, float]:
    """Return the metrics of a representation."""

    def features(images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([module(part.to(job["device"])).float() for part in images.split(500)])

    def labelled(part: Any) -> Labelled:
        return Labelled(features(part.images), part.targets[:, 0].to(job["device"]).contiguous())

    train = labelled(data.train_set)
    if job["part"] == "val":
        return {"knn": protocols.knn_protocol(train, labelled(data.val_set))["top1"]}
    test = labelled(data.test_set)
    coarse = Labelled(test.features, data.test_set.targets[:, 1].to(job["device"]))
    few = protocols.few_label_protocol(train, test, shares=(0.01,))
    ood = protocols.ood_protocol(train, test, features(digits(data)), scores=["neighbours"])
    return {
        "knn": protocols.knn_protocol(train, test)["top1"],
        "linear": protocols.linear_protocol(train, test)["top1"],
        "few": few["1%/top1"],
        "retrieval": protocols.retrieval_protocol(train, test)["map"],
        "coarse": protocols.retrieval_protocol(coarse, coarse)["map"],
        "ood": next(value for name, value in ood.items() if name.endswith("auroc")),
    }


def digits(data: Any) -> Tensor:
    """Return scikit-learn's digits at 28 pixels, or scattered on cluttered canvases if the images of ``data`` are."""
    source = DigitsDataModule()
    source.setup()
    images = torch.cat([source.train_set.images, source.test_set.images])
    images = interpolate(images.float(), (28, 28), mode="bilinear").round().to(torch.uint8)
    if data.image_size == 28:
        return images
    return scatter(images, data.image_size, data.pieces, torch.Generator().manual_seed(0))


def hardware(device: str) -> str:
    name = torch.cuda.get_device_name() if device == "cuda" else f"1 thread, {torch.backends.cpu.get_cpu_capability()}"
    return f"{name}, torch {torch.__version__}"
