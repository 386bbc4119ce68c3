"""Temporary errors are tried again, system errors end the run, and an unreadable file is left out."""

import errno
import os
import re
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from pictures import write_image
from PIL import Image

from ssl_modules.datamodules import ImageDataModule, ImageFiles, ImageFolderDataModule, unreadable
from ssl_modules.datamodules.batches import BatchedFiles, read_all
from ssl_modules.datamodules.finding import find_files
from ssl_modules.datamodules.unreadable import SystemFault, read_bytes

COUNT = 6
PASSING = ["EIO", "ESTALE", "ETIMEDOUT", "ECONNRESET", "EAGAIN", "EBUSY", "EINTR", "ENOTCONN"]
LASTING = {
    "EMFILE": r"ulimit -n.*fewer num_workers.*set_sharing_strategy\('file_system'\)",
    "ENFILE": "ulimit -n",
    "ENOMEM": "fewer num_workers or a smaller batch_size",
    "EACCES": "chmod",
    "EPERM": "chmod",
    "ENODEV": "fix this, then resume the run",
    "ENXIO": "fix this, then resume the run",
}


@pytest.fixture
def folder(tmp_path):
    for index in range(COUNT):
        write_image(tmp_path / f"{index}.png", value=index * 10)
    return tmp_path


@pytest.fixture
def waits(monkeypatch):
    """Record the waits instead of sleeping."""
    slept = []
    monkeypatch.setattr(unreadable, "sleep", slept.append)
    return slept


@pytest.fixture
def fail(monkeypatch, waits):
    """Return a function that makes the next ``times`` reads of a file fail."""
    real, left = Path.read_bytes, {}

    def read(path):
        if left.get(path.name, 0) > 0:
            left[path.name] -= 1
            code = getattr(errno, left["code"])
            raise OSError(code, os.strerror(code), str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)

    def set_up(name, code, times):
        left.update({name: times, "code": code})
        return left

    return set_up


def files(folder, **options):
    return ImageFiles(folder, find_files(folder), torch.arange(COUNT), **{"image_size": 8, **options})


def module(part, **options):
    facts = {"num_classes": COUNT, "dims": part.dims, "mean": (0.5,) * 3, "std": (0.5,) * 3, "batch_size": COUNT}
    data = ImageDataModule(part, part, return_index=True, **{**facts, **options})
    data.setup()
    return data


def rows(loader):
    return sorted(row for *_, index in loader for row in index.tolist())


@pytest.mark.parametrize("code", PASSING)
def test_a_fault_that_passes_leaves_no_image_out(folder, fail, waits, code):
    fail("2.png", code, 3)
    part = files(folder)
    assert rows(module(part).train_dataloader()) == list(range(COUNT))
    assert not part.unread.any()
    assert waits == [0.1, 0.5, 2.0]


@pytest.mark.parametrize("policy", ["skip", "error"])
@pytest.mark.parametrize("code", PASSING)
def test_a_fault_that_stays_ends_the_run(folder, fail, waits, code, policy):
    fail("2.png", code, 99)
    part = files(folder, unreadable=policy)
    message = rf"2\.png: can't be read \({os.strerror(getattr(errno, code))}\), a fault of the system .* resume the run"
    with pytest.raises(SystemFault, match=message):
        rows(module(part).train_dataloader())
    assert not part.unread.any()
    assert waits == [0.1, 0.5, 2.0]


@pytest.mark.parametrize("code", LASTING)
def test_other_faults_of_the_system_are_raised_at_once_with_the_fix(folder, fail, waits, code):
    fail("2.png", code, 99)
    part = files(folder)
    for read in (lambda: rows(module(part).test_dataloader()), lambda: read_all(part), lambda: part[2]):
        with pytest.raises(SystemFault, match=rf"2\.png: can't be read .* not of the file; .*{LASTING[code]}"):
            read()
    assert not part.unread.any()
    assert waits == []


def test_the_cause_is_kept(folder, fail):
    fail("2.png", "EMFILE", 1)
    with pytest.raises(SystemFault) as caught:
        read_bytes(folder / "2.png")
    assert caught.value.__cause__.errno == errno.EMFILE


