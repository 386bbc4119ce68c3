import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader

from ssl_modules import SimCLR
from ssl_modules.optim import Constant, EpochCosine, MultiStep, TorchSchedule, WarmupCosine, param_groups
from ssl_modules.utils.configurable import build, to_config


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


def factors(schedule, steps, steps_per_epoch=1):
    return [schedule(s, steps, steps_per_epoch) for s in range(steps)]


def half_cosine(progress):
    return (1 + math.cos(math.pi * progress)) / 2


@pytest.mark.parametrize(("steps", "warmup"), [(20, 5), (20, 0), (7, 7), (1, 0)])
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_warmup_and_cosine_follow_the_formula(steps, warmup, floor):
    schedule = WarmupCosine(warmup, floor=floor)
    for s in range(steps):
        expected = s / warmup if s < warmup else floor + (1 - floor) * half_cosine((s - warmup) / (steps - warmup))
        assert schedule(s, steps, 1) == pytest.approx(expected, abs=1e-12)
    if steps > warmup:
        assert schedule(steps, steps, 1) == pytest.approx(floor, abs=1e-12)
        assert schedule(steps + 100, steps, 1) == schedule(steps, steps, 1)  # never rises again


@pytest.mark.parametrize(
    ("ramp", "expected"),
    [("s/W", [0, 0.25, 0.5, 0.75, 1]), ("s/(W-1)", [0, 1 / 3, 2 / 3, 1, 1]), ("(s+1)/W", [0.25, 0.5, 0.75, 1, 1])],
)
@pytest.mark.parametrize("cls", [WarmupCosine, Constant, partial(MultiStep, (100,))])
def test_each_ramp_computes_the_formula_in_its_name(cls, ramp, expected):
    assert factors(cls(warmup=4, ramp=ramp), 100)[:5] == pytest.approx(expected, abs=1e-12)


def test_a_warmup_of_one_step():
    assert [WarmupCosine(1, ramp)(0, 4, 1) for ramp in ("s/W", "s/(W-1)", "(s+1)/W")] == [0, 0, 1]


@pytest.mark.parametrize(("share", "steps", "warmup"), [(0.25, 20, 5), (0.25, 10, 2), (1.0, 7, 7), (0.0, 3, 0)])
def test_a_float_is_a_share_of_the_steps(share, steps, warmup):
    assert factors(WarmupCosine(share), steps) == factors(WarmupCosine(warmup), steps)


def test_one_is_a_step_and_one_point_zero_is_the_whole_run():
    assert factors(WarmupCosine(1), 4)[:2] == [0, 1]
    assert factors(WarmupCosine(1.0), 4) == [0, 0.25, 0.5, 0.75]


def test_with_per_epoch_the_rate_stays_that_of_the_epochs_first_step():
    by_step = factors(WarmupCosine(0), 12, 3)
    assert factors(WarmupCosine(0, per="epoch"), 12, 3) == [by_step[s // 3 * 3] for s in range(12)]
    # The warm-up rises at each step, even if its length is given in epochs.
    with_warmup = factors(WarmupCosine(2, per="epoch"), 12, 3)
    assert with_warmup == [*(s / 6 for s in range(6)), *[1.0] * 3, *[0.5] * 3]
    assert factors(WarmupCosine(0.5, per="epoch"), 12, 3) == with_warmup


def test_milestones_are_epochs_or_shares_of_the_run():
    expected = [1.0] * 6 + [0.2] * 3 + [0.2**2] * 3
    assert factors(MultiStep((2, 3), gamma=0.2), 12, 3) == expected
    assert factors(MultiStep((0.5, 0.75), gamma=0.2), 12, 3) == expected
    assert factors(MultiStep((5 / 6, 14 / 15), gamma=0.2), 600, 2) == factors(MultiStep((250, 280), gamma=0.2), 600, 2)
    parameter = nn.Parameter(torch.zeros(1))
    of_torch = torch.optim.lr_scheduler.MultiStepLR(torch.optim.SGD([parameter], lr=1.0), [2, 3], gamma=0.2)
    for epoch in range(4):
        assert of_torch.get_last_lr()[0] == pytest.approx(expected[3 * epoch])
        of_torch.optimizer.step()
        of_torch.step()


@pytest.mark.parametrize("schedule", [WarmupCosine, Constant, EpochCosine, partial(MultiStep, (1,))])
@pytest.mark.parametrize("warmup", [1.5, -0.1, -1, True, "0.1", None])
def test_a_warmup_outside_its_range_raises_an_error(schedule, warmup):
    with pytest.raises((TypeError, ValueError), match=rf"warmup: expected .*int.*, got {warmup!r}"):
        schedule(warmup=warmup)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WarmupCosine(floor=1.5), "floor: expected"),
        (lambda: WarmupCosine(ramp="linear"), "ramp: expected"),
        (lambda: EpochCosine(start=-1.0), "start: expected"),
        (lambda: MultiStep(()), "milestones: expected"),
        (lambda: MultiStep((1.5,)), "milestones: expected a share of the run"),
        (lambda: MultiStep((1,), gamma=0.0), "gamma: expected"),
        (lambda: TorchSchedule(0.1), "scheduler: expected a function of an optimiser"),
        (lambda: TorchSchedule(StepLR(sgd(), 3)), "scheduler: expected a function of an optimiser"),
        (lambda: TorchSchedule(ReduceLROnPlateau), "scheduler: ReduceLROnPlateau needs a metric"),
        (lambda: TorchSchedule(partial(ReduceLROnPlateau, patience=3)), "scheduler: ReduceLROnPlateau needs a metric"),
        (
            lambda: attached(TorchSchedule(plateau), 10, 5),
            "ReduceLROnPlateau needs a metric",
        ),
    ],
)
def test_errors_name_bad_arguments(build, message):
    with pytest.raises((TypeError, ValueError), match=message):
        build()


