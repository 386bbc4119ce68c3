"""Shards in a storage are copied when they are needed. A storage that fails ends the run."""

import errno
import multiprocessing
import os
import tarfile
import time
from io import BytesIO
from pathlib import Path

import fsspec
import pytest
import torch
from PIL import Image
from streams import rows, stream

from ssl_modules.datamodules import StreamingDataModule, storage, unreadable
from ssl_modules.datamodules.shards import Shards
from ssl_modules.datamodules.unreadable import SystemFault


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_at_an_address_are_copied_and_the_oldest_copies_deleted(address, digits, tmp_path, workers):
    limit = 250e3  # bytes: two shards of 200 digits
    cache = tmp_path / "cache"
    data = stream(address, window=1, num_workers=workers, cache_dir=cache, cache_gb=limit / 1e9)
    for images, _, index in data.train_dataloader():
        torch.testing.assert_close(images, digits.train_set.images[index], rtol=0, atol=0)
    largest = max(path.stat().st_size for path in cache.glob("*.tar"))
    assert 0 < sum(path.stat().st_size for path in cache.glob("*.tar")) <= limit + largest


def test_a_deleted_copy_does_not_occupy_the_disk(address, tmp_path):
    data = stream(address, window=1, cache_dir=tmp_path, cache_gb=250e-6)
    rows(data.train_dataloader())
    opened = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not [path for path in opened if path.startswith(str(tmp_path)) and path.endswith("(deleted)")]


def test_a_copy_that_another_process_deletes_is_made_again(address, tmp_path, monkeypatch):
    copies = Shards([f"{address}/train/00000.tar"], tmp_path)
    copy, deleted = Shards._copy, []

    def copy_then_delete(self, number):
        copy(self, number)
        if not deleted:
            deleted.extend(tmp_path.glob("*.tar"))
            deleted[0].unlink()

    monkeypatch.setattr(Shards, "_copy", copy_then_delete)
    assert copies.read(0, 0, 13) == b"000000000.png"
    assert deleted


def test_the_shards_that_a_loader_reads_next_are_copied_ahead(address, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(Shards, "copy_ahead", lambda self, numbers: asked.append(numbers))
    data = stream(address, window=2, cache_dir=tmp_path, batch_size=1)
    order = list(dict.fromkeys((rows(data.train_dataloader()) // 200).tolist()))
    windows = [{*order[start : start + 2]} for start in (0, 2, 4, 6)]
    assert [({*now[:2]}, {*now[2:]}) for now in asked] == [*zip(windows, [*windows[1:], set()], strict=True)]
    asked.clear()
    training = iter(data.train_dataloader())
    next(training)
    rows(data.probe_train_dataloader())  # has its own order
    assert asked[1:] == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7]]
    asked.clear()
    part = data.train_set.select(torch.tensor([0, 1, 450, 1200]))
    assert part.content(0).startswith(b"\x89PNG")
    assert part.content(3).startswith(b"\x89PNG")
    assert asked == [[0, 2], [6]]


def reads_one_shard(folder):
    copies = Shards([f"memory://bucket/train/{number:05}.tar" for number in range(8)], folder)
    copies.copy_ahead(range(1, 8))
    copies.read(0, 0, 5)


@pytest.mark.usefixtures("address")
def test_the_end_of_a_process_does_not_wait_for_copies(tmp_path, monkeypatch):
    def slow(*args):
        time.sleep(1)
        return storage.blocks(*args)

    monkeypatch.setattr("ssl_modules.datamodules.shards.blocks", slow)
    process = multiprocessing.get_context("fork").Process(target=reads_one_shard, args=(tmp_path,))
    process.start()
    process.join(5)
    assert process.exitcode == 0
    assert 1 <= len([*tmp_path.glob("*.tar")]) < 5


@pytest.fixture
def waits(monkeypatch):
    """Record the waits instead of sleeping."""
    slept = []
    monkeypatch.setattr(unreadable, "sleep", slept.append)
    return slept


class ExpiredToken(Exception):
    """An error of a storage's own type."""


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize(
    ("error", "message", "attempts"),
    [
        (ExpiredToken("the token has expired"), "ExpiredToken: the token has expired", 4),
        (OSError(errno.EIO, "Input/output error"), "Input/output error", 4),
        (TimeoutError(), "TimeoutError", 4),
        (PermissionError("Forbidden"), "PermissionError: Forbidden", 1),
        (FileNotFoundError("no such object"), "which is missing", 1),
    ],
)
def test_a_storage_that_fails_ends_the_run(address, tmp_path, monkeypatch, *, error, message, attempts):
    data = stream(address, cache_dir=tmp_path)
    real, tried = fsspec.open, []

    def fails(wanted, *args, **settings):
        if not wanted.endswith("00003.tar"):
            return real(wanted, *args, **settings)
        tried.append(wanted)
        raise error

    monkeypatch.setattr(fsspec, "open", fails)
    with pytest.raises(SystemFault, match=rf"{address}/train/00003.tar.*{message}") as caught:
        data.train_set.content(700)
    assert "can't be written" not in str(caught.value)
    assert len(tried) == attempts
    with pytest.raises(SystemFault, match=message):
        rows(data.train_dataloader())
    assert not data.train_set.unread.any()


def test_a_storage_that_fails_for_a_moment_loses_no_image(address, tmp_path, monkeypatch, waits):
    real, left = fsspec.open, [ExpiredToken(), ExpiredToken()]

    def fails(wanted, *args, **settings):
        if left and wanted.endswith("00003.tar"):
            raise left.pop()
        return real(wanted, *args, **settings)

    data = stream(address, cache_dir=tmp_path)
    monkeypatch.setattr(fsspec, "open", fails)
    assert data.train_set.content(700).startswith(b"\x89PNG")
    assert waits == [0.1, 0.5]


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        (
            "os.fsync",
            OSError(errno.ENOSPC, "No space left on device"),
            "can't be written, .* No space left .*make room on the disk",
        ),
        ("pathlib.Path.mkdir", NotImplementedError("no locks"), "no locks"),
        ("pathlib.Path.mkdir", NotADirectoryError(errno.ENOTDIR, "Not a directory"), "Not a directory"),
    ],
)
def test_a_cache_that_cannot_be_written_ends_the_run(address, tmp_path, monkeypatch, *, place, error, message):
    def fails(*args, **settings):
        raise error

    data = stream(address, cache_dir=tmp_path)
    monkeypatch.setattr(place, fails)
    with pytest.raises(SystemFault, match=rf"{address}/train/0000\d.tar.*{message}"):
        rows(data.train_dataloader())
    assert not data.train_set.unread.any()


