import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from sklearn.datasets import load_digits

from ssl_modules.datamodules import DigitsDataModule


@pytest.fixture(scope="module")
def data():
    data = DigitsDataModule()
    data.setup()
    return data


def test_every_digit_is_in_one_part(data):
    digits = load_digits()
    reference = torch.from_numpy(digits.images)
    images = torch.cat([data.train_set.images, data.test_set.images])[:, 0]
    targets = torch.cat([data.train_set.targets, data.test_set.targets])
    assert (len(data.train_set), len(data.test_set)) == (1437, 360)
    ours = sorted(map(tuple, torch.cat([images.flatten(1).double() / 15, targets[:, None]], 1).tolist()))
    theirs = sorted(map(tuple, torch.cat([reference.flatten(1), torch.from_numpy(digits.target)[:, None]], 1).tolist()))
    assert ours == theirs  # the levels 0 to 16 are kept exactly


def test_the_split_is_stratified_and_does_not_depend_on_the_seed(data):
    share = torch.bincount(data.test_set.targets) / torch.bincount(
        torch.cat([data.train_set.targets, data.test_set.targets])
    )
    assert (share - 360 / 1797).abs().max() < 0.004
    other = DigitsDataModule(seed=5)
    other.setup()
    assert torch.equal(other.test_set.images, data.test_set.images)


def test_statistics_are_those_of_the_training_part(data):
    pixels = data.train_set.images.double() / 255
    assert data.mean == pytest.approx((pixels.mean().item(),), rel=1e-12)
    assert data.std == pytest.approx((pixels.std(correction=0).item(),), rel=1e-12)


def test_larger_images_are_interpolated_once(data):
    larger = DigitsDataModule(image_size=20)
    assert larger.dims == (1, 20, 20)
    larger.setup()
    at = (np.arange(20) + 0.5) * 8 / 20 - 0.5  # the centres of the new pixels
    for image, small in zip(larger.test_set.images[:50, 0], data.test_set.images[:50, 0], strict=True):
        reference = map_coordinates(small.double().numpy(), np.meshgrid(at, at, indexing="ij"), order=1, mode="nearest")
        assert np.abs(image.numpy() - reference).max() <= 0.5 + 1e-4  # rounded to the nearest level
    with pytest.raises(ValueError, match="image_size: expected a number of at least 8, got 7"):
        DigitsDataModule(image_size=7)
