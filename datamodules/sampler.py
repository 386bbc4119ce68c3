"""The order of the images: a function of (seed, epoch), shared by all processes."""

from collections.abc import Iterator, Sized
from functools import partial

import torch
from torch import distributed
from torch.utils.data import DistributedSampler

from ssl_modules.utils.checks import Checked, check_instance, check_number
from ssl_modules.utils.seeds import derive_generator


class EpochSampler(Checked, DistributedSampler[int]):
    """Order of a data set that depends only on ``(seed, epoch)``, for one or several processes.

    Process ``rank`` takes every ``num_replicas``-th index. The images of one step, over all processes, therefore depend
    on the global batch size and not on the number of processes. The global random state is neither read nor changed.

    Args:
        dataset: data set to sample from. If it has a method ``shuffled(generator)``, this method returns the
            permutation of its rows, ``[N]``. Otherwise, only its length is used.
        shuffle: whether to draw a new permutation each epoch; False keeps the data set's order.
        drop_last: whether to drop the last indices so that all processes get equally many; False repeats the first ones
            instead.
        seed: any integer; equal seeds give equal orders.
        num_replicas: number of processes; None for that of the process group, or 1 without a group.
        rank: index of this process, in ``[0, num_replicas)``; None for that of the process group, or 0 without a group.

    Attributes:
        skip: number of indices at the start of the epoch, over all processes, that the next iteration leaves out. Later
            iterations use all indices.

    Example:
        >>> sampler = EpochSampler(range(6), seed=1)
        >>> first = list(sampler)
        >>> sampler.set_epoch(1)
        >>> sorted(first), list(sampler) == first
        ([0, 1, 2, 3, 4, 5], False)
        >>> list(EpochSampler(range(5), shuffle=False, num_replicas=2, rank=1))
        [1, 3, 0]
    """

    def __init__(
        self,
        dataset: Sized,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        grouped = distributed.is_available() and distributed.is_initialized()
        if num_replicas is None:
            num_replicas = distributed.get_world_size() if grouped else 1
        if rank is None:
            rank = distributed.get_rank() if grouped else 0
        check_instance("dataset", dataset, Sized)
        check_number("num_replicas", num_replicas, least=1)
        check_number("rank", rank, least=0, below=num_replicas)
        super().__init__(dataset, num_replicas, rank, shuffle, seed, drop_last)  # type: ignore[arg-type]
        self.skip = 0

    def __iter__(self) -> Iterator[int]:
        """Return the indices of this process in the current epoch, without the first ``skip``."""
        size = len(self.dataset)  # type: ignore[arg-type]
        if self.shuffle:
            generator = derive_generator(self.seed, "order", self.epoch)
            shuffled = getattr(self.dataset, "shuffled", partial(torch.randperm, size))
            order = shuffled(generator=generator)
        else:
            order = torch.arange(size)
        skip, self.skip = self.skip, 0
        # truncate the order, or repeat its first indices, so that all processes get equally many
        order = order[torch.arange(skip, skip + self.left(skip)) % max(size, 1)]
        return iter(order[self.rank :: self.num_replicas].tolist())

    def left(self, skip: int) -> int:
        """Return the number of indices, over all processes, that an epoch has after its first ``skip``."""
        left = max(len(self.dataset) - skip, 0)  # type: ignore[arg-type]
        rest = left % self.num_replicas
        if rest and not self.drop_last:
            rest -= self.num_replicas
        return left - rest
