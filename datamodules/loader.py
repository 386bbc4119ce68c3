"""A DataLoader that resumes in the middle of an epoch."""

import os
import signal
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from ssl_modules.datamodules.batches import BatchedFiles, BatchedImages
from ssl_modules.datamodules.sampler import EpochSampler
from ssl_modules.utils.seeds import derive_seed

MAX_WORKERS = 8


class ResumableDataLoader(DataLoader):
    """A :class:`~torch.utils.data.DataLoader` over an :class:`EpochSampler` that stores its position in the epoch.

    Lightning writes the training loader's ``state_dict`` to every checkpoint and restores it on resume. The epoch then
    continues with the next batch. Batches are counted when they are delivered, not when workers prefetch them. If the
    data set, the seed and the global batch size (batch size times processes) are unchanged, the resumed run reads the
    same images in each step. With another global batch size, it still reads each of the remaining images once.

    With a ``generator``, the workers' random state is seeded each epoch and depends only on (seed, epoch, rank).
    ``persistent_workers`` keep their state instead; the views of :class:`BatchedFiles` don't depend on it.

    If a worker is killed, for example because memory runs out, the loader warns, starts new workers and continues with
    the next batch. If that batch fails again, the loader raises an error.

    The arguments are those of :class:`~torch.utils.data.DataLoader`.

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

    # Class attributes instead of __init__: Lightning rebuilds a loader from the arguments of DataLoader.
    _epoch = 0
    _start = 0  # images of the epoch that all processes read before this run
    _batches = 0  # batches of this process since then
    _restored = False

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches of the current epoch. The first time after :meth:`load_state_dict`, yield only the rest.

        The epoch is read when the first batch is requested: Lightning makes the iterator before it sets the epoch.
        """
        done, start = 0, 0
        if isinstance(self.sampler, EpochSampler):  # overfit_batches and predict replace the sampler
            epoch = self.sampler.epoch
            if self._restored and epoch == self._epoch:
                start = self._start
            if self.generator is not None:
                self.generator.manual_seed(derive_seed(self.sampler.seed, "workers", epoch, self.sampler.rank))
            if isinstance(self.dataset, BatchedFiles):
                self.dataset.set_epoch(epoch)
            self._epoch = epoch
        self._batches, self._start, self._restored = done, start, False
        before = self.batches_before or 0
        failed_at = -1
        while True:
            try:
                for batch in self._from(start + done * self._images_of_a_step):
                    done += 1
                    self._batches = done
                    self._warn(is_last=before + done == len(self))
                    yield batch
                return
            except (RuntimeError, EOFError, ConnectionError) as error:
                if not self._lost_a_worker(error) or done == failed_at or not isinstance(self.sampler, EpochSampler):
                    raise
                failed_at = done
                self._iterator = None  # persistent workers would reuse it
                warnings.warn(
                    f"a DataLoader worker died ({error}); starting new workers at batch {done} of the epoch",
                    stacklevel=2,
                )

    def _warn(self, is_last: bool) -> None:
        """Warn about dark 16-bit images, and after the last batch of an epoch about unreadable files."""
        if isinstance(self.dataset, BatchedFiles):
            if is_last:
                self.dataset.files.report()
            self.dataset.files.warn_if_dark()
        elif isinstance(self.dataset, BatchedImages):
            self.dataset.white.warn_if_dark("images")

    def _from(self, images: int) -> Iterator[Any]:
        """Return an iterator over the rest of the epoch, without the first ``images`` of all processes."""
        if isinstance(self.sampler, EpochSampler):
            self.sampler.skip = images
        if self.num_workers == 0 or threading.current_thread() is not threading.main_thread():
            return super().__iter__()
        # When a process starts its first workers, torch installs a signal handler that raises as soon as one dies, even
        # in the middle of a training step. Without the handler, the iterator notices a dead worker within seconds.
        before = signal.getsignal(signal.SIGCHLD)
        iterator = super().__iter__()
        is_torchs = getattr(before, "__module__", None) == "torch.utils.data._utils.signal_handling"
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if is_torchs or before is None else before)
        return iterator

    def _lost_a_worker(self, error: Exception) -> bool:
        """Return whether torch reports a dead worker, or can no longer open memory that a worker shared."""
        if isinstance(error, RuntimeError):
            return str(error).startswith("DataLoader worker (pid")
        return self.num_workers > 0 and "in DataLoader worker process" not in str(
            error
        )  # the data set raised that error

    @property
    def _images_of_a_step(self) -> int:
        """Number of images in one step of all processes."""
        return (self.batch_size or 1) * getattr(self.sampler, "num_replicas", 1)

    @property
    def batches_before(self) -> int | None:
        """Number of batches of the epoch that count as read before this run: all batches minus the remaining ones.

        It is None if Lightning has replaced the sampler.
        """
        if not isinstance(self.sampler, EpochSampler):
            return None
        if not self._start:
            return 0
        left = self.sampler.left(self._start) // self.sampler.num_replicas
        size = self.batch_size or 1
        return len(self) - (left // size if self.drop_last else -(-left // size))

    def state_dict(self) -> dict[str, int]:
        """Return the current epoch, and the number of its images that were delivered to all processes."""
        return {"epoch": self._epoch, "images": self._start + self._batches * self._images_of_a_step}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue at the position in ``state_dict``, unless another epoch is set before the next batch.

        Args:
            state_dict: result of :meth:`state_dict` from any process, also from a run with another number of processes.
        """
        self._epoch, self._start, self._batches = state_dict["epoch"], state_dict["images"], 0
        self._restored = True
        if isinstance(self.sampler, EpochSampler):
            self.sampler.set_epoch(self._epoch)


def available_workers() -> int:
    """Default number of worker processes: one for each core that this process may use, at most 8.

    Example:
        >>> available_workers() >= 1
        True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_WORKERS, cores)
