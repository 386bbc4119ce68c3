"""Probes accept data sets in place of loaders, and read mappings by their keys."""

import pytest
import torch
from PIL import Image
from strangers import IMAGES, TARGETS, TEST, TRAIN, own, stranger, test_loader, train_loader, trainer
from torch import nn
from torch.utils.data import Dataset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from ssl_modules.callbacks import (
    NeighbourGrid,
    OnlineKNNProbe,
    OnlineLinearProbe,
    OnlineSGDProbe,
    OutOfDistributionProbe,
    ViewGrid,
)


class Rows:
    """A map-style data set of dicts that, like those of Hugging Face, is not a subclass of torch's Dataset."""

    def __init__(self, part):
        self.part = part

    def __len__(self):
        return len(self.part)

    def __getitem__(self, row):
        image, label = self.part[row]
        return {"image": image, "label": label, "path": f"{row}.png"}

    def __iter__(self):
        return (self[row] for row in range(len(self)))


FORMS = {
    "tensors": lambda part: part,
    "a list of samples": list,
    "a list of plain labels": lambda part: [(image, int(label)) for image, label in part],
    "a list of dicts": lambda part: list(Rows(part)),
    "rows": Rows,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_data_set_gives_the_same_result_as_a_loader(tmp_path, form):
    data = {"train": FORMS[form](TRAIN), "test": FORMS[form](TEST)}
    assert OnlineKNNProbe(**data).evaluate(nn.Flatten()) == OnlineKNNProbe(**own()).evaluate(nn.Flatten())
    probes = [OnlineKNNProbe(**data), OnlineSGDProbe(**data, num_classes=10), NeighbourGrid(**data, queries=2, k=2)]
    run = trainer(tmp_path, probes, max_epochs=1)
    run.fit(stranger(), train_loader())
    assert {"probe/knn_top1", "probe/sgd_top1"} <= run.callback_metrics.keys()


def test_probes_with_the_same_data_set_share_one_pass(tmp_path):
    module, seen = stranger(), []
    module.encoder.register_forward_hook(lambda part, given, output: seen.append(len(output)))
    data = {"train": TRAIN, "test": TEST, "features": "encoder"}
    probes = [OnlineKNNProbe(**data), OnlineLinearProbe(**data), OutOfDistributionProbe(**data, outliers=TEST)]
    for probe in probes:
        probe.setup(run := trainer(tmp_path, probes), module, "fit")
    for probe in probes:
        probe._evaluate(module, run)
    assert sum(seen) == len(TRAIN) + 2 * len(TEST)  # the test part is read again as outliers


def test_a_list_of_batches_is_a_loader():
    data = {"train": list(train_loader()), "test": [{"image": x, "label": y} for x, y in test_loader()]}
    assert OnlineKNNProbe(**data).evaluate(nn.Flatten()) == OnlineKNNProbe(**own()).evaluate(nn.Flatten())


@pytest.mark.parametrize(
    "outliers",
    [IMAGES[600:700], TensorDataset(IMAGES[600:700]), Rows(TensorDataset(IMAGES[600:700], TARGETS[600:700]))],
)
def test_outliers_may_be_a_data_set(outliers):
    expected = OutOfDistributionProbe(**own(), outliers=[IMAGES[600:700]]).evaluate(nn.Flatten())
    assert OutOfDistributionProbe(**own(), outliers=outliers).evaluate(nn.Flatten()) == expected


def test_prepare_outliers_reads_batches_of_another_form():
    data = {
        "train": [{"x": x, "y": y} for x, y in train_loader()],
        "test": [{"x": x, "y": y} for x, y in test_loader()],
    }
    probe = OutOfDistributionProbe(
        **data,
        prepare=lambda batch: (batch["x"], batch["y"]),
        outliers=[["name", IMAGES[600:700]]],
        prepare_outliers=lambda batch: batch[1],
    )
    expected = OutOfDistributionProbe(**own(), outliers=[IMAGES[600:700]]).evaluate(nn.Flatten())
    assert probe.evaluate(nn.Flatten()) == expected
    probe.prepare_outliers = lambda batch: batch
    with pytest.raises(ValueError, match=r"prepare_outliers: expected a tensor of images, got list\(str, Tensor\)"):
        probe.evaluate(nn.Flatten())


def test_a_data_set_of_pil_images_needs_a_transform_to_tensors(tmp_path):
    for row in range(40):
        folder = tmp_path / str(TARGETS[row].item())
        folder.mkdir(exist_ok=True)
        Image.fromarray((IMAGES[row, 0] * 255).byte().numpy()).save(folder / f"{row}.png")
    plain = ImageFolder(tmp_path)
    with pytest.raises(
        ValueError, match=r"samples such as .image, label.*, got tuple\(Image, int\); give it a transform"
    ):
        OnlineKNNProbe(train=plain, test=plain).evaluate(nn.Flatten())
    transform = v2.Compose([v2.Grayscale(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    images = ImageFolder(tmp_path, transform)
    assert OnlineKNNProbe(train=images, test=images, k=1).evaluate(nn.Flatten())["probe/knn_top1"] == 1


class Growing(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, row):
        return torch.ones(1, row + 1, 8), row % 2


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (Growing(), ValueError, r"of tensors of the same size and numbers, got tuple\(Tensor, int\)"),
        ("images", TypeError, "train: expected a loader or a map-style data set, got 'images'"),
        (3, TypeError, "train: expected a loader or a map-style data set, got 3"),
        ({"train": 1}, TypeError, "train: expected a loader or a map-style data set, got {'train': 1}"),
    ],
)
def test_data_of_other_types_raise_an_error(data, error, message):
    with pytest.raises(error, match=message):
        OnlineKNNProbe(train=data, test=TEST).evaluate(nn.Flatten())


def test_with_several_validation_loaders_a_probe_needs_its_own_data(tmp_path):
    module = stranger(validates=True)
    module.validation_step = lambda batch, batch_idx, dataloader_idx=0: None
    with pytest.raises(ValueError, match=r"expected one test loader with labels in the run, got 2 of them; .* test="):
        trainer(tmp_path, [OnlineKNNProbe()]).fit(module, train_loader(), [test_loader(), test_loader()])
    run = trainer(tmp_path, [OnlineKNNProbe(train=TRAIN, test=TEST)], max_epochs=1)
    run.fit(module, train_loader(), [test_loader(), test_loader()])
    assert [name for name in run.callback_metrics if "probe" in name] == ["probe/knn_top1", "probe/knn_top5"]


def test_an_error_of_view_grid_names_the_callback_and_prepare(tmp_path):
    batch = {"x": IMAGES[:4], "y": TARGETS[:4]}
    grid = ViewGrid(augmentation=lambda images, generator: [images])
    with pytest.raises(ValueError, match="keys") as error:
        grid.draw(nn.Flatten(), batch)
    assert "views: ViewGrid could not read the batch; pass prepare=" in error.value.__notes__[0]
    grid.prepare = lambda batch: (batch["x"], batch["y"])
    assert grid.draw(nn.Flatten(), batch) is not None
    assert ViewGrid(augmentation=grid.augmentation).draw(nn.Flatten(), {"image": IMAGES[:4]}) is not None


def test_a_hugging_face_data_set_gives_the_same_result():
    datasets = pytest.importorskip("datasets")
    pictures = [Image.fromarray((image[0] * 16).byte().numpy()) for image in IMAGES[:500]]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    rows = datasets.Dataset.from_dict({"image": pictures, "label": TARGETS[:500].tolist()}, features=features)
    train, test = rows.select(range(300)), rows.select(range(300, 500))
    with pytest.raises(ValueError, match=r'for a Hugging Face data set is \.with_format\("torch"\)'):
        OnlineKNNProbe(train=train, test=test).evaluate(nn.Flatten())
    parts = {"train": train.with_format("torch"), "test": test.with_format("torch")}
    probe = OnlineKNNProbe(**parts, prepare=lambda batch: (batch["image"] / 16, batch["label"]))
    assert probe.evaluate(nn.Flatten()) == OnlineKNNProbe(**own()).evaluate(nn.Flatten())
    assert OnlineKNNProbe(**parts).evaluate(nn.Flatten()) == OnlineKNNProbe(**own()).evaluate(nn.Flatten())  # by keys
