"""Shards: tar files of encoded images, in a folder or at an address such as s3://bucket/folder."""

import json
import os
import re
import shutil
import tarfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import fsspec
import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from ssl_modules.datamodules.image_files import ImageFiles
from ssl_modules.datamodules.unreadable import SystemFault, retried
from ssl_modules.utils.files import replacing

FACTS = "shards.json"
KEPT_OPEN = 64  # shards per process
IMAGES = {"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm", "pgm"}
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class Index(NamedTuple):
    """Where each image lies: the number of its shard, its first byte there, its size in bytes, and its file's name.

    A row for each image, in the order of the shards. ``target`` is int64 ``[N, ...]``; -1 for images without a target.
    """

    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    name: np.ndarray
    target: np.ndarray

    @classmethod
    def load(cls, content: bytes, address: str) -> "Index":
        """Read an index that :meth:`dump` wrote.

        Args:
            content: the bytes of the file.
            address: where they come from, for errors.

        Raises:
            ValueError: if the file is damaged.
        """
        try:
            with np.load(BytesIO(content)) as arrays:
                return cls(*(arrays[name] for name in cls._fields))
        except Exception as error:  # numpy and zipfile raise errors of many types
            raise ValueError(
                f"url: {address} is not the index of shards, or is damaged; copy it again, or write the shards again"
            ) from error

    def dump(self) -> bytes:
        """The index as the content of a ``.npz`` file."""
        buffer = BytesIO()
        np.savez_compressed(buffer, **self._asdict())
        return buffer.getvalue()


class Shards:
    """The tar files of a part, read at any place; those at an address are copied to a local folder when needed.

    Args:
        addresses: paths or addresses of the tar files, such as ``s3://bucket/train/00000.tar``.
        cache_dir: folder for the copies; several processes may share it. Paths of local files need none.
        cache_bytes: the oldest copies are deleted when the copies take more than this; None = no limit.
        storage_options: keyword arguments of the file system, as for ``fsspec.open``.

    Example:
        >>> with tarfile.open("a.tar", "w") as tar:
        ...     info = tarfile.TarInfo("1.txt")
        ...     info.size = 5
        ...     tar.addfile(info, BytesIO(b"hello"))
        >>> Shards(["a.tar"]).read(0, 512, 5)
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
        self.order = torch.arange(len(self.addresses)).share_memory_()  # the order of this epoch, for all workers
        self._opened: OrderedDict[int, FileIO] = OrderedDict()
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
            ahead: how many of the next shards of this epoch to copy in the background, if this one is new.

        Raises:
            SystemFault: if the shard can't be read.
        """
        content = retried(self.addresses[number], lambda: os.pread(self._open(number, ahead).fileno(), size, offset))
        if len(content) < size:
            raise SystemFault(
                f"{self.addresses[number]}: ends at byte {offset + len(content)}, but its index names {size} bytes "
                f"from byte {offset}; copy the shard again, or remove the index"
            )
        return content

    def _open(self, number: int, ahead: int) -> FileIO:
        """The open shard."""
        if self._process != os.getpid():  # a forked worker shares neither threads nor positions of its parent
            self._opened, self._copying, self._process = OrderedDict(), None, os.getpid()
        if number in self._opened:
            self._opened.move_to_end(number)
            return self._opened[number]
        if is_remote(self.addresses[number]) and ahead:
            self._copy_ahead(number, ahead)
        while True:
            path = self.local(number)
            try:
                self._opened[number] = path.open("rb", buffering=0)
                break
            except FileNotFoundError as error:
                if not is_remote(self.addresses[number]):
                    raise SystemFault(
                        f"url: expected the shard {path}, which is missing; copy it there, or write the shards again"
                    ) from error
                # another process has deleted the copy since, to make room
        if len(self._opened) > KEPT_OPEN:
            self._opened.popitem(last=False)[1].close()
        return self._opened[number]

    def local(self, number: int) -> Path:
        """The local path of a shard; a remote one is copied there first."""
        address = self.addresses[number]
        if not is_remote(address):
            return Path(address.removeprefix("file://"))
        path = self.cache_dir / f"{sha256(address.encode()).hexdigest()[:20]}.tar"
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if path.exists():
                path.touch()  # the oldest copies are deleted first
                return path
            retried(address, partial(self._copy, address, path))
        self._make_room(path)
        return path

    def _copy(self, address: str, path: Path) -> None:
        with replacing("shard", path) as file, opened(address, self.storage_options) as source:
            shutil.copyfileobj(source, file, 2**24)

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
                path.unlink(missing_ok=True)  # processes that have it open can read on
                excess -= size


class ShardImages(ImageFiles):
    """Labelled images in shards, decoded and resized as :class:`~ssl_modules.datamodules.ImageFiles` does.

    Args:
        shards: the tar files.
        index: where each image lies.
        window: number of shards whose images are shuffled together; None = all shards.
        settings: keyword arguments of :class:`~ssl_modules.datamodules.ImageFiles`.
    """

    def __init__(self, shards: Shards, index: Index, window: int | None = None, **settings: Any) -> None:
        super().__init__(".", index.name.tolist(), index.target, **settings)
        self.root = Path(os.path.dirname(shards.addresses[0]))
        self.shards = shards
        self.index = index
        self.window = window
        self.settings = settings

    def path(self, index: int) -> Path:
        """The address of a row's shard, and the name of its file in there."""
        return Path(self.shards.addresses[self.index.shard[index]], str(self.index.name[index]))

    def content(self, index: int) -> bytes:
        """The bytes of a row's file."""
        _, offsets, sizes, *_ = self.index
        ahead = self.window or 1
        return self.shards.read(int(self.index.shard[index]), int(offsets[index]), int(sizes[index]), ahead)

    def names(self) -> list[str]:
        """The names of all files, each with its shard."""
        return [str(self.path(row)) for row in range(len(self))]

    def select(self, rows: Tensor) -> "ShardImages":
        """A data set of the given rows."""
        index = Index(*(column[rows.numpy()] for column in self.index))
        images = ShardImages(self.shards, index, self.window, **self.settings)
        images.levels = self.levels
        return images

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """A random order of the rows, [N], that reads few shards at a time.

        The shards are shuffled, then the images of each ``window`` of shards.
        """
        if self.window is None:
            return super().shuffled(generator)
        order = torch.randperm(len(self.shards), generator=generator)
        self.shards.order.copy_(order)
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order))
        windows = places[torch.from_numpy(self.index.shard).long()] // self.window
        # Sorting random numbers shuffles; a stable sort by windows keeps that order inside each window.
        shuffled = torch.randperm(len(self), generator=generator)
        return shuffled[windows[shuffled].argsort(stable=True)]


