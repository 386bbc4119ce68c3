import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from ssl_modules.optim import param_groups, warmup_cosine


def test_groups_are_those_of_timm():
    model = timm.create_model("test_resnet")
    decay, no_decay = param_groups([model])
    expected = timm.optim.param_groups_weight_decay(model, weight_decay=0.1)
    for group, reference in zip((no_decay, decay), expected, strict=True):
        assert {id(p) for p in group["params"]} == {id(p) for p in reference["params"]}
    assert "weight_decay" not in decay  # the optimiser's own
    assert no_decay["weight_decay"] == 0


def test_shared_and_frozen_parameters_and_empty_groups():
    linear = nn.Linear(3, 2, bias=False)
    frozen = nn.Linear(2, 2)
    frozen.requires_grad_(False)
    [group] = param_groups([linear, nn.Sequential(linear, frozen)])
    assert group["params"] == [linear.weight]


@pytest.mark.parametrize(("steps", "warmup"), [(20, 5), (20, 0), (7, 7), (1, 0)])
def test_warmup_and_cosine_are_the_formula(steps, warmup):
    factor = warmup_cosine(steps, warmup)
    for s in range(steps):
        expected = (s + 1) / warmup if s < warmup else (1 + math.cos(math.pi * (s - warmup) / (steps - warmup))) / 2
        assert factor(s) == pytest.approx(expected, abs=1e-12)
    if steps > warmup:
        assert factor(steps) == pytest.approx(0, abs=1e-12)
        assert factor(steps + 100) == factor(steps)  # never rises again


def test_cosine_is_torchs():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    factor = warmup_cosine(10, 0)
    for s in range(10):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(factor(s), abs=1e-12)
        optimizer.step()
        schedule.step()


def test_the_rates_are_sces_after_its_first_step_which_has_rate_zero():
    official = np.load(Path(__file__).parent / "reference" / "sce_schedules.npz")["lr"]
    assert official[0] == 0
    factor = warmup_cosine(steps=69, warmup_steps=9)
    np.testing.assert_allclose([0.06 * factor(s) for s in range(69)], official[1:], rtol=0, atol=1e-12)
