"""Handling of files that can't be read. There are three kinds of errors:

- Temporary storage errors, such as an input/output error of a network file system. :func:`read_bytes` and
  :func:`retried` try again a few times.
- System errors: a storage error that remains, too many open files, no permission, no memory, or a folder that vanished.
  They raise a :class:`SystemFault` or a MemoryError and end the run, because the images themselves may be fine.
- File errors: a file is missing, truncated or not an image. :class:`UnreadableFiles` leaves the image out until the
  next epoch, and reports it.
"""

import errno
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Literal, TypeVar

import torch

from ssl_modules.utils.faults import SystemFault

Unreadable = Literal["skip", "error"]
Read = TypeVar("Read")

WAITS = (0.1, 0.5, 2.0)  # seconds to wait before each retry
SHOWN = 20  # maximum number of paths in a warning


def _codes(names: str) -> frozenset[int]:
    return frozenset(getattr(errno, name) for name in names.split() if hasattr(errno, name))  # not all on each system


PASSING = _codes(
    "EIO ESTALE ETIMEDOUT EAGAIN EBUSY EINTR ECONNRESET ECONNABORTED ECONNREFUSED ENOTCONN ENETDOWN ENETUNREACH "
    "ENETRESET EHOSTDOWN EHOSTUNREACH EPIPE EREMOTEIO"
)
OF_FILE = _codes("ENOENT EISDIR ENOTDIR ELOOP ENAMETOOLONG")  # there is no such file
TOO_MANY_OPEN = _codes("EMFILE ENFILE")
FIXES = {
    **dict.fromkeys(
        TOO_MANY_OPEN,
        "raise the limit (ulimit -n), use fewer num_workers, or call "
        "torch.multiprocessing.set_sharing_strategy('file_system')",
    ),
    errno.ENOMEM: "use fewer num_workers or a smaller batch_size",
    **dict.fromkeys(_codes("EACCES EPERM"), "make the file and its folders readable (chmod), or leave it out"),
    **dict.fromkeys(_codes("ENOSPC EDQUOT"), "make room on the disk, then resume the run"),
    **dict.fromkeys(PASSING, "check the disk, or the mount of a network file system, then resume the run"),
}


def read_bytes(path: str | Path) -> bytes:
    """Read the content of a file; after a temporary storage error, try again after 0.1, 0.5 and 2 seconds.

    Args:
        path: path of the file.

    Raises:
        SystemFault: if a system error prevents reading; the message gives the path, the cause and a fix.
        OSError: if there is no such file.

    Example:
        >>> Path("notes.txt").write_text("one")
        3
        >>> read_bytes("notes.txt")
        b'one'
    """
    return retried(path, Path(path).read_bytes)


def retried(path: str | Path, read: Callable[[], Read]) -> Read:
    """Call ``read`` and return its result; handle errors as :func:`read_bytes` does.

    Args:
        path: path of the file or folder, for the message.
        read: function that reads it; it is called again after a temporary storage error.

    Raises:
        SystemFault: if a system error prevents reading.

    Example:
        >>> _ = Path("notes.txt").write_text("one")
        >>> retried("notes.txt", Path("notes.txt").read_text)
        'one'
    """
    for wait in WAITS:
        try:
            return read()
        except OSError as error:
            if error.errno not in PASSING:
                raise_if_of_system(path, error)
                raise
        sleep(wait)
    with named_faults(path):
        return read()


@contextmanager
def named_faults(path: str | Path) -> Iterator[None]:
    """Context that turns system errors into a :class:`SystemFault` or MemoryError whose message names the path.

    Args:
        path: path of the file or folder that is read.

    Raises:
        SystemFault: for any error of the operating system except a missing file.
        MemoryError: if there is not enough memory.

    Example:
        >>> with named_faults("1.png"):
        ...     raise MemoryError
        Traceback (most recent call last):
        ...
        MemoryError: 1.png: not enough memory to read it; use fewer num_workers or a smaller batch_size
    """
    try:
        yield
    except (OSError, MemoryError) as error:
        raise_if_of_system(path, error)
        raise


