import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
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
    assert ours == theirs  # the pixels of 0 to 16 survive exactly


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
    with pytest.raises(ValueError, match="image_size: expected at least 8"):
        DigitsDataModule(image_size=7)


class Module(LightningModule):
    def __init__(self, seed=7):
        super().__init__()
        self.save_hyperparameters()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return self.weight * batch[0].float().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_checkpoint_holds_the_arguments_as_plain_data(tmp_path):
    trainer = Trainer(default_root_dir=tmp_path, max_steps=1, accelerator="cpu", enable_progress_bar=False)
    # Module and data module both have a seed: Lightning would refuse to log the two together.
    trainer.fit(Module(), datamodule=DigitsDataModule(batch_size=32, seed=3))
    path = trainer.checkpoint_callback.best_model_path
    stored = torch.load(path, weights_only=True)["datamodule_hyper_parameters"]
    assert {
        "batch_size": 32,
        "image_size": 8,
        "val_size": 0,
        "seed": 3,
        "return_index": False,
    }.items() <= stored.items()
    again = DigitsDataModule.load_from_checkpoint(path)
    assert (again.batch_size, again.seed) == (32, 3)
