"""Writing files completely or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from shutil import disk_usage
from typing import BinaryIO

from ssl_modules.utils.faults import SystemFault

_PART = ".part"  # suffix of a file that is being written


@contextmanager
def replacing(name: str, path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces ``path`` when the block ends without an error.

    The folder is created if it does not exist. The data go to a temporary file in the same folder, which is flushed to
    the disk and then renamed. If the process is killed or the disk is full, the previous file remains. The file's
    permissions follow the umask.

    Args:
        name: first word of the error, which says what is written.
        path: file to write.

    Raises:
        OSError: if the file can't be written. The message has the path, the reason and the free space. ``errno`` is the
            code of the reason.
        SystemFault: if the code in the ``with`` block raises this error because it can't read another file.

    Example:
        >>> with replacing("notes", Path("new", "folder", "notes.txt")) as file:
        ...     _ = file.write(b"hello")
        >>> Path("new", "folder", "notes.txt").read_text()
        'hello'
    """
    part = path.with_name(f".{path.name}.{os.getpid()}{_PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{escape(path.name)}.*{_PART}"):  # left by a killed process
            left.unlink(missing_ok=True)
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)
    except SystemFault:  # the with block can't read another file
        raise
    except (OSError, RuntimeError) as error:  # torch hides the system's error in a RuntimeError
        reason = getattr(error, "strerror", None) or error
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        free = disk_usage(folder).free / 2**20
        failed = OSError(f"{name}: {path} can't be written, with {free:,.0f} MiB free there: {reason}")
        failed.errno = getattr(error, "errno", None)  # tells whether another attempt may succeed
        raise failed from error


def _flush_folder(folder: Path) -> None:
    with suppress(OSError):  # some network file systems can't flush a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
