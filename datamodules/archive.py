"""Archives that are there whole or not at all, however often getting them was interrupted."""

import shutil
from pathlib import Path

from torchvision.datasets.utils import download_url, extract_archive


def download_and_unpack(url: str, root: str | Path, md5: str) -> None:
    """Gets an archive, unpacks it in a folder beside the place of its files, and moves these there when all are done.

    The archive is removed in the end. One that was downloaded before, by hand or in a run that was interrupted, is
    taken if its checksum is right.

    Args:
        url: of the archive; its last part is the name of the file in ``root``.
        root: folder that the files belong in; those of the same name in it are replaced.
        md5: checksum of the archive.

    Raises:
        OSError: if it can't be downloaded or is not the original one.
    """
    archive = Path(root, Path(url).name)
    try:
        download_url(url, root, md5=md5)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"{url} could not be downloaded to {archive} ({error}); try again, or put the original there by hand"
        ) from error
    unpacked = archive.with_name(f"{archive.name}.unpacking")
    shutil.rmtree(unpacked, ignore_errors=True)  # of a run that was interrupted
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
