"""Find image files in folders."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from ssl_modules.datamodules.unreadable import OF_FILE, retried

ENDINGS = ", ".join(IMG_EXTENSIONS)


def find_images(folder: Path) -> list[str]:
    """Paths of the image files in a folder and its subfolders, sorted and relative to it.

    Image files are recognised by their extensions; hidden files and folders are ignored. Links are followed, but no
    folder is searched twice, so a link to a parent folder causes no endless loop.

    Args:
        folder: folder to search.

    Raises:
        SystemFault: if a system error prevents the search, such as a missing permission.

    Example:
        >>> Path("trip", "day 2").mkdir(parents=True)
        >>> Path("trip", "day 2", "sea.JPG").touch()
        >>> Path("trip", "notes.txt").touch()
        >>> find_images(Path("trip"))
        ['day 2/sea.JPG']
    """
    return retried(folder, lambda: _search(folder))


def _search(folder: Path) -> list[str]:
    found = []
    searched: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=_raise_unless_missing, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = os.path.realpath(place)
        if real in searched:
            folders.clear()
            continue
        searched.add(real)
        relative = os.path.relpath(place, folder)
        for name in files:
            if name.lower().endswith(IMG_EXTENSIONS) and not name.startswith("."):
                found.append(os.path.normpath(os.path.join(relative, name)))
    return sorted(found)


def _raise_unless_missing(error: OSError) -> None:
    if error.errno not in OF_FILE:
        raise error


def find_labelled_images(folder: Path, names: Sequence[str]) -> tuple[list[str], Tensor]:
    """Paths of the image files of all classes, and their class indices [N].

    Args:
        folder: folder that holds one folder per class.
        names: names of these folders, in the order of the classes.

    Raises:
        FileNotFoundError: if a class has no folder.
        ValueError: if a class has no images.
    """
    paths: list[str] = []
    targets: list[int] = []
    for target, name in enumerate(names):
        if not (folder / name).is_dir():
            raise FileNotFoundError(f"{folder}: expected a folder of class {name!r}, got none")
        found = find_images(folder / name)
        if not found:
            raise ValueError(
                f"{folder / name}: expected images of class {name!r} ({ENDINGS}), got none; add some, or remove the "
                "folder"
            )
        paths += [os.path.join(name, path) for path in found]
        targets += [target] * len(found)
    return paths, torch.tensor(targets)
