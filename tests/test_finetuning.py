import math
import os
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from conformance.cases import trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from processes import run_in_processes
from sklearn.metrics import average_precision_score, top_k_accuracy_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ssl_modules import FineTuning, SimCLR
from ssl_modules.augmentations import Augmentation, RandomHorizontalFlip, SimCLRViews, Views
from ssl_modules.datamodules import DigitsDataModule, EpochSampler
from ssl_modules.encoders import Encoder
from ssl_modules.optim import WarmupCosine

SGD = partial(torch.optim.SGD, lr=0.1)


class Net(nn.Module):
    """A small network with all kinds of layers that must not change when frozen."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1))

    def forward(self, x):
        return self.layers(x)


class Unchanged(Augmentation):
    """Returns one view, the image itself."""

    sizes = (None,)

    def make_views(self, images, generator):
        return [images]


def encoder(network="test_resnet"):
    return Encoder(network, image_size=8, in_channels=1, mean=[0.3], std=[0.35])


def build(network="test_resnet", num_classes=10, **given):
    given = {"optimizer": SGD, "augmentation": Unchanged()} | given
    return FineTuning(network if isinstance(network, Encoder) else encoder(network), num_classes, **given)


def images(n=16, seed=0):
    return torch.randint(256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def labels(n=16, classes=10):
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(1))


def loader(targets, batch_size=8):
    return DataLoader(TensorDataset(images(len(targets)), targets), batch_size=batch_size)


def weights(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# ---- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freeze", [False, True])
def test_steps_are_those_of_a_plain_loop(freeze):
    seed_everything(0)
    module = build(
        freeze=freeze,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01),
        backbone_lr_scale=0.3,
        schedule=WarmupCosine(0.5),
    )
    backbone, head = encoder(), nn.Linear(96, 10)
    backbone.load_state_dict(module.encoder.state_dict())
    head.load_state_dict(module.head.state_dict())
    y = labels(24)
    trainer(max_epochs=2).fit(module, loader(y))

    steps, groups = 6, []
    for part, lr in ((head, 0.1), (backbone, 0.03)):
        for p in part.parameters():
            groups.append({"params": [p], "lr": lr, "weight_decay": 0.01 if p.ndim > 1 else 0.0})
    optimizer = torch.optim.SGD(groups[:2] if freeze else groups, lr=0.1, momentum=0.9)
    rates = [group["lr"] for group in optimizer.param_groups]
    backbone.train(not freeze)
    for step in range(steps):
        factor = (step + 1) / 3 if step < 3 else (1 + math.cos(math.pi * (step - 3) / 3)) / 2
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        rows = slice(8 * (step % 3), 8 * (step % 3) + 8)
        loss = F.cross_entropy(head(backbone(images(24)[rows])[-1].mean((2, 3))), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(module.encoder.state_dict(), backbone.state_dict(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(module.head.state_dict(), head.state_dict(), rtol=1e-4, atol=1e-6)


def test_a_frozen_encoder_changes_no_bit():
    given = encoder(Net())
    before = weights(given)
    module = build(given, freeze=True)
    head = weights(module.head)
    trainer(max_epochs=2).fit(module, loader(labels()), loader(labels()))
    assert module.training
    assert not any(part.training for part in module.encoder.modules())
    assert equal(module.encoder.state_dict(), before)
    assert all(p.grad is None for p in module.encoder.parameters())
    assert not torch.equal(module.head.weight, head["weight"])


def test_the_encoder_is_copied_and_all_of_it_learns():
    pretrained = SimCLR("simclr", Net(), image_size=32, in_channels=1).eval()
    before = weights(pretrained)
    module = build(pretrained.encoder)
    assert all(part.training for part in module.modules() if isinstance(part, nn.BatchNorm2d | nn.Dropout))
    assert equal(module.encoder.state_dict(), pretrained.encoder.state_dict())
    trainer(max_epochs=1).fit(module, loader(labels()))
    after = weights(module.encoder)
    learned = [name for name, _ in module.encoder.named_parameters()]
    assert all(not torch.equal(after[name], before[f"encoder.{name}"]) for name in learned)
    assert equal(weights(pretrained), before)
    assert not any(part.training for part in pretrained.modules())


@pytest.mark.slow
def test_fine_tuning_on_digits_is_better_than_a_frozen_encoder():
    seed_everything(0)
    data = DigitsDataModule()
    pretrained = SimCLR(
        SimCLRViews(8, strength=0.5, blur=False),
        "test_resnet",
        image_size=8,
        in_channels=1,
        mean=data.mean,
        std=data.std,
        optimizer=partial(torch.optim.AdamW, lr=1e-3),
    )
    trainer(max_epochs=3).fit(pretrained, data)
    accuracy = {}
    for freeze in (True, False):
        module = build(pretrained.encoder, freeze=freeze, optimizer=partial(torch.optim.SGD, lr=0.2, momentum=0.9))
        run = trainer(max_epochs=3)
        run.fit(module, data)
        accuracy[freeze] = run.test(module, data, verbose=False)[0]["test/top1"]
    assert 0.4 < accuracy[True] < accuracy[False] - 0.05
    assert accuracy[False] > 0.95


# ---- augmentation --------------------------------------------------------------------------------------------------


def test_training_images_are_cropped_to_the_encoders_size_and_others_are_not_touched():
    module = FineTuning(encoder(), 10, optimizer=SGD)
    crop, flip = module.augmentation.transforms
    assert (crop.size, crop.scale, flip.p) == (8, (0.08, 1.0), 0.5)
    seen = []
    module.encoder.register_forward_pre_hook(lambda part, args: seen.append((part.training, args[0])))
    large = torch.randint(256, (8, 1, 12, 12), dtype=torch.uint8)
    data = DataLoader(TensorDataset(large, labels(8)), batch_size=8)
    trainer(max_epochs=2, num_sanity_val_steps=0).fit(module, data, data)
    (first, second), kept = [x for training, x in seen if training], [x for training, x in seen if not training]
    assert first.shape == second.shape == (8, 1, 8, 8)
    assert not torch.equal(first, second)
    assert all(torch.equal(x, large) for x in kept)


def test_views_follow_from_the_seed():
    runs = []
    for seed in (0, 0, 1):
        module = build(seed=seed, augmentation=None)
        seen = []
        module.encoder.register_forward_pre_hook(lambda part, args, seen=seen: seen.append(args[0]))
        trainer(max_epochs=1).fit(module, loader(labels()))
        runs.append(torch.cat(seen))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_one_finished_view_is_taken_as_it_is_and_several_are_refused():
    view = images() / 255
    module = build(encoder(nn.Conv2d(1, 4, 3)), augmentation=Views([RandomHorizontalFlip(p=1.0)], views=1))
    expected = F.cross_entropy(module(view), labels())
    torch.testing.assert_close(module.training_step(([view], labels()), 0), expected)
    with pytest.raises(ValueError, match="augmentation: fine-tuning takes one view of an image, got 2; make one"):
        module.training_step(([view, view], labels()), 0)
    with pytest.raises(ValueError, match="batch: evaluation takes images, but the loader gives views"):
        module.validation_step(([view], labels()), 0)


# ---- what is measured ----------------------------------------------------------------------------------------------


def test_accuracies_are_those_of_all_images():
    module = build()
    y = labels(21)
    with torch.no_grad():
        scores = module.eval()(images(21))
    logged = trainer().test(module, loader(y), verbose=False)[0]  # batches of 8, 8 and 5 images
    assert logged.keys() == {"test/loss", "test/top1", "test/top5"}
    assert logged["test/loss"] == pytest.approx(F.cross_entropy(scores, y).item(), rel=1e-5)
    for k in (1, 5):
        assert logged[f"test/top{k}"] == pytest.approx(top_k_accuracy_score(y, scores, k=k, labels=range(10)))


def test_a_first_batch_without_errors_does_not_make_top_5_follow_top_1():
    module = build(nn.Flatten(), 64)  # the scores are pixels
    nn.init.eye_(module.head.weight)
    nn.init.zeros_(module.head.bias)
    x = torch.linspace(0, 1, 64).flip(0).expand(4, 64).reshape(4, 1, 8, 8)
    run = trainer()
    [logged] = run.validate(module, DataLoader(TensorDataset(x, torch.tensor([0, 0, 3, 9])), 2), verbose=False)
    assert (logged["val/top1"], logged["val/top5"]) == (0.5, 0.75)


def test_fewer_than_five_classes():
    logged = trainer().test(build(num_classes=3), loader(labels(classes=3)), verbose=False)[0]
    assert logged["test/top5"] == 1.0


def test_several_labels_an_image():
    torch.manual_seed(0)
    y = torch.randint(2, (21, 4))
    module = build(num_classes=4, target_type="multilabel")
    with torch.no_grad():
        widen = 30 / module.eval()(images(21)).max()  # a float32 sigmoid would make such scores equal
        module.head.weight *= widen
        module.head.bias *= widen
        scores = module(images(21))
    logged = trainer().test(module, loader(y), verbose=False)[0]
    assert logged.keys() == {"test/loss", "test/map"}
    assert logged["test/loss"] == pytest.approx(F.binary_cross_entropy_with_logits(scores, y.float()).item(), rel=1e-5)
    assert logged["test/map"] == pytest.approx(average_precision_score(y, scores, average="macro"))
    y[:, 1] = 0  # no image has this class
    logged = trainer().test(module, loader(y), verbose=False)[0]
    others = [0, 2, 3]
    assert logged["test/map"] == pytest.approx(average_precision_score(y[:, others], scores[:, others]))
    assert math.isnan(trainer().test(module, loader(0 * y), verbose=False)[0]["test/map"])
    module = build(num_classes=4, target_type="multilabel").eval()
    expected = F.binary_cross_entropy_with_logits(module(images(21)), y.float())
    torch.testing.assert_close(module.training_step((images(21), y), 0), expected)


@pytest.mark.parametrize("level", [0, 1, -1])
def test_a_level_of_hierarchical_targets(level):
    y = torch.stack([labels(16, 10), labels(16, 10) // 5], dim=1)
    module = build(target_type="hierarchical", level=level).eval()
    torch.testing.assert_close(module.training_step((images(), y), 0), F.cross_entropy(module(images()), y[:, level]))


def test_half_precision():
    module = build()
    run = trainer(max_epochs=1, precision="bf16-mixed")
    run.fit(module, loader(labels()), loader(labels()))
    assert run.callback_metrics["train/loss"].dtype == torch.float32
    assert run.callback_metrics["val/loss"].isfinite()


# ---- checkpoints ---------------------------------------------------------------------------------------------------


def saved(module, path):
    run = trainer(max_epochs=1)
    run.fit(module, loader(labels()))
    run.save_checkpoint(path)
    return weights(module)


def test_a_checkpoint_builds_the_module_again(tmp_path):
    given = {"freeze": True, "num_classes": 3, "target_type": "hierarchical", "level": 1, "augmentation": None}
    module = build(**given, backbone_lr_scale=0.5, schedule=WarmupCosine(0.2), seed=3)
    y = torch.stack([labels(), labels(classes=3)], dim=1)
    run = trainer(max_epochs=1)
    run.fit(module, loader(y))
    run.save_checkpoint(tmp_path / "last.ckpt")
    again = FineTuning.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert equal(weights(again), weights(module))
    assert {**again.hparams} == {**module.hparams}
    assert not again.encoder.training
    assert torch.equal(again.eval()(images()), module.eval()(images()))


def test_a_network_that_a_checkpoint_cannot_hold_is_asked_for(tmp_path):
    module = build(Net(), augmentation=None)
    before = saved(module, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"encoder: a checkpoint can't hold this .*Encoder; pass"):
        FineTuning.load_from_checkpoint(tmp_path / "last.ckpt")
    again = FineTuning.load_from_checkpoint(tmp_path / "last.ckpt", encoder=encoder(Net()))
    assert equal(weights(again), before)


def test_a_resumed_run_goes_on_as_it_would_have(tmp_path):
    ends = []
    for resume in (None, tmp_path / "epoch=0.ckpt"):
        seed_everything(0)
        module = build(encoder(nn.Conv2d(1, 4, 3)), augmentation=None, optimizer=partial(SGD, momentum=0.9))
        every = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, enable_version_counter=False)
        trainer(max_epochs=3, callbacks=[every], enable_checkpointing=True).fit(
            module, loader(labels()), ckpt_path=resume
        )
        ends.append(weights(module))
    assert equal(*ends)


@pytest.mark.parametrize(
    "given",
    [
        {"class_path": "ssl_modules.encoders.load_encoder", "init_args": {"path": "encoder.safetensors"}},
        {
            "class_path": "ssl_modules.encoders.Encoder",
            "init_args": {"encoder": "test_resnet", "image_size": 8, "in_channels": 1},
        },
    ],
)
def test_the_command_line_builds_it_and_its_checkpoint_needs_no_other_file(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    SimCLR("simclr", "test_resnet", in_channels=1).export_encoder("encoder.safetensors")
    config = {
        "model": {"encoder": given, "num_classes": 10, "optimizer": {"class_path": "SGD", "init_args": {"lr": 0.1}}},
        "data": {"batch_size": 64},
        "trainer": {
            "max_steps": 2,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
    }
    Path("config.yaml").write_text(yaml.safe_dump(config))
    arguments = ["fit", "--config", "config.yaml", "--trainer.default_root_dir", "."]
    plain = {"auto_configure_optimizers": False, "save_config_callback": None}
    cli = LightningCLI(FineTuning, DigitsDataModule, args=arguments, **plain)
    cli.trainer.save_checkpoint("last.ckpt")
    Path("encoder.safetensors").unlink()
    again = FineTuning.load_from_checkpoint("last.ckpt", weights_only=True)
    assert equal(weights(again), weights(cli.model))


# ---- what doesn't fit ----------------------------------------------------------------------------------------------


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
        ({}, torch.full((16,), 10), "targets: go from 10 to 10, but num_classes=10"),
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


# ---- several processes ---------------------------------------------------------------------------------------------


def of_processes(targets, batch_size, **given):
    """Train an epoch without shuffling, then test; return the weights and the metrics."""
    seed_everything(0, verbose=False)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
    kind = {"target_type": "multilabel", "num_classes": targets.shape[1]} if targets.ndim == 2 else {}
    module = build(encoder(network), **kind).double()
    data = TensorDataset(images(len(targets)), targets)
    batches = DataLoader(data, batch_size, sampler=EpochSampler(data, shuffle=False))  # Lightning's would shuffle
    run = trainer(max_epochs=1, use_distributed_sampler=False, **given)
    run.fit(module, batches)
    [metrics] = run.test(module, batches, verbose=False)
    return weights(module), metrics


def one_of_two(rank, *targets):
    os.environ["LOCAL_RANK"] = str(rank)
    return [of_processes(y, 4, strategy="ddp", devices=2) for y in targets]


def test_two_processes_are_one():
    several = torch.randint(2, (16, 4), generator=torch.Generator().manual_seed(2))
    kinds = labels(), several
    for y, (state, metrics), other in zip(kinds, *run_in_processes(one_of_two, *kinds), strict=True):
        expected, expected_metrics = of_processes(y, 8)
        assert metrics == other[1] == pytest.approx(expected_metrics, rel=1e-12)
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, rtol=0, atol=1e-12, msg=name)


def test_a_class_of_the_data_without_a_place_is_said_before_the_first_step():
    data = DigitsDataModule(batch_size=64)
    module = build(num_classes=9)
    steps = []
    module.on_train_batch_end = lambda *args: steps.append(args)
    with pytest.raises(ValueError, match=r"num_classes: expected at least the 10 classes .*, got 9; .*num_classes=10"):
        trainer(max_epochs=1).fit(module, datamodule=data)
    assert not steps
    trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0).fit(build(num_classes=10), datamodule=data)
