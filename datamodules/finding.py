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
# Operating systems and network drives add these folders; some of them hold small copies of the images.
OF_SYSTEMS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")


def absolute(path: str | Path) -> str:
    """Return the absolute path, which stays valid after ``os.chdir``; ``~`` stands for the home folder.

    Args:
        path: path of a file or folder.

    Example:
        >>> Path(absolute("data")) == Path.cwd() / "data"
        True
    """
    return os.path.abspath(os.path.expanduser(path))


def find_images(folder: Path) -> list[str]:
    """Paths of the image files in a folder and its subfolders, sorted and relative to it.

    Image files are recognised by their extensions. A log message counts the other files. Hidden files and folders are
    ignored, and so are folders that operating systems add, such as ``__MACOSX``. Links are followed, but no folder is
    searched twice. A link to a folder that contains ``folder`` is not followed, because it would cause an endless loop.

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
    """Return the sorted names of the class folders, which are the subfolders with images; warn about all others.

    Args:
        folder: folder that holds one folder per class.

    Raises:
        ValueError: if no subfolder has images, if images lie beside the subfolders, or if two names link to the same
            folder.
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
            f"{stray[0]}; move these to a class folder, or pass class_folders=False to use all images without classes"
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
        rank_zero_warn(f"{folder}: left out {_folders(len(empty))} without images: {listed(empty)}")
    of_real = {os.path.realpath(folder / name): name for name in with_images}
    for name in with_images:
        other = of_real[os.path.realpath(folder / name)]
        if other != name:
            raise ValueError(
                f"class_folders: expected one folder for each class in {folder}, got {name} and {other}, which are the "
                "same folder; remove the link"
            )
    return with_images


def find_labelled_images(folder: Path, names: Sequence[str], *, complete: bool = True) -> tuple[list[str], Tensor]:
    """Paths of the image files of all classes, and their class indices [N].

    It ignores the same files and folders as :func:`find_images`, and does not follow links to a folder of another
    class.

    Args:
        folder: folder that holds one folder per class.
        names: names of these folders, in the order of the classes.
        complete: whether every class must have images; if False, a warning names the classes without images.

    Raises:
        FileNotFoundError: if ``complete`` and a class has no folder.
        ValueError: if ``complete`` and a class has no images.
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
        rank_zero_warn(f"{folder}: {len(missing)} of {len(names)} classes have no images: {listed(missing)}")
    _count_others(folder, others)
    return paths, torch.tensor(targets)


def _search(folder: Path, of_others: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the paths, relative to ``folder``, of all files that are not ignored.

    ``of_others`` are real paths of folders of other classes; links to them are not followed. The real path of
    ``folder`` may be one of them.
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
    """Return the sorted image paths, and the number of other files by extension; see :func:`_search`."""
    images: list[str] = []
    others: Counter[str] = Counter()
    for path in _search(folder, of_others):
        if _is_image(path):
            images.append(path)
        else:
            others[os.path.splitext(path)[1].lower() or "no extension"] += 1
    return sorted(images), others


def _has_image(folder: Path) -> bool:
    return any(map(_is_image, _search(folder)))


def is_ignored(name: str) -> bool:
    """Return whether the name is that of a hidden file or folder, or of a folder that operating systems add.

    Example:
        >>> is_ignored("__MACOSX"), is_ignored(".cache"), is_ignored("cat")
        (True, True, False)
    """
    return name.startswith(".") or name in OF_SYSTEMS


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMG_EXTENSIONS)


def _contains(outer: Path, inner: Path) -> bool:
    """Return whether ``outer``, with links resolved, is ``inner`` or contains it."""
    real, start = os.path.realpath(outer), os.path.realpath(inner)
    return os.path.commonpath([real, start]) == real


def _raise_unless_missing(error: OSError) -> None:
    if error.errno not in OF_FILE:
        raise error


def _count_others(folder: Path, others: Counter[str]) -> None:
    if others:
        counts = ", ".join(f"{count} {ending}" for ending, count in others.most_common(5))
        rest = "" if len(others) <= 5 else ", ..."
        rank_zero_info(f"{folder}: left out {others.total()} files without an image extension: {counts}{rest}")


def _folders(count: int) -> str:
    return "1 folder" if count == 1 else f"{count} folders"


def listed(names: Sequence[str]) -> str:
    """Join the first five names, for a message.

    Example:
        >>> listed("abcdefg")
        'a, b, c, d, e, ...'
    """
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
