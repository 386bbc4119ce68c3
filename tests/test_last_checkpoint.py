"""SIGTERM saves the run before the process ends."""

import os
import signal

import pytest
import torch
from conformance.cases import CASES, digits
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ssl_modules import LastCheckpoint, SafeCheckpointIO


class Signal(Callback):
    """Sends this process a signal, or raises, in a given step or in validation."""

    def __init__(self, step=None, in_validation=False, error=None):
        self.step, self.in_validation, self.error = step, in_validation, error

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step and not self.in_validation:
            self._send()

    def on_validation_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        if self.in_validation and trainer.global_step == self.step and batch_idx == 0:
            self._send()

    def _send(self):
        if self.error is not None:
            raise self.error
        os.kill(os.getpid(), signal.SIGTERM)


def run(folder, *callbacks, path=None):
    seed_everything(0 if path is None else 1)
    module = CASES[0].build()
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        callbacks=[*callbacks, LastCheckpoint(dirpath=folder)],
        plugins=[SafeCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=digits(), ckpt_path=path)
    return module.state_dict()


@pytest.mark.parametrize("step", [0, 4, 5, 9])
def test_sigterm_saves_after_the_step_and_the_run_continues_exactly(tmp_path, step):
    whole = run(tmp_path / "whole")
    with pytest.raises(SIGTERMException):
        run(tmp_path, Signal(step))
    path = tmp_path / "last.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == step + 1
    torch.testing.assert_close(run(tmp_path, path=path), whole, rtol=0, atol=0)


def test_another_error_replaces_no_checkpoint(tmp_path):
    with pytest.raises(RuntimeError, match="mine"):
        run(tmp_path, Signal(8, error=RuntimeError("mine")))
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 6  # the end of the first epoch
