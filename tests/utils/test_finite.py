"""A fit ends at a loss that is not finite, with finite weights and checkpoints."""

import os
import re
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from modules import build, loader, pixels
from processes import run_in_processes
from torch.utils.data import DataLoader, TensorDataset

from ssl_modules import FineTuning, SafeCheckpointIO, SimCLR
from ssl_modules.utils.finite import FiniteLoss

RUNS = int(os.environ.get("FAULTS", "2"))


def trainer(**settings):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", **{**quiet, "enable_model_summary": False, **settings})


class Spoiled(SimCLR):
    """A module whose loss, gradient, weights or buffers are not finite from a given batch on."""

    def __init__(self, *args, what="loss", at=3, value=float("nan"), **settings):
        super().__init__(*args, **settings)
        self.what, self.at, self.value = what, at, value

    def _is_due(self):
        return self.trainer.global_step == self.at

    def extra_loss(self, batch, features, embeddings):
        return features.sum() * 0 + self.value if self.what == "loss" and self._is_due() else None

    def on_after_backward(self):
        super().on_after_backward()
        if self.what == "gradient" and self._is_due():
            next(self.parameters()).grad.view(-1)[0] = self.value

    def on_train_batch_start(self, batch, batch_idx):
        super().on_train_batch_start(batch, batch_idx)
        if self._is_due():
            if self.what == "weight":
                next(self.parameters()).data.view(-1)[0] = self.value
            if self.what == "buffer":
                next(self.encoder.network.buffers()).data.view(-1)[0] = self.value


def spoiled(**given):
    usual = build()
    return Spoiled(
        usual.augmentation,
        usual.encoder.network,
        image_size=8,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        base_batch_size=None,
        **given,
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_such_loss_stops_the_fit_before_the_weights_change(value):
    module, weights = spoiled(value=value), []
    watch = pl.callbacks.LambdaCallback(
        on_train_batch_start=lambda *_: weights.append({n: p.detach().clone() for n, p in module.named_parameters()})
    )
    with pytest.raises(FloatingPointError) as error:
        trainer(max_epochs=3, callbacks=[watch]).fit(module, loader(n=16))
    message = str(error.value)
    assert re.match(rf"loss: {value} at step 3, epoch 1; the weights are finite, so look at the images", message)
    assert "learning rate 0.0" in message
    assert message.endswith("the last checkpoint is of an earlier step")
    assert len(weights) == 4
    torch.testing.assert_close(dict(module.named_parameters()), weights[-1], rtol=0, atol=0)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_loss_of_any_accumulated_batch_counts(accumulated):
    module = spoiled(at=0)
    with pytest.raises(FloatingPointError, match="loss: nan at step 0"):
        trainer(max_epochs=1, accumulate_grad_batches=accumulated).fit(module, loader(n=16))


def test_weights_that_are_not_finite_are_said():
    with pytest.raises(FloatingPointError, match=r"weights hold NaN since an earlier step; .*gradient_clip_val"):
        trainer(max_epochs=9).fit(spoiled(what="weight"), loader())


def test_half_precision_that_overflows_is_said():
    with pytest.raises(FloatingPointError, match=r'precision="16-true" overflows above 65,504; use "bf16-mixed"'):
        trainer(max_epochs=9, precision="16-true").fit(spoiled(value=1e6), loader())


def test_a_learning_rate_that_diverges_stops_the_run():
    module = build(optimizer=partial(torch.optim.SGD, lr=1e38))
    with pytest.raises(FloatingPointError, match=r"learning rate .*e\+3\d: lower the learning rate"):
        trainer(max_steps=200).fit(module, loader(n=16))


def test_images_of_nan_stop_fine_tuning():
    images = torch.zeros(8, 3, 8, 8)
    tuning = FineTuning(build().encoder, 2, optimizer=partial(torch.optim.SGD, lr=0.1))
    with torch.no_grad():
        tuning.head.weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="loss: nan at step 0"):
        trainer(max_steps=2).fit(tuning, DataLoader(TensorDataset(images, torch.arange(8) % 2), batch_size=8))


@pytest.mark.parametrize(
    ("what", "value"), [("gradient", float("nan")), ("gradient", float("inf")), ("buffer", float("nan"))]
)
def test_a_checkpoint_of_such_weights_is_refused_and_the_file_stays(tmp_path, what, value):
    module = spoiled(what=what, value=value)
    saves = ModelCheckpoint(tmp_path, "last", every_n_train_steps=1, enable_version_counter=False)
    fit = trainer(max_epochs=9, callbacks=[saves], enable_checkpointing=True, plugins=[SafeCheckpointIO()])
    with pytest.raises(FloatingPointError, match=r"checkpoint: .* holds NaN or infinity, so nothing is saved"):
        fit.fit(module, loader())
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert stored["global_step"] == 3
    assert all(value.isfinite().all() for value in stored["state_dict"].values())


def test_infinity_in_a_buffer_is_no_fault(tmp_path):
    class Masked(SimCLR):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            self.register_buffer("mask", torch.full((2,), -torch.inf))

    usual = build()
    module = Masked(usual.augmentation, usual.encoder.network, image_size=8)
    fit = trainer(max_steps=1)
    fit.fit(module, loader())
    fit.save_checkpoint(tmp_path / "last.ckpt")


def infinite_weight(tmp_path):
    module = build()
    fit = trainer(max_steps=1)
    fit.fit(module, loader())
    next(module.parameters()).data.view(-1)[0] = float("inf")
    fit.save_checkpoint(tmp_path / "last.ckpt")


def test_an_infinite_weight_is_refused(tmp_path):
    with pytest.raises(FloatingPointError, match=r"checkpoint: encoder.backbone.* holds NaN or infinity"):
        infinite_weight(tmp_path)
    assert not (tmp_path / "last.ckpt").exists()


def losses_of_a_process(rank):
    """Let the second of three losses be NaN in one process; return the steps at which this process raises."""
    watch, raised = FiniteLoss(), []
    for step, loss in enumerate([1.0, float("nan") if rank else 1.0, 1.0]):
        watch.on_before_backward(torch.tensor(loss))
        if not watch._losses.isfinite():
            raised.append(step)
        watch._losses = None
    return raised


def test_all_processes_stop_at_the_loss_of_one():
    assert run_in_processes(losses_of_a_process) == [[1], [1]]


@pytest.mark.slow
@pytest.mark.parametrize("run", range(RUNS))
def test_no_checkpoint_holds_nan_wherever_it_comes_from(tmp_path, run):
    generator = torch.Generator().manual_seed(run)
    at = int(torch.randint(100, 1000, (), generator=generator))
    what = ["loss", "gradient", "weight", "buffer"][run % 4]
    module = spoiled(what=what, at=at)
    saves = [
        ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=50, save_top_k=-1),
        ModelCheckpoint(tmp_path, "last", every_n_train_steps=1, enable_version_counter=False),
    ]
    fit = trainer(max_steps=1000, callbacks=saves, enable_checkpointing=True, plugins=[SafeCheckpointIO()])
    with pytest.raises(FloatingPointError, match=r"(loss|checkpoint): .*"):
        fit.fit(module, DataLoader(TensorDataset(pixels(64)), batch_size=8))
    files = list(tmp_path.glob("*.ckpt"))
    assert len(files) > at // 50
    for path in files:
        stored = torch.load(path, weights_only=True)
        assert stored["global_step"] <= at + 1
        tensors = [*stored["state_dict"].values()]
        tensors += [value for state in stored["optimizer_states"][0]["state"].values() for value in state.values()]
        assert all(value.isfinite().all() for value in tensors if value is not None)
