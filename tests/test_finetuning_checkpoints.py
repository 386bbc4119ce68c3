"""Checkpoints of fine-tuning, from Python and from the command."""

from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from conformance.cases import trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from torch import nn
from tuned import SGD, Net, build, encoder, equal, images, labels, loader, weights

from ssl_modules import FineTuning, SimCLR
from ssl_modules.datamodules import DigitsDataModule
from ssl_modules.optim import WarmupCosine


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