def test_a_cut_shard_and_a_missing_one_end_the_run(shards, tmp_path):
    tar = tmp_path / "a.tar"
    tar.write_bytes((shards / "train/00000.tar").read_bytes()[:600])
    with pytest.raises(SystemFault, match=r"ends at byte 600, .* copy the shard again"):
        Shards([str(tar)]).read(0, 512, 200)
    parts = Shards([str(tar)])
    tar.unlink()
    with pytest.raises(SystemFault, match=f"url: expected the shard {tar}, which is missing; copy it to this address"):
        parts.read(0, 512, 200)


@pytest.mark.parametrize("url", ["{}/train/{{00006..00009}}.tar", "{}/train/00008.tar"])
def test_setup_names_missing_tar_files(address, shards, tmp_path, url):
    for folder in (address, shards):
        data = StreamingDataModule(url.format(folder), cache_dir=tmp_path)
        with pytest.raises(
            FileNotFoundError, match=rf"tar files, of which \d are missing: {folder}/train/00008.tar.*; "
        ):
            data.setup()


def tar_of(classes):
    """Return the content of a tar file with one image of each class. The gray value is 10 times the class."""
    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for row, number in enumerate(classes):
            image = BytesIO()
            Image.new("L", (8, 8), 10 * number).save(image, "PNG")
            for name, data in ((f"{row}.png", image.getvalue()), (f"{row}.cls", b"%d" % number)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, BytesIO(data))
    return content.getvalue()


@pytest.mark.parametrize("folder", ["{tmp_path}/data", "memory://bucket/data"])
@pytest.mark.usefixtures("address")
def test_tar_files_that_were_written_again_are_read_again(tmp_path, folder):
    folder = folder.format(tmp_path=tmp_path)
    facts = {"num_classes": 10, "in_channels": 1, "image_size": 8, "decode_size": 8, "batch_size": 3}
    for classes in ([1, 2, 3], [4, 5, 6]):
        with fsspec.open(f"{folder}/a.tar", "wb", auto_mkdir=True) as file:
            file.write(tar_of(classes))
        for images, targets, _ in stream(f"{folder}/a.tar", cache_dir=tmp_path / "cache", **facts).train_dataloader():
            assert (images[:, 0, 0, 0] // 10).tolist() == targets.tolist()
            assert sorted(targets.tolist()) == classes


def test_shards_that_were_written_again_are_copied_again(address, shards, tmp_path):
    files = fsspec.filesystem("memory")
    stream(address, cache_dir=tmp_path).train_set.content(0)
    changed = (shards / "train/00000.tar").read_bytes().replace(b"\x89PNG", b"\x89png")
    files.pipe_file("/bucket/train/00000.tar", changed)
    assert stream(address, cache_dir=tmp_path).train_set.content(0).startswith(b"\x89png")
