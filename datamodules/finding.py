"""Find image files in folders."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from ssl_modules.datamodules.unreadable import OF_FILE, retried

ENDINGS = ", ".join(IMG_EXTENSIONS)
# Folders that operating systems and network drives add; some hold small copies of the images.
OF_SYSTEMS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")


def absolute(path: str | Path) -> str:
    """The absolute form of a path, so that a later ``os.chdir`` does not change its meaning; ``~`` is the home folder.

    Args:
        path: path of a file or folder.

    Example:
        >>> Path(absolute("data")) == Path.cwd() / "data"
        True
    """
    return os.path.abspath(os.path.expanduser(path))


def find_images(folder: Path) -> list[str]:
    """Paths of the image files in a folder and its subfolders, sorted and relative to it.

    Image files are recognised by their extensions. A log message counts the other files. Hidden files and folders and
    those of operating systems, such as ``__MACOSX``, are ignored. Links are followed, but no folder is searched twice,
    and no folder that contains ``folder``, so a link to a parent folder causes no endless loop.

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
    images, others = retried(folder, partial(_files, folder))
    _count_others(folder, others)
    return images


def find_classes(folder: Path) -> list[str]:
    """Names of the folders in a folder that hold images, sorted. A warning names the folders without images.

    Args:
        folder: folder that holds one folder per class.

    Raises:
        ValueError: if there are no such folders, images lie beside them, or two of them are the same folder.
        SystemFault: as in :func:`find_images`.

    Example:
        >>> for path in ("pets/dog/1.png", "pets/cat/1.png", "pets/fish/notes.txt"):
        ...     Path(path).parent.mkdir(parents=True, exist_ok=True)
        ...     Path(path).touch()
        >>> find_classes(Path("pets"))
        ['cat', 'dog']
    """
    entries = retried(folder, lambda: sorted(entry.name for entry in folder.iterdir() if not is_ignored(entry.name)))
    stray = [name for name in entries if _is_image(name) and not (folder / name).is_dir()]
    if stray:
        raise ValueError(
            f"class_folders: expected all images in class folders, got {len(stray)} beside them in {folder}, such as "
            f"{stray[0]}; move them to one, or pass class_folders=False to use all images without classes"
        )
    folders = [name for name in entries if (folder / name).is_dir() and not _contains(folder / name, folder)]
    with_images = [name for name in folders if retried(folder, partial(_has_image, folder / name))]
    if not with_images:
        found = f"none in {', '.join(folders)}" if folders else "no folders"
        raise ValueError(
            f"class_folders: expected folders with images ({ENDINGS}) in {folder}, got {found}; give the folder that "
            "holds one folder of images for each class"
        )
    empty = sorted({*folders} - {*with_images})
    if empty:
        rank_zero_warn(f"{folder}: {_folders(len(empty))} without images left out: {listed(empty)}")
    of_real = {os.path.realpath(folder / name): name for name in with_images}
    for name in with_images:
        other = of_real[os.path.realpath(folder / name)]
        if other != name:
            raise ValueError(
                f"class_folders: expected one folder for each class in {folder}, got the same folder as {name} and "
                f"{other}; remove the link"
            )
    return with_images


def find_labelled_images(folder: Path, names: Sequence[str], *, complete: bool = True) -> tuple[list[str], Tensor]:
    """Paths of the image files of all classes, and their class indices [N].

    Files and folders are ignored as in :func:`find_images`. A link to a folder of another class is not followed.

    Args:
        folder: folder that holds one folder per class.
        names: names of these folders, in the order of the classes.
        complete: whether every class must have images; if not, a warning names the classes that have none.

    Raises:
        FileNotFoundError: if a class has no folder, and ``complete``.
        ValueError: if a class has no images, and ``complete``.
        SystemFault: as in :func:`find_images`.
    """
    paths: list[str] = []
    targets: list[int] = []
    missing: list[str] = []
    others: Counter[str] = Counter()
    of_classes = frozenset(os.path.realpath(folder / name) for name in names)
    for target, name in enumerate(names):
        place = folder / name
        if complete and not place.is_dir():
            raise FileNotFoundError(f"{folder}: expected a folder of class {name!r}, got none")
        found, counts = retried(place, partial(_files, place, of_classes))
        if complete and not found:
            raise ValueError(
                f"{place}: expected images of class {name!r} ({ENDINGS}), got none; add some, or remove the folder"
            )
        missing += [] if found else [name]
        others.update(counts)
        paths += [os.path.join(name, path) for path in found]
        targets += [target] * len(found)
    if missing:
        rank_zero_warn(f"{folder}: no images of {len(missing)} of {len(names)} classes: {listed(missing)}")
    _count_others(folder, others)
    return paths, torch.tensor(targets)


def _search(folder: Path, of_others: frozenset[str] = frozenset()) -> Iterator[str]:
    """Paths of all files that are not ignored, relative to ``folder``; links to folders ``of_others`` aren't followed.

    ``of_others`` are real paths; that of ``folder`` may be among them.
    """
    searched: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=_raise_unless_missing, followlinks=True):
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        real = os.path.realpath(place)
        is_start = not searched
        if real in searched or (not is_start and (real in of_others or _contains(Path(place), folder))):
            folders.clear()
            continue
        searched.add(real)
        relative = os.path.relpath(place, folder)
        yield from (os.path.normpath(os.path.join(relative, name)) for name in files if not is_ignored(name))


def _files(folder: Path, of_others: frozenset[str] = frozenset()) -> tuple[list[str], Counter[str]]:
    """The images, sorted, and the number of other files by ending; see :func:`_search`."""
    images: list[str] = []
    others: Counter[str] = Counter()
    for path in _search(folder, of_others):
        if _is_image(path):
            images.append(path)
        else:
            others[os.path.splitext(path)[1].lower() or "no ending"] += 1
    return sorted(images), others


def _has_image(folder: Path) -> bool:
    return any(map(_is_image, _search(folder)))


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or a folder of an operating system.

    Example:
        >>> is_ignored("__MACOSX"), is_ignored(".cache"), is_ignored("cat")
        (True, True, False)
    """
    return name.startswith(".") or name in OF_SYSTEMS


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMG_EXTENSIONS)


def _contains(outer: Path, inner: Path) -> bool:
    """Whether a folder is another one, or contains it, after following links."""
    real, start = os.path.realpath(outer), os.path.realpath(inner)
    return os.path.commonpath([real, start]) == real


def _raise_unless_missing(error: OSError) -> None:
    if error.errno not in OF_FILE:
        raise error


def _count_others(folder: Path, others: Counter[str]) -> None:
    if others:
        counts = ", ".join(f"{count} {ending}" for ending, count in others.most_common(5))
        rest = "" if len(others) <= 5 else ", ..."
        rank_zero_info(f"{folder}: {others.total()} files that are no images by their endings left out: {counts}{rest}")


def _folders(count: int) -> str:
    return "1 folder" if count == 1 else f"{count} folders"


def listed(names: Sequence[str]) -> str:
    """The first five names, for a message.

    Example:
        >>> listed("abcdefg")
        'a, b, c, d, e, ...'
    """
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
