"""Each test provokes an error, matches its message, and shows that following the message's advice works."""

from functools import partial

import numpy as np
import pytest
import torch
from conformance.cases import trainer
from modules import Net, build, pixels
from PIL import Image
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, TensorDataset

from ssl_modules import evaluate
from ssl_modules.augmentations import Augmentation, Foreign, SimCLRViews, not_an_augmentation
from ssl_modules.datamodules import (
    DigitsDataModule,
    ImageDataModule,
    ImageFolderDataModule,
    TensorImages,
    pixel_statistics,
)
from ssl_modules.encoders import Encoder, Representation
from ssl_modules.extractions import AllViews
from ssl_modules.losses import InfoNCE
from ssl_modules.optim import Constant
from ssl_modules.similarities import Cosine

GRAY = torch.rand(4, 8, 8)
ONE = torch.rand(3, 8, 8)
BYTES = pixels(8)
LABELS = torch.arange(8) % 2
GROUP_NAMES = ["cat", "dog"]
STATISTICS = {"mean": (0.5,) * 3, "std": (0.2,) * 3}


def step(batch, **given):
    return build(**given).training_step(batch, 0)


def fit(loader, **given):
    trainer(max_epochs=1).fit(build(**given), loader)


def gray_step(batch):
    return step(batch, encoder=Net(1), in_channels=1)


def sampled(batch_sampler):
    return DataLoader(TensorDataset(BYTES), batch_sampler=batch_sampler)


def train_part(train, **given):
    data = ImageDataModule(train, **{"num_classes": 2, "batch_size": 4, **given})
    data.setup()
    return next(iter(data.train_dataloader()))


def two_views(images, generator):
    return [images / 255, 1 - images / 255]


class TwoViews(Augmentation):
    sizes = (8, 8)

    def make_views(self, images, generator):
        return two_views(images, generator)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(BYTES)


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


PHOTOS = Items(
    [(Image.fromarray(image.permute(1, 2, 0).numpy()), int(y)) for image, y in zip(BYTES, LABELS, strict=True)]
)
MEASURED = dict(zip(("mean", "std"), pixel_statistics(BYTES), strict=True))


def class_names(items):
    return Items([(image, GROUP_NAMES[label]) for image, label in items])


