"""Arguments and batches for which fine-tuning raises an error."""

import pytest
import torch
from conformance.cases import trainer
from torch import nn
from tuned import SGD, build, encoder, images, labels, loader

from ssl_modules import FineTuning
from ssl_modules.datamodules import DigitsDataModule


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"encoder": "resnet18"},
            TypeError,
            "encoder: expected an object of the class Encoder, got 'resnet18'; give Encoder",
        ),
        ({"num_classes": 1}, ValueError, "num_classes: expected a number of at least 2, got 1"),
        ({"target_type": "none"}, ValueError, "target_type: expected .*'multilabel'.*, got 'none'"),
        ({"backbone_lr_scale": 0.0}, ValueError, "backbone_lr_scale: expected a positive number, got 0.0; .* freeze=T"),
        ({"schedule": 0.5}, TypeError, r"schedule: expected .* Schedule, got 0.5; give one such as WarmupCosine"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1)])}, TypeError, "optimizer: expected a function of parameter gr"),
    ],
)
def test_arguments_that_do_not_fit_are_named(given, error, message):
    with pytest.raises(error, match=message):
        FineTuning(**{"encoder": encoder(nn.Conv2d(1, 4, 3)), "num_classes": 10, "optimizer": SGD} | given)


@pytest.mark.parametrize(
    ("given", "targets", "message"),
    [
        ({}, None, "targets: got none; fine-tuning needs a loader of"),
        ({}, torch.zeros(16, 2).long(), r"targets: torch.int64 \[16, 2\] of 16 images don't fit target_type='single'"),
        ({}, torch.zeros(16), r"targets: torch.float32 \[16\] of 16 images don't fit target_type='single'"),
        ({}, torch.zeros(15).long(), r"targets: torch.int64 \[15\] of 16 images"),
        ({}, torch.full((16,), -1), "targets: go from -1 to -1, but num_classes=10 and .* allow 0 to 9; leave out"),
        ({}, torch.full((16,), 10), "targets: go from 10 to 10, .* give num_classes=11, or number"),
        ({"target_type": "hierarchical"}, labels(), "don't fit target_type='hierarchical', level=0"),
        ({"target_type": "hierarchical", "level": 2}, torch.zeros(16, 2).long(), "'hierarchical', level=2 and num_cl"),
        ({"target_type": "multilabel"}, labels(), "don't fit target_type='multilabel', level=0 and num_classes=10"),
        ({"target_type": "multilabel"}, torch.full((16, 10), 2), "targets: go from 2 to 2, .* allow 0 to 1"),
    ],
)
def test_targets_that_do_not_fit_are_named(given, targets, message):
    module = build(encoder(nn.Conv2d(1, 4, 3)), **given)
    with pytest.raises(ValueError, match=message):
        module.training_step(images() if targets is None else (images(), targets), 0)


def test_a_schedule_needs_an_end():
    with pytest.raises(ValueError, match="max_epochs: a schedule needs an end"):
        trainer(max_epochs=-1).fit(build(encoder(nn.Conv2d(1, 4, 3))), loader(labels()))


def test_a_class_of_the_data_without_a_place_is_said_before_the_first_step():
    data = DigitsDataModule(batch_size=64)
    module = build(num_classes=9)
    steps = []
    module.on_train_batch_end = lambda *args: steps.append(args)
    with pytest.raises(ValueError, match=r"num_classes: expected at least the 10 classes .*, got 9; .*num_classes=10"):
        trainer(max_epochs=1).fit(module, datamodule=data)
    assert not steps
    trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0).fit(build(num_classes=10), datamodule=data)
