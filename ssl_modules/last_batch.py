"""Tries the last batch of an epoch before the first step, because it may be too small to train on."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from ssl_modules.utils.distributed import gather_objects, world_size


def smallest_batch(loader: Any) -> tuple[int, int] | None:
    """Return the number of images in the first and in the smallest batch of an epoch.

    Args:
        loader: any iterable of batches.

    Returns:
        Both numbers; None if they are unknown before the loader is read.

    Example:
        >>> smallest_batch(DataLoader(range(7), batch_size=3))
        (3, 1)
        >>> smallest_batch(DataLoader(range(7), batch_sampler=[[0, 1], [2], [3, 4]]))
        (2, 1)
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    batches: Any = loader.batch_sampler
    if isinstance(batches, list | tuple) and batches:
        return len(batches[0]), min(len(batch) for batch in batches)
    if type(batches) is not BatchSampler:
        return None
    images, full = len(batches.sampler), batches.batch_size  # type: ignore[arg-type]
    rest = 0 if batches.drop_last else images % full
    return min(full, images), rest or min(full, images)


def check_last_batch(module: Any, rehearse: Callable[[Any, int], None]) -> None:
    """Raise if a training step would fail on the last batch of an epoch because of its size.

    ``rehearse`` runs the step with random images, as many as that batch has. It is not called if the run never reaches
    that batch, if the size is unknown, or if the strategy shards the weights.

    Args:
        module: a LightningModule whose Trainer has set up its training loader.
        rehearse: function of the module and a number of images; it runs a training step up to the backward pass.

    Raises:
        ValueError: if the rehearsal fails; the message names the number of images and the cause.
    """
    trainer = module.trainer
    known = gather_objects(smallest_batch(trainer.train_dataloader) if _reaches_the_end(trainer) else None)
    if None in known or not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        return
    firsts, sizes = zip(*known, strict=True)
    if firsts == sizes:  # the first step raises the error itself
        return
    size = min(sizes)
    buffers = {buffer: buffer.clone() for buffer in module.buffers()}
    try:
        eagerly = torch.compiler.set_stance("force_eager")  # don't compile for this size
        with isolate_rng(), torch.no_grad(), eagerly, trainer.precision_plugin.forward_context():
            rehearse(module, size)
    except (ValueError, RuntimeError) as error:
        cause = str(error).partition("; ")[0].removeprefix("batch: ")
        per_process = " per process" if world_size() > 1 else ""
        raise ValueError(
            f"batch: the last one of an epoch has {size} image{'s' * (size != 1)}{per_process}, with which a step "
            f"fails: {cause}; pass drop_last=True to the training loader or its batch sampler, or another batch_size"
        ) from error
    finally:
        for buffer, before in buffers.items():
            buffer.copy_(before)


def _reaches_the_end(trainer: Any) -> bool:
    """Whether the run reaches the last batch of an epoch."""
    try:
        batches = len(trainer.train_dataloader)
    except TypeError:
        return False
    if trainer.num_training_batches < batches:
        return False
    done = trainer.fit_loop.epoch_loop.batch_progress.current.completed  # more than 0 in a resumed run
    steps_left = trainer.max_steps - trainer.global_step
    return trainer.max_steps == -1 or done + steps_left * trainer.accumulate_grad_batches >= batches