CASES = {
    "gray images": (
        lambda: gray_step(GRAY),
        r"batch: .*tensor \[4, 8, 8\].*; use images\[:, None\] for gray",
        lambda: gray_step(GRAY[:, None]),
    ),
    "one image": (
        lambda: build()(ONE),
        r"images: .*got shape \(3, 8, 8\); .* or images\[None\] for one image \[ch",
        lambda: build()(ONE[None]),
    ),
    "one gray image": (
        lambda: build(encoder=Net(1), in_channels=1)(GRAY[0]),
        r"images: .*got shape \(8, 8\); use images\[None, None\] for one gray",
        lambda: build(encoder=Net(1), in_channels=1)(GRAY[:1, None]),
    ),
    "flattened images": (
        lambda: step(BYTES.flatten(1)),
        r"batch: .*tensor \[8, 192\].*or images.view\(N, channels, height, width\) for flattened",
        lambda: step(BYTES.flatten(1).view(8, 3, 8, 8)),
    ),
    "a list of images": (
        lambda: build()(list(BYTES)),
        r"images: .*got list; .*torch.stack\(images\)",
        lambda: build()(torch.stack(list(BYTES))),
    ),
    "masks of integers": (
        lambda: step((BYTES > 99).long()),
        r"images: .*torch.int64; use images.float\(\) if 1 means white",
        lambda: step((BYTES > 99).long().float()),
    ),
    "images that resizing has moved out of the range": (
        lambda: step(BYTES / 240 - 0.05),
        r"images: .* from -0.05 to 1.0125; if resizing has moved pixels out of \[0, 1\], give images.clamp\(0, 1\)",
        lambda: step((BYTES / 240 - 0.05).clamp(0, 1)),
    ),
    "signed levels": (
        lambda: step(BYTES.short() * 8 - 1000),
        r"images: .*torch.int16; choose the levels .*\(images.float\(\) - black\) / \(white - black\)\).clamp\(0, 1\)",
        lambda: step((((BYTES.short() * 8 - 1000).float() + 1000) / 2040).clamp(0, 1)),
    ),
    "levels above 16 bits": (
        lambda: step(BYTES * 1e4),
        r"images: .* to 2.55e\+06; choose the levels .*\(images.float\(\) - black\) / \(white - black\)\).clamp",
        lambda: step((BYTES * 1e4 / 2.55e6).clamp(0, 1)),
    ),
    "one ready-made view": (
        lambda: step(([BYTES],)),
        r"views: expected 2 per image, .* got 1; give the images without the list, \(images, ...\)",
        lambda: step((BYTES,)),
    ),
    "a batch sampler without a batch size": (
        lambda: fit(sampled([[0, 1], [2, 3, 4]]), base_batch_size=256),
        r"base_batch_size: .*no batch_size .*; give the final learning rate and base_batch_size=None",
        lambda: fit(sampled([[0, 1], [2, 3, 4]]), base_batch_size=None),
    ),
    "an optimiser object": (
        lambda: build(optimizer=torch.optim.SGD(Net().parameters(), lr=0.1)),
        r"optimizer: .*got a SGD object, .*; give partial\(SGD, lr=...\)$",
        lambda: build(optimizer=partial(torch.optim.SGD, lr=0.1)),
    ),
    "a function without an optimiser": (
        lambda: fit(sampled([[0, 1]]), optimizer=lambda groups: None),
        r"optimizer: .*got None; let the function return an optimiser, such as torch.optim.SGD\(groups, lr=...\)",
        lambda: fit(sampled([[0, 1]]), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1)),
    ),
    "no schedule": (
        lambda: build(schedule=None),
        r"schedule: .*got None; give an object, such as WarmupCosine\(\) or Constant\(\)",
        lambda: build(schedule=Constant()),
    ),
    "a loss by name": (
        lambda: build(loss="infonce"),
        r"loss: .*; give an object, such as InfoNCE\(\)",
        lambda: build(loss=InfoNCE()),
    ),
    "a function for a similarity": (
        lambda: build(similarity=nn.functional.cosine_similarity),
        r"similarity: .*; give an object, such as Cosine\(\)",
        lambda: build(similarity=Cosine()),
    ),
    "an extraction by name": (
        lambda: build(extraction="AllViews"),
        r"extraction: .*; give an object, such as AllViews\(\)",
        lambda: build(extraction=AllViews()),
    ),
    "no channels": (
        lambda: build(in_channels=0),
        "in_channels: expected a number of at least 1, got 0",
        lambda: build(Net(1), in_channels=1),
    ),
    "an augmentation as a function": (
        lambda: step(BYTES, augmentation=two_views),
        r"augmentation: got the function two_views; move its code to a subclass of Augmentation, into make_views\(self",
        lambda: step(BYTES, augmentation=TwoViews()),
    ),
    "a transform that makes two views": (
        lambda: step(BYTES, augmentation=Foreign(lambda x: [x, x], size=8)),
        "transform: .*returned a list of 2; give a transform that makes one view",
        lambda: step(BYTES, augmentation=Foreign(lambda x: x, size=8)),
    ),
    "a transform that drops the channels": (
        lambda: step(BYTES, augmentation=Foreign(lambda x: x[0], size=8), encoder=Net(1), in_channels=1),
        r"transform: .*returned \[8, 8\]; add the axis of channels, image\[None\]",
        lambda: gray_step_of(Foreign(lambda x: x[0][None], size=8)),
    ),
    "a transform that makes integers": (
        lambda: step(BYTES, augmentation=Foreign(lambda x: (x * 255).int(), size=8)),
        r"transform: .*returned torch.int32; use images.to\(torch.uint8\)",
        lambda: step(BYTES, augmentation=Foreign(lambda x: (x * 255).int().to(torch.uint8), size=8)),
    ),
    "an encoder with one number per image": (
        lambda: Encoder(nn.Sequential(nn.Flatten(), nn.Linear(192, 1), nn.Flatten(0)), image_size=8, in_channels=3),
        r"encoder: .*got \[\[2\]\] for 2 images; let it return features, one row per image",
        lambda: Encoder(nn.Sequential(nn.Flatten(), nn.Linear(192, 1)), image_size=8, in_channels=3),
    ),
    "integer images in memory": (
        lambda: TensorImages(BYTES.int()),
        r"images: .*torch.int32; give torch.as_tensor\(images\).to\(torch.uint8\)$",
        lambda: TensorImages(torch.as_tensor(BYTES.int()).to(torch.uint8)),
    ),
    "an iterable data set": (
        lambda: train_part(Stream()),
        "train: .*pass a DataLoader of it to Trainer.fit",
        lambda: trainer(max_epochs=-1, max_steps=2).fit(build(), DataLoader(Stream(), batch_size=4)),
    ),
    "a loader for a data set": (
        lambda: train_part(DataLoader(PHOTOS), **MEASURED),
        "train: .*; give its data set, loader.dataset",
        lambda: train_part(DataLoader(PHOTOS).dataset, **MEASURED),
    ),
    "an empty data set": (
        lambda: train_part(Items([]), **MEASURED),
        "train: expected at least one image, got none",
        lambda: train_part(PHOTOS, **MEASURED),
    ),
    "photos without statistics": (
        lambda: train_part(PHOTOS),
        r"mean, std: .*; mean, std = pixel_statistics\(train\) measures them",
        lambda: train_part(PHOTOS, **dict(zip(("mean", "std"), pixel_statistics(PHOTOS), strict=True))),
    ),
    "names of classes": (
        lambda: train_part(class_names(PHOTOS), **MEASURED),
        r"target \d: .*'(cat|dog)'; give class indices, class_names.index\(target\)",
        lambda: train_part(Items([(x, GROUP_NAMES.index(y)) for x, y in class_names(PHOTOS)]), **MEASURED),
    ),
    "unknown keys": (
        lambda: train_part(Items([{"picture": x, "label": y} for x, y in PHOTOS]), **MEASURED),
        r"train: .*the keys picture, label; let the data set give \(image, target\), or rename its keys",
        lambda: train_part(Items([{"image": x, "label": y} for x, y in PHOTOS]), **MEASURED),
    ),
    "too few classes": (
        lambda: train_part(TensorImages(BYTES, LABELS), num_classes=1),
        "train: .*got 1; give num_classes=2",
        lambda: train_part(TensorImages(BYTES, LABELS), num_classes=2),
    ),
    "no targets": (
        lambda: train_part(TensorImages(BYTES)),
        "train: .*got -1; .*target_type='none' with num_classes=0",
        lambda: train_part(TensorImages(BYTES), target_type="none", num_classes=0),
    ),
    "two columns of targets": (
        lambda: train_part(TensorImages(BYTES, torch.stack([LABELS, LABELS], 1))),
        r"train: .*got \[8, 2\]; give target_type='multilabel' .* targets\[:, 0\] and target_type='single'",
        lambda: train_part(TensorImages(BYTES, torch.stack([LABELS, LABELS], 1)), target_type="multilabel"),
    ),
    "evaluation of a name": (
        lambda: evaluate("resnet18", DigitsDataModule(), ["knn"]),
        r"module: .*'resnet18'; load a checkpoint with load_module",
        None,
    ),
    "evaluation on a loader": (
        lambda: evaluate(nn.Flatten(), DataLoader(TensorImages(BYTES, LABELS)), ["knn"]),
        r"data: .*; make one from data sets: ImageDataModule\(train, test, num_classes=...\)",
        lambda: evaluate(nn.Flatten(), of_two_parts(), {"knn": {"k": 3}}),
    ),
    "evaluation of a network of floats": (
        lambda: evaluate(nn.Sequential(Net(), nn.Flatten()), of_two_parts(), {"knn": {"k": 3}}),
        r"images: expected floating-point numbers, .* got uint8; give prepare= a function of the batch",
        lambda: evaluate(
            nn.Sequential(Net(), nn.Flatten()),
            of_two_parts(),
            {"knn": {"k": 3}},
            prepare=lambda batch: (batch[0] / 255, batch[1]),
        ),
    ),
    "fine-tuning of a network": (
        lambda: evaluate(nn.Flatten(), of_two_parts(), ["finetune"]),
        r"finetune: needs an Encoder .*; give Representation\(Encoder\(network, image_size=..., in_channels=...\)\)",
        lambda: evaluate(
            Representation(Encoder(Net(), image_size=8, in_channels=3)),
            of_two_parts(),
            {"finetune": {"epochs": 1}},
        ),
    ),
}


