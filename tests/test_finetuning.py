import math
import os
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from conformance.cases import trainer
from lightning.pytorch import seed_everything
from processes import run_in_processes
from sklearn.metrics import average_precision_score, top_k_accuracy_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tuned import SGD, Net, build, encoder, equal, images, labels, loader, weights

from ssl_modules import FineTuning, SimCLR
from ssl_modules.augmentations import RandomHorizontalFlip, SimCLRViews, Views
from ssl_modules.datamodules import DigitsDataModule, EpochSampler
from ssl_modules.optim import WarmupCosine


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
        factor = step / 3 if step < 3 else (1 + math.cos(math.pi * (step - 3) / 3)) / 2
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
