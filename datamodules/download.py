"""The base class of data modules that can download their data set, and downloads that leave no incomplete files."""

import shutil
from pathlib import Path
from typing import Any

from torchvision.datasets.utils import download_url, extract_archive

from ssl_modules.datamodules.base import BaseDataModule
from ssl_modules.datamodules.finding import absolute, not_found


class DownloadableDataModule(BaseDataModule):
    """Base class of data modules whose ``prepare_data`` downloads the data set on request.

    Args:
        root: folder that holds one folder per data set.
        download: whether ``prepare_data`` downloads the data set to ``root`` if it is missing.
        settings: keyword arguments of :class:`~ssl_modules.datamodules.BaseDataModule`: batch_size, val_size, seed,
            num_workers, return_index.

    Attributes:
        url: URL of the data set.
        download_size: size of the download, as text.
    """

    url: str
    download_size: str

    def __init__(self, root: str | Path = "data", *, download: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.root = absolute(root)
        self.download = download

    @property
    def how_to_get(self) -> str:
        """What to do if files are missing."""
        return f"pass download=True ({self.download_size}), or unpack {self.url} in {self.root}"

    def missing(self, path: Path) -> FileNotFoundError:
        """Return the error to raise for a missing file or folder."""
        return not_found(path, self.how_to_get)


def download_and_unpack(url: str, root: str | Path, md5: str) -> None:
    """Download an archive, unpack it to a temporary folder, move the files to ``root`` and delete the archive.

    An archive that is already in ``root``, from a browser or an interrupted run, is used if its checksum is right.

    Args:
        url: URL of the archive; its last part is the name of the archive's file in ``root``.
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
    shutil.rmtree(unpacked, ignore_errors=True)  # left by an interrupted run
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