def gray_step_of(augmentation):
    return step(BYTES, augmentation=augmentation, encoder=Net(1), in_channels=1)


def of_two_parts():
    part = TensorImages(BYTES, LABELS)
    return ImageDataModule(part, part, num_classes=2, batch_size=4)


@pytest.mark.parametrize("case", CASES)
def test_the_advice_works_when_followed(case):
    provoke, message, follow = CASES[case]
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        provoke()
    if follow is not None:
        follow()


@pytest.mark.parametrize(
    "images",
    [
        BYTES.numpy().astype(np.uint8) > 99,
        BYTES / 255,
        BYTES.float(),
        BYTES * (4095 / 255),
        BYTES * 257.0,
        (BYTES / 127.5) - 1,
        (BYTES / 255) * 1.1 - 0.05,
        BYTES.short(),
        BYTES.numpy().astype(np.float64) / 255,
    ],
    ids=["bool", "shares", "levels", "12 bits", "16 bits", "-1 to 1", "out of range", "int16", "array"],
)
def test_each_advice_for_images_in_memory_keeps_the_picture(images):
    """The code in the message runs on the given images and returns the original picture, up to rounding."""
    with pytest.raises(TypeError, match="images: expected uint8") as refused:
        TensorImages(images)
    advice = str(refused.value).partition("; ")[2]
    code = advice[min(advice.index(start) for start in ("torch.as_tensor", "(torch", "((torch") if start in advice) :]
    made = eval(code, {"torch": torch, "images": images})
    expected = 255 * (BYTES > 99) if images.dtype in (bool, np.bool_) else BYTES
    if "clamp" in code:
        expected = ((BYTES / 255 * 1.1 - 0.05).clamp(0, 1) * 255).round()
    assert (TensorImages(made).images.float() - expected).abs().max() <= 1


