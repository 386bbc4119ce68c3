"""The files of the data modules under test."""

import shutil
from pathlib import Path

import miniatures
import pytest
from conformance.datamodules import Case, written


@pytest.fixture
def folder(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the case's files, patched so that their sizes and checksums are accepted."""
    if case.write is None:
        return tmp_path
    folder, patches = written(case.write)
    miniatures.apply(monkeypatch, patches)
    return folder


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the files that tests may damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))
