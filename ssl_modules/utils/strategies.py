"""Checks whether a module can train with a Trainer's strategy."""

from typing import Any

from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_modules.utils.lightning import synchronises_batch_norms

_SHARDING = (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)
# torch replaces any batch norm by a plain synchronised one, so only plain batch norms keep their behaviour.
_CONVERTIBLE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def check_strategy(module: Any) -> None:
    """Raise an error if a module can't train with the strategy of its Trainer; call it in the hook ``setup``.

    Raises:
        ValueError: if the strategy shards the weights, or should synchronise batch norms but can't.
    """
    trainer = module.trainer
    if isinstance(trainer.strategy, _SHARDING):
        raise ValueError(
            f"strategy: expected one that keeps all weights in each process, got {type(trainer.strategy).__name__}, "
            "which shards them. Teacher, LARS, probes and checkpoints need whole weights; use "
            'Trainer(strategy="ddp"), and micro_batch= if a batch does not fit in memory'
        )
    if not synchronises_batch_norms(trainer):
        return
    norms = {name: m for name, m in module.named_modules() if isinstance(m, _BatchNorm)}
    if norms and trainer.strategy.root_device.type == "cpu":
        raise ValueError(
            "sync_batchnorm: expected False on CPUs, because torch synchronises batch norms only on GPUs, got True; "
            "leave out sync_batchnorm, so that each process normalises its own images"
        )
    for name, norm in norms.items():
        if type(norm) not in _CONVERTIBLE:
            raise ValueError(
                f"sync_batchnorm: expected False, because torch would replace {name}, a {type(norm).__name__}, by a "
                "plain batch norm, got True; leave out sync_batchnorm"
            )
