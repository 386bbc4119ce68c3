"""Callbacks that judge the representation of any LightningModule while it trains."""

if __name__ == "callbacks":
    raise ImportError("import ssl_modules.callbacks: this folder is a part of ssl_modules, not a package of its own")

from ssl_modules.callbacks.knn import OnlineKNNProbe
from ssl_modules.callbacks.linear import OnlineLinearProbe

__all__ = ["OnlineKNNProbe", "OnlineLinearProbe"]
