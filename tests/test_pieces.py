"""Subclasses of a method may override the parts of the training step, and change what the step returns."""

import pytest
import torch
from conformance.cases import one_batch, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from modules import Net, build, pixels
from torch import nn
from torchvision.transforms import v2

from ssl_modules import GroCo, SimCLR
from ssl_modules.augmentations import Foreign, ReadyViews, SimCLRViews
from ssl_modules.batch import read_batch
from ssl_modules.callbacks import CollapseMonitor, OnlineKNNProbe, OnlineLinearProbe, ViewGrid
from ssl_modules.datamodules import DigitsDataModule
from ssl_modules.extractions import AllViews


def subclass(**methods):
    return type("Mine", (SimCLR,), methods)


def gradient(module):
    module.double().training_step(pixels(), 0)["loss"].backward()
    return torch.cat([p.grad.flatten() for p in module.encoder.parameters()])


def small(cls, **given):
    torch.manual_seed(0)
    return cls(SimCLRViews(8, strength=0.5, blur=False), Net(), image_size=8, **given)


def test_an_extra_loss_reaches_the_encoder():
    plain = gradient(small(SimCLR))
    term = gradient(small(subclass(extra_loss=lambda self, batch, features, embeddings: 3 * features.square().mean())))
    assert not torch.equal(term, plain)
    # The gradient of the extra term is linear in its weight.
    twice = gradient(small(subclass(extra_loss=lambda self, batch, features, embeddings: 6 * features.square().mean())))
    torch.testing.assert_close(twice - plain, 2 * (term - plain), rtol=0, atol=1e-9)


def test_an_extra_loss_sees_the_batch_and_the_embeddings():
    seen = {}

    def extra_loss(self, batch, features, embeddings):
        seen.update(targets=batch.targets, features=features, embeddings=embeddings)

    module = small(subclass(extra_loss=extra_loss))
    targets = torch.arange(8)
    step = module.training_step((pixels(), targets), 0)
    assert torch.equal(seen["targets"], targets)
    assert seen["features"].requires_grad
    assert [z.shape for z in seen["embeddings"]] == [(8, 128)] * 2
    assert all(z.requires_grad for z in seen["embeddings"])
    assert not step["features"].requires_grad


def test_an_extra_loss_is_logged_and_part_of_the_loss():
    mine = subclass(extra_loss=lambda self, batch, features, embeddings: features.sum() * 0 + 100)
    module = small(mine, base_batch_size=None)
    t = trainer(max_steps=1)
    t.fit(module, one_batch(pixels()))
    assert t.callback_metrics["train/extra_loss"] == 100
    assert t.callback_metrics["train/loss"] > 100


def test_each_piece_may_be_replaced():
    class Mine(SimCLR):
        def views(self, batch, generator):
            return [view.flip(-1) for view in super().views(batch, generator)]

        def contrasts(self, batch, embedded, generator):
            return super().contrasts(batch, embedded, generator) * 2

        def objective(self, contrasts):
            assert len(contrasts) == 2
            return 5 * super().objective(contrasts[:1])

    images = pixels()
    plain, mine = small(SimCLR), small(Mine)
    batch = read_batch(images)
    views = plain.views(batch, plain.generator("train", 0, batch.device))
    ours = plain.training_step(([view.flip(-1) for view in views], None), 0)
    torch.testing.assert_close(mine.training_step(images, 0)["loss"], 5 * ours["loss"])


def test_a_step_may_return_a_bare_loss_beside_all_callbacks(tmp_path):
    class Bare(SimCLR):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx)["loss"]

    data = DigitsDataModule(batch_size=64)
    module = Bare(SimCLRViews(8, strength=0.5, blur=False), Net(1), image_size=8, in_channels=1)
    callbacks = [
        OnlineKNNProbe(bank_size=64),
        OnlineLinearProbe(bank_size=64),
        CollapseMonitor(),
        ViewGrid(folder=tmp_path),
        ModelCheckpoint(tmp_path, monitor="probe/knn_top1", mode="max"),
    ]
    t = trainer(max_epochs=1, limit_train_batches=2, callbacks=callbacks, enable_checkpointing=True)
    with pytest.warns(UserWarning, match=r"repr: nothing is measured; training_step: expected a dict"):
        t.fit(module, data)
    assert t.callback_metrics["train/loss"].isfinite()
    assert 0 <= t.callback_metrics["probe/knn_top1"] <= 1


def test_a_transform_of_another_library_is_an_augmentation():
    transform = v2.Compose([v2.RandomResizedCrop(8), v2.RandomHorizontalFlip()])
    with pytest.raises(
        TypeError, match=r"augmentation: got a torchvision Compose; wrap it: Foreign\(transform, size=8\)"
    ):
        build(augmentation=transform)
    module = build(augmentation=Foreign(transform, size=8))
    t = trainer(max_steps=1)
    t.fit(module, one_batch(pixels(size=12)))
    assert t.callback_metrics["train/loss"].isfinite()


def test_a_loader_of_views_needs_no_policy():
    module = build(augmentation=ReadyViews([8, 8, 8]))
    views = list(pixels(24).float().div(255).split(8))
    assert module.training_step((views, None), 0)["loss"].isfinite()
    with pytest.raises(TypeError, match="the loader"):
        module.training_step(pixels(), 0)


def test_groco_counts_the_large_views_of_the_loader():
    def groco(augmentation):
        return GroCo(augmentation, Net(), image_size=8)

    large, small = pixels(48).float().div(255).split([24, 24])
    small = nn.functional.avg_pool2d(small, 2)
    views = [large[:12], large[12:], small[:12], small[12:]]
    module = groco(ReadyViews([8, 8, 4, 4]))
    embedded = module.embed(views)
    first, second = module.contrasts(read_batch((views, None)), embedded, torch.Generator())
    assert (first.relation[:1] > 0).sum() == 1  # the other large view
    assert (second.relation[:1] > 0).sum() == 2  # both large views
    with pytest.raises(ValueError, match=r"augmentation=ReadyViews\(\[8, 8, 4, 4\]\)"):
        groco("groco").training_step((views, None), 0)


def test_a_module_prints_on_a_screen():
    text = repr(build(extraction=AllViews(out_dim=16)))
    assert len(text.splitlines()) <= 40
    for part in (
        "RandomResizedCrop(size=8, scale=(0.08, 1.0)",
        "AllViews(out_dim=16",
        "InfoNCE(temperature=0.1",
        "SGD(lr=0.1)",
    ):
        assert part in text
