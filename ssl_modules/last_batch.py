"""The last batch of an epoch, which may be too small to train on: tried before the first step."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from ssl_modules.utils.distributed import gather_objects, world_size


def smallest_batch(loader: Any) -> tuple[int, int] | None:
    """The number of images in the first and in the smallest batch of an epoch; None if nobody knows without reading.

    Args:
        loader: any iterable of batches.

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
    """Raise if the last batch of an epoch is too small for a training step, or doesn't divide as the module needs.

    The step is rehearsed with as many random images. Nothing is rehearsed if that batch is never reached, if its size
    is unknown, or under a strategy that splits the weights.

    Args:
        module: a LightningModule whose Trainer has set up its training loader.
        rehearse: function of the module and a number of images that runs what a step runs before its backward pass.

    Raises:
        ValueError: if the rehearsal fails; the message names the number of images and the cause.
    """
    trainer = module.trainer
    known = gather_objects(smallest_batch(trainer.train_dataloader) if _reaches_the_end(trainer) else None)
    if None in known or not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        return
    firsts, sizes = zip(*known, strict=True)
    if firsts == sizes:  # the first step shows it
        return
    size = min(sizes)
    buffers = {buffer: buffer.clone() for buffer in module.buffers()}
    try:
        eagerly = torch.compiler.set_stance("force_eager")  # a compiled network would be compiled for this size as well
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
    """Whether a run reads the last batch of an epoch."""
    try:
        batches = len(trainer.train_dataloader)
    except TypeError:
        return False
    if trainer.num_training_batches < batches:
        return False
    done = trainer.fit_loop.epoch_loop.batch_progress.current.completed  # more than 0 where a run resumes
    steps_left = trainer.max_steps - trainer.global_step
    return trainer.max_steps == -1 or done + steps_left * trainer.accumulate_grad_batches >= batches
