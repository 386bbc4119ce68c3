"""Projects that have nothing of ours but the probes, and labelled digits for them."""

import importlib

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

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
    """A supervised module of someone else: batch norm, dropout, a frozen part in eval mode, logits as output."""
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


def trainer(folder, callbacks, namespace=NAMESPACES[0], **options):
    options = {"max_epochs": 2, "logger": False, "enable_checkpointing": False, **options}
    return importlib.import_module(namespace).Trainer(
        accelerator="cpu", callbacks=callbacks, default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip


class Spy(OnlineKNNProbe):
    """Counts the evaluations."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.calls = []

    def _evaluate(self, module, trainer):
        if trainer is not None:
            self.calls.append(trainer.current_epoch)
        return super()._evaluate(module, trainer)


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
