"""Read images from shards, which are tar files. Shards in an object storage are copied when they are needed."""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from filelock import FileLock

from ssl_modules.datamodules.storage import blocks, cached_name, default_cache, is_remote
from ssl_modules.datamodules.unreadable import SystemFault, retried
from ssl_modules.utils.files import replacing

KEPT_OPEN = 64  # open shards per process


class Shards:
    """The tar files of a part. Remote files are copied to a local folder before they are read.

    Args:
        addresses: paths or addresses of the tar files, such as ``s3://bucket/train/00000.tar``.
        cache_dir: folder for the copies, which several processes may share; None = :func:`default_cache`.
        cache_bytes: limit of the size of all copies, in bytes. The copies that have been unused for the longest time
            are deleted first. None = no limit.
        storage_options: keyword arguments of the file system, as for ``fsspec.open``.

    Example:
        >>> import tarfile
        >>> _ = Path("1.txt").write_text("hello")
        >>> with tarfile.open("a.tar", "w") as tar:
        ...     tar.add("1.txt")
        >>> with tarfile.open("a.tar") as tar:
        ...     member = tar.getmember("1.txt")
        >>> Shards(["a.tar"]).read(0, member.offset_data, member.size)
        b'hello'
    """

    def __init__(
        self,
        addresses: Sequence[str],
        cache_dir: str | Path | None = None,
        cache_bytes: int | None = None,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        self.addresses = list(addresses)
        self.cache_dir = Path(cache_dir or default_cache())
        self.cache_bytes = cache_bytes
        self.storage_options = storage_options or {}
        # The order of the shards in this epoch, shared with the workers.
        self.order = torch.arange(len(self.addresses)).share_memory_()
        self._opened: OrderedDict[int, BinaryIO] = OrderedDict()
        self._copying: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self.addresses)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": OrderedDict(), "_copying": None}

    def read(self, number: int, offset: int, size: int, ahead: int = 0) -> bytes:
        """Read bytes of a shard.

        Args:
            number: number of the shard.
            offset: first byte.
            size: number of bytes.
            ahead: number of shards to copy in the background when this shard is opened. They are the next shards of
                this epoch.

        Raises:
            SystemFault: if the shard can't be read.
        """
        file = self.open(number, ahead).fileno()
        content = retried(self.addresses[number], partial(os.pread, file, size, offset))
        if len(content) < size:
            raise SystemFault(
                f"{self.addresses[number]}: ends at byte {offset + len(content)}, but its index names {size} bytes "
                f"from byte {offset}; copy the shard again, or remove the index"
            )
        return content

    def open(self, number: int, ahead: int = 0) -> BinaryIO:
        """Return the open file of a shard, which stays open for later calls.

        Args:
            number: number of the shard.
            ahead: see :meth:`read`.

        Raises:
            SystemFault: if the shard is missing, or can't be read or copied.
        """
        if self._process != os.getpid():  # a forked worker has no copying thread, and opens its own files
            self._opened, self._copying, self._process = OrderedDict(), None, os.getpid()
        if number in self._opened:
            self._opened.move_to_end(number)
            return self._opened[number]
        address = self.addresses[number]
        if is_remote(address) and ahead:
            self._copy_ahead(number, ahead)
        try:
            self._opened[number] = retried(address, partial(self._open, number))
        except (SystemFault, MemoryError):
            raise
        except Exception as error:  # a shard holds many images, so none of them is to blame
            raise SystemFault(f"{address}: can't be read ({error}); fix this, then resume the run") from error
        if len(self._opened) > KEPT_OPEN:
            self._opened.popitem(last=False)[1].close()
        return self._opened[number]

    def _open(self, number: int) -> BinaryIO:
        while True:
            path = self.local(number)
            try:
                return path.open("rb", buffering=0)
            except FileNotFoundError as error:
                if not is_remote(self.addresses[number]):
                    raise _missing(str(path)) from error
                # Another process has deleted the copy since then, to make room.

    def local(self, number: int) -> Path:
        """Return the local path of a shard, after copying it if it is remote."""
        address = self.addresses[number]
        if not is_remote(address):
            return Path(address.removeprefix("file://"))
        path = self.cache_dir / f"{cached_name(address)}.tar"
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if path.exists():
                path.touch()  # the copy counts as used now; copies that are unused for longest are deleted first
                return path
            with replacing("shard", path) as file:
                file.writelines(self._content(address))
        self._make_room(path)
        return path

    def _content(self, address: str) -> Iterator[bytes]:
        try:
            yield from blocks(address, self.storage_options)
        except FileNotFoundError as error:
            raise _missing(address) from error

    def _copy_ahead(self, number: int, ahead: int) -> None:
        if self._copying is None:
            self._copying = ThreadPoolExecutor(1, "shards")
        place = int((self.order == number).nonzero())
        for following in self.order[place + 1 : place + 1 + ahead].tolist():
            self._copying.submit(self.local, following)

    def _make_room(self, newest: Path) -> None:
        if self.cache_bytes is None:
            return
        copies = []
        for path in self.cache_dir.glob("*.tar"):
            try:
                copies.append((path.stat().st_mtime, path.stat().st_size, path))
            except FileNotFoundError:  # deleted by another process
                continue
        excess = sum(size for _, size, _ in copies) - self.cache_bytes
        for _, size, path in sorted(copies):
            if excess <= 0:
                return
            if path != newest:
                path.unlink(missing_ok=True)  # a process that has opened it can still read it
                excess -= size


def _missing(shard: str) -> SystemFault:
    return SystemFault(f"url: expected the shard {shard}, which is missing; copy it there, or write the shards again")