def plateau(optimizer):
    return ReduceLROnPlateau(optimizer)


def sgd(lr=1.0):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def attached(schedule, steps, steps_per_epoch, lr=1.0):
    return schedule.attach(sgd(lr), steps, steps_per_epoch)["lr_scheduler"]


@pytest.mark.parametrize("steps", [-1, 0, math.inf])
def test_a_schedule_needs_an_end(steps):
    with pytest.raises(ValueError, match="max_epochs: a schedule needs an end"):
        attached(WarmupCosine(), steps, 5)


@pytest.mark.parametrize(
    "schedule", [WarmupCosine(0, per="epoch"), WarmupCosine(1, per="epoch"), EpochCosine(), MultiStep((3,))]
)
def test_a_schedule_by_epochs_needs_the_length_of_an_epoch(schedule):
    with pytest.raises(ValueError, match=r"schedule: needs the length of an epoch, .*; set Trainer\(limit_train_batch"):
        attached(schedule, 10, math.inf)
    attached(WarmupCosine(), 10, math.inf)
    attached(MultiStep((0.5,)), 10, math.inf)


def test_cosine_is_torchs():
    of_torch = torch.optim.lr_scheduler.CosineAnnealingLR(sgd(), T_max=10)
    for factor in factors(WarmupCosine(0), 10):
        assert of_torch.get_last_lr()[0] == pytest.approx(factor, abs=1e-12)
        of_torch.optimizer.step()
        of_torch.step()


def test_the_rates_equal_those_of_sces_code():
    official = np.load(Path(__file__).parents[1] / "reference" / "sce_schedules.npz")["lr"]
    rates = [0.06 * factor for factor in factors(WarmupCosine(10, "s/(W-1)"), len(official))]
    np.testing.assert_allclose(rates, official, rtol=0, atol=1e-15)


# Learning rates of runs of the official programs, over 4 epochs of 3 steps. The warm-up takes one or two epochs.
OFFICIAL = {
    "GroCo": (6.0, WarmupCosine(0.25), [0, 2, 4, 6, 5.819077862357725, 5.298133329356934, 4.5, 3.5209445330007916]),
    "SCE": (0.6, WarmupCosine(0.25, "s/(W-1)"), [0, 0.3, 0.6, 0.6, 0.5819077862357726, 0.5298133329356933, 0.45]),
    "MoCo": (0.3, WarmupCosine(0, per="epoch"), [0.3] * 3 + [0.2560660171779821] * 3 + [0.15] * 3),
    "RINCE": (
        0.5,
        EpochCosine(2, start=0.02, floor=0.001),
        [0.01 + 0.24025 * s / 6 for s in range(6)] + [0.07365008139865978] * 3 + [0.0005] * 3,
    ),
}


@pytest.mark.parametrize("method", OFFICIAL)
def test_the_rates_equal_those_of_official_runs(method):
    rate, schedule, expected = OFFICIAL[method]
    found = [rate * factor for factor in factors(schedule, 12, 3)][: len(expected)]
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("interval", "changes"), [("epoch", [1.0, 1.0, 0.1, 0.1]), ("step", [1.0, 0.1, 0.01, 0.001])])
def test_torchs_schedulers_work_by_epoch_and_by_step(interval, changes):
    seen = []

    class Rates(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            seen.append(optimizer.param_groups[0]["lr"])

    module = SimCLR(
        encoder="test_resnet",
        image_size=8,
        optimizer=partial(torch.optim.SGD, lr=1e-3),
        schedule=TorchSchedule(partial(StepLR, step_size=1, gamma=0.1), interval),
        base_batch_size=None,
    )
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(max_epochs=2, accelerator="cpu", callbacks=[Rates()], **off).fit(
        module, DataLoader(torch.rand(8, 3, 8, 8), batch_size=4)
    )
    assert seen == pytest.approx([1e-3 * change for change in changes])


def test_torchs_schedulers_are_stored_as_plain_data():
    schedule = TorchSchedule(partial(StepLR, step_size=30), "step")
    stored = to_config(schedule)
    assert stored["init_args"]["scheduler"] == {
        "class_path": "torch.optim.lr_scheduler.StepLR",
        "init_args": {"step_size": 30},
    }
    again = build("schedule", stored)
    assert to_config(again) == stored
    assert attached(again, -1, math.inf)["scheduler"].step_size == 30


def test_absolute_rates_returns_only_arguments_that_are_learning_rates():
    given = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=3, eta_min=0.01)
    assert TorchSchedule(given).absolute_rates() == {"eta_min": 0.01}
    assert TorchSchedule(partial(StepLR, step_size=3)).absolute_rates() == WarmupCosine().absolute_rates() == {}


def test_decay_norms_puts_all_parameters_into_one_group():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    [group] = param_groups([model], decay_norms=True)
    assert group["params"] == [*model.parameters()]
    assert "weight_decay" not in group
