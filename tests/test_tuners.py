"""Lightning's BatchSizeFinder and LearningRateFinder find values that work, and change nothing else in the fit."""

from functools import partial

import pytest
import torch
import tuned
from conformance.cases import trainer
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, LearningRateFinder
from torch import nn

from ssl_modules import GroCo, MoCo, SimCLR
from ssl_modules.augmentations import GroCoViews, MoCoViews, SimCLRViews
from ssl_modules.cli import main
from ssl_modules.datamodules import DigitsDataModule, ImageDataModule, TensorImages
from ssl_modules.extractions import Queue

pytestmark = pytest.mark.slow  # each test runs a search and one or two fits

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def small(method, augmentation, **given):
    settings = {"encoder": "test_resnet", "image_size": 8, "in_channels": 1, "optimizer": SGD}
    return method(augmentation=augmentation, **{**settings, **given})


def simclr(**given):
    return small(SimCLR, SimCLRViews(8, strength=0.5, blur=False), **given)


def moco(**given):
    return small(MoCo, MoCoViews(8, blur=False), extraction=Queue(out_dim=16, size=64, momentum=0.9), **given)


def groco(**given):
    return small(GroCo, GroCoViews(8, blur=False), **given)


def data(images=40, **given):
    return ImageDataModule(TensorImages(tuned.images(images), tuned.labels(images)), num_classes=10, **given)


class WithDropout(nn.Module):
    """A network that draws from the global random state."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.1))

    def forward(self, x):
        return self.layers(x)


def found(module, batch_size=4, images=40, **settings):
    """Return three batch sizes: the one found, the data module's, and that of the fit's first batch."""
    seen = []

    class Seen(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append(len(batch[0]))

    finder, own = BatchSizeFinder(steps_per_trial=1, **settings), data(images, batch_size=batch_size)
    trainer(max_epochs=1, callbacks=[finder, Seen()]).fit(module, own)
    return finder.optimal_batch_size, own.batch_size, seen[0]


@pytest.mark.parametrize("build", [simclr, tuned.build])
def test_the_batch_size_finder_finds_the_number_of_images(build):
    assert found(build()) == (40, 40, 40)
    assert found(build(), mode="binsearch", margin=0.0) == (40, 40, 40)


def test_the_batch_size_finder_stays_inside_a_methods_constraints():
    assert found(moco(), images=200, max_val=64) == (64, 64, 64)  # a batch may not have more keys than the queue
    with pytest.raises(ValueError, match="size: a queue of 64 can't take the 128 keys"):
        found(moco(), images=200)
    with pytest.raises(ValueError, match=r"negatives: expected at most the 3 .*; use larger batches"):
        found(groco())
    assert found(groco(), batch_size=16, init_val=16, max_trials=2)[0] == 32


def test_only_a_batch_size_that_was_set_after_construction_is_lowered():
    own = data(batch_size=64)
    own.setup()
    with pytest.raises(ValueError, match="batch_size: expected at most the 40 training images"):
        own.train_dataloader()
    own = data(batch_size=8)
    own.setup()
    own.batch_size = 64
    assert len(own.train_dataloader()) == 1
    assert own.batch_size == own.hparams["batch_size"] == 40


class Record(Callback):
    """Records the state in which a fit starts."""

    def on_train_start(self, trainer, pl_module):
        optimizer = trainer.optimizers[0]
        self.seed = getattr(pl_module, "_run_seed", None)
        self.steps = trainer.estimated_stepping_batches
        self.rates = [group["initial_lr"] for group in optimizer.param_groups]
        self.weights = {key: value.clone() for key, value in pl_module.state_dict().items()}


@pytest.mark.parametrize("network", ["test_resnet", WithDropout])
@pytest.mark.parametrize("build", [simclr, moco, tuned.build])
def test_a_fit_after_a_search_starts_like_a_fit_without_one(build, network):
    """Seed, queue, teacher, optimiser, schedule, random state and the sampler's epoch equal those without a search."""

    def fit(batch_size, *callbacks):
        torch.manual_seed(0)
        encoder = network if isinstance(network, str) else network()
        if build is tuned.build:
            torch.manual_seed(1)
            module = build(tuned.encoder(encoder), optimizer=SGD)
        else:
            module = build(encoder=encoder)
        torch.manual_seed(2)
        record = Record()
        run = trainer(max_epochs=2, callbacks=[*callbacks, record])
        run.fit(module, data(batch_size=batch_size))
        return record, module.state_dict()

    searched, after = fit(4, BatchSizeFinder(steps_per_trial=2, init_val=4, max_trials=2))
    plain, expected = fit(8)
    assert searched.seed == plain.seed
    assert searched.steps == plain.steps == 10
    assert searched.rates == plain.rates
    assert tuned.equal(searched.weights, plain.weights)
    if not (build is tuned.build and network is WithDropout):  # there, dropout advances the global random state
        assert tuned.equal(after, expected)


