"""Read what shards contain: the facts about the data set, and the place of each image."""

import json
import tarfile
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np

from ssl_modules.datamodules.finding import IMAGES
from ssl_modules.datamodules.shards import Shards
from ssl_modules.datamodules.storage import read_address

FACTS, PLAN = "shards.json", "plan.json"


class Index(NamedTuple):
    """The place of each image in the shards, one row per image, in the order of the shards.

    - ``shard`` is the number of the image's shard, ``[N]``.
    - ``offset`` is the position of the image's first byte in the shard, ``[N]``.
    - ``size`` is the number of the image's bytes, ``[N]``.
    - ``name`` is the name of the image's file, ``[N]``.
    - ``target`` is int64 ``[N, ...]``. -1 means no target.
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
            address: address of the file, for the error message.

        Raises:
            ValueError: if the file is damaged.
        """
        try:
            with np.load(BytesIO(content)) as arrays:
                return cls(*(arrays[name] for name in cls._fields))
        except Exception as error:  # numpy and zipfile raise errors of many types
            raise ValueError(
                f"url: {address} is not the index of shards, or is damaged; copy the file again, or write the shards "
                "again"
            ) from error

    def dump(self) -> bytes:
        """Return the index as the content of a ``.npz`` file."""
        buffer = BytesIO()
        np.savez_compressed(buffer, **self._asdict())
        return buffer.getvalue()


def scan(shards: Shards) -> Index:
    """Make the index of tar files in the format of WebDataset.

    In this format, all files of a sample have the same name and different extensions. The sample's image is the file
    with the extension of an image file, such as ``7.jpg``. An image with two extensions, such as ``7.mask.png``, is
    used only if there is no such file. The file with the extension ``.cls`` contains the class of the sample as a
    number.

    Args:
        shards: the tar files. All of them are read.

    Raises:
        ValueError: if there are no images, if a sample has several files that may be its image, or if a class isn't a
            number.

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
        with shards.opened(number) as shard, tarfile.open(fileobj=shard) as tar:
            for member in tar:
                folder, _, file = member.name.rpartition("/")
                stem, _, ending = file.partition(".")
                if member.isfile() and stem:
                    samples.setdefault(f"{folder}/{stem}", {})[ending.lower()] = member
            for files in samples.values():
                image = _image(address, files)
                if image is None:
                    continue
                target = _label(address, tar, files["cls"]) if "cls" in files else -1
                rows.append((number, image.offset_data, image.size, image.name, target))
    if not rows:
        raise ValueError(f"url: expected images in {shards.addresses[0]}, such as 0001.jpg, got none")
    return Index(*(np.array(column) for column in zip(*rows, strict=True)))


def _image(address: str, files: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """Return the image of a sample, whose files are given by extension, or None if the sample has no image."""
    images = [ending for ending in files if f".{ending}".endswith(IMAGES.endings)]
    found = [ending for ending in images if "." not in ending] or images
    if len(found) > 1:
        names = ", ".join(files[ending].name for ending in found)
        raise ValueError(
            f"{address}: expected one image in each sample, got {names}; rename the files in the tar so that one "
            "image has a single extension, such as 7.jpg, and the others have two, such as 7.mask.png"
        )
    return files[found[0]] if found else None


def _label(address: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    file = tar.extractfile(member)
    content = b"" if file is None else file.read(20)
    try:
        return int(content)
    except ValueError:
        raise ValueError(f"{address}: expected a number in {member.name}, got {content!r}") from None


def facts_at(url: str, storage_options: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """Return the facts that ``ssl-modules shard`` wrote beside the shards, or None if ``shards.json`` is missing.

    Args:
        url: folder or address of the shards.
        storage_options: keyword arguments of the file system, as for ``fsspec.open``.

    Raises:
        FileNotFoundError: if ``ssl-modules shard`` has not written all shards yet.
    """
    if url.endswith(".tar"):
        return None
    facts = _json_at(f"{url.rstrip('/')}/{FACTS}", storage_options)
    if facts is None and _json_at(f"{url.rstrip('/')}/{PLAN}", storage_options) is not None:
        raise FileNotFoundError(
            f"url: the shards in {url} are not complete; repeat the ssl-modules shard command, which then writes the "
            "missing shards"
        )
    return facts


def _json_at(address: str, storage_options: dict[str, Any] | None) -> dict[str, Any] | None:
    try:
        return json.loads(read_address(address, storage_options))
    except (FileNotFoundError, NotADirectoryError):
        return None
