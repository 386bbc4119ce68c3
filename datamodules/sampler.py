"""The order of the images: a function of (seed, epoch), shared by all processes."""

from collections.abc import Iterator, Sized

import torch
from torch import distributed
from torch.utils.data import DistributedSampler

from ssl_modules.utils.checks import Checked, check_instance, check_number
from ssl_modules.utils.seeds import derive_generator


class EpochSampler(Checked, DistributedSampler[int]):
    """Order of a data set that depends on ``(seed, epoch)`` only, for one process and for several.

    Process ``rank`` takes every ``num_replicas``-th index: the images of one step, over all processes, depend on the
    global batch size and not on the number of processes. The global random state is neither read nor changed.

    Args:
        dataset: only its length is used.
        shuffle: a new permutation each epoch, or the data set's own order.
        drop_last: how to give all processes equally many indices: drop the last ones, or (False) repeat the first.
        seed: any integer; equal seeds give equal orders.
        num_replicas: number of processes; None for that of the process group, or 1 without a group.
        rank: this process, in ``[0, num_replicas)``; None for that of the process group, or 0.

    Attributes:
        skip: number of this process's first indices to leave out of the next iteration, and of that one only.

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
        """The indices of this process in the current epoch, after the first ``skip``."""
        size = len(self.dataset)  # type: ignore[arg-type]
        if self.shuffle:
            order = torch.randperm(size, generator=derive_generator(self.seed, "order", self.epoch))
        else:
            order = torch.arange(size)
        order = order[torch.arange(self.total_size) % max(size, 1)]  # cut, or extended by its first indices
        skip, self.skip = self.skip, 0
        return iter(order[self.rank :: self.num_replicas][skip:].tolist())