def test_a_worker_reports_a_fault_of_the_system(folder, fail):
    fail("2.png", "EMFILE", 99)
    with pytest.raises(SystemFault, match=r"2\.png: can't be read \(Too many open files\).*ulimit -n"):
        rows(module(files(folder), num_workers=1).test_dataloader())


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "Too many open files")])
def test_faults_of_the_system_while_decoding_are_no_faults_of_the_file(folder, monkeypatch, error):
    """Decoding may run out of memory or file handles; these are system errors."""

    def broken(*_):
        raise error

    monkeypatch.setattr(Image, "open", broken)
    part = files(folder)
    kind = MemoryError if isinstance(error, MemoryError) else SystemFault
    with pytest.raises(kind, match=r"0\.png: .*fewer num_workers"):
        rows(module(part).test_dataloader())
    assert not part.unread.any()


@pytest.mark.parametrize("is_mount", [True, False], ids=["empty", "gone"])
def test_a_folder_that_vanished_is_no_missing_file(folder, is_mount):
    data = module(files(folder))
    shutil.rmtree(folder)
    if is_mount:  # an unmounted disk leaves an empty folder
        folder.mkdir()
    with pytest.raises(
        SystemFault, match=rf"{re.escape(str(folder))}: the folder of the images has vanished, or is empty"
    ):
        rows(data.train_dataloader())
    assert not data.train_set.unread.any()


@pytest.mark.parametrize("fault", ["missing", "truncated", "text", "empty", "folder"])
def test_a_fault_of_a_file_leaves_it_out_until_the_next_epoch(folder, waits, fault):
    part, path = files(folder), folder / "2.png"
    whole = path.read_bytes()
    if fault in ("missing", "folder"):
        path.unlink()
    if fault == "folder":
        path.mkdir()
    elif fault != "missing":
        path.write_bytes({"truncated": whole[:-30], "text": b"no image", "empty": b""}[fault])
    data = module(part)
    loader, evaluation = data.train_dataloader(), data.test_dataloader()
    with pytest.warns(UserWarning, match=r"1 of 6 files could not be read.*2\.png"):
        assert rows(loader) == [0, 1, 3, 3, 4, 5]
    assert rows(evaluation) == [0, 1, 3, 4, 5]
    assert waits == []
    if fault == "folder":
        path.rmdir()
    path.write_bytes(whole)
    assert rows(loader) == rows(evaluation) == list(range(COUNT))  # the file is readable again
    assert not part.unread.any()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_is_reported_once_and_another_one_again(folder, workers):
    loader = module(files(folder), num_workers=workers).train_dataloader()

    def reports():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rows(loader)
        return [str(warning.message) for warning in caught if "could not be read" in str(warning.message)]

    (folder / "2.png").write_text("no image")
    (first,) = reports()
    assert "1 of 6" in first
    assert reports() == []
    (folder / "4.png").write_text("no image")
    (second,) = reports()
    assert "2 of 6" in second
    assert "4.png" in second


def test_an_unfinished_epoch_is_reported_before_it_is_forgotten(folder):
    (folder / "0.png").write_text("no image")
    part = files(folder)
    loader = module(part, batch_size=2).test_dataloader()
    next(iter(loader))
    with pytest.warns(UserWarning, match="1 of 6 files could not be read"):
        next(iter(loader))


def test_a_resumed_run_leaves_out_the_same_files(folder):
    """A checkpoint does not store the unreadable files; the resumed run finds them again."""
    (folder / "2.png").write_text("no image")
    whole = module(files(folder), batch_size=2).train_dataloader()
    every = [index.tolist() for *_, index in whole]
    assert not any(2 in batch for batch in every)
    resumed = module(files(folder), batch_size=2).train_dataloader()
    resumed.load_state_dict({"epoch": 0, "images": 4})
    assert [index.tolist() for *_, index in resumed] == every[2:]


def test_faults_pass_in_workers_too(folder, fail):
    fail("2.png", "ESTALE", 2)
    assert rows(module(files(folder), num_workers=1).train_dataloader()) == list(range(COUNT))


def test_views_in_workers_take_the_same_way(folder, fail):
    fail("2.png", "EIO", 99)
    part = files(folder, image_size=32, augmentation="simclr")
    with pytest.raises(SystemFault, match=r"2\.png"):
        BatchedFiles(part, training=True)[2]


def test_a_folder_that_cannot_be_searched_is_not_passed_over(folder, monkeypatch):
    (folder / "closed").mkdir()
    real = os.scandir

    def scandir(place):
        if str(place).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return real(place)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(
        SystemFault, match=r"closed: can't be read \(Permission denied\), .*; make .* readable \(chmod\)"
    ):
        ImageFolderDataModule(folder, class_folders=False, image_size=8).setup()