def is_remote(address: str) -> bool:
    """Whether an address has a scheme other than ``file``.

    Example:
        >>> is_remote("s3://bucket/a.tar"), is_remote("/data/a.tar")
        (True, False)
    """
    return "://" in address and not address.startswith("file://")


def default_cache() -> Path:
    """The folder for copies: in ``XDG_CACHE_HOME``, or in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "ssl-modules", "shards")


@contextmanager
def opened(address: str, storage_options: dict[str, Any] | None = None) -> Iterator[BinaryIO]:
    """Open a file at an address for reading.

    Args:
        address: path or address.
        storage_options: keyword arguments of the file system, as for ``fsspec.open``.

    Raises:
        FileNotFoundError: if there is no such file.
        SystemFault: if the storage fails, or its package is missing.

    Example:
        >>> _ = Path("notes.txt").write_text("hello")
        >>> with opened("notes.txt") as file:
        ...     file.read()
        b'hello'
    """
    try:
        with fsspec.open(address, "rb", **(storage_options or {})) as file:
            yield file
    except Exception as error:
        of_system = isinstance(error, OSError) and error.errno is not None  # such as a full disk
        if of_system or isinstance(error, FileNotFoundError):
            raise
        # Each storage raises exceptions of its own.
        raise SystemFault(f"{address}: can't be read ({type(error).__name__}: {error}); {_fix(error)}") from error


def read_address(address: str, storage_options: dict[str, Any] | None = None) -> bytes:
    """Read a whole file at an address; see :func:`opened`."""

    def read() -> bytes:
        with opened(address, storage_options) as file:
            return file.read()

    return retried(address, read)


def tars_at(url: str, storage_options: dict[str, Any] | None = None) -> list[str]:
    """The addresses of tar files: of a folder, of a pattern with ``*``, or of a range such as ``{000..099}.tar``.

    Args:
        url: path or address.
        storage_options: keyword arguments of the file system.

    Raises:
        FileNotFoundError: if there are none.

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
        raise SystemFault(f"{url}: can't be listed ({type(error).__name__}: {error}); {_fix(error)}") from error
    if not found_here:
        raise FileNotFoundError(f"url: expected tar files in {url}, got none; check the address")
    return found_here


def scan(shards: Shards) -> Index:
    """Make the index of tar files in WebDataset's form: files of one sample have one name and different endings.

    The image is the first file of a sample with the ending of an image; ``.cls`` holds its class as a number.

    Args:
        shards: the tar files; all of them are read.

    Raises:
        ValueError: if there are no images.

    Example:
        >>> with tarfile.open("b.tar", "w") as tar:
        ...     for name, content in (("1.jpg", b"..."), ("1.cls", b"7")):
        ...         info = tarfile.TarInfo(name)
        ...         info.size = len(content)
        ...         tar.addfile(info, BytesIO(content))
        >>> index = scan(Shards(["b.tar"]))
        >>> index.name.tolist(), index.offset.tolist(), index.target.tolist()
        (['1.jpg'], [512], [7])
    """
    rows: list[tuple[int, int, int, str, int]] = []
    for number, address in enumerate(shards.addresses):
        samples: dict[str, dict[str, tarfile.TarInfo]] = {}
        with tarfile.open(shards.local(number)) as tar:
            for member in tar:
                folder, _, file = member.name.rpartition("/")
                stem, _, ending = file.partition(".")
                if member.isfile() and stem:
                    samples.setdefault(f"{folder}/{stem}", {})[ending.lower()] = member
            for files in samples.values():
                image = next((files[ending] for ending in files if ending.rpartition(".")[2] in IMAGES), None)
                if image is None:
                    continue
                target = _label(address, tar, files["cls"]) if "cls" in files else -1
                rows.append((number, image.offset_data, image.size, image.name, target))
    if not rows:
        raise ValueError(f"url: expected images in {shards.addresses[0]}, such as 0001.jpg, got none")
    return Index(*(np.array(column) for column in zip(*rows, strict=True)))


def _label(address: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    file = tar.extractfile(member)
    content = b"" if file is None else file.read(20)
    try:
        return int(content)
    except ValueError:
        raise ValueError(f"{address}: expected a number in {member.name}, got {content!r}") from None


def facts_at(url: str, storage_options: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """The facts that ``ssl-modules shard`` wrote beside the shards; None if there are none."""
    if url.endswith(".tar"):
        return None
    try:
        return json.loads(read_address(f"{url.rstrip('/')}/{FACTS}", storage_options))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _fix(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "install the storage's package: pip install 'ssl-modules[stream]'"
    return "check the address, the network and the credentials (storage_options=)"
