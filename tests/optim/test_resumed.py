"""A resumed run uses the optimiser's options of its module, not those of the checkpoint."""

import warnings
from functools import partial

import pytest
import torch
from conformance.cases import CASES, digits, trainer

from ssl_modules import MoCo
from ssl_modules.losses import InfoNCE


def resumed(tmp_path, first, second, **settings):
    """Fit an epoch with the first optimiser, then another epoch with the second; return the second's Trainer."""
    stop = trainer(max_steps=4, limit_train_batches=4)
    stop.fit(CASES[0].build(optimizer=first, **settings), datamodule=digits())
    stop.save_checkpoint(tmp_path / "last.ckpt")
    again = trainer(max_steps=8, limit_train_batches=4)
    again.fit(CASES[0].build(optimizer=second, **settings), datamodule=digits(), ckpt_path=tmp_path / "last.ckpt")
    return again


def sgd(**options):
    return partial(torch.optim.SGD, **options)


def test_configured_options_win_and_both_values_are_said(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = resumed(
            tmp_path, sgd(lr=0.1, weight_decay=1e-4, momentum=0.9), sgd(lr=0.2, weight_decay=1e-3, momentum=0.9)
        )
    said = [str(warning.message) for warning in caught if "optimizer: continues" in str(warning.message)]
    assert said == [
        "optimizer: continues with lr=0.2, as configured; the checkpoint has lr=0.1",
        "optimizer: continues with weight_decay=0.001, as configured; the checkpoint has weight_decay=0.0001",
    ]
    for group in fit.optimizers[0].param_groups:
        assert group["initial_lr"] == 0.2
        assert group["weight_decay"] in (0.001, 0.0)
    assert fit.lr_scheduler_configs[0].scheduler.base_lrs == [0.2] * len(fit.optimizers[0].param_groups)


def test_equal_options_say_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="optimizer: continues")
        fit = resumed(tmp_path, sgd(lr=0.1, momentum=0.9), sgd(lr=0.1, momentum=0.9))
    assert fit.optimizers[0].param_groups[0]["initial_lr"] == 0.1


def test_another_method_is_refused_by_name(tmp_path):
    stop = trainer(max_steps=1)
    stop.fit(CASES[0].build(), datamodule=digits())
    stop.save_checkpoint(tmp_path / "last.ckpt")
    other = next(case for case in CASES if case.method is MoCo).build()
    with pytest.raises(ValueError, match="ckpt_path: the checkpoint is of SimCLR, but the module is a MoCo"):
        trainer(max_steps=2).fit(other, datamodule=digits(), ckpt_path=tmp_path / "last.ckpt")


def test_an_argument_that_has_changed_is_said(tmp_path):
    stop = trainer(max_steps=1)
    stop.fit(CASES[0].build(loss=InfoNCE(temperature=0.2)), datamodule=digits())
    stop.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.warns(UserWarning, match=r"loss: continues with .*0.9.*; the checkpoint was trained with .*0.2"):
        trainer(max_steps=2).fit(
            CASES[0].build(loss=InfoNCE(temperature=0.9)), datamodule=digits(), ckpt_path=tmp_path / "last.ckpt"
        )
