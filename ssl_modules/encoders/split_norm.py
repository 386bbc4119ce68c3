"""Batch norm as if a batch were on several devices, each with statistics of its own (MoCo).

He, Fan, Wu, Xie, Girshick: Momentum Contrast for Unsupervised Visual Representation Learning, arXiv 1911.05722,
section 3.3, shuffling BN.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_modules.utils.checks import Checked, check_instance, check_number


class SplitBatchNorm2d(Checked, nn.BatchNorm2d):
    """A batch norm that takes its statistics of equal parts of a batch, each for itself.

    The running statistics are the mean over the parts. In evaluation it is the plain batch norm, and so are its
    weights' names.

    Args:
        norm: whose weights and statistics it takes over.
        splits: number of parts, n.

    Attributes:
        interleaved: whether a part is every n-th image rather than a run of consecutive ones. The teacher's are, so
            that two images share a part with the student and with the teacher as rarely as if they were shuffled:
            otherwise an anchor could tell its own key by the statistics that they have in common.

    Shape:
        ``[N, C, H, W]`` to the same, N a multiple of n in training.

    Raises:
        TypeError: for another norm.
        ValueError: for less than one part; for a batch that has no n equal parts.

    Example:
        >>> import torch
        >>> norm = SplitBatchNorm2d(nn.BatchNorm2d(1), splits=2)
        >>> norm(torch.tensor([1.0, 3.0, 10.0, 30.0]).view(4, 1, 1, 1)).flatten().round()
        tensor([-1.,  1., -1.,  1.], grad_fn=<RoundBackward0>)
    """

    running_mean: Tensor
    running_var: Tensor
    momentum: float

    def __init__(self, norm: nn.BatchNorm2d, splits: int) -> None:
        check_instance("norm", norm, nn.BatchNorm2d)
        check_number("splits", splits, above=0)
        own = norm.weight
        super().__init__(norm.num_features, norm.eps, norm.momentum, device=own.device, dtype=own.dtype)
        self.load_state_dict(norm.state_dict())
        self.splits = splits
        self.interleaved = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        n = self.splits
        if len(x) % n:
            raise ValueError(
                f"batch: {len(x)} images don't make batch_norm_splits={n} equal parts; use a batch size that does, and "
                "drop_last=True"
            )
        parts = x.unflatten(0, (-1, n)) if self.interleaved else x.unflatten(0, (n, -1)).transpose(0, 1)
        channels = parts.flatten(1, 2)  # [N / n, n C, H, W]: a part's channels are channels of their own
        mean, var, weight, bias = (x.repeat(n) for x in (self.running_mean, self.running_var, self.weight, self.bias))
        y = F.batch_norm(channels, mean, var, weight, bias, training=True, momentum=self.momentum, eps=self.eps)
        self.running_mean.copy_(mean.view(n, -1).mean(dim=0))
        self.running_var.copy_(var.view(n, -1).mean(dim=0))
        y = y.unflatten(1, (n, -1))
        return (y if self.interleaved else y.transpose(0, 1)).flatten(0, 1)


def split_batch_norms(model: nn.Module, splits: int) -> None:
    """Replace all batch norms over images in a network, in place.

    Args:
        model: whose norms have learned scales and running statistics, as usual.
        splits: number of parts, at least 2.

    Raises:
        ValueError: for fewer parts; if there is nothing to replace, or a kind of norm that can't be.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        >>> split_batch_norms(model, 2)
        >>> type(model[1]).__name__
        'SplitBatchNorm2d'
    """
    check_number("batch_norm_splits", splits, least=2)
    norms = {id(m): m for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    for m in norms.values():
        plain = type(m) is nn.BatchNorm2d and m.affine and m.track_running_stats and m.momentum is not None
        if not plain:
            raise ValueError(f"batch_norm_splits: can't split {m!r}, which is no plain batch norm; pass None")
    if not norms:
        raise ValueError(f"batch_norm_splits: {type(model).__name__} has no batch norm to split; pass None")
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if id(child) in norms:
                setattr(parent, name, SplitBatchNorm2d(norms[id(child)], splits))
