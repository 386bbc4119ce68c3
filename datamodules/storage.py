"""Files in local folders and in object storages, such as s3://bucket/folder."""

import errno
import os
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec

from ssl_modules.datamodules.unreadable import SystemFault, retried

_BLOCK = 2**24  # bytes that are read at a time
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def is_remote(address: str) -> bool:
    """Return whether an address has a scheme other than ``file``.

    Example:
        >>> is_remote("s3://bucket/a.tar"), is_remote("/data/a.tar")
        (True, False)
    """
    return "://" in address and not address.startswith("file://")


def default_cache() -> Path:
    """Return the default folder for copies, in ``XDG_CACHE_HOME`` or else in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "ssl-modules", "shards")


def cached_name(key: str) -> str:
    """Return the name, without extension, under which the cache stores the file of a key.

    Args:
        key: any text that identifies the content, such as the address.

    Example:
        >>> len(cached_name("s3://bucket/a.tar"))
        20
    """
    return sha256(key.encode()).hexdigest()[:20]


def blocks(address: str, storage_options: dict[str, Any] | None = None) -> Iterator[bytes]:
    """Yield the content of a file at an address in blocks.

    Args:
        address: path or address.
        storage_options: keyword arguments of the file system, as for ``fsspec.open``.

    Raises:
        FileNotFoundError: if there is no such file.
        SystemFault: if an object storage fails, or the package for it is missing. :func:`retried` tries again if the
            fault may be temporary.

    Example:
        >>> _ = Path("notes.txt").write_text("hello")
        >>> list(blocks("notes.txt"))
        [b'hello']
    """
    try:
        with fsspec.open(address, "rb", **(storage_options or {})) as file:
            while block := file.read(_BLOCK):
                yield block
    except Exception as error:
        of_local_disk = isinstance(error, OSError) and not is_remote(address)
        if of_local_disk or isinstance(error, FileNotFoundError | MemoryError):
            raise
        raise _fault(address, "read", error) from error


def read_address(address: str, storage_options: dict[str, Any] | None = None) -> bytes:
    """Return the content of a file at an address; arguments and errors are those of :func:`blocks`."""
    return retried(address, lambda: b"".join(blocks(address, storage_options)))


def tars_at(url: str, storage_options: dict[str, Any] | None = None) -> list[str]:
    """Return the addresses of tar files.

    Args:
        url: path or address of a folder or of tar files. The name of tar files may contain the pattern ``*`` or a range
            such as ``{000..099}``.
        storage_options: keyword arguments of the file system.

    Raises:
        FileNotFoundError: if there are no tar files.

    Example:
        >>> tars_at("s3://bucket/train-{08..10}.tar")
        ['s3://bucket/train-08.tar', 's3://bucket/train-09.tar', 's3://bucket/train-10.tar']
    """
    if found := _RANGE.search(url):
        first, last = found.groups()
        numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
        return [tar for n in numbers for tar in tars_at(url[: found.start()] + n + url[found.end() :], storage_options)]
    if url.endswith(".tar") and "*" not in url:
        return [url]
    pattern = url if url.endswith(".tar") else f"{url.rstrip('/')}/*.tar"
    try:
        files, path = fsspec.url_to_fs(pattern, **(storage_options or {}))
        found_here = [files.unstrip_protocol(name) if is_remote(url) else name for name in sorted(files.glob(path))]
    except Exception as error:
        raise _fault(url, "listed", error) from error
    if not found_here:
        raise FileNotFoundError(f"url: expected tar files in {url}, got none; check the address")
    return found_here


def _fault(address: str, action: str, error: Exception) -> SystemFault:
    """Return the error to raise if a storage fails."""
    fix = "check the address, the network and the credentials (storage_options=)"
    if isinstance(error, ImportError):
        fix = "install the storage's package: pip install 'ssl-modules[stream]'"
    fault = SystemFault(f"{address}: can't be {action} ({type(error).__name__}: {error}); {fix}")
    # Each storage has its own types of exceptions, most of them without a code: treat these as temporary.
    of_arguments = isinstance(error, ImportError | ValueError | TypeError | PermissionError)
    fault.errno = getattr(error, "errno", None) or (None if of_arguments else errno.EIO)
    return fault
