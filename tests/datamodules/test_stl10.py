import numpy as np
import pytest
import torch
from pictures import assert_same_levels, one_epoch
from torchvision.datasets import STL10
from torchvision.transforms.v2 import functional as reference

from ssl_modules.datamodules import STL10DataModule, stl10

TRAIN, TEST, UNLABELED = 30, 12, 25
FOLDS = [[(fold + step * 7) % TRAIN for step in range(6)] for fold in range(10)]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The files as they are unpacked, with few images, known to torchvision as original."""
    folder = tmp_path / STL10.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("train", TRAIN), ("test", TEST), ("unlabeled", UNLABELED)):
        rng.integers(256, size=(count, 3, 96, 96), dtype=np.uint8).tofile(folder / f"{part}_X.bin")
        if part != "unlabeled":
            (np.arange(count, dtype=np.uint8) % 10 + 1).tofile(folder / f"{part}_y.bin")
    (folder / "fold_indices.txt").write_text("".join(" ".join(map(str, rows)) + " \n" for rows in FOLDS))
    (folder / "class_names.txt").write_text("\n".join(stl10.CLASS_NAMES) + "\n")
    monkeypatch.setattr(stl10, "SIZES", {name: (folder / name).stat().st_size for name in stl10.SIZES})
    monkeypatch.setattr(STL10, "_check_integrity", lambda self: True)
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
    with pytest.warns(UserWarning, match=r"unlabeled_X.bin: has 663552 bytes, where STL-10's has 691200"):
        data(root).setup()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"unlabeled_X.bin: 691199 bytes are no whole number of images.*download=True"):
        data(root).setup()
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="0 bytes"):
        data(root).setup()
    path.write_bytes(whole)
    labels = root / STL10.base_folder / "test_y.bin"
    labels.write_bytes(labels.read_bytes()[:-1])
    with pytest.raises(ValueError, match="targets"):
        data(root).setup()
    labels.write_bytes(bytes([1] * TEST))
    (root / STL10.base_folder / "train_y.bin").write_bytes(bytes([11] * TRAIN))
    with pytest.raises(ValueError, match=r"train: expected targets from 0 to below \[10\], but got 10"):
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
        ({"image_size": 97}, "image_size: expected 1 to 96.*but got 97"),
        ({"train_split": "test"}, "train_split: expected .* got 'test'"),
        ({"fold": 10}, "fold: expected 0 to 9.*but got 10"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        STL10DataModule(**kwargs)
