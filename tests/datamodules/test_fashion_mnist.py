import gzip
import struct

import pytest
import torch
from torchvision.datasets import FashionMNIST

from ssl_modules.datamodules import FashionMNISTDataModule, fashion_mnist
from ssl_modules.datamodules.fashion_mnist import COARSE, DEBIAN_FOLDER, read_idx

TRAIN, TEST = 40, 12


def tensors():
    generator = torch.Generator().manual_seed(0)
    for part, size in (("train", TRAIN), ("t10k", TEST)):
        images = torch.randint(256, (size, 28, 28), dtype=torch.uint8, generator=generator)
        yield f"{part}-images-idx3-ubyte", images
        yield f"{part}-labels-idx1-ubyte", torch.arange(size, dtype=torch.uint8) % 10


def idx(tensor):
    return struct.pack(f">HBB{tensor.ndim}I", 0, 8, tensor.ndim, *tensor.shape) + tensor.numpy().tobytes()


@pytest.fixture(autouse=True)
def no_debian(monkeypatch, tmp_path):
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")


@pytest.fixture
def root(tmp_path):
    """The files as torchvision leaves them."""
    folder = tmp_path / "root" / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, tensor in tensors():
        (folder / name).write_bytes(idx(tensor))
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
    for name, tensor in tensors():
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
    assert len(small.test_set) == TEST
    for subset in (0, 60_001):
        with pytest.raises(ValueError, match=f"subset: expected 1 to 60000 training images.*but got {subset}"):
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


def test_arguments_are_stored_as_plain_data(root):
    data = FashionMNISTDataModule(root, subset=5)
    assert data.hparams["root"] == str(root)
    assert type(data.hparams["root"]) is str
    assert data.hparams["subset"] == 5


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"<html>", "page", "expected an idx file of bytes, but got one that begins b'<htm'"),
        (b"", "empty", "expected an idx file of bytes"),
        (b"\0\0\x08\x03\0\0", "header", "expected an idx file of bytes"),
        (idx(torch.zeros(3, dtype=torch.uint8))[:-1], "short", r"expected 3 values for shape \[3\], but got 2"),
        (gzip.compress(idx(torch.zeros(3, dtype=torch.uint8)), mtime=0)[:-9], "cut.gz", "can't be decompressed"),
        (b"<html>", "page.gz", "can't be decompressed"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, name, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_idx(tmp_path / name)
    assert name in str(error.value)


# The data module's constants are of these 70,000 images, which no test can write; reading is tested above on few.
@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="needs the real images: apt install dataset-fashion-mnist")
def test_the_real_images(monkeypatch, tmp_path):
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", DEBIAN_FOLDER)
    data = loaded(tmp_path, coarse=True)
    assert (len(data.train_set), len(data.test_set)) == (60_000, 10_000)
    pixels = data.train_set.images.double() / 255
    assert data.mean == pytest.approx((pixels.mean().item(),), rel=1e-9)
    assert data.std == pytest.approx((pixels.std(correction=0).item(),), rel=1e-9)
    assert torch.bincount(data.train_set.targets[:, 0]).tolist() == [6000] * 10
    assert torch.bincount(data.test_set.targets[:, 1]).tolist() == [4000, 1000, 1000, 3000, 1000]
