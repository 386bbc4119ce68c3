"""Data sets in memory of the package ``datasets`` work in loaders and as parts of a data module."""

import numpy as np
import pytest
import torch
from conformance.cases import digits
from lightning.pytorch import Trainer
from PIL import Image
from torch.utils.data import DataLoader

from ssl_modules import SimCLR
from ssl_modules.batch import read_batch
from ssl_modules.callbacks import OnlineKNNProbe
from ssl_modules.datamodules import ImageDataModule

datasets = pytest.importorskip("datasets")

IMAGES, TARGETS = digits()._parts[0][:40]
STATISTICS = {"mean": (0.3,), "std": (0.3,)}


@pytest.fixture(params=[("image", "label"), ("img", "labels")], ids=" ".join)
def rows(request):
    image, label = request.param
    pictures = [Image.fromarray(pixels[0].numpy()) for pixels in IMAGES]
    features = {image: datasets.Image(), label: datasets.ClassLabel(num_classes=10), "file": datasets.Value("string")}
    columns = {image: pictures, label: TARGETS.tolist(), "file": ["a.png"] * len(pictures)}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def module():
    return SimCLR(encoder="resnet10t", image_size=8, in_channels=1)


def trainer(*callbacks):
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(max_steps=2, accelerator="cpu", callbacks=[*callbacks], **off)


def test_a_module_trains_on_a_loader_of_rows(rows):
    loader = DataLoader(rows.with_format("torch"), batch_size=10)
    batch = read_batch(next(iter(loader)))
    assert torch.equal(batch.images, IMAGES[:10])
    assert batch.targets.tolist() == TARGETS[:10].tolist()
    fit = trainer()
    fit.fit(module(), loader)
    assert fit.global_step == 2


@pytest.mark.parametrize("form", [None, "torch", "numpy"])
def test_a_data_module_of_rows_equals_a_data_module_of_tuples(rows, form):
    part = rows if form is None else rows.with_format(form)
    if form == "numpy":
        part = part.map(lambda row: {"pixels": np.asarray(row[rows.column_names[0]])[None]})
        part = part.remove_columns(rows.column_names[0]).rename_column("pixels", "image")
    white = 255 if form == "numpy" else None  # the package stores arrays as int64
    data = ImageDataModule(part, part, num_classes=10, batch_size=10, white=white, **STATISTICS)
    data.setup()
    expected = ImageDataModule([*zip(IMAGES, TARGETS, strict=True)], num_classes=10, batch_size=10, **STATISTICS)
    expected.setup()
    for got, wanted in zip(data.train_dataloader(), expected.train_dataloader(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    fit = trainer(OnlineKNNProbe(k=3))
    fit.fit(module(), datamodule=data)
    assert "probe/knn_top1" in fit.callback_metrics


def test_a_dict_of_splits_raises_an_error(rows):
    with pytest.raises(TypeError, match=r"train: expected a map-style data set, got .* keys train; give the data set"):
        ImageDataModule(datasets.DatasetDict(train=rows), num_classes=10, **STATISTICS)
