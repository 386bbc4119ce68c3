"""The order of reading images from shards depends only on seed and epoch."""

import shutil
import tarfile
from io import BytesIO

import pytest
import torch
from PIL import Image
from processes import run_in_processes
from streams import rows, stream

from ssl_modules.datamodules import streaming
from ssl_modules.datamodules.shard_index import FACTS, PLAN
from ssl_modules.datamodules.unreadable import SystemFault


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


def write_tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, BytesIO(content))
    return path


def png(value):
    file = BytesIO()
    Image.new("L", (8, 8), value).save(file, "png")
    return file.getvalue()


def read_tar(path, **settings):
    return stream(path, in_channels=1, image_size=8, decode_size=8, batch_size=1, cache_dir=path.parent, **settings)


def test_the_image_of_a_sample_is_the_one_with_the_extension_alone(tmp_path):
    files = {"1.depth.png": png(1), "1.png": png(2), "1.seg.png": png(3), "2.left.png": png(4), "2.json": b"{}"}
    data = read_tar(write_tar(tmp_path / "a.tar", files))
    assert [int(data.train_set[row][0][0, 0, 0]) for row in range(2)] == [2, 4]


@pytest.mark.parametrize("names", [("1.left.png", "1.right.png"), ("1.jpg", "1.png")])
def test_a_sample_of_several_images_raises_an_error_that_names_them(names, tmp_path):
    path = write_tar(tmp_path / "a.tar", dict.fromkeys(names, png(1)))
    with pytest.raises(ValueError, match=f"a.tar: expected one image in each sample, got {', '.join(names)}; "):
        read_tar(path)


def test_classes_that_are_not_used_give_a_warning(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.png": png(1), "1.cls": b"4", "2.png": png(2), "2.cls": b"0"})
    with pytest.warns(UserWarning, match="num_classes: .*a.tar has classes from 0 to 4, which are not used; pass"):
        data = read_tar(path)
    assert data.train_set.targets.tolist() == [-1, -1]
    assert read_tar(path, num_classes=5).train_set.targets.tolist() == [4, 0]


def test_shards_that_are_not_complete_say_how_to_complete_them(shards, tmp_path):
    shutil.copytree(shards, tmp_path / "half")
    (tmp_path / "half" / FACTS).rename(tmp_path / "half" / PLAN)
    with pytest.raises(
        FileNotFoundError, match=r"url: the shards in .*half are not complete; repeat the ssl-modules shard command"
    ):
        stream(tmp_path / "half")


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