@pytest.mark.parametrize("build", [simclr, moco, tuned.build])
def test_the_rate_that_was_found_is_used_and_saved(build, tmp_path):
    def fit(module, *callbacks):
        rates = []

        class Rates(Callback):
            def on_train_batch_start(self, trainer, *_):
                rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

        torch.manual_seed(2)
        run = trainer(max_epochs=2, callbacks=[*callbacks, Rates()])
        run.fit(module, data(200, batch_size=8))
        run.save_checkpoint(tmp_path / "last.ckpt")
        return rates, module.state_dict()

    torch.manual_seed(0)
    searched = build(optimizer=SGD)
    torch.manual_seed(0)
    plain = build(optimizer=SGD)
    finder = LearningRateFinder(num_training_steps=30, max_lr=0.5)
    rates, after = fit(searched, finder)
    lr = finder.optimal_lr.suggestion()
    assert searched.lr == lr != SGD.keywords["lr"]
    again = type(searched).load_from_checkpoint(tmp_path / "last.ckpt")
    assert again.lr == lr
    if isinstance(searched, SimCLR):
        assert searched.base_batch_size is again.base_batch_size is None
    plain.lr = lr
    expected_rates, expected = fit(plain)
    assert rates == expected_rates  # the rates of warm-up and cosine
    assert max(max(step) for step in rates) == pytest.approx(lr)
    assert tuned.equal(after, expected)


def test_the_search_uses_each_rate_without_schedule_and_scaling():
    finder = LearningRateFinder(min_lr=1e-4, max_lr=1e-1, num_training_steps=12, early_stop_threshold=None)
    seen = []

    class Spy(SimCLR):
        def on_before_optimizer_step(self, optimizer):
            super().on_before_optimizer_step(optimizer)
            seen.append(optimizer.param_groups[0]["lr"])

    module = small(Spy, SimCLRViews(8, strength=0.5, blur=False), base_batch_size=256)
    trainer(max_epochs=1, callbacks=[finder]).fit(module, data(200, batch_size=8))
    torch.testing.assert_close(torch.tensor(seen[:12]), torch.tensor(finder.optimal_lr.results["lr"][:12]))


def test_both_finders_work_together():
    module, own = simclr(), data(200, batch_size=4)
    sizes, rates = BatchSizeFinder(steps_per_trial=1, max_trials=3), LearningRateFinder(num_training_steps=30)
    record = Record()
    run = trainer(max_epochs=2, callbacks=[sizes, rates, record])
    run.fit(module, own)
    assert record.steps == 2 * (200 // own.batch_size)
    assert record.rates == pytest.approx([module.lr] * len(record.rates))


def test_after_a_search_the_fit_reads_all_batches_of_its_loader():
    own = data(batch_size=8)
    own.setup()
    given, count = own.train_dataloader(), []

    class Count(Callback):
        def on_train_batch_end(self, *_):
            count.append(1)

    module = simclr(base_batch_size=None)
    trainer(max_epochs=1).fit(module, given)
    trainer(max_epochs=1, callbacks=[LearningRateFinder(num_training_steps=7), Count()]).fit(module, given)
    assert len(count) == len(given) == 5


@pytest.mark.parametrize("optimizer", [SGD, torch.optim.SGD, partial(torch.optim.AdamW, lr=0.1, weight_decay=0.2)])
def test_the_rate_can_be_read_and_set(optimizer):
    module = simclr(optimizer=optimizer)
    before = dict(getattr(optimizer, "keywords", {}))
    assert module.lr == before.get("lr", 1e-3)
    module.lr = 0.25
    assert module.lr == 0.25
    assert module.optimizer.keywords == {**before, "lr": 0.25}
    assert getattr(optimizer, "keywords", {}) == before


def test_an_optimiser_without_an_argument_lr_raises_an_error():
    module = simclr(optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
    assert not hasattr(module, "lr")
    with pytest.raises(AttributeError, match="lr"):
        trainer(max_epochs=1, callbacks=[LearningRateFinder()]).fit(module, data(batch_size=8))


def test_the_command_searches_for_a_learning_rate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(
        [
            *("fit", "--model", "SimCLR", "--model.encoder=test_resnet", "--data", "DigitsDataModule"),
            *("--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.batch_size=32"),
            *("--trainer.callbacks+=LearningRateFinder", "--trainer.callbacks.num_training_steps=30"),
            *("--knn_probe=null", "--linear_probe=null", "--trainer.enable_progress_bar=false"),
        ]
    )
    [path] = tmp_path.rglob("last.ckpt")
    stored = torch.load(path, weights_only=True)["hyper_parameters"]
    assert stored["base_batch_size"] is None
    assert stored["optimizer"]["init_args"]["lr"] != SimCLR().lr


def test_digits_keep_their_batch_size_for_the_learning_rate():
    """The learning rate is scaled to the batch size that the finder found, not to the first one that it tried."""
    module, own = simclr(base_batch_size=256), DigitsDataModule(batch_size=8)
    record = Record()
    finder = BatchSizeFinder(steps_per_trial=1, init_val=16, max_trials=3)
    trainer(max_epochs=1, limit_train_batches=2, callbacks=[finder, record]).fit(module, own)
    assert own.batch_size == 64
    assert record.rates == pytest.approx([0.1 * 64 / 256] * len(record.rates))
