"""Writes checkpoint files completely or not at all, and checks them for damage when they are read."""

import io
import os
import warnings
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from fsspec.core import url_to_fs
from lightning.fabric.plugins import TorchCheckpointIO

from ssl_modules.utils.files import replacing


class SafeCheckpointIO(TorchCheckpointIO):
    """Lightning plugin that replaces a checkpoint only by a complete one, and detects damaged files.

    It writes a temporary file beside the target, flushes it to the disk and then renames it. If the process is killed
    or the disk is full, the previous file remains. The first save that fails ends the run with an error. When
    reading, it checks the CRC-32 sums that ``torch.save`` stores. The command uses this plugin by default; in Python,
    pass it to the Trainer.

    Example:
        >>> import lightning.pytorch as pl
        >>> trainer = pl.Trainer(plugins=[SafeCheckpointIO()], accelerator="cpu", logger=False)
        >>> type(trainer.strategy.checkpoint_io).__name__
        'SafeCheckpointIO'
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: state of module and Trainer.
            path: a local path, or a URL that fsspec supports.
            storage_options: not supported; must be None.

        Raises:
            OSError: if the file can't be written; a previous file is unchanged.
            TypeError: if ``storage_options`` are given.
        """
        if storage_options is not None:
            raise TypeError("storage_options: expected None, as SafeCheckpointIO has no options")
        file_system, name = url_to_fs(str(path))
        if "file" not in _protocols(file_system):  # object storage replaces files atomically
            buffer = io.BytesIO()
            torch.save(checkpoint, buffer)
            file_system.makedirs(os.path.dirname(name), exist_ok=True)
            file_system.pipe_file(name, buffer.getvalue())
            return
        with replacing("checkpoint", Path(name)) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = lambda storage, _: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint and check that the file is complete and undamaged.

        Args:
            path: local path or URL.
            map_location: as in ``torch.load``.
            weights_only: whether the file may hold only tensors and plain data; None = True. With False, a file may
                run any code.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is damaged or is not a checkpoint.
        """
        return read_checkpoint(path, map_location, weights_only=weights_only is not False)


def read_checkpoint(path: str | Path, map_location: Any = "cpu", *, weights_only: bool = True) -> dict[str, Any]:
    """Read a file of ``torch.save``, and check its CRC-32 sums.

    Args:
        path: local path or URL.
        map_location: as in ``torch.load``.
        weights_only: whether the file may hold only tensors and plain data. With False, a file may run any code.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or is not a checkpoint.

    Example:
        >>> torch.save({"state_dict": {"w": torch.ones(2)}}, "last.ckpt")
        >>> read_checkpoint("last.ckpt")["state_dict"]
        {'w': tensor([1., 1.])}
        >>> _ = Path("notes.ckpt").write_text("hello")
        >>> read_checkpoint("notes.ckpt")
        Traceback (most recent call last):
        ...
        ValueError: path: notes.ckpt is no checkpoint
    """
    file_system, name = url_to_fs(str(path))
    if not file_system.isfile(name):
        raise FileNotFoundError(f"there is no checkpoint {path}")
    with file_system.open(name, "rb") as file:
        check_sums(file, path)
        file.seek(0)
        try:
            content = torch.load(file, map_location=map_location, weights_only=weights_only)
        except UnpicklingError as error:
            raise ValueError(
                f"path: {path} holds other objects than tensors and plain data; only if you trust its source, pass "
                "weights_only=False, with which it may run any code"
            ) from error
        except (AttributeError, EOFError, ImportError, IndexError, KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"path: {path} is no checkpoint") from error
    if not isinstance(content, dict):
        raise ValueError(f"path: {path} is no checkpoint, but holds a {type(content).__name__}")
    return content


def check_sums(file: BinaryIO, path: str | Path) -> None:
    """Check the CRC-32 sum of each part of an open file of ``torch.save``.

    Files in torch's format from before 2020 have no sums; they give a warning.

    Raises:
        ValueError: if a part is damaged, or the file is cut off.
    """
    begin = file.read(4)
    if begin != b"PK\x03\x04":
        if begin[:1] == b"\x80":  # a pickle
            warnings.warn(f"{path} has no checksums, so damage can't be noticed; torch.save it again", stacklevel=3)
            return
        raise ValueError(f"path: {path} is no checkpoint")
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"path: {path} is cut off or damaged ({error}); take another checkpoint") from error
    if damaged is not None:
        raise ValueError(f"path: {path} is damaged: {damaged} has another checksum; take another checkpoint")


def _protocols(file_system: Any) -> tuple[str, ...]:
    protocol = file_system.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
