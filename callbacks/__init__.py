"""Callbacks that evaluate the representation of any LightningModule while it trains."""

if __name__ == "callbacks":
    raise ImportError("import ssl_modules.callbacks: this folder is a part of ssl_modules, not a package of its own")

from ssl_modules.callbacks.collapse import CollapseMonitor
from ssl_modules.callbacks.embedding import EmbeddingPlot
from ssl_modules.callbacks.knn import OnlineKNNProbe
from ssl_modules.callbacks.linear import OnlineLinearProbe
from ssl_modules.callbacks.neighbours import NeighbourGrid
from ssl_modules.callbacks.ood import OutOfDistributionProbe
from ssl_modules.callbacks.probe import OnlineProbe
from ssl_modules.callbacks.retrieval import OnlineRetrieval
from ssl_modules.callbacks.sgd import OnlineSGDProbe
from ssl_modules.callbacks.views import ViewGrid

__all__ = [
    "CollapseMonitor",
    "EmbeddingPlot",
    "NeighbourGrid",
    "OnlineKNNProbe",
    "OnlineLinearProbe",
    "OnlineProbe",
    "OnlineRetrieval",
    "OnlineSGDProbe",
    "OutOfDistributionProbe",
    "ViewGrid",
]
