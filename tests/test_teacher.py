from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from ssl_modules import MoCo
from ssl_modules.augmentations import MoCoViews
from ssl_modules.extractions import Predictor, Queue
from ssl_modules.teacher import Teacher, momentum_at

REFERENCE = Path(__file__).parent / "reference"


def linear(weight):
    layer = nn.Linear(*weight.T.shape, bias=False).double()
    layer.weight.data = torch.tensor(weight)
    return layer


def test_momentum_and_average_are_those_of_byol():
    v = np.load(REFERENCE / "byol_2_ema.npz")
    steps = len(v["bolts_tau"])
    np.testing.assert_allclose([momentum_at(s, steps, 0.996) for s in range(steps)], v["bolts_tau"], rtol=0, atol=1e-15)
    np.testing.assert_allclose(
        [momentum_at(s, steps - 1, 0.996) for s in range(steps)], v["lightly_tau"], rtol=0, atol=1e-15
    )
    student = linear(v["online"])
    teacher = Teacher(linear(v["target0"]), nn.Identity(), 0.996, "cosine")
    for s, expected in enumerate(v["targets"]):
        teacher.update(student, nn.Identity(), s, steps)
        np.testing.assert_allclose(teacher.encoder.weight.numpy(), expected, rtol=0, atol=1e-12)


def test_momentum_is_that_of_sce():
    expected = np.load(REFERENCE / "sce_schedules.npz")["momentum_cosine"]
    result = [momentum_at(s, len(expected) - 1, 0.99) for s in range(len(expected))]
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("schedule", "last"), [("cosine", 5), ("cosine-endpoint", 4)])
def test_a_cosine_reaches_one_at_the_last_update_or_one_later(schedule, last):
    student, teacher = linear(np.ones((1, 1))), Teacher(linear(np.zeros((1, 1))), nn.Identity(), 0.5, schedule)
    expected = 0.0
    for step in range(5):
        m = 1 - 0.5 * (np.cos(np.pi * step / last) + 1) / 2
        expected = m * expected + 1 - m
        teacher.update(student, nn.Identity(), step, 5)
        assert teacher.encoder.weight.item() == pytest.approx(expected, abs=1e-15)


def test_a_cosine_over_one_update_uses_the_first_momentum():
    student, teacher = linear(np.ones((1, 1))), Teacher(linear(np.zeros((1, 1))), nn.Identity(), 0.5, "cosine-endpoint")
    teacher.update(student, nn.Identity(), 0, 1)
    assert teacher.encoder.weight.item() == 0.5


def test_heads_follow_as_the_encoder_does_and_statistics_do_not():
    encoder, heads = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), nn.Linear(3, 2)
    teacher = Teacher(encoder, heads, 0.75, "constant")
    before = {name: p.clone() for name, p in teacher.state_dict().items()}
    with torch.no_grad():
        for p in (*encoder.parameters(), *heads.parameters()):
            p.add_(1)
    encoder(torch.rand(8, 2))  # changes the student's statistics
    teacher.update(encoder, heads, step=5, steps=10)
    averaged = {name for name, _ in teacher.named_parameters()}
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, before[name] + 0.25 if name in averaged else before[name])


@pytest.mark.parametrize(
    ("momentum", "schedule", "message"),
    [
        (1.5, "constant", "momentum: .* got 1.5"),
        (-0.1, "cosine", "momentum: .* got -0.1"),
        (None, "constant", "momentum: .* got None"),
        (True, "constant", "momentum: .* got True"),
        (0.9, "linear", "momentum_schedule: .* got 'linear'"),
    ],
)
def test_refuses(momentum, schedule, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Teacher(nn.Identity(), nn.Identity(), momentum, schedule)
    # Without a teacher, a predictor predicts the student's own embeddings.
    for extraction in (Queue,) if momentum is None else (Queue, Predictor):
        with pytest.raises((TypeError, ValueError), match=message):
            extraction(momentum=momentum, momentum_schedule=schedule)


def run_without_end(schedule):
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    class Constant(MoCo):
        def configure_optimizers(self):
            return torch.optim.SGD(self.param_groups(), lr=0.1)

    extraction = Queue(out_dim=4, size=8, momentum=0.9, momentum_schedule=schedule)
    module = Constant(MoCoViews(8, blur=False), nn.Conv2d(3, 4, 3), extraction, image_size=8)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=1, **quiet)
    trainer.fit(module, torch.utils.data.DataLoader(Endless(), batch_size=4))
    return trainer.global_step


def test_a_run_without_a_known_length_has_a_constant_momentum_only():
    assert run_without_end("constant") == 2
    for schedule in ("cosine", "cosine-endpoint"):
        with pytest.raises(ValueError, match=f'momentum_schedule: "{schedule}" needs an end'):
            run_without_end(schedule)
