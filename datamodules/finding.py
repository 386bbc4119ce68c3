"""Find the files of images and videos in folders."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from ssl_modules.datamodules.unreadable import OF_FILE, retried

_VIDEOS = ("mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "wmv", "flv", "3gp", "ogv")


class Kind(NamedTuple):
    """A kind of files, with its name and the extensions that identify it."""

    name: str
    article: str
    endings: tuple[str, ...]

    @property
    def listed(self) -> str:
        """The extensions as text, for a message."""
        return ", ".join(self.endings)


IMAGES = Kind("image", "an", IMG_EXTENSIONS)
VIDEOS = Kind("video", "a", tuple(f".{ending}" for ending in _VIDEOS))

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


def find_files(folder: Path, kind: Kind = IMAGES) -> list[str]:
    """Return the sorted paths of the images or videos in a folder and its subfolders, relative to the folder.

    Files are identified by their extensions. A log message counts the other files. Hidden files and folders are
    ignored, and so are folders that operating systems add, such as ``__MACOSX``. Links are followed, but no folder is
    searched twice. A link to a folder that contains ``folder`` is not followed, because it would cause an endless loop.

    Args:
        folder: folder to search.
        kind: kind of files to find, ``IMAGES`` or ``VIDEOS``.

    Raises:
        SystemFault: if a system error prevents the search, such as a missing permission.

    Example:
        >>> Path("trip", "day 2").mkdir(parents=True)
        >>> Path("trip", "day 2", "sea.JPG").touch()
        >>> Path("trip", "notes.txt").touch()
        >>> find_files(Path("trip"))
        ['day 2/sea.JPG']
    """
    found, others = retried(folder, partial(_files, folder, kind))
    _count_others(folder, others, kind)
    return found


def find_classes(folder: Path, kind: Kind = IMAGES) -> list[str]:
    """Return the sorted names of the class folders, the subfolders with images or videos. Warn about other subfolders.

    Args:
        folder: folder that holds one folder per class.
        kind: kind of files to find, ``IMAGES`` or ``VIDEOS``.

    Raises:
        ValueError: if no subfolder has files of this kind, if ``folder`` itself has such files, or if two names link
            to the same folder.
        SystemFault: as in :func:`find_files`.

    Example:
        >>> for path in ("pets/dog/1.png", "pets/cat/1.png", "pets/fish/notes.txt"):
        ...     Path(path).parent.mkdir(parents=True, exist_ok=True)
        ...     Path(path).touch()
        >>> find_classes(Path("pets"))
        ['cat', 'dog']
    """
    entries = retried(folder, lambda: sorted(entry.name for entry in folder.iterdir() if not is_ignored(entry.name)))
    stray = [name for name in entries if _is(kind, name) and not (folder / name).is_dir()]
    if stray:
        raise ValueError(
            f"class_folders: expected all {kind.name}s in class folders, got {len(stray)} beside them in {folder}, "
            f"such as {stray[0]}; move these to a class folder, or pass class_folders=False to use all {kind.name}s "
            "without classes"
        )
    folders = [name for name in entries if (folder / name).is_dir() and not _contains(folder / name, folder)]
    with_files = [name for name in folders if retried(folder, partial(_has_any, folder / name, kind))]
    if not with_files:
        found = f"none in {', '.join(folders)}" if folders else "no folders"
        raise ValueError(
            f"class_folders: expected folders with {kind.name}s ({kind.listed}) in {folder}, got {found}; give the "
            f"folder that holds one folder of {kind.name}s for each class"
        )
    empty = sorted({*folders} - {*with_files})
    if empty:
        rank_zero_warn(f"{folder}: left out {_folders(len(empty))} without {kind.name}s: {listed(empty)}")
    of_real = {os.path.realpath(folder / name): name for name in with_files}
    for name in with_files:
        other = of_real[os.path.realpath(folder / name)]
        if other != name:
            raise ValueError(
                f"class_folders: expected one folder for each class in {folder}, got {name} and {other}, which are the "
                "same folder; remove the link"
            )
    return with_files


def find_labelled(
    folder: Path, names: Sequence[str], *, complete: bool = True, kind: Kind = IMAGES
) -> tuple[list[str], Tensor]:
    """Return the paths of the images or videos of all classes, and their class indices [N].

    This function ignores the same files and folders as :func:`find_files`. It does not follow links to a folder of
    another class.

    Args:
        folder: folder that holds one folder per class.
        names: names of these folders, in the order of the classes.
        complete: whether every class must have files. If False, a warning names the classes without files.
        kind: kind of files to find, ``IMAGES`` or ``VIDEOS``.

    Raises:
        FileNotFoundError: if ``complete`` and a class has no folder.
        ValueError: if ``complete`` and a class has no files.
        SystemFault: as in :func:`find_files`.
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
        found, counts = retried(place, partial(_files, place, kind, of_classes))
        if complete and not found:
            raise ValueError(
                f"{place}: expected {kind.name}s of class {name!r} ({kind.listed}), got none; add some, or remove the "
                "folder"
            )
        missing += [] if found else [name]
        others.update(counts)
        paths += [os.path.join(name, path) for path in found]
        targets += [target] * len(found)
    if missing:
        rank_zero_warn(f"{folder}: {len(missing)} of {len(names)} classes have no {kind.name}s: {listed(missing)}")
    _count_others(folder, others, kind)
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


