"""Read images from shards, which are tar files. Shards in an object storage are copied when they are needed."""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO

from filelock import FileLock

from ssl_modules.datamodules.storage import blocks, cached_name, default_cache, is_remote, versions
from ssl_modules.datamodules.unreadable import SystemFault, retried
from ssl_modules.utils.files import replacing

KEPT_OPEN = 64  # maximum number of local shards that a process keeps open


class Shards:
    """The tar files of a part. Remote files are copied to a local folder before they are read.

    Args:
        addresses: paths or addresses of the tar files, such as ``s3://bucket/train/00000.tar``.
        cache_dir: folder for the copies, which several processes may share. None = :func:`default_cache`.
        cache_bytes: limit of the total size of the copies, in bytes. The limit doesn't include shards that are being
            copied. The copies that have been unused for the longest time are deleted first. None = no limit.
        storage_options: keyword arguments of the file system, as for ``fsspec.open``.

    Attributes:
        key: text that identifies the shards and their content.
        are_remote: whether any shard is remote, so that it must be copied before it is read.

    Raises:
        FileNotFoundError: if shards are missing.
        SystemFault: if the storage fails.

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
        self.are_remote = any(map(is_remote, self.addresses))
        self.cache_dir = Path(cache_dir or default_cache())
        self.cache_bytes = cache_bytes
        self.storage_options = storage_options or {}
        # A shard that was written again has another version, and therefore another copy.
        self._keys = [f"{a} {v}" for a, v in zip(addresses, versions(addresses, storage_options), strict=True)]
        self.key = " ".join(self._keys)
        self._kept: OrderedDict[int, BinaryIO] = OrderedDict()
        self._wanted: list[int] = []
        self._copying: Thread | None = None
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self.addresses)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict(), "_wanted": [], "_copying": None}

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Read bytes of a shard.

        Args:
            number: number of the shard.
            offset: first byte.
            size: number of bytes.

        Raises:
            SystemFault: if the shard is missing, or can't be read or copied.
        """
        address = self.addresses[number]
        with self.opened(number) as file:
            content = retried(address, partial(os.pread, file.fileno(), size, offset))
        if len(content) < size:
            raise SystemFault(
                f"{address}: ends at byte {offset + len(content)}, but its index names {size} bytes "
                f"from byte {offset}; copy the shard again, or remove the index"
            )
        return content

    @contextmanager
    def opened(self, number: int) -> Iterator[BinaryIO]:
        """Open a shard for reading. A remote shard is copied first if there is no copy.

        Args:
            number: number of the shard.

        Raises:
            SystemFault: if the shard is missing, or can't be read or copied.
        """
        if not is_remote(self.addresses[number]):
            yield self._local(number)
        else:
            # Close the copy after each read, because a deleted copy occupies the disk until no process has it open.
            with self._open(number) as file:
                yield file

    def _local(self, number: int) -> BinaryIO:
        if self._process != os.getpid():  # a forked worker opens its own files
            self._kept, self._process = OrderedDict(), os.getpid()
        if number in self._kept:
            self._kept.move_to_end(number)
        else:
            self._kept[number] = self._open(number)
            if len(self._kept) > KEPT_OPEN:
                self._kept.popitem(last=False)[1].close()
        return self._kept[number]

    def _open(self, number: int) -> BinaryIO:
        address = self.addresses[number]
        try:
            return retried(address, partial(self._open_copy if is_remote(address) else self._open_local, number))
        except (SystemFault, MemoryError):
            raise
        except Exception as error:  # a shard holds many images, so end the run instead of leaving out one image
            raise SystemFault(f"{address}: can't be read ({error}); fix this, then resume the run") from error

    def _open_local(self, number: int) -> BinaryIO:
        path = Path(self.addresses[number].removeprefix("file://"))
        try:
            return path.open("rb", buffering=0)
        except FileNotFoundError as error:
            raise _missing(str(path)) from error

    def _open_copy(self, number: int) -> BinaryIO:
        path = self._copy_of(number)
        while True:
            try:
                os.utime(path)  # the copy counts as used now
                return path.open("rb", buffering=0)
            except FileNotFoundError:  # not copied yet, or deleted by another process to make room
                self._copy(number)

    def _copy_of(self, number: int) -> Path:
        return self.cache_dir / f"{cached_name(self._keys[number])}.tar"

    def _copy(self, number: int) -> None:
        path = self._copy_of(number)
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if path.exists():
                path.touch()
                return
            with replacing("shard", path) as file:
                file.writelines(self._content(self.addresses[number]))
        self._make_room(path)

    def copy_ahead(self, numbers: Sequence[int]) -> None:
        """Copy remote shards in the background. They replace the shards of the last call that are not copied yet.

        Args:
            numbers: numbers of the shards, in the order in which they will be read.
        """
        self._wanted = [n for n in numbers if is_remote(self.addresses[n]) and not self._copy_of(n).exists()]
        if self._wanted and (self._copying is None or not self._copying.is_alive()):
            # The end of the process doesn't wait for a daemon thread.
            self._copying = Thread(target=self._copy_wanted, name="shards", daemon=True)
            self._copying.start()

    def _copy_wanted(self) -> None:
        with suppress(Exception):  # reading the shard raises the error again
            while self._wanted:
                self._copy(self._wanted.pop(0))

    def _content(self, address: str) -> Iterator[bytes]:
        try:
            yield from blocks(address, self.storage_options)
        except FileNotFoundError as error:
            raise _missing(address) from error

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
                path.unlink(missing_ok=True)  # a process that has opened the file can still read it
                excess -= size


def _missing(shard: str) -> SystemFault:
    return SystemFault(
        f"url: expected the shard {shard}, which is missing; copy it to this address, or write the shards again"
    )
