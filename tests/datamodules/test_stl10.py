import numpy as np
import pytest
import torch
from miniatures import STL10_SIZES, apply, write_stl10
from pictures import assert_same_levels, one_epoch
from torchvision.datasets import STL10
from torchvision.transforms.v2 import functional as reference

from ssl_modules.datamodules import STL10DataModule

TRAIN, TEST, UNLABELED = STL10_SIZES.values()


@pytest.fixture
def root(tmp_path, monkeypatch):
    apply(monkeypatch, write_stl10(tmp_path))
    return tmp_path


def data(root, **kwargs):
    return STL10DataModule(root, **{"batch_size": 8, **kwargs})


def assert_as_torchvision(part, root, split, fold=None):
    expected = STL10(root, split, folds=fold)
    assert torch.equal(part.images, torch.from_numpy(np.ascontiguousarray(expected.data)))
    assert part.targets.tolist() == expected.labels.astype(np.int64).tolist()
    assert part.images.is_contiguous()


@pytest.mark.parametrize(("split", "size"), [("unlabeled", 25), ("train+unlabeled", 55), ("train", 30)])
def test_every_split_is_torchvisions(root, split, size):
    module = data(root, train_split=split)
    one_epoch(module, train=size, labelled=TRAIN, test=TEST)
    assert_as_torchvision(module.train_set, root, split)
    assert_as_torchvision(module.labelled_set, root, "train")
    assert_as_torchvision(module.test_set, root, "test")
    assert list(module.class_names) == STL10(root).classes


@pytest.mark.parametrize("fold", [0, 9])
def test_probes_learn_from_an_official_fold_and_training_from_all(root, fold):
    module = data(root, fold=fold)
    one_epoch(module, train=TRAIN + UNLABELED, labelled=6, test=TEST)
    assert_as_torchvision(module.labelled_set, root, "train", fold)
    seen = {image.numpy().tobytes() for image in module.train_set.images}
    assert {image.tobytes() for image in STL10(root, "train+unlabeled").data} == seen
    module = data(root, fold=fold, train_split="unlabeled")
    module.setup()
    assert_as_torchvision(module.train_set, root, "unlabeled")


def test_a_validation_part_is_labelled_and_not_trained_on(root):
    module = data(root, val_size=10)
    one_epoch(module, train=45, labelled=20, test=TEST)
    _, targets = next(iter(module.probe_test_dataloader()))
    assert (targets >= 0).all()
    held = {image.numpy().tobytes() for image in module.val_set.images}
    assert len(held) == 10
    assert not held & {image.numpy().tobytes() for image in module.train_set.images}


def test_smaller_images_are_resized_for_evaluation_alone(root):
    module = data(root, image_size=64)
    one_epoch(module, train=55, labelled=TRAIN, test=TEST)
    images, _ = next(iter(module.train_dataloader()))
    assert images.shape == (8, 3, 96, 96)
    images, _ = next(iter(module.test_dataloader()))
    assert_same_levels(images, reference.resize(module.test_set.images[:8], [64, 64], antialias=True))


def test_missing_or_damaged_files_are_named(root, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        data(tmp_path / "nowhere").setup()
    for expected in ("nowhere/stl10_binary/train_X.bin", "download=True", "2.6 GB", STL10.url):
        assert expected in str(error.value)
    path = root / STL10.base_folder / "unlabeled_X.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-27648])
    with pytest.warns(UserWarning, match=r"unlabeled_X.bin: expected 691200 bytes, got 663552"):
        data(root).setup()
    path.write_bytes(whole[:-1])
    with pytest.raises(
        ValueError, match=r"unlabeled_X.bin: expected images of 3 x 96 x 96 bytes, got 691199 bytes.*download=True"
    ):
        data(root).setup()
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="got 0 bytes"):
        data(root).setup()
    path.write_bytes(whole)
    labels = root / STL10.base_folder / "test_y.bin"
    labels.write_bytes(labels.read_bytes()[:-1])
    with pytest.raises(ValueError, match="targets"):
        data(root).setup()
    labels.write_bytes(bytes([1] * TEST))
    (root / STL10.base_folder / "train_y.bin").write_bytes(bytes([11] * TRAIN))
    with pytest.raises(ValueError, match=r"train: expected targets from 0 to below \[10\], got 10"):
        data(root).setup()


def test_downloads_only_when_asked_and_missing(root, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(STL10, "__init__", lambda self, *args, **kwargs: calls.append((args, kwargs)))
    data(tmp_path / "nowhere").prepare_data()
    data(root, download=True).prepare_data()
    assert calls == []
    data(tmp_path / "nowhere", download=True).prepare_data()
    assert calls == [((str(tmp_path / "nowhere"),), {"split": "test", "download": True})]
    (root / STL10.base_folder / "unlabeled_X.bin").write_bytes(b"of an unpacking that was interrupted")
    data(root, download=True).prepare_data()
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"image_size": 97}, "image_size: expected a number in .1, 96., got 97"),
        ({"train_split": "test"}, "train_split: expected .*got 'test'"),
        ({"fold": 10}, "fold: expected a number in .0, 9., got 10"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises((TypeError, ValueError), match=message):
        STL10DataModule(**kwargs)
