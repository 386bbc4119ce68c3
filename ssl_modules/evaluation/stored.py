"""Write, join and read the files of features of ``ssl-modules predict``."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssl_modules.evaluation.protocols import Labelled
from ssl_modules.utils.files import replacing

RECORD = "features.json"
_NAME = re.compile(r"features(_\d+)?\.npz")
_BLOCK = 2**24  # bytes that are copied at a time


class StoredFeatures(Dataset[tuple[Tensor, Tensor]]):
    """Data set of ``(features, target)`` that reads the files of features of ``ssl-modules predict``.

    Args:
        path: folder of the files ``features*.npz``, or one such file.

    Attributes:
        features: float32 ``[N, D]``, in the order of ``index``.
        targets: int64 ``[N, ...]``. All are -1 if the data have no targets.
        index: row of each image in its part of the data set, ``[N]``, in ascending order.
        paths: path of each image file, or None if the images are not in files.
        record: content of ``features.json``, which describes the weights, the part and the data. Empty if there is no
            such file.
        levels: names of the levels of hierarchical targets, fine to coarse. Empty for other targets.

    Raises:
        ValueError: if there are no such files, or a row occurs twice.

    Example:
        >>> arrays = {"features": np.eye(2, dtype=np.float32), "index": np.array([1, 0]), "targets": np.array([7, 3])}
        >>> write_arrays(Path("features.npz"), arrays)
        >>> StoredFeatures("features.npz")[0]
        (tensor([0., 1.]), tensor(3))
    """

    def __init__(self, path: str | Path) -> None:
        files = [Path(path)] if Path(path).is_file() else shards(Path(path))
        if not files:
            raise ValueError(f"path: expected files features*.npz, got none in {path}; run ssl-modules predict")
        arrays = [dict(np.load(file)) for file in files]
        index = np.concatenate([part["index"] for part in arrays])
        order = np.argsort(index, kind="stable")
        if (np.diff(index[order]) == 0).any():
            raise ValueError(f"path: {path} has a row twice; delete the files of another run")
        self.index = torch.from_numpy(index[order])
        self.features = torch.from_numpy(np.concatenate([part["features"] for part in arrays])[order])
        self.targets = torch.from_numpy(np.concatenate([part["targets"] for part in arrays])[order])
        paths = [part["path"] for part in arrays if "path" in part]
        self.paths: list[str] | None = np.concatenate(paths)[order].tolist() if paths else None
        record = files[0].with_name(RECORD)
        self.record: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {}
        self.levels: tuple[str, ...] = tuple(self.record.get("levels") or ())

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.features[row], self.targets[row]

    @property
    def labelled(self) -> Labelled:
        """Features and targets in the form that the functions of ``ssl_modules.evaluation.protocols`` take."""
        return Labelled(self.features, self.targets)


def shards(folder: Path) -> list[Path]:
    """Return the files of features in a folder: ``features.npz``, or ``features_0.npz``, ``features_1.npz``, ..."""
    return sorted(path for path in folder.glob("features*.npz") if _NAME.fullmatch(path.name))


def next_number(files: Sequence[Path]) -> int:
    """Return the number of the next file of features: one more than the largest in the folder. ``features.npz`` is 0.

    Example:
        >>> next_number([Path("features.npz"), Path("features_4.npz")])
        5
    """
    return max((int(path.stem.partition("_")[2] or 0) for path in files), default=-1) + 1


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a ``.npz`` file. If writing fails, no partial file remains."""
    with replacing("features", path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def stored_rows(files: Sequence[Path]) -> np.ndarray:
    """Return the index of all rows in files of features, in no particular order."""
    rows = [np.zeros(0, np.int64)]
    for file in files:
        with np.load(file) as arrays:
            rows.append(arrays["index"])
    return np.concatenate(rows)


def join(files: Sequence[Path], path: Path) -> None:
    """Join files of features into one file.

    The function copies a block at a time, so the joined file may be larger than memory.

    Args:
        files: files with arrays of the same names, types and widths. Arrays of text may have different lengths.
        path: file to write. It may be one of ``files``.

    Example:
        >>> for row in range(2):
        ...     write_arrays(Path(f"{row}.npz"), {"features": np.full((1, 3), row, np.float32)})
        >>> join([Path("0.npz"), Path("1.npz")], Path("features.npz"))
        >>> np.load("features.npz")["features"].tolist()
        [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    """
    with ZipFile(files[0]) as first:
        names = first.namelist()
    with replacing("features", path) as out, ZipFile(out, "w") as archive:
        for name in names:
            headers = [_header(file, name) for file in files]
            shape = (sum(header[0][0] for header in headers), *headers[0][0][1:])
            dtype = max((header[1] for header in headers), key=lambda dtype: dtype.itemsize)
            with archive.open(name, "w", force_zip64=True) as joined:
                description = {"descr": dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_2_0(joined, description)
                for file in files:
                    for block in _blocks(file, name, dtype):
                        joined.write(block)


def _header(file: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Return the shape and the type of an array in a file."""
    with ZipFile(file) as archive, archive.open(name) as array:
        return _read_header(array)


def _read_header(array: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(array)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(array)
    return shape, dtype


def _blocks(file: Path, name: str, dtype: np.dtype) -> Iterator[bytes]:
    """Yield the bytes of an array in blocks, converted to ``dtype``, which is at least as wide as the array's type."""
    with ZipFile(file) as archive, archive.open(name) as array:
        _, own = _read_header(array)
        items = max(1, _BLOCK // max(own.itemsize, 1)) * own.itemsize
        while content := _exactly(array, items):
            yield content if own == dtype else np.frombuffer(content, own).astype(dtype).tobytes()


def _exactly(array: BinaryIO | Any, size: int) -> bytes:
    """Read ``size`` bytes, or fewer at the end of the file."""
    content = b""
    while len(content) < size and (more := array.read(size - len(content))):
        content += more
    return content
