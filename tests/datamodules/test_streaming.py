"""Writing shards continues after an interruption. The order of reading depends only on seed and epoch."""

import errno
import json
import multiprocessing
import os
import tarfile
import time
from io import BytesIO
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from processes import run_in_processes

from ssl_modules.cli import main
from ssl_modules.datamodules import (
    DigitsDataModule,
    ImageDataModule,
    ImageFolderDataModule,
    StreamingDataModule,
    TensorImages,
    sharding,
    storage,
    streaming,
    unreadable,
    write_shards,
)
from ssl_modules.datamodules.shards import Shards
from ssl_modules.datamodules.unreadable import SystemFault


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "digits"
    write_shards(DigitsDataModule(num_workers=0), folder, images_per_shard=200)
    return folder


@pytest.fixture(scope="module")
def digits():
    data = DigitsDataModule()
    data.setup()
    return data


@pytest.fixture
def address(shards):
    """Copy the shards to a storage in memory and return its address."""
    files = fsspec.filesystem("memory")
    for path in shards.rglob("*"):
        if path.is_file():
            files.pipe_file(f"/bucket/{path.relative_to(shards)}", path.read_bytes())
    yield "memory://bucket"
    files.rm("/bucket", recursive=True)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = tmp_path / "pets" / name
        folder.mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (60 + i, 50, 3), np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "pets"


def stream(url, **settings):
    data = StreamingDataModule(url, **{"batch_size": 32, "num_workers": 0, "return_index": True, **settings})
    data.setup()
    return data


def rows(loader):
    return torch.cat([batch[2] for batch in loader])


def test_shards_hold_the_images_and_targets_of_all_parts(shards, digits):
    data = stream(shards)
    assert (data.num_classes, data.class_names, data.dims) == (10, digits.class_names, digits.dims)
    assert (data.mean, data.std, data.target_type) == (digits.mean, digits.std, "single")
    for loader, part in (
        (data.train_dataloader(), digits.train_set),
        (data.probe_train_dataloader(), digits.labelled_set),
        (data.test_dataloader(), digits.test_set),
    ):
        for images, targets, index in loader:
            torch.testing.assert_close(images, part.images[index], rtol=0, atol=0)
            torch.testing.assert_close(targets, part.targets[index], rtol=0, atol=0)


@pytest.mark.parametrize("window", [1, 3, None])
def test_an_epoch_has_each_image_once_and_reads_a_window_of_shards_at_a_time(shards, window):
    data = stream(shards, window=window, batch_size=1)
    found = rows(data.train_dataloader())
    assert sorted(found.tolist()) == list(range(1437))
    shard = found // 200
    if window is None:
        assert len(shard[:100].unique()) == 8
    else:
        parts, start = [], 0
        while start < len(shard):
            seen = {int(shard[start])}
            end = start
            while end < len(shard) and (int(shard[end]) in seen or len(seen) < window):
                seen.add(int(shard[end]))
                end += 1
            parts.append(seen)
            start = end
        assert sum(map(len, parts)) == 8  # no shard is in two windows
        assert all(len(part) == window for part in parts[:-1])


def test_the_order_depends_only_on_seed_and_epoch(shards):
    first, again, other = (stream(shards, seed=seed, num_workers=n) for seed, n in ((0, 0), (0, 2), (1, 0)))
    order = rows(first.train_dataloader())
    assert torch.equal(order, rows(again.train_dataloader()))
    assert not torch.equal(order, rows(other.train_dataloader()))
    loader = first.train_dataloader()
    loader.sampler.set_epoch(1)
    assert not torch.equal(order, rows(loader))


def test_a_loader_continues_in_the_middle_of_an_epoch_with_other_workers(shards):
    whole = rows(stream(shards).train_dataloader())
    stopped = stream(shards).train_dataloader()
    batches = iter(stopped)
    seen = torch.cat([next(batches)[2] for _ in range(7)])
    resumed = stream(shards, num_workers=2).train_dataloader()
    resumed.load_state_dict(stopped.state_dict())
    assert torch.equal(torch.cat([seen, rows(resumed)]), whole)


def rows_of_process(rank, folder):
    return rows(stream(folder, batch_size=16).train_dataloader())


@pytest.mark.slow
def test_two_processes_share_the_images_of_one(shards):
    first, second = run_in_processes(rows_of_process, shards)
    both = torch.stack([first.view(-1, 16), second.view(-1, 16)], 2).flatten()  # process k reads every second image
    assert torch.equal(both, rows(stream(shards).train_dataloader())[: len(both)])


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


