"""Writing shards continues after an interruption, and loses nothing about the images."""

import json
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from streams import rows, stream

from ssl_modules.cli import main
from ssl_modules.datamodules import (
    DigitsDataModule,
    ImageDataModule,
    ImageFolderDataModule,
    TensorImages,
    sharding,
    write_shards,
)


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


def test_an_interrupted_writer_refuses_another_subset(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(sharding, "_facts", None)
    with pytest.raises(TypeError):
        write_shards(ImageFolderDataModule(photos, num_workers=0), tmp_path / "out")
    with pytest.raises(ValueError, match="of a run with another seed; give the same"):  # it may draw a subset
        write_shards(ImageFolderDataModule(photos, num_workers=0, seed=1), tmp_path / "out")


def test_the_command_lists_the_files_that_it_leaves_out(photos, tmp_path, capsys):
    (photos / "cat/3.png").write_bytes(b"no image")
    main(["shard", "--data", str(photos), "--data.num_workers", "0", "--out", str(tmp_path / "out"), "--size", "32"])
    printed = capsys.readouterr().out
    assert "train: 11 images in 1 shards" in printed
    assert f"left out, because it can't be read: {photos / 'cat/3.png'}" in printed
    data = stream(tmp_path / "out", batch_size=1)
    assert sorted(rows(data.train_dataloader()).tolist()) == list(range(11))
    assert data.train_set.names()[3].endswith("00000.tar/000000004.jpg")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"val_size": 10}, "val_size: expected 0, got 10"), ({"size": 0}, "size: expected")],
)
def test_wrong_arguments_of_the_writer_are_refused(tmp_path, settings, message):
    given = {name: settings.pop(name) for name in ("val_size",) if name in settings}
    with pytest.raises(ValueError, match=message):
        write_shards(DigitsDataModule(**given), tmp_path / "out", **settings)
    assert not Path(tmp_path / "out").exists()