def raise_if_of_system(path: str | Path, error: OSError | MemoryError) -> None:
    """Raise if an error is a system error; return if it is an error of the file.

    Args:
        path: path of the file or folder that was read.
        error: the error of the reader.

    Raises:
        SystemFault: for any error of the operating system except a missing file; the message gives the path, the cause
            and a fix.
        MemoryError: for a MemoryError; the message gives the path and a fix.
    """
    if isinstance(error, SystemFault):
        return
    if isinstance(error, MemoryError):
        raise MemoryError(f"{path}: not enough memory to read it; {FIXES[errno.ENOMEM]}") from error
    # Pillow's own errors about the content of a file have no errno.
    if error.errno is not None and error.errno not in OF_FILE:
        fix = FIXES.get(error.errno, "fix this, then resume the run")
        raise SystemFault(
            f"{error.filename or path}: can't be read ({error.strerror or error}), a fault of the system and not of "
            f"the file; {fix}"
        ) from error


class UnreadableFiles:
    """Records which files of a data set were unreadable in this epoch; all workers share the record.

    Args:
        root: folder that holds the files.
        count: number of files.
        policy: "skip" leaves out a file that is missing, truncated or not an image; "error" raises an error. System
            errors always raise.

    Attributes:
        marks: bool [N], True for each unreadable file; shared by all workers.

    Example:
        >>> files = UnreadableFiles(".", 2, "skip")
        >>> def decode():
        ...     raise ValueError("no image")
        >>> print(files.read(1, "1.png", decode), files.marks)
        None tensor([False,  True])
    """

    def __init__(self, root: str | Path, count: int, policy: Unreadable) -> None:
        self.root = root
        self.policy = policy
        self.marks = torch.zeros(count, dtype=torch.bool).share_memory_()
        self._reported = torch.zeros(count, dtype=torch.bool)

    def read(self, row: int, path: str | Path, decode: Callable[[], Read]) -> Read | None:
        """Call ``decode`` and return its result; None if the file is unreadable or was unreadable in this epoch.

        Args:
            row: row of the file.
            path: path of the file.
            decode: function that reads and decodes the file.

        Raises:
            SystemFault: if a system error prevents reading, or ``root`` has vanished.
            OSError: if the file is unreadable and the policy is "error".
        """
        if self.marks[row]:
            return None
        try:
            with named_faults(path):
                return decode()
        except (SystemFault, MemoryError):
            raise
        except Exception as error:  # Pillow's plugins raise exceptions of any type
            if isinstance(error, FileNotFoundError):
                self._check_root()
            if self.policy == "error":
                raise OSError(f"{path}: can't be read ({error}); remove it, or pass unreadable='skip'") from error
            self.marks[row] = True
            return None

    def new_epoch(self, path: Callable[[int], str | Path]) -> None:
        """Report the unreadable files and clear the record, so that the next epoch tries them again.

        Args:
            path: function from a row to the path of its file.
        """
        self.report(path)
        self.marks.zero_()

    def report(self, path: Callable[[int], str | Path]) -> None:
        """Warn about the unreadable files; later calls warn only if there are new ones.

        Args:
            path: function from a row to the path of its file.
        """
        if not (self.marks & ~self._reported).any():
            return
        self._reported |= self.marks
        rows = self.marks.nonzero().flatten().tolist()
        names = [str(path(row)) for row in rows[:SHOWN]]
        if len(rows) > SHOWN:
            names.append(f"and {len(rows) - SHOWN} more")
        warnings.warn(
            f"{len(rows)} of {len(self.marks)} files could not be read and were left out (unreadable='error' says "
            "why): " + ", ".join(names),
            stacklevel=3,
        )

    def _check_root(self) -> None:
        """Raise if the folder is missing or empty, for example because a file system is no longer mounted."""
        with named_faults(self.root):
            try:
                with os.scandir(self.root) as places:
                    is_empty = next(places, None) is None
            except FileNotFoundError:
                is_empty = True
        if is_empty:
            raise SystemFault(
                f"{self.root}: the folder of the images has vanished, or is empty now; mount its disk again, then "
                "resume the run"
            )