def test_tar_files_of_other_programs_are_read(address, digits, tmp_path, monkeypatch):
    data = stream(
        address + "/train/{00000..00002}.tar",
        test=address + "/test",
        num_classes=10,
        in_channels=1,
        image_size=8,
        decode_size=8,
        cache_dir=tmp_path,
    )
    assert len(data.train_set) == 600
    assert len(data.test_set) == 360
    images, targets, index = next(iter(data.train_dataloader()))
    torch.testing.assert_close(images, digits.train_set.images[index], rtol=0, atol=0)
    torch.testing.assert_close(targets, digits.train_set.targets[index], rtol=0, atol=0)
    monkeypatch.setattr(streaming, "scan", None)  # the index is kept, so it is not made again
    again = stream(address + "/train/{00000..00002}.tar", num_classes=10, in_channels=1, cache_dir=tmp_path)
    assert len(again.train_set) == 600


def test_files_stay_unchanged_or_become_smaller_jpegs(photos, tmp_path):
    data = ImageFolderDataModule(photos, num_workers=0)
    write_shards(data, tmp_path / "same")
    write_shards(data, tmp_path / "small", size=32, quality=80)
    with tarfile.open(tmp_path / "same/train/00000.tar") as tar:
        assert tar.extractfile("000000001.png").read() == (photos / "cat/1.png").read_bytes()
        assert tar.extractfile("000000007.cls").read() == b"1"
    with tarfile.open(tmp_path / "small/train/00000.tar") as tar:
        image = Image.open(BytesIO(tar.extractfile("000000005.jpg").read()))
    assert image.size == (32, round(65 * 32 / 50))
    assert stream(tmp_path / "small").image_size == 28


@pytest.mark.parametrize(("size", "side"), [(None, 8), (8, 8), (20, 8), (6, 6)])
def test_images_in_memory_are_trained_on_at_the_size_that_is_stored(tmp_path, size, side):
    write_shards(DigitsDataModule(), tmp_path, size=size)
    data = stream(tmp_path)
    assert data.image_size == side
    assert next(iter(data.train_dataloader()))[0].shape[-2:] == (side, side)
    assert Image.open(BytesIO(data.train_set.content(0))).size == (side, side)


@pytest.mark.parametrize("size", [None, 20])
def test_shards_keep_the_level_of_white(tmp_path, size):
    for name, level in (("dark", 1000), ("white", 4095)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.fromarray(np.full((30, 30), level, np.uint16)).save(tmp_path / "pets" / name / "1.png")
    data = ImageFolderDataModule(tmp_path / "pets", white=4095, in_channels=1, image_size=16, num_workers=0)
    write_shards(data, tmp_path / "out", size=size)
    expected = [data.train_set[row][0].max() for row in range(2)]
    assert expected[1] == 255
    assert [stream(tmp_path / "out").train_set[row][0].max() for row in range(2)] == expected


def test_an_interrupted_writer_refuses_another_subset(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(sharding, "_facts", None)
    with pytest.raises(TypeError):
        write_shards(ImageFolderDataModule(photos, num_workers=0), tmp_path / "out")
    with pytest.raises(ValueError, match="of a run with another seed; give the same"):  # it may draw a subset
        write_shards(ImageFolderDataModule(photos, num_workers=0, seed=1), tmp_path / "out")


def test_several_labels_and_levels_are_kept(tmp_path):
    images = torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8)
    targets = torch.randint(2, (6, 4))
    part = list(zip(images, targets, strict=True))
    facts = {"num_classes": 4, "target_type": "multilabel", "dims": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.2,) * 3}
    data = ImageDataModule(part, num_workers=0, **facts)
    write_shards(data, tmp_path / "out", images_per_shard=4)
    for image, target, index in stream(tmp_path / "out", batch_size=1).train_dataloader():
        assert torch.equal(image, images[index])
        assert torch.equal(target, targets[index])
    with tarfile.open(tmp_path / "out/train/00001.tar") as tar:
        assert json.loads(tar.extractfile("000000004.json").read()) == {"label": targets[4].tolist()}


class PartlyLabelled(DigitsDataModule):
    def pretraining_part(self, labelled):
        return TensorImages(torch.cat([labelled.images, 255 - labelled.images]))


