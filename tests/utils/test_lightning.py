"""Each private name of Lightning that we use still works as we need."""

import lightning.pytorch as pl
import pytest
import torch

from ssl_modules.utils.lightning import (
    NO_INSTANTIATOR,
    attached_trainer,
    class_method_only,
    restore_loader_states,
    state_key,
)


class Loader(torch.utils.data.DataLoader):
    state = None

    def state_dict(self):
        return {"place": 3}

    def load_state_dict(self, state):
        self.state = state


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(**settings):
    return pl.Trainer(accelerator="cpu", logger=False, barebones=True, **settings)


def test_the_trainer_of_a_module():
    module = Module()
    assert attached_trainer(module) is None
    fit = trainer(max_epochs=1)
    fit.fit(module, torch.utils.data.DataLoader(torch.zeros(4, 2)))
    assert attached_trainer(module) is fit


def test_a_class_method_refuses_instances():
    class Plain:
        @class_method_only
        def make(cls):
            return cls

    assert Plain.make() is Plain
    with pytest.raises(TypeError, match="make"):
        Plain().make()


def test_the_instantiator_of_a_checkpoint_is_not_called(tmp_path):
    path = tmp_path / "last.ckpt"
    state = {"_instantiator": "os.abort"}
    version = pl.__version__
    torch.save(
        {"state_dict": Module().state_dict(), "hyper_parameters": state, "pytorch-lightning_version": version}, path
    )
    assert isinstance(Module.load_from_checkpoint(path, weights_only=True, **NO_INSTANTIATOR), Module)


def test_a_loader_gets_its_state_back():
    class Resumed(Module):
        def on_train_start(self):
            fit_loop = self.trainer.fit_loop
            fit_loop._restarting, fit_loop._combined_loader_states_to_load = True, [{"place": 2}]
            restore_loader_states(self.trainer)

    loader = Loader(torch.zeros(4, 2))
    trainer(max_epochs=1).fit(Resumed(), loader)
    assert loader.state == {"place": 2}


def test_keys_of_two_callbacks_differ():
    first, second = (state_key(pl.Callback(), name=name) for name in ("one", "two"))
    assert first != second
    assert "one" in first
