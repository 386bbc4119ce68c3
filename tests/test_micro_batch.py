"""With micro_batch, encoder and heads process a few images at a time, and nothing else changes."""

from functools import partial
from typing import NamedTuple

import pytest
import torch
from conformance.cases import CASES, ENCODER, digits, fixed_views, gradients, one_batch, trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import BatchSizeFinder
from modules import Net, build, pixels
from torch import nn

from ssl_modules import SCE, SimCLR, micro_batch
from ssl_modules.micro_batch import concatenated, parts_of

IMAGES = 11


def step(case, images=IMAGES, **given):
    """Return loss, gradients and buffers of a training step in float64."""
    seed_everything(0)
    module = case.build(**given).double()
    loss = module.training_step((fixed_views(case, images, torch.float64), None), 0)["loss"]
    loss.backward()
    return {"loss": loss.detach()} | gradients(module) | {f"buffer {n}": b.clone() for n, b in module.named_buffers()}


def without_checkpoints(function, views, **_):
    return function(views)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_parts_equal_the_same_parts_without_recomputation_bit_for_bit(case, monkeypatch):
    splits = 2 if case.settings.get("teacher_batch_norm_splits") else 1
    given = {"images": 12, "micro_batch": 4} if splits > 1 else {"micro_batch": 4}
    found = step(case, **given)
    monkeypatch.setattr(micro_batch, "checkpoint", without_checkpoints)
    torch.testing.assert_close(found, step(case, **given), rtol=0, atol=0)


class PlainNet(nn.Module):
    """A network without batch norm, with dropout."""

    def __init__(self, p=0.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Dropout(p))

    def forward(self, x):
        return self.layers(x)


def plain_step(p=0.0, **given):
    torch.manual_seed(0)
    module = build(PlainNet(p), **given).double()
    for m in module.modules():
        if isinstance(m, nn.BatchNorm1d):
            m.eval()
    loss = module.training_step(pixels(10), 0)["loss"]
    loss.backward()
    return {"loss": loss.detach()} | gradients(module)


@pytest.mark.parametrize("size", [2, 4, 7, 10, 99])
def test_parts_equal_the_whole_without_batch_norm(size):
    torch.testing.assert_close(plain_step(micro_batch=size), plain_step(), rtol=0, atol=1e-12)


def test_dropout_drops_the_same_values_again(monkeypatch):
    found = plain_step(p=0.5, micro_batch=4)
    monkeypatch.setattr(micro_batch, "checkpoint", without_checkpoints)
    torch.testing.assert_close(found, plain_step(p=0.5, micro_batch=4), rtol=0, atol=0)


def test_a_second_backward_pass_gives_the_same_gradient_and_statistics():
    module = build(Net(), micro_batch=4)
    loss = module.training_step(pixels(10), 0)["loss"]
    loss.backward(retain_graph=True)
    first, buffers = gradients(module), {n: b.clone() for n, b in module.named_buffers()}
    module.zero_grad()
    loss.backward()
    torch.testing.assert_close(gradients(module), first, rtol=0, atol=0)
    torch.testing.assert_close(dict(module.named_buffers()), buffers, rtol=0, atol=0)


def test_the_norms_keep_their_momentum():
    module = build(Net(), micro_batch=4)
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    module.training_step(pixels(10), 0)["loss"].backward()
    assert [norm.momentum for norm in norms] == before
    assert all(before)


def test_activations_are_not_kept():
    def kept(size):
        saved = []
        module = build(Net(), micro_batch=size)

        def pack(x):
            saved.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            module.training_step(pixels(16), 0)
        return sum(saved)

    assert kept(4) < kept(None) / 2


@pytest.mark.parametrize(
    ("images", "size", "expected"),
    [(8, 4, [4, 4]), (9, 4, [4, 5]), (10, 4, [4, 4, 2]), (3, 4, [3]), (1, 4, [1]), (5, None, [5])],
)
def test_a_last_part_of_one_image_joins_the_one_before(images, size, expected):
    assert [rows.stop - rows.start for rows in parts_of(images, size)] == expected


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


def test_outputs_of_any_form_are_joined():
    parts = [{"a": torch.ones(n, 2), "b": [Pair(torch.ones(n), torch.zeros(n)), (torch.ones(n),)]} for n in (2, 3)]
    joined = concatenated(parts)
    assert joined["a"].shape == (5, 2)
    assert [type(x) for x in joined["b"]] == [Pair, tuple]
    assert joined["b"][0].second.shape == joined["b"][1][0].shape == (5,)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        (SimCLR, {"micro_batch": 1}, "micro_batch: expected .* at least 2, got 1"),
        (SimCLR, {"micro_batch": 6, "batch_norm_splits": 4}, "a multiple of batch_norm_splits=4, got 6"),
        (SCE, {"micro_batch": 6, "teacher_batch_norm_splits": 4}, "a multiple of teacher_batch_norm_splits=4, got 6"),
        (SimCLR, {"micro_batch": 4, "batch_norm_splits": 0}, "batch_norm_splits: .* at least 2, got 0"),
        (SCE, {"micro_batch": 4, "teacher_batch_norm_splits": 0}, "teacher_batch_norm_splits: .* at least 2, got 0"),
    ],
)
def test_wrong_numbers_raise_an_error(method, arguments, message):
    with pytest.raises(ValueError, match=message):
        method(encoder=ENCODER, **arguments)


@pytest.mark.slow
def test_a_compiled_encoder_gives_the_same_gradient_and_buffers():
    def compiled_step(**given):
        seed_everything(0)
        module = build(Net(), micro_batch=4, **given).double()
        module.training_step(pixels(10), 0)["loss"].backward()
        found = gradients(module) | dict(module.named_buffers())
        return {name.replace("_orig_mod.", ""): value for name, value in found.items()}

    torch.testing.assert_close(compiled_step(compile=True), compiled_step(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("compiled", ["in place", "wrapped", "no"])
def test_compiled_networks_initialise_cuda_before_the_forward_pass(monkeypatch, compiled):
    """Otherwise, the compiler does so in the forward pass, and torch.utils.checkpoint raises an error."""
    layer = nn.Linear(2, 3)
    if compiled == "in place":
        layer.compile(backend="eager")
    encoder = nn.Sequential(torch.compile(layer, backend="eager") if compiled == "wrapped" else layer)
    calls = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "init", lambda: calls.append("init"))
    monkeypatch.setattr(micro_batch, "checkpoint", lambda function, views, **_: calls.append("forward") or views[0])
    micro_batch.recomputed_in_parts(encoder, [encoder], [torch.ones(4, 2)], 2)
    assert calls == ["init"] * (compiled != "no") + ["forward"] * 2


class Limited(SimCLR):
    """Raises an out-of-memory error as a GPU does, if encoder and heads process more than 8 images at a time."""

    def embed(self, views):
        if (self.micro_batch or len(views[0])) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().embed(views)


def test_a_search_finds_the_largest_part():
    module = Limited(**{**build(Net(1), in_channels=1).arguments, "micro_batch": 2})
    finder = BatchSizeFinder(mode="power", steps_per_trial=1, batch_arg_name="micro_batch", max_trials=6)
    trainer(max_steps=1, callbacks=[finder]).fit(module, datamodule=digits(64, batch_size=64))
    assert module.micro_batch == 8


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_trains(precision):
    if precision == "16-mixed" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    module = build(micro_batch=4, optimizer=partial(torch.optim.SGD, lr=0.1))
    t = trainer(max_steps=2, precision=precision)
    t.fit(module, one_batch(pixels(8), 2))
    assert t.callback_metrics["train/loss"].isfinite()
