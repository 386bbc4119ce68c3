import pytest
import torch
from torch.utils.data import DataLoader

from ssl_modules.datamodules import TensorImages, pixel_statistics
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
        (torch.zeros(2, 4, 4, dtype=torch.uint8), None, ValueError, r"\[N, C, H, W\], got \[2, 4, 4\].*unsqueeze"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.arange(3), ValueError, r"2 images, got shape \[3\]"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor(1), ValueError, r"2 images, got shape \[\]"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.rand(2), TypeError, "targets: expected integers.*float32"),
    ],
)
def test_bad_tensors_are_named(bad_images, targets, error, message):
    with pytest.raises(error, match=message):
        TensorImages(bad_images, targets)


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