def _files(folder: Path, kind: Kind, of_others: frozenset[str] = frozenset()) -> tuple[list[str], Counter[str]]:
    """Return the sorted paths of files of a kind, and the number of other files by extension; see :func:`_search`."""
    found: list[str] = []
    others: Counter[str] = Counter()
    for path in _search(folder, of_others):
        if _is(kind, path):
            found.append(path)
        else:
            others[os.path.splitext(path)[1].lower() or "no extension"] += 1
    return sorted(found), others


def _has_any(folder: Path, kind: Kind) -> bool:
    return any(_is(kind, path) for path in _search(folder))


def is_ignored(name: str) -> bool:
    """Return whether the name is that of a hidden file or folder, or of a folder that operating systems add.

    Example:
        >>> is_ignored("__MACOSX"), is_ignored(".cache"), is_ignored("cat")
        (True, True, False)
    """
    return name.startswith(".") or name in OF_SYSTEMS


def _is(kind: Kind, name: str) -> bool:
    return name.lower().endswith(kind.endings)


def _contains(outer: Path, inner: Path) -> bool:
    """Return whether ``outer``, with links resolved, is ``inner`` or contains it."""
    real, start = os.path.realpath(outer), os.path.realpath(inner)
    return os.path.commonpath([real, start]) == real


def _raise_unless_missing(error: OSError) -> None:
    if error.errno not in OF_FILE:
        raise error


def _count_others(folder: Path, others: Counter[str], kind: Kind) -> None:
    if others:
        counts = ", ".join(f"{count} {ending}" for ending, count in others.most_common(5))
        rest = "" if len(others) <= 5 else ", ..."
        rank_zero_info(
            f"{folder}: left out {others.total()} files without {kind.article} {kind.name} extension: {counts}{rest}"
        )


def _folders(count: int) -> str:
    return "1 folder" if count == 1 else f"{count} folders"


def listed(names: Sequence[str]) -> str:
    """Join the first five names, for a message.

    Example:
        >>> listed("abcdefg")
        'a, b, c, d, e, ...'
    """
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def not_found(path: str | Path, fix: str, argument: str = "root") -> FileNotFoundError:
    """Return the error to raise for a missing file or folder.

    Args:
        path: path of the file or folder.
        fix: advice for the user.
        argument: name of the argument that holds the path.

    Example:
        >>> not_found("data/images", "pass download=True")
        FileNotFoundError('root: expected data/images, got no such file or folder; pass download=True')
    """
    found = "a file, not a folder" if Path(path).is_file() else "no such file or folder"
    return FileNotFoundError(f"{argument}: expected {path}, got {found}; {fix}")


def existing(folder: str | Path, argument: str, kind: Kind = IMAGES) -> Path:
    """Return the path of a folder; raise a FileNotFoundError that names the argument if there is none.

    Args:
        folder: folder of images or videos.
        argument: name of the argument that holds the path.
        kind: kind of files to find, ``IMAGES`` or ``VIDEOS``.
    """
    if not Path(folder).is_dir():
        raise not_found(folder, f"give the folder of your {kind.name}s", argument)
    return Path(folder)


def find_part(
    folder: Path, names: Sequence[str] | None, *, is_train: bool, kind: Kind = IMAGES
) -> tuple[list[str], Tensor | None]:
    """Return the paths of the files of a part, and their class indices [N], or None without classes.

    Args:
        folder: folder of the part.
        names: names of the class folders; None to take all files without classes.
        is_train: whether the part is the training part, in which every class must have files.
        kind: kind of files to find, ``IMAGES`` or ``VIDEOS``.

    Raises:
        FileNotFoundError: as :func:`find_labelled` does.
        ValueError: if there are no files.
    """
    if names is not None:
        return find_labelled(folder, names, complete=is_train, kind=kind)
    paths = find_files(folder, kind)
    if not paths:
        raise ValueError(
            f"{'root' if is_train else 'test'}: expected {kind.name}s ({kind.listed}) in {folder}, got none; give the "
            f"folder of your {kind.name}s"
        )
    return paths, None


def check_test_classes(root: str, test: Path, names: Sequence[str], kind: Kind = IMAGES) -> None:
    """Warn about test folders of classes without training files.

    Args:
        root: folder of the training part.
        test: folder of the test part.
        names: names of the training classes.
        kind: kind of files to find, ``IMAGES`` or ``VIDEOS``.

    Raises:
        ValueError: if no test folder has the name of a class.
    """
    found = find_classes(test, kind)
    unknown = [name for name in found if name not in names]
    if len(unknown) == len(found):
        raise ValueError(
            f"test: expected folders with the names of the classes in {root}, {listed(names)}, got {listed(unknown)} "
            f"in {test}; rename the test folders to these classes"
        )
    if unknown:
        rank_zero_warn(f"{test}: left out folders of classes without training {kind.name}s: {listed(unknown)}")


def present(folder: Path, paths: Sequence[str], source: str) -> list[bool]:
    """Return whether each file of an official list exists.

    A warning names the missing files, because copies of video data sets are rarely complete.

    Args:
        folder: folder of the part.
        paths: paths of the files on the list, relative to ``folder``.
        source: name of the list.

    Raises:
        FileNotFoundError: if none of the files exists.

    Example:
        >>> Path("a.mp4").touch()
        >>> present(Path("."), ["a.mp4", "b.mp4"], "list.txt")
        [True, False]
    """
    found = retried(folder, lambda: [(folder / path).is_file() for path in paths])
    if not any(found):
        raise not_found(folder / paths[0], f"unpack the videos of {source} there")
    if not all(found):
        missing = [path for path, is_there in zip(paths, found, strict=True) if not is_there]
        rank_zero_warn(
            f"{folder}: left out {len(missing)} of {len(paths)} videos of {source}, not found: {listed(missing)}"
        )
    return found
