"""The start of a fit says which strategies can't train a module, and why."""

import os

import pytest
import torch
from conformance.cases import CASES, digits, trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from processes import run_in_processes
from torch import nn

from ssl_modules import FineTuning
from ssl_modules.encoders import Encoder


class NormAct(nn.BatchNorm2d):
    """A batch norm with an activation, as timm's BatchNormAct2d."""

    def forward(self, x):
        return super().forward(x).relu()


class Anywhere(FSDPStrategy):
    """FSDP that the Trainer also accepts without a GPU."""

    root_device = torch.device("cpu")


def error_of(strategy, module, **flags):
    with pytest.raises(ValueError, match=r"strategy|sync_batchnorm") as error:
        trainer(max_steps=1, strategy=strategy, devices=2, **flags).fit(module, digits())
    return str(error.value)


def fits(strategy, module):
    run = trainer(max_steps=1, strategy=strategy, devices=2)
    run.fit(module, digits())
    return run.global_step


def network(norm):
    return nn.Sequential(nn.Conv2d(1, 8, 3), norm)


def tuned():
    return FineTuning(Encoder("test_resnet", image_size=8, in_channels=1), 10, optimizer=torch.optim.SGD)


def errors_of_a_process(rank):
    os.environ["LOCAL_RANK"] = str(rank)
    return [
        error_of(Anywhere(), CASES[2].build()),
        error_of(Anywhere(), tuned()),
        error_of("ddp", CASES[0].build(), sync_batchnorm=True),
        error_of("ddp", tuned(), sync_batchnorm=True),
        fits("ddp", CASES[0].build()),
    ]


@pytest.mark.slow
def test_a_fit_says_what_it_cannot_do_and_what_to_do():
    first, second = run_in_processes(errors_of_a_process)
    assert first == second
    for message in first[:2]:
        assert message.startswith("strategy: expected one that keeps all weights in each process, got Anywhere")
    for message in first[2:4]:
        assert message.startswith("sync_batchnorm: expected False on CPUs")
    assert first[4] == 1


class OfGPUs:
    """A strategy that will synchronise batch norms on GPUs."""

    _layer_sync = "torch"
    root_device = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"batch_norm_splits": 2}, r"replace encoder\S+, a SplitBatchNorm2d"),
        ({"encoder": network(NormAct(8))}, r"replace encoder\S+, a NormAct"),
    ],
)
def test_norms_that_torch_cannot_synchronise_are_named(given, found):
    module = CASES[0].build(**given)
    module.trainer = trainer()
    module.trainer._accelerator_connector.strategy = OfGPUs()
    with pytest.raises(ValueError, match=found):
        module.setup("fit")
    module.setup("validate")


def test_plain_norms_can_be_synchronised():
    module = CASES[2].build()
    module.trainer = trainer()
    module.trainer._accelerator_connector.strategy = OfGPUs()
    module.setup("fit")


def test_weights_sharded_by_the_module_itself_are_refused():
    module = CASES[0].build()
    module.trainer = trainer()
    module.trainer._accelerator_connector.strategy = ModelParallelStrategy()
    with pytest.raises(ValueError, match="got ModelParallelStrategy, which shards them"):
        module.setup("fit")
