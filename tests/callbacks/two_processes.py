"""One of two processes of a run with probes; test_processes.py starts them and compares."""

import json
import os
from pathlib import Path

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ssl_modules.callbacks import (
    CollapseMonitor,
    EmbeddingPlot,
    NeighbourGrid,
    OnlineKNNProbe,
    OnlineLinearProbe,
    OnlineRetrieval,
    OnlineSGDProbe,
    OutOfDistributionProbe,
    ViewGrid,
)
from ssl_modules.evaluation.shared_features import SharedFeatures


class Supervised(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
        self.head = nn.Linear(16, 10)
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(images))

    def training_step(self, batch, batch_idx):
        features = self.encoder(batch[0])
        self.seen.append(features.detach())
        return nn.functional.cross_entropy(self.head(features), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


def loaders() -> tuple[DataLoader, DataLoader]:
    images, targets = load_digits(return_X_y=True)
    data = TensorDataset(torch.from_numpy(images).float().view(-1, 1, 8, 8) / 16, torch.from_numpy(targets))
    train = torch.utils.data.Subset(data, range(331))  # neither the batches nor the samples divide by 2
    test = torch.utils.data.Subset(data, range(500, 705))
    return DataLoader(train, batch_size=32, shuffle=True), DataLoader(test, batch_size=50)


def streams() -> tuple[list, list]:
    """The same as plain iterables; the test set is one batch, so that one process has none."""
    train, test = loaders()
    train = DataLoader(train.dataset, batch_size=33)
    return list(train), list(DataLoader(test.dataset, batch_size=205))


def probes() -> list[pl.Callback]:
    train, test = loaders()
    as_it_is, one_batch = streams()
    own = {"train": train, "test": test, "features": "encoder"}
    return [
        OnlineKNNProbe(**own, bank_size=200),
        OnlineLinearProbe(**own),
        OnlineKNNProbe(train=as_it_is, test=one_batch, features="encoder", bank_size=200, name="stream"),
        OnlineRetrieval(**own, bank_size=200),
        OutOfDistributionProbe(**own, outliers=outliers(), bank_size=200),
        OnlineSGDProbe(**own, num_classes=10),
    ]


def outliers() -> DataLoader:
    """105 images without labels, in batches of 33."""
    images, _ = load_digits(return_X_y=True)
    return DataLoader(torch.from_numpy(images[800:905]).float().view(-1, 1, 8, 8).roll(1, dims=3) / 16, batch_size=33)


def pictures() -> list[pl.Callback]:
    train, test = loaders()
    own = {"train": train, "test": test, "features": "encoder"}
    return [
        EmbeddingPlot(**own),
        NeighbourGrid(**own, queries=2, k=2),
        ViewGrid(augmentation=lambda images, generator: [images]),
    ]


class Reads(pl.Callback):
    """Reads a few times through the same :class:`SharedFeatures`; in between one process changes a weight."""

    def on_train_end(self, trainer, pl_module):
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8, bias=False))
        nn.init.constant_(module[1].weight, 1.0)
        seen = []
        module.register_forward_hook(lambda part, images, output: seen.append(len(output)))
        whole, one_batch = levels()
        shared = SharedFeatures()
        self.results = [shared.read(module, loader) for loader in (whole, one_batch, whole, one_batch)]
        self.counts = [sum(seen)]
        if trainer.global_rank == 1:
            module[1].weight.data[0, 0] += 1e-7
        self.results.append(shared.read(module, whole))
        self.counts.append(sum(seen))


def levels() -> tuple[DataLoader, list]:
    """Samples with targets [N, levels], and one batch of them, which leaves the second process none."""
    images, targets = (torch.from_numpy(array)[:90] for array in load_digits(return_X_y=True))
    data = TensorDataset(images.float() / 16, torch.stack([targets, targets // 5], dim=1))
    return DataLoader(data, batch_size=16), [data[:3]]


def run(rank: int, folder: str) -> None:
    os.environ["LOCAL_RANK"] = str(rank)
    callbacks = [CollapseMonitor(features="encoder", size=201), *pictures(), *probes(), Reads()]
    pl.seed_everything(1)
    module = Supervised()
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, callbacks=callbacks, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, loaders()[0])
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    Path(folder, f"{trainer.global_rank}.json").write_text(json.dumps(metrics))
    *_, sgd, reads = callbacks
    stored = {"module": module.state_dict(), "head": sgd.state_dict()["head"], "seen": torch.cat(module.seen)}
    stored |= {"results": reads.results, "counts": reads.counts}
    torch.save(stored, Path(folder, f"{trainer.global_rank}.pt"))
