"""Unreadable files: every data module names them, and tries again after temporary errors."""

import errno
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conformance.datamodules import IN_FILES, Case, epoch, equal, loaded

from ssl_modules.datamodules import (
    STL10DataModule,
)
from ssl_modules.datamodules import unreadable as faults
from ssl_modules.datamodules.unreadable import SystemFault


def fail_at_open(monkeypatch: pytest.MonkeyPatch, is_broken: Callable[[str], bool], code: int) -> None:
    """Make the system refuse to open some files."""
    real = open

    def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
        if is_broken(str(path)):
            raise OSError(code, os.strerror(code), str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)  # pathlib opens files with it


@pytest.mark.parametrize("case", IN_FILES, ids=str)
def test_faults_of_the_storage_that_pass_change_nothing(case, folder, monkeypatch):
    right = epoch(loaded(case, folder))
    monkeypatch.setattr(faults, "sleep", lambda seconds: None)
    opened: Counter[str] = Counter()

    def is_broken(path: str) -> bool:
        opened[path] += str(folder) in path
        return opened[path] == 1  # fails only the first time

    fail_at_open(monkeypatch, is_broken, errno.EIO)
    # torchvision opens the files of a part in order and stops at the first that fails. A part therefore needs one retry
    # for each of its files.
    monkeypatch.setattr(faults, "WAITS", (0.1,) * 10)
    assert equal(epoch(loaded(case, folder)), right)
    assert opened


@pytest.mark.parametrize("case", IN_FILES, ids=str)
def test_faults_of_the_system_end_the_run(case, folder, monkeypatch):
    # STL-10's images are memory-mapped, so its labels fail instead.
    broken = case.corrupt if case.data is not STL10DataModule else "stl10_binary/train_y.bin"
    fail_at_open(monkeypatch, lambda path: path.endswith(broken), errno.EMFILE)
    with pytest.raises(SystemFault, match=rf"{re.escape(broken)}: can't be read .*ulimit -n"):
        epoch(loaded(case, folder))


def trouble(case: Case, folder: Path) -> str:
    """Read everything once; return the errors and warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            data = loaded(case, folder)
            list(data.train_dataloader())
            list(data.probe_train_dataloader())
            data.teardown()
        except (OSError, ValueError) as error:
            return str(error)
    return "\n".join(str(warning.message) for warning in caught)


@pytest.mark.parametrize("case", IN_FILES, ids=str)
def test_a_corrupt_file_is_named(case, copied):
    path = copied / case.corrupt
    path.write_bytes(path.read_bytes()[:-20])
    assert str(path) in trouble(case, copied)


@pytest.mark.parametrize("case", IN_FILES, ids=str)
def test_a_missing_file_is_named_with_a_fix(case, copied):
    path = copied / case.missing
    path.rename(copied / "elsewhere")
    message = trouble(case, copied)
    assert message.startswith(f"{case.argument}: expected ")
    assert str(path) in message
    assert "; " in message
