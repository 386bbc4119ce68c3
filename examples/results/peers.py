"""Modules that the results compare our methods with: raw pixels, supervised learning, lightly's SimCLR and MoCo."""

from copy import deepcopy
from typing import Any

import lightning.pytorch as pl
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead, SimCLRProjectionHead
from lightly.models.utils import update_momentum
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_modules.optim import build_optimizer, param_groups


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
        return build_optimizer(self.make_optimizer, param_groups([self]), self.schedule, self.trainer)


class Supervised(Peer):
    """Learns the classes from one view of each image."""

    def __init__(self, ours: Any) -> None:
        super().__init__(ours)
        self.classifier = nn.Linear(ours.encoder.out_channels[-1], 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return cross_entropy(self.classifier(self(self.views(batch)[0])), batch[1][:, 0])


class LightlySimCLR(Peer):
    """SimCLR with lightly's head and loss."""

    def __init__(self, ours: Any) -> None:
        super().__init__(ours)
        features = ours.encoder.out_channels[-1]
        self.head = SimCLRProjectionHead(features, ours.extraction.hidden_dim, ours.extraction.out_dim)
        self.criterion = NTXentLoss(temperature=ours.loss.temperature)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x0, x1 = self.views(batch)
        return self.criterion(self.head(self(x0)), self.head(self(x1)))


class LightlyMoCo(Peer):
    """MoCo with lightly's head, queue and loss."""

    def __init__(self, ours: Any) -> None:
        super().__init__(ours)
        features, extraction = ours.encoder.out_channels[-1], ours.extraction
        self.head = MoCoProjectionHead(features, extraction.hidden_dim, extraction.out_dim)
        self.key_encoder, self.key_head = deepcopy(self.encoder), deepcopy(self.head)
        self.key_encoder.requires_grad_(False)
        self.key_head.requires_grad_(False)
        self.criterion = NTXentLoss(ours.loss.temperature, memory_bank_size=(extraction.size, extraction.out_dim))
        self.momentum = ours.teacher.momentum

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        update_momentum(self.encoder, self.key_encoder, self.momentum)
        update_momentum(self.head, self.key_head, self.momentum)
        x0, x1 = self.views(batch)
        with torch.no_grad():
            keys = self.key_head(self.key_encoder(x0)[-1].flatten(2).mean(2))
        return self.criterion(self.head(self(x1)), keys)


PEERS = {"supervised": Supervised, "lightly's SimCLR": LightlySimCLR, "lightly's MoCo": LightlyMoCo}
