"""Implement behaviour of official programs that no argument of our methods sets."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from trajectories.recorded import Run

from ssl_modules.extractions import AllViews, LocalMaps
from ssl_modules.extractions.heads import PooledMLP
from ssl_modules.losses import InfoNCE
from ssl_modules.optim.schedules import cosine


class NormLars(torch.optim.Optimizer):
    """LARS that divides by the norm of gradient plus weight decay.

    With ``inside``, the momentum buffer includes the learning rate.
    """

    def __init__(self, groups: Any, lr: float, weight_decay: float, inside: bool = False) -> None:
        super().__init__(groups, {"lr": lr})
        self.weight_decay = weight_decay
        self.inside = inside

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            rate = group["lr"]
            for p in group["params"]:
                d = p.grad
                if p.ndim > 1:
                    d = d + self.weight_decay * p
                    d = d * (0.001 * p.norm() / d.norm())
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.mul_(0.9).add_(d, alpha=rate if self.inside else 1.0)
                p.sub_(momentum, alpha=1.0 if self.inside else rate)
        return loss


class Twice(InfoNCE):
    """Twice our loss. Google's SimCLR adds the mean losses of both views, and our loss is the mean over all views."""

    def partial(self, *arguments: Any) -> Tensor:
        return 2 * super().partial(*arguments)


class PlainHead(AllViews):
    """The projector without batch norm of sthalles/SimCLR."""

    def build(self, out_channels: Any, sizes: Any = (), normalised: bool = False) -> None:
        self.heads = PooledMLP(out_channels[-1], out_channels[-1], self.out_dim, batch_norm=False, bias=True)


class Placed(LocalMaps):
    """AMDIM with recorded positions of the anchors, instead of random ones."""

    def __init__(self, places: Tensor) -> None:
        super().__init__("multi-pair", out_dim=None)
        self.places = list(places.flatten(0, 1))

    def _anchors(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        if z.shape[1] == 1 or not self.training:
            return super()._anchors(z, generator)
        return z[torch.arange(len(z)), self.places.pop(0)]


def one_step_longer(run: Run) -> Callable[[int], float]:
    """Return the schedule of Google's SimCLR, which is computed for one step more than the run has."""
    steps, warmup = run.epochs * run.batches, round(run.warmup * run.epochs * run.batches)
    return lambda s: s / warmup if s < warmup else cosine((s - warmup) / (steps + 1 - warmup), 0.0)


def head_norm_decays(optimizer: partial, s: dict[str, Any]) -> Callable[[Any], torch.optim.Optimizer]:
    """Return an optimiser that also decays the scale of the projector's batch norm.

    lightning-bolts excludes weights from the decay by "bn" or "bias" in their name. This norm has a number as its name.
    """

    def build(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        decayed, others = (group["params"] for group in groups)
        scale = others[-2]  # the last two weights are the scale and the bias of the projector's norm
        rest = [p for p in others if p is not scale]
        groups = [{"params": [*decayed, scale]}, {"params": rest, "weight_decay": 0.0}]
        return optimizer(groups, lr=s["lr"], weight_decay=s["weight_decay"])

    return build
