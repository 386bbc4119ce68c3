import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ssl_modules.datamodules import ImageDataModule, TensorImages, pixel_statistics
from ssl_modules.datamodules.batches import BatchedImages


@pytest.fixture
def images():
    return torch.randint(256, (6, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_rows_are_taken_one_by_one_and_many_at_once(images):
    data = TensorImages(images, torch.arange(6, dtype=torch.int32))
    image, target = data[4]
    assert torch.equal(image, images[4])
    assert target == 4
    batch, targets = data[[5, 0]]
    assert torch.equal(batch, torch.stack([images[5], images[0]]))
    assert targets.tolist() == [5, 0]
    assert targets.dtype == torch.int64
    assert data.select(torch.tensor([3, 1])).targets.tolist() == [3, 1]


def test_an_ordinary_loader_takes_them_too(images):
    batch, targets = next(iter(DataLoader(TensorImages(images), batch_size=6)))
    assert torch.equal(batch, images)
    assert targets.tolist() == [-1] * 6


@pytest.mark.parametrize(
    ("bad_images", "targets", "error", "message"),
    [
        (torch.rand(2, 1, 4, 4), None, TypeError, r"images: expected uint8, got torch.float32.*\* 255"),
        (
            torch.zeros(2, 4, 4, dtype=torch.uint8),
            None,
            ValueError,
            r"\[N, C, H, W\], got \[2, 4, 4\]; one channel: images\[:, None\]",
        ),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.arange(3), ValueError, r"2 images, got shape \[3\]"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor(1), ValueError, r"2 images, got shape \[\]"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.rand(2), TypeError, "targets: expected integers.*float32"),
    ],
)
def test_bad_tensors_are_named(bad_images, targets, error, message):
    with pytest.raises(error, match=message):
        TensorImages(bad_images, targets)


@pytest.mark.parametrize("targets", [[2, 0, 1, 1, 0, 2], np.array([2, 0, 1, 1, 0, 2], dtype=np.uint8), range(6)])
def test_arrays_and_lists_are_accepted_without_a_copy(images, targets):
    array = images.numpy()
    array.flags.writeable = False  # like a memory-mapped file that is opened for reading
    data = TensorImages(array, targets)
    assert data.images.data_ptr() == images.data_ptr()
    assert data.targets.tolist() == list(targets)
    assert data.targets.dtype == torch.int64


@pytest.mark.parametrize("targets", [["cat"] * 6, [[1, 2], [3]] * 3, np.array(["cat"] * 6), [None] * 6])
def test_targets_that_are_not_numbers_raise_an_error(images, targets):
    with pytest.raises(TypeError, match=r"targets: expected a tensor, an array or a list of numbers, got .*give numb"):
        TensorImages(images, targets)


@pytest.mark.parametrize(
    ("given", "mended"),
    [
        (np.random.default_rng(0).random((6, 1, 4, 4)), lambda x: torch.as_tensor(x * 255).round().to(torch.uint8)),
        (np.zeros((6, 4, 4), np.uint8), lambda x: x[:, None]),
    ],
)
def test_the_advice_for_arrays_works(given, mended):
    with pytest.raises((TypeError, ValueError), match="images: expected"):
        TensorImages(given)
    assert TensorImages(mended(given)).dims == (1, 4, 4)


def test_items_may_be_mappings_arrays_and_pil_images(images):
    rows = images.numpy()
    reference = BatchedImages(TensorImages(images, [4, 3, 2, 1, 0, 5]), (3, 4, 4), ()).__getitems__([1, 5])
    for items in (
        [{"image": image, "label": label} for image, label in zip(images, (4, 3, 2, 1, 0, 5), strict=True)],
        [{"img": image, "labels": label, "file": "x"} for image, label in zip(rows, (4, 3, 2, 1, 0, 5), strict=True)],
        [
            {"pixel_values": Image.fromarray(image.transpose(1, 2, 0)), "target": np.int64(label)}
            for image, label in zip(rows, (4, 3, 2, 1, 0, 5), strict=True)
        ],
        [(image, np.array(label)) for image, label in zip(rows, (4, 3, 2, 1, 0, 5), strict=True)],
    ):
        data = ImageDataModule(items, num_classes=6, mean=(0.5,) * 3, std=(0.5,) * 3, batch_size=2)
        assert data.dims == (3, 4, 4)
        batch = BatchedImages(data.load()[0], data.dims, ()).__getitems__([1, 5])
        assert all(torch.equal(got, expected) for got, expected in zip(batch, reference, strict=True))


def test_class_names_as_targets_and_a_dict_of_splits_raise_errors(images):
    statistics = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    data = ImageDataModule([{"image": images[0], "label": "cat"}], num_classes=2, batch_size=1, **statistics)
    data.setup()
    with pytest.raises(TypeError, match=r"target 0: expected integers, got 'cat'; give class indices"):
        next(iter(data.train_dataloader()))
    parts = {"train": [(images[0], 1)], "test": [(images[1], 0)]}
    with pytest.raises(TypeError, match="train: expected a map-style data set, got a dict with the keys train, test"):
        ImageDataModule(parts, num_classes=2, **statistics)
    assert ImageDataModule(parts["train"], parts["test"], num_classes=2, **statistics).dims == (3, 4, 4)


def test_arrays_with_channels_last_raise_an_error(images):
    array = images.permute(0, 2, 3, 1).numpy().repeat(2, axis=1)
    with pytest.raises(ValueError, match=r"looks like .*; give torch.as_tensor\(images\).permute\(0, 3, 1, 2\), or"):
        ImageDataModule(TensorImages(array, range(6)), num_classes=6)
    data = ImageDataModule(TensorImages(torch.as_tensor(array).permute(0, 3, 1, 2), range(6)), num_classes=6)
    assert data.dims == (3, 8, 4)


def test_a_batch_in_memory_equals_its_items(images):
    targets = torch.arange(12).view(6, 2)
    in_memory = BatchedImages(TensorImages(images, targets), (3, 4, 4), (2,), return_index=True)
    one_by_one = BatchedImages(list(zip(images, targets.tolist(), strict=True)), (3, 4, 4), (2,), return_index=True)
    for data in (in_memory, one_by_one):
        batch = data.__getitems__([4, 2, 3])
        assert isinstance(batch, tuple)
        for value, reference in zip(
            batch, (images[[4, 2, 3]], targets[[4, 2, 3]], torch.tensor([4, 2, 3])), strict=True
        ):
            assert torch.equal(value, reference)
            assert value.dtype == reference.dtype
        assert all(torch.equal(a, b[0]) for a, b in zip(data[4], batch, strict=True))


def test_without_targets_they_are_minus_one(images):
    for dataset in (list(images), [(image, "name") for image in images], TensorImages(images, torch.arange(6))):
        data = BatchedImages(dataset, (3, 4, 4), None)
        assert data.__getitems__([0, 1])[1].tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("item", "target_shape", "error", "message"),
    [
        ((torch.zeros(1, 2, 3, dtype=torch.uint8), 0), (), ValueError, r"image 0: .*\[1, 2, 2\], got \[1, 2, 3\]"),
        ((torch.zeros(1, 2, 2, dtype=torch.uint8), [0, 1]), (), ValueError, r"target 0: .*\[\], got \[2\]"),
        ((torch.zeros(1, 2, 2, dtype=torch.uint8), 0), (2,), ValueError, r"target 0: .*\[2\], got \[\]"),
        ((torch.zeros(1, 2, 2, dtype=torch.uint8), 0.5), (), TypeError, "target 0: .*got torch.float32"),
        (
            torch.zeros(1, 2, 2, dtype=torch.uint8),
            (),
            ValueError,
            r"item 0: expected \(image, target\), got an image only",
        ),
    ],
)
def test_bad_items_are_named(item, target_shape, error, message):
    with pytest.raises(error, match=message):
        BatchedImages([item], (1, 2, 2), target_shape)[0]


def test_statistics_equal_torch(images):
    pixels = images.double() / 255
    mean, std = pixel_statistics(images)
    assert torch.allclose(torch.tensor(mean).double(), pixels.mean((0, 2, 3)), rtol=0, atol=1e-7)
    assert std == pytest.approx(pixels.transpose(0, 1).flatten(1).std(1, correction=0).tolist(), rel=1e-12)
