"""The optimiser of a run: learning rates scaled by images per step and by group."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ssl_modules.optim import WarmupCosine, build_optimizer


def run(batch_size=64, world_size=1, accumulate=1):
    """Return the attributes of a Trainer that build_optimizer reads."""
    loop = SimpleNamespace(setup_data=lambda: None)
    return SimpleNamespace(
        fit_loop=loop,
        train_dataloader=SimpleNamespace(batch_size=batch_size),
        world_size=world_size,
        accumulate_grad_batches=accumulate,
        estimated_stepping_batches=10,
        num_training_batches=10,
    )


def rates(trainer, base_batch_size, **group):
    groups = [{"params": nn.Linear(2, 2).parameters(), **group}]
    built = build_optimizer(partial(torch.optim.SGD, lr=0.3), groups, WarmupCosine(0), trainer, base_batch_size)
    return [group["lr"] for group in built["optimizer"].param_groups]


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, 64), ({"world_size": 4}, 256), ({"accumulate": 2}, 128), ({"world_size": 2, "accumulate": 3}, 384)],
)
def test_rates_are_for_the_images_of_a_step(given, expected):
    assert rates(run(**given), 256) == pytest.approx([0.3 * expected / 256], rel=1e-15)


def test_without_a_base_rates_stay():
    assert rates(run(world_size=4), None) == [0.3]


def test_a_group_may_have_a_scale():
    assert rates(run(), None, lr_scale=0.5) == [0.15]
    assert rates(run(), 128, lr_scale=0.5) == pytest.approx([0.075], rel=1e-15)


def test_a_loader_without_a_batch_size_is_refused():
    with pytest.raises(ValueError, match="base_batch_size: the training loader has no batch_size"):
        rates(run(batch_size=None), 256)