def test_separate_training_images_have_their_own_part(digits, tmp_path):
    facts = write_shards(PartlyLabelled(), tmp_path / "out")
    assert facts["parts"] == {"train": [2000, 874], "labelled": [1437], "test": [360]}
    data = stream(tmp_path / "out")
    _, targets, index = next(iter(data.probe_train_dataloader()))
    assert torch.equal(targets, digits.train_set.targets[index])
    assert len(data.train_set) == 2 * 1437
    with pytest.raises(ValueError, match=r"val_size: expected 0, got 10; .* may contain the validation part"):
        stream(tmp_path / "out", val_size=10)


def test_an_interrupted_writer_continues(photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    data = ImageFolderDataModule(photos, num_workers=0)
    label, count = sharding._label, []

    def fails_at_the_ninth(*args):
        count.append(args)
        if len(count) == 9:
            raise KeyboardInterrupt
        return label(*args)

    monkeypatch.setattr(sharding, "_label", fails_at_the_ninth)
    with pytest.raises(KeyboardInterrupt):
        write_shards(data, out, images_per_shard=4)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    assert len(before) == 2
    with pytest.raises(ValueError, match="of a run with another images_per_shard; give the same"):
        write_shards(data, out, images_per_shard=5)
    facts = write_shards(ImageFolderDataModule(photos, num_workers=1, batch_size=2), out, images_per_shard=4)
    assert facts["parts"] == {"train": [4, 4, 4]}
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert sorted(path.name for path in out.rglob("*")) == [
        "00000.tar",
        "00001.tar",
        "00002.tar",
        "shards.json",
        "train",
        "train.npz",
    ]
    with pytest.raises(ValueError, match="contains complete shards already"):
        write_shards(data, out, images_per_shard=4)


def test_the_command_lists_the_files_that_it_leaves_out(photos, tmp_path, capsys):
    (photos / "cat/3.png").write_bytes(b"no image")
    main(["shard", "--data", str(photos), "--data.num_workers", "0", "--out", str(tmp_path / "out"), "--size", "32"])
    printed = capsys.readouterr().out
    assert "train: 11 images in 1 shards" in printed
    assert f"left out, because it can't be read: {photos / 'cat/3.png'}" in printed
    data = stream(tmp_path / "out", batch_size=1)
    assert sorted(rows(data.train_dataloader()).tolist()) == list(range(11))
    assert data.train_set.names()[3].endswith("00000.tar/000000004.jpg")


def test_a_cut_shard_and_a_missing_one_end_the_run(shards, tmp_path):
    tar = tmp_path / "a.tar"
    tar.write_bytes((shards / "train/00000.tar").read_bytes()[:600])
    with pytest.raises(SystemFault, match=r"ends at byte 600, .* copy the shard again"):
        Shards([str(tar)]).read(0, 512, 200)
    parts = Shards([str(tar)])
    tar.unlink()
    with pytest.raises(SystemFault, match=f"url: expected the shard {tar}, which is missing; copy it there"):
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
    """Return the content of a tar file with one image of each class, whose pixels say the class."""
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


@pytest.mark.parametrize(
    ("url", "settings", "error", "message"),
    [
        ("nowhere", {}, FileNotFoundError, "expected tar files in .*nowhere, got none"),
        ("unknown://bucket/a", {}, SystemFault, "unknown://bucket/a.* can't be read .*Protocol not known"),
        (None, {"num_classes": 3}, ValueError, "num_classes: .* has its own facts .* leave it out"),
        (None, {"test": "a.tar"}, ValueError, "test: .* has its own facts"),
        (None, {"window": 0}, ValueError, "window: expected .* at least 1, got 0"),
        (None, {"cache_gb": 0}, ValueError, "cache_gb: expected a positive number, got 0"),
        (None, {"in_channels": 2}, ValueError, "in_channels: expected 1 or 3, got 2"),
    ],
)
def test_wrong_arguments_are_refused(shards, url, settings, error, message):
    with pytest.raises(error, match=message):
        stream(url or shards, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"val_size": 10}, "val_size: expected 0, got 10"), ({"size": 0}, "size: expected")],
)
def test_wrong_arguments_of_the_writer_are_refused(tmp_path, settings, message):
    given = {name: settings.pop(name) for name in ("val_size",) if name in settings}
    with pytest.raises(ValueError, match=message):
        write_shards(DigitsDataModule(**given), tmp_path / "out", **settings)
    assert not Path(tmp_path / "out").exists()
