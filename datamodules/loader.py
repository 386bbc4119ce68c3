"""A DataLoader that a checkpoint can stop in the middle of an epoch."""

import signal
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from ssl_modules.datamodules.files import BatchedFiles
from ssl_modules.datamodules.sampler import EpochSampler
from ssl_modules.utils.seeds import derive_seed


class ResumableDataLoader(DataLoader):
    """A :class:`~torch.utils.data.DataLoader` over an :class:`EpochSampler` whose place in the epoch can be stored.

    Lightning writes the training loader's ``state_dict`` into every checkpoint and gives it back on resume; the epoch
    then goes on with the next batch instead of its first. What was delivered counts, not what workers fetched ahead.
    The same batches follow where data set, batch size, seed and number of processes are unchanged.

    The workers' random state follows from (seed, epoch, rank) if the loader is given a ``generator``: it is seeded
    anew each epoch. Workers that persist keep their state, so ``persistent_workers`` gives that up; the views of
    :class:`BatchedFiles` don't depend on it.

    A worker that dies - killed, or out of memory - ends no epoch: the workers are started anew, with a warning, and the
    batch that was due comes next. Only if that batch fails again does the loader raise.

    Args: those of :class:`~torch.utils.data.DataLoader`.

    Example:
        >>> def loader():
        ...     return ResumableDataLoader(range(6), batch_size=2, sampler=EpochSampler(range(6), shuffle=False))
        >>> stopped, resumed = loader(), loader()
        >>> next(iter(stopped))
        tensor([0, 1])
        >>> resumed.load_state_dict(stopped.state_dict())
        >>> list(resumed)
        [tensor([2, 3]), tensor([4, 5])]
    """

    # Class attributes, and no __init__: Lightning builds a loader anew by the arguments of DataLoader.
    _epoch = 0
    _batches = 0
    _restored = False

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The batches of the current epoch; after :meth:`load_state_dict`, once, those that were left.

        Nothing happens before the first batch is asked for: Lightning asks for the iterator before it sets the epoch.
        """
        done = 0
        if isinstance(self.sampler, EpochSampler):  # overfit_batches and predict put another in its place
            epoch = self.sampler.epoch
            if self._restored and epoch == self._epoch:
                done = self._batches
            if self.generator is not None:
                self.generator.manual_seed(derive_seed(self.sampler.seed, "workers", epoch, self.sampler.rank))
            if isinstance(self.dataset, BatchedFiles):
                self.dataset.set_epoch(epoch)
            self._epoch = epoch
        self._batches, self._restored = done, False
        failed_at = -1
        while True:
            try:
                for batch in self._from(done):
                    done += 1
                    self._batches = done
                    if done == len(self) and isinstance(self.dataset, BatchedFiles):
                        self.dataset.files.report()
                    yield batch
                return
            except (RuntimeError, EOFError, ConnectionError) as error:
                if not self._lost_a_worker(error) or done == failed_at or not isinstance(self.sampler, EpochSampler):
                    raise
                failed_at = done
                self._iterator = None  # of workers that persist
                warnings.warn(
                    f"a DataLoader worker died ({error}); starting the workers anew at batch {done} of the epoch",
                    stacklevel=2,
                )

    def _from(self, done: int) -> Iterator[Any]:
        """The batches of this epoch but the first ``done``."""
        if isinstance(self.sampler, EpochSampler):
            self.sampler.skip = done * (self.batch_size or 1)
        if self.num_workers == 0 or threading.current_thread() is not threading.main_thread():
            return super().__iter__()
        # With a process's first workers torch installs a handler that raises wherever the process is when one dies,
        # in the middle of a training step. Without it the iterator finds out by itself, within seconds.
        before = signal.getsignal(signal.SIGCHLD)
        iterator = super().__iter__()
        is_torchs = getattr(before, "__module__", None) == "torch.utils.data._utils.signal_handling"
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if is_torchs or before is None else before)
        return iterator

    def _lost_a_worker(self, error: Exception) -> bool:
        """By torch's word for it, or because a batch could no longer be fetched from where a worker had left it."""
        if isinstance(error, RuntimeError):
            return str(error).startswith("DataLoader worker (pid")
        return self.num_workers > 0 and "in DataLoader worker process" not in str(error)  # raised by the data set

    def state_dict(self) -> dict[str, int]:
        """The epoch last begun, and the number of its batches that were delivered."""
        return {"epoch": self._epoch, "batches": self._batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Goes on where :meth:`state_dict` was taken; another epoch set in the meantime begins at its head.

        Args:
            state_dict: what :meth:`state_dict` returned, of any process.
        """
        self._epoch, self._batches = state_dict["epoch"], state_dict["batches"]
        self._restored = True
        if isinstance(self.sampler, EpochSampler):
            self.sampler.set_epoch(self._epoch)
