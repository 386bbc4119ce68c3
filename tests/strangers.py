"""Models of other projects, which use only our probes, and labelled digits for them."""

import importlib
import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from ssl_modules.callbacks import OnlineKNNProbe

NAMESPACES = ["lightning.pytorch", "pytorch_lightning"]
pl = importlib.import_module(NAMESPACES[0])

_images, _targets = load_digits(return_X_y=True)
IMAGES = torch.from_numpy(_images).float().reshape(-1, 1, 8, 8) / 16
TARGETS = torch.from_numpy(_targets)
TRAIN, TEST = TensorDataset(IMAGES[:300], TARGETS[:300]), TensorDataset(IMAGES[300:500], TARGETS[300:500])


def train_loader():
    return DataLoader(TRAIN, batch_size=64, shuffle=True)


def test_loader():
    return DataLoader(TEST, batch_size=64)


test_loader.__test__ = False


def own():
    return {"train": train_loader(), "test": test_loader()}


def stranger(namespace=NAMESPACES[0], validates=False, manual=False):
    """Build a user's supervised module with batch norm, dropout and a frozen part in eval mode; it returns logits."""
    framework = importlib.import_module(namespace)

    class Stranger(framework.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = not manual
            self.encoder = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
            )
            self.dropout = nn.Dropout(0.5)
            self.head = nn.Linear(32, 10)
            self.losses = []

        def forward(self, images):
            return self.head(self.dropout(self.encoder(images)))

        def training_step(self, batch, batch_idx):
            loss = F.cross_entropy(self(batch[0]), batch[1])
            self.log("loss", loss)
            self.losses.append(loss.item())
            if manual:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    if validates:
        Stranger.validation_step = lambda self, batch, batch_idx: self.log(
            "val_loss", F.cross_entropy(self(batch[0]), batch[1])
        )
    torch.manual_seed(0)
    return Stranger()


class TwoOptimizers(pl.LightningModule):
    """A user's supervised module: manual optimisation by two optimisers, torchmetrics, and a step that returns nothing.

    Its batches are dicts of "image" and "label".
    """

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(32, 10))
        self.accuracy = MulticlassAccuracy(10)
        self.mean_loss = MeanMetric()

    def forward(self, images):
        return self.head(self.body(images))

    def training_step(self, batch, batch_idx):
        scores = self(batch["image"])
        loss = F.cross_entropy(scores, batch["label"])
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
        self.mean_loss(loss)
        self.accuracy(scores, batch["label"])
        self.log("accuracy", self.accuracy, on_step=True, on_epoch=True)

    def on_train_epoch_end(self):
        self.log("mean_loss", self.mean_loss.compute())
        self.mean_loss.reset()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.body.parameters(), lr=0.1), torch.optim.Adam(self.head.parameters())]


class BackboneAndHead(pl.LightningModule):
    """SimCLR as in lightly's examples; its batches are ((view, view), target, name)."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.projection_head = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8))

    def forward(self, x):
        features = self.backbone(x).flatten(start_dim=1)
        return self.projection_head(features)

    def training_step(self, batch, batch_index):
        (x0, x1), _, _ = batch
        z = F.normalize(torch.cat([self(x0), self(x1)]), dim=1)
        scores = (z @ z.T / 0.5).fill_diagonal_(-torch.inf)
        loss = F.cross_entropy(scores, torch.arange(len(z)).roll(len(x0)))
        self.log("train_loss_ssl", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2)]


class Prototypes(pl.LightningModule):
    """Clusters of two views with a queue, and manual optimisation by two optimisers. It has no forward.

    Its batches are dicts of "views" and "label".
    """

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.queues = nn.ModuleList([nn.Identity()])  # it comes before the backbone and has no parameters
        self.backbone = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.projector = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8))
        self.prototypes = nn.Linear(8, 12, bias=False)
        self.register_buffer("queue", torch.zeros(0, 8))

    def training_step(self, batch, batch_idx):
        views = batch["views"].unbind(1)
        first, second = (F.normalize(self.projector(self.backbone(view).flatten(1)), dim=1) for view in views)
        with torch.no_grad():
            queued = self.queues[0](self.prototypes(torch.cat([self.queue, first])))
            codes = (queued / 0.1).softmax(dim=0).softmax(dim=1)[-len(first) :]
        loss = F.cross_entropy(self.prototypes(second) / 0.1, codes)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
        self.queue = torch.cat([self.queue, first.detach()])[-64:]
        self.log("loss", loss)
        return {"loss": loss.detach(), "embedding": first.detach()}

    def on_load_checkpoint(self, checkpoint):
        self.queue = checkpoint["state_dict"]["queue"]

    def configure_optimizers(self):
        return [torch.optim.SGD(self.backbone.parameters(), lr=0.1), torch.optim.Adam(self.projector.parameters())]


@dataclass
class Tokens:
    """An output like those of transformers models."""

    logits: torch.Tensor
    last_hidden_state: torch.Tensor


class Transformer(pl.LightningModule):
    """A classifier of patches whose forward takes a dict and returns an object. It has two validation loaders."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 4, stride=4)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 10)

    def tokens(self, pixel_values):
        states = self.layer(self.patches(pixel_values).flatten(2).mT)  # [N, 4, 16]
        return Tokens(self.head(states.mean(1)), states)

    def forward(self, inputs):
        return self.tokens(inputs["pixel_values"])

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch).logits, batch["labels"])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        loss = F.cross_entropy(self(batch).logits, batch["labels"])
        self.log(f"val_loss_{dataloader_idx}", loss, add_dataloader_idx=False)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class TwoViews(Dataset):
    """Digits as in lightly's data sets: ((view, view), target, name). Views are drawn from the global random states."""

    def __len__(self):
        return 128

    def __getitem__(self, index):
        draws = torch.rand(1), random.random(), float(np.random.rand())  # noqa: NPY002
        view = IMAGES[index] * draws[1] + draws[2]
        return (view + 0.1 * torch.randn(1, 8, 8), view.roll(int(3 * draws[0]), dims=2)), TARGETS[index], f"{index}.png"


def trainer(folder, callbacks, namespace=NAMESPACES[0], **options):
    options = {"max_epochs": 2, "logger": False, "enable_checkpointing": False, **options}
    return importlib.import_module(namespace).Trainer(
        accelerator="cpu", callbacks=callbacks, default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip


class Spy(OnlineKNNProbe):
    """A probe that records its evaluations."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.calls = []

    def measure(self, module, trainer):
        if trainer is not None:
            self.calls.append(trainer.current_epoch)
        return super().measure(module, trainer)


def embed(module, images):
    module.eval()
    with torch.no_grad():
        features = module.encoder(images).numpy()
    module.train()
    return features


def data_module(namespace=NAMESPACES[0], probe_loaders=True):
    framework = importlib.import_module(namespace)

    class Data(framework.LightningDataModule):
        num_classes = 10
        setups = 0

        def setup(self, stage):
            self.setups += 1

        def train_dataloader(self):
            return DataLoader(TRAIN, batch_size=64, shuffle=True)

        def val_dataloader(self):
            return DataLoader(TEST, batch_size=64)

    if probe_loaders:
        Data.probe_train_dataloader = lambda self: DataLoader(TensorDataset(IMAGES[:100], TARGETS[:100]), batch_size=64)
        Data.probe_test_dataloader = lambda self: DataLoader(TensorDataset(IMAGES[100:200], TARGETS[100:200]))
    return Data()
