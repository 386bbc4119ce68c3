import gzip

import pytest
import torch
from miniatures import FASHION_MNIST_SIZES, fashion_mnist_files, idx, write_fashion_mnist
from needs import DEBIAN_FOLDER, needs_fashion_mnist
from torchvision.datasets import FashionMNIST

from ssl_modules.datamodules import FashionMNISTDataModule, fashion_mnist
from ssl_modules.datamodules.fashion_mnist import COARSE, read_idx


@pytest.fixture(autouse=True)
def no_debian(monkeypatch, tmp_path):
    monkeypatch.setattr(FashionMNISTDataModule, "debian_folder", tmp_path / "debian")


@pytest.fixture
def root(tmp_path):
    write_fashion_mnist(tmp_path / "root")
    return tmp_path / "root"


def loaded(*args, **kwargs):
    data = FashionMNISTDataModule(*args, **{"batch_size": 4, **kwargs})
    data.prepare_data()
    data.setup()
    return data


def test_torchvision_reads_the_same(root):
    data = loaded(root)
    for part, train in ((data.train_set, True), (data.test_set, False)):
        reference = FashionMNIST(str(root), train=train)
        assert torch.equal(part.images[:, 0], reference.data)
        assert torch.equal(part.targets, reference.targets)
    assert data.class_names == tuple(FashionMNIST.classes)
    assert (data.num_classes, data.dims, data.target_type) == (10, (1, 28, 28), "single")


def test_debian_files_are_read_compressed(tmp_path, root):
    folder = tmp_path / "debian"
    folder.mkdir()
    for name, tensor in fashion_mnist_files():
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(tensor), mtime=0))
    data, reference = loaded(tmp_path / "nowhere"), loaded(root)
    assert torch.equal(data.train_set.images, reference.train_set.images)
    assert torch.equal(data.test_set.targets, reference.test_set.targets)


def test_coarse_targets(root):
    data = loaded(root, coarse=True)
    assert (data.target_type, data.level_names) == ("hierarchical", ("class", "coarse"))
    _, targets = next(iter(data.probe_test_dataloader()))
    assert targets.shape == (4, 2)
    named = {data.class_names[fine]: data.levels["coarse"][coarse] for fine, coarse in data.train_set.targets.tolist()}
    assert named == COARSE
    assert [name for name in named if named[name] == "shoes"] == ["Sandal", "Sneaker", "Ankle boot"]


def test_subsets_are_fixed_and_nested(root):
    small, large = loaded(root, subset=10, seed=0), loaded(root, subset=20, seed=1)
    whole = {image.numpy().tobytes() for image in loaded(root).train_set.images}
    few, more = ({image.numpy().tobytes() for image in data.train_set.images} for data in (small, large))
    assert (len(few), len(more)) == (10, 20)
    assert few < more < whole
    assert torch.equal(loaded(root, subset=10, seed=9).train_set.images, small.train_set.images)
    assert len(small.test_set) == FASHION_MNIST_SIZES["t10k"]
    for subset in (0, 60_001):
        with pytest.raises(ValueError, match=f"subset: expected a number in .1, 60000., got {subset}"):
            FashionMNISTDataModule(subset=subset)


def test_a_missing_folder_says_where_and_how(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        loaded(tmp_path / "nowhere")
    for expected in ("nowhere/FashionMNIST/raw", str(tmp_path / "debian"), "download=True", "30 MB", "apt install"):
        assert expected in str(error.value)


def test_downloads_only_when_asked_and_missing(tmp_path, root, monkeypatch):
    calls = []
    monkeypatch.setattr(fashion_mnist, "FashionMNIST", lambda *args, **kwargs: calls.append((args, kwargs)))
    FashionMNISTDataModule(tmp_path / "nowhere").prepare_data()
    FashionMNISTDataModule(root, download=True).prepare_data()
    assert calls == []
    FashionMNISTDataModule(tmp_path / "nowhere", download=True).prepare_data()
    assert calls == [((str(tmp_path / "nowhere"),), {"download": True})]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"<html>", "page", "expected an idx file of bytes, got one that begins b'<htm'"),
        (b"", "empty", "expected an idx file of bytes"),
        (b"\0\0\x08\x03\0\0", "header", "expected an idx file of bytes"),
        (idx(torch.zeros(3, dtype=torch.uint8))[:-1], "short", r"expected 3 values for shape \[3\], got 2"),
        (gzip.compress(idx(torch.zeros(3, dtype=torch.uint8)), mtime=0)[:-9], "cut.gz", "expected gzip, got an error"),
        (b"<html>", "page.gz", "expected gzip, got an error"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, name, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_idx(tmp_path / name)
    assert name in str(error.value)


@needs_fashion_mnist
def test_the_real_images(monkeypatch, tmp_path):
    monkeypatch.setattr(FashionMNISTDataModule, "debian_folder", DEBIAN_FOLDER)
    data = loaded(tmp_path, coarse=True)
    assert (len(data.train_set), len(data.test_set)) == (60_000, 10_000)
    pixels = data.train_set.images.double() / 255
    assert data.mean == pytest.approx((pixels.mean().item(),), rel=1e-9)
    assert data.std == pytest.approx((pixels.std(correction=0).item(),), rel=1e-9)
    assert torch.bincount(data.train_set.targets[:, 0]).tolist() == [6000] * 10
    assert torch.bincount(data.test_set.targets[:, 1]).tolist() == [4000, 1000, 1000, 3000, 1000]
