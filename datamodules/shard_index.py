"""What shards contain: the facts about the data set, and the place of each image."""

import json
import tarfile
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np

from ssl_modules.datamodules.shards import Shards
from ssl_modules.datamodules.storage import read_address

FACTS = "shards.json"
IMAGES = {"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm", "pgm"}  # endings of image files


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
        with tarfile.open(fileobj=shards.open(number)) as tar:
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
