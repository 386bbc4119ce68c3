import pickle

import pytest
import torch
from miniatures import CIFAR100_SUPERCLASS, apply, write_cifar, write_cifar10, write_cifar100
from pictures import one_epoch
from torchvision.datasets import CIFAR10, CIFAR100

from ssl_modules.datamodules import CIFAR10DataModule, CIFAR100DataModule, cifar


@pytest.fixture
def cifar10_root(tmp_path, monkeypatch):
    apply(monkeypatch, write_cifar10(tmp_path))
    return tmp_path


@pytest.fixture
def cifar100_root(tmp_path, monkeypatch):
    apply(monkeypatch, write_cifar100(tmp_path))
    return tmp_path


def assert_as_torchvision(part, dataset, root, train):
    reference = dataset(root, train=train)
    assert torch.equal(part.images.permute(0, 2, 3, 1), torch.from_numpy(reference.data))
    fine = part.targets if part.targets.ndim == 1 else part.targets[:, 0]
    assert fine.tolist() == reference.targets


def test_cifar10_is_torchvisions(cifar10_root):
    data = CIFAR10DataModule(cifar10_root, batch_size=16)
    one_epoch(data, train=40, labelled=40, test=10)  # five files of 8 images
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
    classes, superclasses = CIFAR100DataModule.levels.values()
    assert [superclasses.index(cifar.SUPERCLASS_OF[name]) for name in classes] == CIFAR100_SUPERCLASS
    assert (len(classes), len(superclasses)) == (100, 20)


@pytest.mark.parametrize(("module", "dataset"), [(CIFAR10DataModule, CIFAR10), (CIFAR100DataModule, CIFAR100)])
def test_missing_or_damaged_files_are_named(tmp_path, monkeypatch, module, dataset):
    with pytest.raises(FileNotFoundError) as error:
        module(tmp_path).setup()
    for expected in (str(tmp_path / dataset.base_folder), "download=True", "170 MB", dataset.url):
        assert expected in str(error.value)
    apply(monkeypatch, write_cifar(tmp_path, dataset, (8, 8)))
    path = tmp_path / dataset.base_folder / dataset.test_list[0][0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"expected the original files, got others, or none, in {path}; remove"):
        module(tmp_path).setup()
    path.unlink()
    with pytest.raises(ValueError, match=str(path)):
        module(tmp_path).setup()


@pytest.mark.parametrize("module", [CIFAR10DataModule, CIFAR100DataModule])
def test_downloads_only_when_asked(tmp_path, monkeypatch, module):
    calls = []
    for name in ("CIFAR10", "CIFAR100"):
        monkeypatch.setattr(cifar, name, lambda *args, name=name, **kwargs: calls.append((name, args, kwargs)))
    module(tmp_path).prepare_data()
    assert calls == []
    module(tmp_path, download=True).prepare_data()
    assert calls == [(module.__name__.removesuffix("DataModule"), (str(tmp_path),), {"download": True})]
