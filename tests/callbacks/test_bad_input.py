"""Callbacks refuse unusable input at once. The error names the callback, the problem and a fix."""

import pytest
import torch
from PIL import Image
from strangers import IMAGES, TARGETS, own, stranger, test_loader, train_loader, trainer
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ssl_modules.callbacks import (
    CollapseMonitor,
    EmbeddingPlot,
    NeighbourGrid,
    OnlineKNNProbe,
    OnlineLinearProbe,
    OnlineRetrieval,
    OnlineSGDProbe,
    OutOfDistributionProbe,
)
from ssl_modules.datamodules import ImageFolderDataModule

PROBES = {
    "knn": OnlineKNNProbe,
    "ridge": lambda **options: OnlineLinearProbe(**options, name="ridge"),
    "sgd": lambda **options: OnlineSGDProbe(**options, num_classes=10, name="sgd"),
    "retrieval": OnlineRetrieval,
    "among the test images": lambda **options: OnlineRetrieval(**options, gallery="test"),
    "ood": lambda **options: OutOfDistributionProbe(**options, outliers=[IMAGES[600:700]]),
    "embedding": EmbeddingPlot,
    "neighbours": lambda **options: NeighbourGrid(**options, k=8),
}


def labelled(images, targets):
    return DataLoader(TensorDataset(images, targets), batch_size=64)


def steps_before(message, callback, tmp_path, **options):
    """Return the number of steps before the error."""
    module = stranger()
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, [callback], **options).fit(module, train_loader())
    return len(module.losses)


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (IMAGES[:200], None, "the loader: expected .*, got images without labels; .* train= and test="),
        (IMAGES[:200], torch.full((200,), -1), "expected targets of at least 0, got -1; leave out unlabelled samples"),
        (
            IMAGES[:0],
            TARGETS[:0],
            "expected samples of the (train|test) loader, got none; give .* as (train|test)=",
        ),
        (IMAGES[:200] * torch.nan, TARGETS[:200], "expected finite features, got 64 of 64 with NaN or infinity"),
        (IMAGES[:200], TARGETS[:200].float(), "targets: expected class indices, got torch.float32; give prepare="),
    ],
    ids=["no labels", "labels of -1", "nothing", "NaN", "float targets"],
)
def test_before_the_first_step(tmp_path, name, images, targets, message):
    loader = DataLoader(images, batch_size=64) if targets is None else labelled(images, targets)
    assert steps_before(message, PROBES[name](train=loader, test=loader), tmp_path) == 0


@pytest.mark.parametrize("name", PROBES)
def test_maps(tmp_path, name):
    probe = PROBES[name](**own(), features="encoder.0")
    message = r"features: expected .* from 'encoder.0', got \[64, 8, 8, 8\].*pool the output"
    assert steps_before(message, probe, tmp_path) == 0


@pytest.mark.parametrize(
    ("name", "least"), [("knn", 20), ("retrieval", 10), ("among the test images", 11), ("ood", 50), ("neighbours", 8)]
)
def test_fewer_images_than_k(tmp_path, name, least):
    few, many = labelled(IMAGES[: least - 1], TARGETS[: least - 1]), test_loader()
    data = {"train": many, "test": few} if "test" in name else {"train": few, "test": many}
    message = f"expected at least {least} samples of the .* data, got {least - 1}; give the probe more samples"
    assert steps_before(message, PROBES[name](**data), tmp_path) == 0
    trainer(tmp_path, [PROBES[name](**data)], fast_dev_run=True).fit(stranger(), train_loader())


@pytest.mark.parametrize("name", ["knn", "ridge", "retrieval", "among the test images"])
def test_one_class(tmp_path, name):
    ones = labelled(IMAGES[TARGETS == 1], TARGETS[TARGETS == 1])
    message = "expected samples of two or more classes, got 182, all of class 1"
    assert steps_before(message, PROBES[name](train=ones, test=ones), tmp_path) == 0
    trainer(tmp_path, [PROBES[name](train=ones, test=ones)], fast_dev_run=True).fit(stranger(), train_loader())


class Pairs(Dataset):
    """Images and targets; ``change`` is applied to the targets as they are read."""

    def __init__(self, images, targets, change=lambda target: target):
        self.images, self.targets, self.change = images, targets, change

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.change(self.targets[index])


def test_targets_that_are_not_stored_are_checked_when_they_are_read(tmp_path):
    ones = Pairs(IMAGES[TARGETS == 1], TARGETS[TARGETS == 1])
    del ones.targets  # the probe can't check stored targets, and the loader below needs none
    loader = DataLoader([(image, torch.tensor(1)) for image in ones.images], batch_size=64)
    message = "expected samples of two or more classes, got 182, all of class 1"
    assert steps_before(message, OnlineKNNProbe(train=loader, test=loader), tmp_path) == 5


