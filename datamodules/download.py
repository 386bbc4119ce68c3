"""The base of data modules that can download their data set, and downloads that are complete or not there."""

import os
import shutil
from pathlib import Path
from typing import Any

from torchvision.datasets.utils import download_url, extract_archive

from ssl_modules.datamodules.base import BaseDataModule


class DownloadableDataModule(BaseDataModule):
    """Base of data modules whose ``prepare_data`` downloads the data set on request.

    Args:
        root: folder of data sets, in which each has a folder of its own.
        download: whether ``prepare_data`` downloads the data set to ``root`` if it is not there.
        settings: of :class:`~ssl_modules.datamodules.BaseDataModule`: batch_size, val_size, seed, num_workers,
            return_index.

    Attributes:
        url: of the data set.
        download_size: how much is downloaded.
    """

    url: str
    download_size: str

    def __init__(self, root: str | Path = "data", *, download: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.root = os.path.expanduser(root)
        self.download = download

    @property
    def how_to_get(self) -> str:
        """What to do if files are missing."""
        return f"pass download=True ({self.download_size}), or unpack {self.url} in {self.root}"

    def missing(self, path: Path) -> FileNotFoundError:
        """The error that a file or folder is missing."""
        return not_found(path, self.how_to_get)


def not_found(path: str | Path, fix: str) -> FileNotFoundError:
    """The error that a file or folder in ``root`` is missing.

    Args:
        path: of the file or folder.
        fix: what to do.

    Example:
        >>> not_found("data/images", "pass download=True")
        FileNotFoundError('root: expected data/images, got no such file or folder; pass download=True')
    """
    return FileNotFoundError(f"root: expected {path}, got no such file or folder; {fix}")


def download_and_unpack(url: str, root: str | Path, md5: str) -> None:
    """Download an archive, unpack it to a folder in ``root``, then move the files to their places and remove it.

    An archive that is already in ``root``, from a browser or an interrupted run, is used if its checksum is right.

    Args:
        url: of the archive; its last part is the name of the file in ``root``.
        root: folder for the files; existing files with the same names are replaced.
        md5: checksum of the archive.

    Raises:
        OSError: if the download fails or the checksum is wrong.
    """
    archive = Path(root, Path(url).name)
    try:
        download_url(url, root, md5=md5)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"{url} could not be downloaded to {archive} ({error}); try again, or put the original there by hand"
        ) from error
    unpacked = archive.with_name(f"{archive.name}.unpacking")
    shutil.rmtree(unpacked, ignore_errors=True)  # of an interrupted run
    extract_archive(archive, unpacked)
    _move(unpacked, Path(root))
    archive.unlink()


def _move(source: Path, target: Path) -> None:
    if source.is_dir() and target.is_dir():
        for place in source.iterdir():
            _move(place, target / place.name)
        source.rmdir()
    else:
        source.replace(target)