def test_a_batch_sampler_with_a_batch_size_scales_the_learning_rate():
    def rate(loader):
        module = build(base_batch_size=16)
        trainer(max_epochs=1).fit(module, loader)
        return module.optimizers().param_groups[0]["initial_lr"]

    assert rate(sampled(BatchSampler(range(8), 4, drop_last=False))) == pytest.approx(0.1 * 4 / 16)


def test_statistics_of_photos_equal_the_statistics_of_their_pixels():
    assert pixel_statistics(PHOTOS) == pixel_statistics(BYTES)
    deep = Items([(image.to(torch.uint16) * 16, 0) for image in BYTES])
    assert pixel_statistics(deep, white=255 * 16) == pixel_statistics(BYTES)


def test_a_policy_name_in_place_of_an_object_gives_an_error_with_advice():
    assert str(not_an_augmentation("simclr", 8)) == (
        "augmentation: expected an Augmentation, got 'simclr'; give an object, such as SimCLRViews(8, views=1) for one "
        "view"
    )
    assert SimCLRViews(8, views=1).sizes == (8,)


def test_errors_about_folders_name_the_argument(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "empty").mkdir()
    made = partial(ImageFolderDataModule, tmp_path / "train", image_size=8, batch_size=2)
    with pytest.raises(FileNotFoundError, match=r"test: expected .*nowhere, got no such file or folder; give the fol"):
        made(test=tmp_path / "nowhere").setup()
    with pytest.raises(FileNotFoundError, match=r"root: expected .*1.png, got a file, not a folder"):
        ImageFolderDataModule(tmp_path / "train/a/1.png", image_size=8)
    with pytest.raises(ValueError, match=r"class_folders: .*empty, got no folders; give the folder that holds one"):
        ImageFolderDataModule(tmp_path / "empty", image_size=8)
    with pytest.raises(ValueError, match=r"in_memory: .*augmentation=SimCLRViews\(\.\.\.\); leave these out"):
        made(augmentation=SimCLRViews(8), in_memory=True)
    made(test=tmp_path / "train").setup()