def test_targets_that_are_changed_as_they_are_read_count_as_they_are_read(tmp_path):
    odd = DataLoader(Pairs(IMAGES[:200], torch.zeros_like(TARGETS[:200])), batch_size=64)
    message = "expected samples of two or more classes, got 200, all of class 0"
    assert steps_before(message, OnlineKNNProbe(train=odd, test=odd), tmp_path) == 0
    images = IMAGES[:200]
    even = DataLoader(Pairs(images, range(len(images)), lambda row: TARGETS[row]), batch_size=64)
    even.dataset.targets = torch.arange(len(images))  # row numbers, not classes
    trainer(tmp_path, [OnlineKNNProbe(train=even, test=even)], max_epochs=1).fit(stranger(), train_loader())
    stored = DataLoader(Pairs(images, torch.zeros(200, dtype=torch.int64)), batch_size=64)
    probe = OnlineKNNProbe(train=stored, test=stored, prepare=lambda batch: (batch[0], torch.arange(len(batch[0])) % 2))
    trainer(tmp_path, [probe], max_epochs=1).fit(stranger(), train_loader())


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("part", ["train", "test"])
def test_an_unlabelled_sample_is_found_before_the_first_step(tmp_path, name, part):
    late = TARGETS[:200].clone()
    late[150] = -1  # in the third batch
    data = {"train": train_loader(), "test": test_loader()} | {part: labelled(IMAGES[:200], late)}
    probe = PROBES[name](**data)
    if part in probe.parts:
        message = f"{part} data: expected targets of at least 0, got -1; leave out unlabelled samples"
        assert steps_before(message, probe, tmp_path) == 0


def test_a_class_without_a_place_in_the_head_is_found_before_the_first_step(tmp_path):
    many = TARGETS[:200].clone()
    many[150] = 11
    loader = labelled(IMAGES[:200], many)
    message = "num_classes: expected more than every target, got 10 and training targets from 0 to 11"
    assert steps_before(message, PROBES["sgd"](train=loader, test=loader), tmp_path) == 0


def test_a_folder_of_one_class_names_class_folders(tmp_path):
    (tmp_path / "root" / "all").mkdir(parents=True)
    for row in range(40):
        Image.fromarray((IMAGES[row, 0] * 255).byte().numpy()).save(tmp_path / "root" / "all" / f"{row}.png")
    folder = {"image_size": 8, "in_channels": 1, "num_workers": 0, "val_size": 8}
    data = ImageFolderDataModule(tmp_path / "root", **folder)
    images = {"features": lambda module, images: images.float().flatten(1)}
    message = (
        "got 32, all of class 0; .*, or leave the probe out. If the images have no classes, pass class_folders=False"
    )
    assert steps_before(message, OnlineLinearProbe(datamodule=data, **images), tmp_path) == 0
    plain = ImageFolderDataModule(tmp_path / "root", class_folders=False, **folder)
    assert steps_before("root has no targets", OnlineLinearProbe(datamodule=plain, **images), tmp_path) == 0


@pytest.mark.parametrize("name", ["ood", "embedding", "neighbours"])
def test_one_class_is_enough_for_the_others(tmp_path, name):
    ones = labelled(IMAGES[TARGETS == 1], TARGETS[TARGETS == 1])
    trainer(tmp_path, [PROBES[name](train=ones, test=ones)], max_epochs=1).fit(stranger(), train_loader())


@pytest.mark.parametrize("name", PROBES)
def test_the_batch_of_nan_is_named(tmp_path, name):
    images = IMAGES[300:500].clone()
    images[140:] = torch.nan
    message = "test data: expected finite features, got NaN or infinity in batch 2; has the training diverged"
    assert steps_before(message, PROBES[name](train=train_loader(), test=labelled(images, TARGETS[300:500])), tmp_path)


@pytest.mark.parametrize(
    ("outliers", "message"),
    [
        (DataLoader(IMAGES[:0]), "expected samples of the outliers loader, got none; .* as outliers="),
        ([IMAGES[600:700, :, :4, :4].repeat(1, 3, 1, 1)], "expected input.* to have 1 channels"),
        ([{"x": IMAGES[600:]}], "outliers: expected batches of images or .*, got dict.*; pass prepare_outliers="),
    ],
)
def test_outliers_are_tried_as_well(tmp_path, outliers, message):
    module = stranger()
    with pytest.raises((ValueError, RuntimeError), match=message):
        trainer(tmp_path, [OutOfDistributionProbe(**own(), outliers=outliers)]).fit(module, train_loader())
    assert module.losses == []


def test_images_that_no_picture_can_show(tmp_path):
    flat = labelled(IMAGES.flatten(1), TARGETS)
    grid = NeighbourGrid(train=flat, test=flat, features=lambda module, images: images)
    assert steps_before(r"images: expected \[N, C, H, W\], to be shown, got \[1, 64\]", grid, tmp_path) == 0
    stream = NeighbourGrid(train=list(train_loader()), test=test_loader())
    assert steps_before("to show some of its samples, got a list", stream, tmp_path) == 0


def test_data_of_its_own_are_tried_though_the_trainer_validates(tmp_path):
    module = stranger(validates=True)
    probe = OnlineKNNProbe(train=train_loader(), test=DataLoader(IMAGES, batch_size=64))
    with pytest.raises(ValueError, match="got images without labels"):
        trainer(tmp_path, [probe], num_sanity_val_steps=0).fit(module, train_loader(), test_loader())
    assert module.losses == []


def test_the_monitor_says_so_at_the_first_step(tmp_path):
    assert steps_before("got a tensor", CollapseMonitor(features="encoder.0"), tmp_path) == 1
