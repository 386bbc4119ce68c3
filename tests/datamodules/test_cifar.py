import hashlib
import pickle

import numpy as np
import pytest
import torch
from pictures import one_epoch
from torchvision.datasets import CIFAR10, CIFAR100

from ssl_modules.datamodules import CIFAR10DataModule, CIFAR100DataModule, cifar10, cifar100
from ssl_modules.datamodules.cifar100 import CLASS_NAMES, SUPERCLASS_NAMES

# What the original files say of each class; the order is that of the classes' names.
COARSE = [
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7),
    *(6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10),
    *(16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16),
    *(12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
]


def write(root, dataset, monkeypatch, rows):
    """The files of CIFAR-10 or CIFAR-100 as they are unpacked, with few images, known to torchvision as original."""
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def save(name, content):
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def part(names, count):
        saved = []
        for name in names:
            labels = (np.arange(count) * 7 % len(dataset_names)).tolist()
            entry = {"data": rng.integers(256, size=(count, 3072), dtype=np.uint8)}
            if dataset is CIFAR10:
                entry["labels"] = labels
            else:
                entry["fine_labels"], entry["coarse_labels"] = labels, [COARSE[label] for label in labels]
            saved.append(save(name, entry))
        return saved

    dataset_names = cifar10.CLASS_NAMES if dataset is CIFAR10 else CLASS_NAMES
    monkeypatch.setattr(dataset, "train_list", part([name for name, _ in dataset.train_list], rows[0]))
    monkeypatch.setattr(dataset, "test_list", part([name for name, _ in dataset.test_list], rows[1]))
    name, md5 = save(dataset.meta["filename"], {dataset.meta["key"]: list(dataset_names)})
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "filename": name, "md5": md5})


@pytest.fixture
def cifar10_root(tmp_path, monkeypatch):
    write(tmp_path, CIFAR10, monkeypatch, (8, 10))
    return tmp_path


@pytest.fixture
def cifar100_root(tmp_path, monkeypatch):
    write(tmp_path, CIFAR100, monkeypatch, (100, 30))
    return tmp_path


def assert_as_torchvision(part, dataset, root, train):
    reference = dataset(root, train=train)
    assert torch.equal(part.images.permute(0, 2, 3, 1), torch.from_numpy(reference.data))
    fine = part.targets if part.targets.ndim == 1 else part.targets[:, 0]
    assert fine.tolist() == reference.targets


def test_cifar10_is_torchvisions(cifar10_root):
    data = CIFAR10DataModule(cifar10_root, batch_size=16)
    one_epoch(data, train=40, labelled=40, test=10)  # five files of 8
    assert_as_torchvision(data.train_set, CIFAR10, cifar10_root, True)
    assert_as_torchvision(data.test_set, CIFAR10, cifar10_root, False)
    assert list(data.class_names) == CIFAR10(cifar10_root).classes
    assert (data.dims, data.image_size, data.target_type) == ((3, 32, 32), 32, "single")


def test_cifar100_has_superclasses(cifar100_root):
    data = CIFAR100DataModule(cifar100_root, batch_size=16, val_size=20)
    one_epoch(data, train=80, labelled=80, test=30)
    assert len(data.val_set) == 20
    whole = CIFAR100DataModule(cifar100_root)
    whole.setup()
    assert_as_torchvision(whole.train_set, CIFAR100, cifar100_root, True)
    assert_as_torchvision(whole.test_set, CIFAR100, cifar100_root, False)
    stored = pickle.loads((cifar100_root / CIFAR100.base_folder / "train").read_bytes())
    assert whole.train_set.targets[:, 1].tolist() == stored["coarse_labels"]
    assert (data.level_names, data.num_classes) == (("class", "superclass"), 100)


def test_superclasses_are_the_original_ones():
    names = cifar100.SUPERCLASS_OF
    assert [SUPERCLASS_NAMES.index(names[name]) for name in CLASS_NAMES] == COARSE
    assert (len(CLASS_NAMES), len(SUPERCLASS_NAMES)) == (100, 20)


@pytest.mark.parametrize(("module", "dataset"), [(CIFAR10DataModule, CIFAR10), (CIFAR100DataModule, CIFAR100)])
def test_missing_or_damaged_files_are_named(tmp_path, monkeypatch, module, dataset):
    with pytest.raises(FileNotFoundError) as error:
        module(tmp_path).setup()
    for expected in (str(tmp_path / dataset.base_folder), "download=True", "170 MB", dataset.url):
        assert expected in str(error.value)
    write(tmp_path, dataset, monkeypatch, (8, 8))
    path = tmp_path / dataset.base_folder / dataset.test_list[0][0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="checksum is wrong; remove the folder"):
        module(tmp_path).setup()
    path.unlink()
    with pytest.raises(ValueError, match="a file is missing"):
        module(tmp_path).setup()


@pytest.mark.parametrize(
    ("module", "place", "name"), [(CIFAR10DataModule, cifar10, "CIFAR10"), (CIFAR100DataModule, cifar100, "CIFAR100")]
)
def test_downloads_only_when_asked(tmp_path, monkeypatch, module, place, name):
    calls = []
    monkeypatch.setattr(place, name, lambda *args, **kwargs: calls.append((args, kwargs)))
    module(tmp_path).prepare_data()
    assert calls == []
    module(tmp_path, download=True).prepare_data()
    assert calls == [((str(tmp_path),), {"download": True})]


def test_arguments_are_stored_as_plain_data(tmp_path):
    assert dict(CIFAR10DataModule(tmp_path, seed=3).hparams) == {
        "root": str(tmp_path),
        "batch_size": 256,
        "download": False,
        "val_size": 0,
        "seed": 3,
        "return_index": False,
    }
