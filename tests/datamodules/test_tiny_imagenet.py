import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from miniatures import TINY_IMAGENET_WNIDS, apply, write_tiny_imagenet
from pictures import one_epoch, site
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from ssl_modules.datamodules import TinyImageNetDataModule


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Write an archive with the official layout."""
    folder = tmp_path_factory.mktemp("archive")
    patches = write_tiny_imagenet(folder)
    return shutil.make_archive(str(folder / "tiny-imagenet-200"), "zip", folder, "tiny-imagenet-200"), patches


@pytest.fixture(autouse=True)
def few_images(archive, monkeypatch):
    apply(monkeypatch, archive[1])


@pytest.fixture
def root(archive, tmp_path):
    shutil.unpack_archive(archive[0], tmp_path)
    return tmp_path


def test_official_parts(root):
    data = TinyImageNetDataModule(root, batch_size=64, num_workers=0)
    one_epoch(data, train=200, labelled=200, test=40)
    assert data.train_set.targets.tolist() == list(range(200))
    assert data.test_set.targets.tolist() == [index * 37 % 200 for index in range(40)]
    with Image.open(root / "tiny-imagenet-200/val/images/val_7.JPEG") as image:
        assert torch.equal(data.test_set.images[7], pil_to_tensor(image))
    assert data.class_names[5] == "thing 005, item"


def test_downloads_and_unpacks_the_archive_and_compares_its_checksum(archive, tmp_path, monkeypatch):
    path = Path(archive[0])
    data = TinyImageNetDataModule(tmp_path, download=True, num_workers=0)
    with site(path.parent) as address:
        monkeypatch.setattr(TinyImageNetDataModule, "url", f"{address}/{path.name}")
        TinyImageNetDataModule(tmp_path).prepare_data()
        with pytest.raises(OSError, match=r"tiny-imagenet-200.zip could not be downloaded .*corrupted"):
            data.prepare_data()
        monkeypatch.setattr(TinyImageNetDataModule, "md5", hashlib.md5(path.read_bytes()).hexdigest())
        data.prepare_data()
    data.setup()
    assert len(data.train_set) == 200
    data.prepare_data()  # does nothing: the data exist


def test_missing_or_wrong_files_are_named(root, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        TinyImageNetDataModule(tmp_path / "nowhere").setup()
    for expected in ("nowhere/tiny-imagenet-200/wnids.txt", "download=True", "248 MB", TinyImageNetDataModule.url):
        assert expected in str(error.value)
    folder = root / "tiny-imagenet-200"
    annotations = folder / "val" / "val_annotations.txt"
    data = TinyImageNetDataModule(root, num_workers=0)
    (folder / "val" / "images").rename(folder / "val" / "elsewhere")
    with pytest.raises(
        FileNotFoundError, match=r"expected .*val/images, got no such .*remove .*-200, then pass download=True"
    ):
        data.setup()
    annotations.write_text("".join(annotations.read_text().splitlines(keepends=True)[:-1]))
    (folder / "val" / "elsewhere").rename(folder / "val" / "images")
    with pytest.warns(UserWarning, match=r"val_annotations.txt: expected 40 images, got 39"):
        TinyImageNetDataModule(root, num_workers=0).setup()
    annotations.write_text("val_0.JPEG\tn77777777\t0\t0\t63\t63\n")
    with pytest.raises(ValueError, match=r"val_annotations.txt: expected classes of wnids.txt, got \['n77777777'\]"):
        data.setup()
    shutil.rmtree(folder / "train" / TINY_IMAGENET_WNIDS[0] / "images")
    with pytest.raises(
        ValueError, match=f"{TINY_IMAGENET_WNIDS[0]}/images: expected images, got none; remove .*-200, then pass"
    ):
        data.setup()
    (folder / "wnids.txt").write_text("n00000001\n")
    with pytest.raises(ValueError, match="expected 200 classes, got 1"):
        data.setup()
