import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from ssl_modules.optim import WarmupCosine, param_groups, scheduled


def test_groups_are_those_of_timm():
    model = timm.create_model("test_resnet")
    decay, no_decay = param_groups([model])
    expected = timm.optim.param_groups_weight_decay(model, weight_decay=0.1)
    for group, reference in zip((no_decay, decay), expected, strict=True):
        assert {id(p) for p in group["params"]} == {id(p) for p in reference["params"]}
    assert "weight_decay" not in decay  # the optimiser's value applies
    assert no_decay["weight_decay"] == 0


def test_shared_and_frozen_parameters_and_empty_groups():
    linear = nn.Linear(3, 2, bias=False)
    frozen = nn.Linear(2, 2)
    frozen.requires_grad_(False)
    [group] = param_groups([linear, nn.Sequential(linear, frozen)])
    assert group["params"] == [linear.weight]


@pytest.mark.parametrize(("steps", "warmup"), [(20, 5), (20, 0), (7, 7), (1, 0)])
def test_warmup_and_cosine_are_the_formula(steps, warmup):
    schedule = WarmupCosine(warmup)
    for s in range(steps):
        expected = (s + 1) / warmup if s < warmup else (1 + math.cos(math.pi * (s - warmup) / (steps - warmup))) / 2
        assert schedule(s, steps) == pytest.approx(expected, abs=1e-12)
    if steps > warmup:
        assert schedule(steps, steps) == pytest.approx(0, abs=1e-12)
        assert schedule(steps + 100, steps) == schedule(steps, steps)  # never rises again


@pytest.mark.parametrize(("share", "steps", "warmup"), [(0.25, 20, 5), (0.25, 10, 2), (1.0, 7, 7), (0.0, 3, 0)])
def test_a_float_is_a_share_of_the_steps(share, steps, warmup):
    factors = [[WarmupCosine(w)(s, steps) for s in range(steps)] for w in (share, warmup)]
    assert factors[0] == factors[1]


def test_one_is_a_step_and_one_point_zero_is_the_whole_run():
    assert [WarmupCosine(1)(s, 4) for s in (0, 1)] == [1, 1]
    assert [WarmupCosine(1.0)(s, 4) for s in range(4)] == [0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize("warmup", [1.5, -0.1, -1, True, "0.1", None])
def test_another_warmup_is_refused(warmup):
    with pytest.raises((TypeError, ValueError), match=rf"warmup: expected .*int.*, got {warmup!r}"):
        WarmupCosine(warmup)


@pytest.mark.parametrize("steps", [-1, 0, math.inf])
def test_a_schedule_needs_an_end(steps):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match="max_epochs: a schedule needs an end"):
        scheduled(optimizer, steps, WarmupCosine())


def test_cosine_is_torchs():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    of_torch = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    schedule = WarmupCosine(0)
    for s in range(10):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(schedule(s, 10), abs=1e-12)
        optimizer.step()
        of_torch.step()


def test_the_rates_are_sces_after_its_first_step_which_has_rate_zero():
    official = np.load(Path(__file__).parents[1] / "reference" / "sce_schedules.npz")["lr"]
    assert official[0] == 0
    schedule = WarmupCosine(9)
    np.testing.assert_allclose([0.06 * schedule(s, 69) for s in range(69)], official[1:], rtol=0, atol=1e-15)
