"""Find and read files in local folders and in object storages, such as s3://bucket/folder."""

import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec

from ssl_modules.datamodules import finding
from ssl_modules.datamodules.unreadable import SystemFault, retried

_BLOCK = 2**24  # bytes that are read at a time
# Names that storages use for the size, the time of writing and the etag of a file.
_VERSION = ("size", "mtime", "created", "LastModified", "last_modified", "updated", "ETag", "etag", "blob_id")
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
        FileNotFoundError: if a folder has no tar files, or no file matches a pattern with ``*``. This function doesn't
            check whether the files of an address without ``*`` exist. :func:`versions` checks this.

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


def versions(addresses: Sequence[str], storage_options: dict[str, Any] | None = None) -> list[str]:
    """Return the version of each file: its size and, as far as the storage knows them, its time and its etag.

    The version changes when the file is written again.

    Args:
        addresses: paths or addresses of the files.
        storage_options: keyword arguments of the file system.

    Raises:
        FileNotFoundError: if files are missing.
        SystemFault: if the storage fails.

    Example:
        >>> _ = Path("notes.txt").write_text("hello")
        >>> before = versions(["notes.txt"])
        >>> _ = Path("notes.txt").write_text("hello again")
        >>> versions(["notes.txt"]) == before
        False
    """
    listed: dict[str, dict[str, Any]] = {}
    for folder in {address.rpartition("/")[0] for address in addresses if is_remote(address)}:
        with suppress(Exception):  # some storages can't list a folder, such as HTTP
            files, path = fsspec.url_to_fs(folder, **(storage_options or {}))
            files.invalidate_cache()
            listed |= {entry["name"]: entry for entry in files.ls(path, detail=True)}
    found, missing = [], []
    for address in addresses:
        try:
            facts = retried(address, partial(_facts, address, storage_options, listed))
        except (FileNotFoundError, NotADirectoryError):
            missing.append(address)
        else:
            found.append(" ".join(str(facts[name]) for name in _VERSION if facts.get(name) is not None))
    if missing:
        raise FileNotFoundError(
            f"url: expected {len(addresses)} tar files, of which {len(missing)} are missing: "
            f"{finding.listed(missing)}; copy the missing files to these addresses, or correct url"
        )
    return found


def _facts(address: str, storage_options: dict[str, Any] | None, listed: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the storage knows about a file."""
    try:
        files, path = fsspec.url_to_fs(address, **(storage_options or {}))
        return listed.get(path) or files.info(path)
    except Exception as error:
        if isinstance(error, OSError) and (not is_remote(address) or isinstance(error, FileNotFoundError)):
            raise
        raise _fault(address, "found", error) from error


def _fault(address: str, action: str, error: Exception) -> SystemFault:
    """Return the error to raise if a storage fails."""
    fix = "check the address, the network and the credentials (storage_options=)"
    if isinstance(error, ImportError):
        fix = "install the storage's package: pip install 'ssl-modules[stream]'"
    fault = SystemFault(f"{address}: can't be {action} ({type(error).__name__}: {error}); {fix}")
    # Each storage has its own types of exceptions, most of them without a code. An error without a code may be
    # temporary. It therefore gets the code EIO, so that the storage is tried again.
    of_arguments = isinstance(error, ImportError | ValueError | TypeError | PermissionError)
    fault.errno = getattr(error, "errno", None) or (None if of_arguments else errno.EIO)
    return fault
