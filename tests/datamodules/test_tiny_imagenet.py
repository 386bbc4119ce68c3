import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from pictures import one_epoch, site, write_image
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from ssl_modules.datamodules import TinyImageNetDataModule, tiny_imagenet

WNIDS = [f"n{index:08}" for index in range(200)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The archive of the official layout, with one training image a class and 40 validation images."""
    root = tmp_path_factory.mktemp("archive")
    folder = root / "tiny-imagenet-200"
    for value, wnid in enumerate(WNIDS):
        write_image(folder / "train" / wnid / "images" / f"{wnid}_0.JPEG", 64, 64, value=value)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
    lines = []
    for index in range(40):
        write_image(folder / "val" / "images" / f"val_{index}.JPEG", 64, 64, value=index)
        lines.append(f"val_{index}.JPEG\t{WNIDS[index * 37 % 200]}\t0\t0\t63\t63\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    write_image(folder / "test" / "images" / "test_0.JPEG", 64, 64)
    gray = folder / "train" / WNIDS[3] / "images" / f"{WNIDS[3]}_0.JPEG"
    Image.open(gray).convert("L").save(gray)  # there are some
    (folder / "wnids.txt").write_text("\n".join(reversed(WNIDS)) + "\n")
    (folder / "words.txt").write_text("".join(f"{wnid}\tthing {wnid[-3:]}, item\n" for wnid in ["n99999999", *WNIDS]))
    return shutil.make_archive(str(root / "tiny-imagenet-200"), "zip", root, "tiny-imagenet-200")


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(tiny_imagenet, "TRAIN_SIZE", 200)
    monkeypatch.setattr(tiny_imagenet, "VAL_SIZE", 40)


@pytest.fixture
def root(archive, tmp_path):
    shutil.unpack_archive(archive, tmp_path)
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
    path = Path(archive)
    data = TinyImageNetDataModule(tmp_path, download=True, num_workers=0)
    with site(path.parent) as address:
        monkeypatch.setattr(tiny_imagenet, "URL", f"{address}/{path.name}")
        TinyImageNetDataModule(tmp_path).prepare_data()
        with pytest.raises(OSError, match=r"tiny-imagenet-200.zip could not be downloaded .*corrupted"):
            data.prepare_data()
        monkeypatch.setattr(tiny_imagenet, "MD5", hashlib.md5(path.read_bytes()).hexdigest())
        data.prepare_data()
    data.setup()
    assert len(data.train_set) == 200
    data.prepare_data()  # it is there


def test_missing_or_wrong_files_are_named(root, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        TinyImageNetDataModule(tmp_path / "nowhere").setup()
    for expected in ("nowhere/tiny-imagenet-200/wnids.txt", "download=True", "248 MB", tiny_imagenet.URL):
        assert expected in str(error.value)
    folder = root / "tiny-imagenet-200"
    annotations = folder / "val" / "val_annotations.txt"
    data = TinyImageNetDataModule(root, num_workers=0)
    (folder / "val" / "images").rename(folder / "val" / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"there is no .*val/images .*remove .*-200, then pass download=True"):
        data.setup()
    annotations.write_text("".join(annotations.read_text().splitlines(keepends=True)[:-1]))
    (folder / "val" / "elsewhere").rename(folder / "val" / "images")
    with pytest.warns(UserWarning, match=r"val_annotations.txt: has 39 images, where Tiny-ImageNet has 40"):
        TinyImageNetDataModule(root, num_workers=0).setup()
    annotations.write_text("val_0.JPEG\tn77777777\t0\t0\t63\t63\n")
    with pytest.raises(ValueError, match=r"val_annotations.txt: classes \['n77777777'\] are not in wnids.txt"):
        data.setup()
    shutil.rmtree(folder / "train" / WNIDS[0] / "images")
    with pytest.raises(ValueError, match=f"no images of class {WNIDS[0]}; remove .*-200, then pass"):
        data.setup()
    (folder / "wnids.txt").write_text("n00000001\n")
    with pytest.raises(ValueError, match="expected 200 classes, but got 1"):
        data.setup()
