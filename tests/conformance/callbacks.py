"""One case for each public callback; a new callback joins with one entry in CASES."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from strangers import (
    IMAGES,
    NAMESPACES,
    pl,
)
from torch import nn

from ssl_modules.callbacks import (
    CollapseMonitor,
    EmbeddingPlot,
    NeighbourGrid,
    OnlineKNNProbe,
    OnlineLinearProbe,
    OnlineProbe,
    OnlineRetrieval,
    OnlineSGDProbe,
    OutOfDistributionProbe,
    ViewGrid,
)


def flips(images, generator):
    return [images.flip(3), images + torch.rand(1)]  # the random number is not from the generator


@dataclass(frozen=True)
class Project:
    """Another project's module and data, and the arguments that our callbacks need for them."""

    module: Callable[[], Any]
    loaders: Callable[[], list[Any]]  # the loaders of the Trainer
    features: Any
    data: Callable[[], dict[str, Any]] = dict  # data of the probes; if empty, they use the Trainer's loaders
    prepare: Callable[[Any], Any] | None = None
    outliers: Any = field(default_factory=lambda: [IMAGES[600:700].flip(2)])
    augmentation: Callable[[Any, Any], list[Any]] | None = flips
    namespace: str = NAMESPACES[0]
    read_views: Callable[[Any], Any] | None = None  # ViewGrid's prepare function for the Trainer's batches
    monitored: dict[str, Any] | None = None  # CollapseMonitor's arguments; None = features as for probes

    def probe(self) -> dict[str, Any]:
        """Return the arguments that all probes get."""
        return {**self.data(), "features": self.features, "prepare": self.prepare, "bank_size": 200}


class NearestMeans(OnlineProbe):
    """A user's own probe."""

    def measure(self, module, trainer):
        bank, labels = self.read("train", module, trainer)
        queries, targets = self.read("test", module, trainer)
        means = torch.stack([bank[labels == label].mean(dim=0) for label in range(10)])
        return {"mean_top1": (torch.cdist(queries, means).argmin(dim=1) == targets).double().mean().item()}


@dataclass(frozen=True)
class Case:
    """A callback, and its result in one process: metrics by name, or a figure."""

    make: Callable[[Project], pl.Callback]
    alone: Callable[[Any, nn.Module, Any], Any] = lambda probe, module, run: probe.evaluate(module)


CASES = {
    OnlineProbe: Case(lambda project: NearestMeans(**project.probe())),
    OnlineKNNProbe: Case(lambda project: OnlineKNNProbe(**project.probe())),
    OnlineLinearProbe: Case(lambda project: OnlineLinearProbe(**project.probe())),
    OnlineSGDProbe: Case(lambda project: OnlineSGDProbe(**project.probe(), num_classes=10)),
    OnlineRetrieval: Case(lambda project: OnlineRetrieval(**project.probe())),
    OutOfDistributionProbe: Case(lambda project: OutOfDistributionProbe(**project.probe(), outliers=project.outliers)),
    EmbeddingPlot: Case(lambda project: EmbeddingPlot(**project.probe()), lambda plot, module, run: plot.draw(module)),
    NeighbourGrid: Case(
        lambda project: NeighbourGrid(**project.probe(), queries=2, k=2), lambda grid, module, run: grid.draw(module)
    ),
    CollapseMonitor: Case(
        lambda project: CollapseMonitor(**project.monitored or {"features": project.features}, size=201),
        # The monitor needs the last 201 features of two processes. Each process keeps 101 features, and the callback
        # drops the oldest of all 202.
        lambda monitor, module, run: monitor.measure(
            torch.stack([x[-101:] for x in run.features], 1).flatten(0, 1)[1:]
        ),
    ),
    ViewGrid: Case(
        lambda project: ViewGrid(
            augmentation=project.augmentation, prepare=project.read_views or project.prepare, images=2
        ),
        lambda grid, module, run: grid.draw(module, run.batch),
    ),
}
