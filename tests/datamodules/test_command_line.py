"""Runs from YAML: what the model takes from the data, and what a checkpoint keeps of the data."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from pictures import write_image

from ssl_modules.augmentations import SimCLRViews
from ssl_modules.cli import main
from ssl_modules.datamodules import COCODataModule, ImageFolderDataModule

VIEWS = {"class_path": "SimCLRViews", "init_args": {"size": 16, "strength": 0.5, "blur": False}}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for index in range(8):
        write_image(Path("pets", "cat" if index % 2 else "dog", f"{index}.jpg"), 30, 40, value=index * 20)


def run(data, **changes):
    config = {
        "model": {
            "class_path": "SimCLR",
            "init_args": {
                "augmentation": VIEWS,
                "encoder": "test_resnet",
                "extraction": {"class_path": "AllViews", "init_args": {"out_dim": 16}},
                "similarity": {"class_path": "Cosine"},
                "loss": {"class_path": "InfoNCE"},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.002}},
            },
        },
        "data": data,
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1},
        "knn_probe": {"k": 2},
        **changes,
    }
    Path("config.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "config.yaml"])
    (path,) = Path().rglob("last.ckpt")
    return path


@pytest.mark.parametrize("augmentation", [None, VIEWS], ids=["on the device", "in workers"])
def test_a_folder_of_ones_own(augmentation):
    init_args = {"root": "pets", "test": "pets", "batch_size": 4, "image_size": 16, "num_workers": 1}
    path = run({"class_path": "ImageFolderDataModule", "init_args": {**init_args, "augmentation": augmentation}})
    stored = torch.load(path, weights_only=True)["hyper_parameters"]
    assert (stored["image_size"], stored["in_channels"]) == (16, 3)
    assert stored["mean"] == pytest.approx((0.485, 0.456, 0.406))
    metrics = next(Path().rglob("metrics.csv")).read_text()
    assert "probe/knn_top1" in metrics
    again = ImageFolderDataModule.load_from_checkpoint(path)
    assert (again.root, again.num_classes) == (str(Path("pets").absolute()), 2)
    if augmentation == VIEWS:
        assert isinstance(again.augmentation, SimCLRViews)
        assert again.augmentation.arguments["strength"] == 0.5


def test_several_labels_an_image_are_not_probed():
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(COCODataModule.class_names)]
    for split in ("train", "val"):
        images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(4)]
        for image in images:
            write_image(Path("coco", f"{split}2017", image["file_name"]))
        path = Path("coco", "annotations", f"instances_{split}2017.json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"images": images, "categories": categories, "annotations": []}))
    init_args = {"root": "coco", "batch_size": 4, "image_size": 16, "num_workers": 0}
    path = run({"class_path": "COCODataModule", "init_args": init_args})
    assert "probe" not in next(Path().rglob("metrics.csv")).read_text()
    assert COCODataModule.load_from_checkpoint(path).image_size == 16


def test_a_missing_folder_is_one_line(capsys):
    with pytest.raises(SystemExit):
        run({"class_path": "ImageFolderDataModule", "init_args": {"root": "nowhere"}})
    message = "error: root: expected nowhere, got no such file or folder; give the folder of your images"
    assert capsys.readouterr().err.splitlines()[-1] == message
