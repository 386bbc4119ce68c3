"""The Trainer's hooks around the training step: optimiser, schedule, validation and prediction."""

import warnings
from functools import partial

import pytest
import torch
from conformance.cases import trainer
from lightning.pytorch import LightningDataModule
from modules import build, fit, loader, pixels
from timm.optim import Lars
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ssl_modules import SimCLR
from ssl_modules.batch import read_batch
from ssl_modules.extractions import AllViews
from ssl_modules.objective import objective
from ssl_modules.optim import WarmupCosine
from ssl_modules.similarities import Cosine


def test_biases_and_norms_do_not_decay():
    module = build("test_resnet", optimizer=partial(torch.optim.SGD, lr=0.1, weight_decay=0.5))
    decay, no_decay = fit(module).optimizers[0].param_groups
    assert (decay["weight_decay"], no_decay["weight_decay"]) == (0.5, 0)
    norms = [p for m in module.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d) for p in m.parameters()]
    assert {id(p) for p in norms} <= {id(p) for p in no_decay["params"]}
    assert len(decay["params"]) + len(no_decay["params"]) == len(list(module.parameters()))


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_learning_rate_is_in_proportion_to_the_images_of_an_optimiser_step(accumulate):
    t = fit(build(base_batch_size=16), accumulate_grad_batches=accumulate)
    assert t.lr_scheduler_configs[0].scheduler.base_lrs == [pytest.approx(0.1 * 4 * accumulate / 16)] * 2
    assert fit(build()).lr_scheduler_configs[0].scheduler.base_lrs == [0.1, 0.1]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_schedule_steps_once_per_optimiser_step(accumulate):
    rates = []

    class Watched(SimCLR):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
            rates.append(optimizer.param_groups[0]["lr"])
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    arguments = {**build().arguments, "schedule": WarmupCosine(0.25)}
    fit(Watched(**arguments), accumulate_grad_batches=accumulate)
    steps = 8 // accumulate
    schedule = WarmupCosine(steps // 4)
    assert rates == pytest.approx([0.1 * schedule(s, steps, steps // 2) for s in range(steps)])


class Listening(AllViews):
    """An extraction that records the calls of its hooks."""

    def build(self, *arguments):
        super().build(*arguments)
        self.calls = []

    def on_fit_start(self, images, steps, steps_per_epoch):
        self.calls.append(("fit", images, steps, steps_per_epoch))

    def before_step(self, step):
        self.calls.append(("step", step))

    def after_backward(self):
        self.calls.append("backward")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_extraction_gets_the_number_of_optimiser_steps(accumulate):
    module = build(extraction=Listening())
    fit(module, accumulate_grad_batches=accumulate)
    batches, steps = 8, 8 // accumulate
    of_batches = [call for n in range(batches) for call in (("step", n // accumulate), "backward")]
    assert module.extraction.calls == [("fit", 32, steps, steps), *of_batches]


def test_an_extraction_gets_none_if_the_number_of_images_is_unknown():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(pixels())

    module = build(extraction=Listening())
    trainer(max_steps=1).fit(module, DataLoader(Stream(), batch_size=4))
    assert module.extraction.calls == [("fit", None, 1, float("inf")), ("step", 0), "backward"]


def test_a_loader_without_a_length_needs_max_steps():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(pixels())

    stream = DataLoader(Stream(), batch_size=4)
    with pytest.raises(ValueError, match="max_epochs: a schedule needs an end"):
        trainer(max_epochs=1).fit(build(), stream)
    t = trainer(max_steps=4)
    module = build()
    t.fit(module, stream)
    assert t.optimizers[0].param_groups[0]["lr"] < 0.02  # near the end of the cosine
    assert t.global_step == 4


def test_a_loader_without_a_batch_size_can_not_scale_the_learning_rate():
    with pytest.raises(ValueError, match="base_batch_size: the training loader has no batch_size"):
        trainer(max_steps=1).fit(build(base_batch_size=16), DataLoader([pixels()], batch_size=None))


def test_a_schedule_needs_an_end():
    with pytest.raises(ValueError, match="max_epochs: a schedule needs an end"):
        fit(build(), max_epochs=-1)


@pytest.mark.parametrize(
    ("arguments", "warned"), [({}, True), ({"weight_decay": 1e-6}, False), ({"always_adapt": True}, False)]
)
def test_lars_without_weight_decay_warns_that_it_adapts_nothing(arguments, warned):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(build(optimizer=partial(Lars, lr=0.1, **arguments)), max_steps=1)
    assert any("timm's Lars adapts no group" in str(w.message) for w in caught) == warned


@pytest.mark.parametrize("block", [None, 3])
def test_validation_and_test_log_loss_and_how_early_anchors_find_a_positive(block):
    module = build(anchor_block=block)
    views = [torch.rand(6, 3, 8, 8), torch.rand(6, 3, 8, 8)]
    data = DataLoader([(views, torch.arange(6))], batch_size=None)
    [validated] = trainer().validate(module, data, verbose=False)
    [tested] = trainer().test(module, data, verbose=False)
    module.eval()
    batch, generator = read_batch((views, None)), torch.Generator()
    contrasts = module.contrasts(batch, module.embed(module.views(batch, generator)), generator)
    loss = objective(contrasts, module.similarity, module.loss).item()
    scores = Cosine()(contrasts[0].anchors, contrasts[0].candidates).fill_diagonal_(-2)
    own = torch.arange(12).roll(6)
    hits = (scores.argmax(1) == own).float().mean().item()
    ahead = (scores - scores.gather(1, own[:, None])).sign().add(1).div(2)  # a tie counts half, also with itself
    reciprocal_rank = (0.5 + ahead.sum(1)).reciprocal().mean().item()  # average precision with one positive
    values = {"loss": loss, "contrast_top1": hits, "contrast_ap": reciprocal_rank}
    assert validated == pytest.approx({f"val/{name}": value for name, value in values.items()}, rel=1e-5)
    assert tested == pytest.approx({f"test/{name}": value for name, value in values.items()}, rel=1e-5)


def test_a_single_image_left_for_last_does_not_stop_validation():
    module = build()
    t = trainer()
    with_last, without = (t.validate(module, loader(n=n), verbose=False)[0] for n in (9, 8))
    assert with_last == without


def test_several_validation_loaders_have_values_of_their_own():
    [first, second] = trainer().validate(build(), [loader(), loader(batch_size=4)], verbose=False)
    assert first["val/loss/dataloader_idx_0"] != second["val/loss/dataloader_idx_1"]


def test_validation_views_are_the_same_at_every_time():
    module = build()
    data = DataLoader(TensorDataset(pixels()), batch_size=4)
    results = [trainer().validate(module, data, verbose=False) for _ in range(2)]
    assert results[0] == results[1]


def test_the_share_is_found_in_full_precision_under_autocast():
    seen = []

    class Watched(Cosine):
        def forward(self, x, y):
            scores = super().forward(x, y)
            seen.append(scores.dtype)
            return scores

    module = build(similarity=Watched())
    data = DataLoader(TensorDataset(pixels()), batch_size=8)
    trainer(precision="bf16-mixed").validate(module, data, verbose=False)
    assert set(seen) == {torch.float32}


class Indexed(LightningDataModule):
    def predict_dataloader(self):
        return DataLoader(TensorDataset(pixels(), torch.zeros(8), torch.arange(100, 108)), batch_size=4)


def test_prediction_gives_features_and_index():
    module = build()
    (features, index), (_, second) = trainer().predict(module, Indexed())
    torch.testing.assert_close(features, module.eval()(pixels()[:4]))
    assert torch.cat([index, second]).tolist() == list(range(100, 108))
    with pytest.raises(TypeError, match="batch: expected images to predict, got views"):
        module.predict_step(([torch.rand(2, 3, 8, 8)] * 2,), 0)
