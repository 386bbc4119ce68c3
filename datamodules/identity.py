"""Record the arguments that decide which images a data module has, and compare such records."""

from pathlib import Path
from typing import Any

from ssl_modules.datamodules.base import BaseDataModule
from ssl_modules.utils.configurable import class_path, storable

# These arguments decide how images are read, not which images the data module has.
_OF_READING = {
    "batch_size",
    "num_workers",
    "return_index",
    "unreadable",
    "download",
    "window",
    "cache_dir",
    "cache_gb",
    "storage_options",
}


def identity(data: BaseDataModule) -> dict[str, Any]:
    """Return the class of a data module and the arguments that decide which images it has, as plain data for JSON.

    ``seed`` is one of these arguments because a subset or the validation part may be chosen at random.

    Args:
        data: the data module.

    Example:
        >>> from ssl_modules.datamodules import DigitsDataModule
        >>> identity(DigitsDataModule(batch_size=8))
        {'data': 'ssl_modules.datamodules.DigitsDataModule', 'image_size': 8, 'val_size': 0, 'seed': 0}
    """
    arguments = {name: str(x) if isinstance(x, Path) else x for name, x in data.arguments.items()}
    kept = {name: value for name, value in storable(arguments).items() if name not in _OF_READING}
    return {"data": class_path(type(data)), **kept}


def changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the names of the entries that differ in two records.

    Example:
        >>> changed({"seed": 0, "root": "a"}, {"seed": 1, "root": "a", "val_size": 10})
        ['seed', 'val_size']
    """
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]
