import hashlib
import io
import tarfile

import numpy as np
import pytest
import torch
from miniatures import IMAGENET_WNIDS, write_imagenet
from pictures import one_epoch, write_image
from scipy.io import savemat
from torchvision.datasets import imagenet as torchvision_imagenet

from ssl_modules.augmentations import RandomResizedCrop, Views
from ssl_modules.datamodules import ImageNetDataModule
from ssl_modules.datamodules.imagenet import IMAGENET_100


@pytest.fixture
def root(tmp_path):
    write_imagenet(tmp_path)
    return tmp_path


def data(root, **kwargs):
    return ImageNetDataModule(root, **{"batch_size": 4, "image_size": 28, "num_workers": 0, **kwargs})


def test_some_classes_in_the_order_of_their_ids(root):
    module = data(root, classes=[IMAGENET_WNIDS[2], IMAGENET_WNIDS[0]])
    one_epoch(module, train=8, labelled=8, test=2)
    assert module.class_names == (IMAGENET_WNIDS[0], IMAGENET_WNIDS[2])
    assert module.name == "imagenet-2"
    for images, targets in module.probe_train_dataloader():
        assert (images[:, 0, 0, 0] == targets * 2).all()  # the second class is the third folder


def test_classes_from_a_file_and_the_usual_hundred(root, tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(IMAGENET_WNIDS[:2]))
    module = data(root, classes=tmp_path / "classes.txt", val_size=2)
    one_epoch(module, train=6, labelled=6, test=2)
    assert module.hparams["classes"] == str(tmp_path / "classes.txt")
    hundred = data(root, classes="imagenet-100")
    assert (hundred.num_classes, hundred.name) == (100, "imagenet-100")
    assert hundred.class_names == tuple(IMAGENET_100.split()) == tuple(sorted({*IMAGENET_100.split()}))


def test_all_thousand(tmp_path):
    wnids = [f"n{index:08}" for index in range(1000)]
    for split in ("train", "val"):
        path = write_image(tmp_path / split / wnids[0] / "0.JPEG", 8, 8)
        for wnid in wnids[1:]:
            (tmp_path / split / wnid).mkdir()
            (tmp_path / split / wnid / "0.JPEG").hardlink_to(path)
    module = data(tmp_path, image_size=8)
    one_epoch(module, train=1000, labelled=1000, test=1000)
    assert module.class_names == tuple(wnids)


def test_views_in_the_workers(root):
    module = data(root, classes=IMAGENET_WNIDS, augmentation=Views([RandomResizedCrop(28)]))
    module.setup()
    views, targets = next(iter(module.train_dataloader()))
    assert [view.shape for view in views] == [(4, 3, 28, 28)] * 2
    assert all(torch.equal(view[:, 0, 0, 0], targets.to(torch.uint8)) for view in views)
    again = ImageNetDataModule(**module.hparams)  # as from a checkpoint, which holds plain data only
    assert again.augmentation.arguments["views"] == 2


def archives(root, monkeypatch):
    """Write the official archives with one image per class, and patch their checksums in torchvision."""

    def add(tar, name, content):
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))

    image = write_image(root / "0.JPEG", 20, 20).read_bytes()
    (root / "0.JPEG").unlink()
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as train:
        for wnid in IMAGENET_WNIDS:
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                add(tar, f"{wnid}_1.JPEG", image)
            add(train, f"{wnid}.tar", inner.getvalue())
    with tarfile.open(root / "ILSVRC2012_img_val.tar", "w") as val:
        for number in (1, 2, 3):
            add(val, f"ILSVRC2012_val_{number:08}.JPEG", image)
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    synsets = np.array([(n + 1, wnid, f"thing {n}", "", 0) for n, wnid in enumerate(IMAGENET_WNIDS)], dtype=fields)
    matrix = io.BytesIO()
    savemat(matrix, {"synsets": synsets})
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as devkit:
        add(devkit, "ILSVRC2012_devkit_t12/data/meta.mat", matrix.getvalue())
        truth = b"3\n1\n2\n"
        add(devkit, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth)
    known = {
        split: (name, hashlib.md5((root / name).read_bytes()).hexdigest())
        for split, (name, _) in torchvision_imagenet.ARCHIVE_META.items()
    }
    monkeypatch.setattr(torchvision_imagenet, "ARCHIVE_META", known)


def test_official_archives_are_unpacked_on_request(tmp_path, monkeypatch):
    archives(tmp_path, monkeypatch)
    data(tmp_path).prepare_data()
    assert not (tmp_path / "train").exists()
    module = data(tmp_path, classes=IMAGENET_WNIDS, extract=True, batch_size=1)
    one_epoch(module, train=3, labelled=3, test=3)
    assert [str(module.test_set.path(row).name) for row in range(3)] == [
        f"ILSVRC2012_val_{number:08}.JPEG" for number in (2, 3, 1)
    ]
    module.prepare_data()  # does nothing: the data exist


@pytest.mark.parametrize("split", ["train", "val"])
def test_archives_unpacked_half_way_are_unpacked_again(tmp_path, monkeypatch, split):
    archives(tmp_path, monkeypatch)
    unpack = torchvision_imagenet.extract_archive

    def half(source, *args, **kwargs):
        unpack(source, *args, **kwargs)
        if f"img_{split}" in str(source):
            raise KeyboardInterrupt

    monkeypatch.setattr(torchvision_imagenet, "extract_archive", half)
    module = data(tmp_path, classes=IMAGENET_WNIDS, extract=True, batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        module.prepare_data()
    assert not (tmp_path / split).exists()
    monkeypatch.setattr(torchvision_imagenet, "extract_archive", unpack)
    one_epoch(module, train=3, labelled=3, test=3)
    assert not [place for place in tmp_path.iterdir() if "unpacking" in place.name]


def test_missing_parts_and_classes_are_named(root, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        data(tmp_path / "nowhere").setup()
    for expected in ("nowhere/train", "155 GB", "image-net.org", "extract=True"):
        assert expected in str(error.value)
    with pytest.raises(ValueError, match="train: expected 1000 class folders, got 3; pass classes= for some"):
        data(root).setup()
    with pytest.raises(FileNotFoundError, match="expected a folder of class 'n00000000', got none"):
        data(root, classes=["n00000000"]).setup()
    for path in (root / "val" / IMAGENET_WNIDS[1]).iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=f"expected images of class '{IMAGENET_WNIDS[1]}'"):
        data(root, classes=IMAGENET_WNIDS).setup()


@pytest.mark.parametrize("classes", [[], ["n01440764"] * 2, "no such file"])
def test_bad_classes_are_named(classes):
    with pytest.raises(ValueError, match="classes: expected WordNet ids"):
        ImageNetDataModule(classes=classes)
