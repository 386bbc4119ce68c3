"""Batch norm with separate statistics for parts of a batch, as if each were on its own device (MoCo).

He, Fan, Wu, Xie, Girshick: Momentum Contrast for Unsupervised Visual Representation Learning, arXiv 1911.05722,
section 3.3, shuffling BN.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_modules.utils.checks import Checked, check_instance, check_number


class SplitBatchNorm2d(Checked, nn.BatchNorm2d):
    """A batch norm that computes statistics separately for equal parts of a batch.

    The running statistics are the mean over the parts. In evaluation it equals a plain batch norm. Its state dict has
    the same names.

    Args:
        norm: the batch norm to copy weights and statistics from.
        splits: number of parts, n.

    Attributes:
        interleaved: whether a part is every n-th image instead of consecutive images. This is True for the teacher, so
            that images that share a part in the student rarely share one in the teacher, as after shuffling.
            Otherwise an anchor could recognise its own key by their common statistics.

    Shape:
        ``[N, C, H, W]`` to the same; in training, N is a multiple of n.

    Raises:
        TypeError: if ``norm`` is not a ``BatchNorm2d``.
        ValueError: if ``splits`` is below 1; if a batch can't be split into n equal parts.

    Example:
        >>> import torch
        >>> norm = SplitBatchNorm2d(nn.BatchNorm2d(1), splits=2)
        >>> norm(torch.tensor([1.0, 3.0, 10.0, 30.0]).view(4, 1, 1, 1)).flatten().round()
        tensor([-1.,  1., -1.,  1.], grad_fn=<RoundBackward0>)
    """

    plain: type[nn.Module] = nn.BatchNorm2d
    running_mean: Tensor
    running_var: Tensor
    momentum: float

    def __init__(self, norm: nn.Module, splits: int) -> None:
        check_instance("norm", norm, type(self) if isinstance(norm, type(self)) else self.plain)
        assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d)
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
        channels = parts.flatten(1, 2)  # [N / n, n C, ...], separate channels for each part
        mean, var, weight, bias = (x.repeat(n) for x in (self.running_mean, self.running_var, self.weight, self.bias))
        y = F.batch_norm(channels, mean, var, weight, bias, training=True, momentum=self.momentum, eps=self.eps)
        if self.momentum:  # momentum 0 keeps the statistics exactly; the mean over parts would round them
            self.running_mean.copy_(mean.view(n, -1).mean(dim=0))
            self.running_var.copy_(var.view(n, -1).mean(dim=0))
        y = y.unflatten(1, (n, -1))
        return (y if self.interleaved else y.transpose(0, 1)).flatten(0, 1)


class SplitBatchNorm3d(SplitBatchNorm2d):
    """Like :class:`SplitBatchNorm2d`, for maps of clips.

    Args:
        norm: the ``BatchNorm3d`` to copy weights and statistics from.
        splits: number of parts, n.

    Shape:
        ``[N, C, T, H, W]`` to the same shape. In training, N must be a multiple of n.

    Raises:
        TypeError: if ``norm`` is not a ``BatchNorm3d``.
        ValueError: if ``splits`` is below 1, or a batch can't be split into n equal parts.

    Example:
        >>> import torch
        >>> norm = SplitBatchNorm3d(nn.BatchNorm3d(1), splits=2)
        >>> norm(torch.tensor([1.0, 3.0, 10.0, 30.0]).view(4, 1, 1, 1, 1)).flatten().round()
        tensor([-1.,  1., -1.,  1.], grad_fn=<RoundBackward0>)
    """

    plain = nn.BatchNorm3d
    _check_input_dim = nn.BatchNorm3d._check_input_dim


SPLIT: dict[type[nn.Module], type[SplitBatchNorm2d]] = {
    nn.BatchNorm2d: SplitBatchNorm2d,
    SplitBatchNorm2d: SplitBatchNorm2d,
    nn.BatchNorm3d: SplitBatchNorm3d,
    SplitBatchNorm3d: SplitBatchNorm3d,
}


def split_batch_norms(model: nn.Module, splits: int, name: str = "batch_norm_splits") -> None:
    """Replace all 2-d and 3-d batch norms of a network in place. Layers that are already split get the new number.

    Args:
        model: a network whose batch norms have affine parameters, running statistics and a momentum.
        splits: number of parts, at least 2.
        name: name of the argument in error messages.

    Raises:
        ValueError: if ``splits`` is below 2, the network has no batch norm, or a batch norm can't be replaced.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        >>> split_batch_norms(model, 2)
        >>> type(model[1]).__name__
        'SplitBatchNorm2d'
    """
    check_number(name, splits, least=2)
    norms = {id(m): m for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)}
    for m in norms.values():
        plain = type(m) in SPLIT and m.affine and m.track_running_stats and m.momentum is not None
        if not plain:
            raise ValueError(f"{name}: expected plain batch norms, got {m!r}, which can't be split; pass None")
    if not norms:
        raise ValueError(f"{name}: {type(model).__name__} has no batch norm to split; pass None")
    for parent in list(model.modules()):
        for attribute, child in parent.named_children():
            if id(child) in norms:
                setattr(parent, attribute, SPLIT[type(child)](child, splits))
