"""Tests that every method must pass."""

import inspect
import json
from dataclasses import replace
from functools import partial
from typing import get_type_hints

import pytest
import timm
import torch
from conformance.cases import CASES, ENCODER, SIZE, digits, fixed_views, gradients, images, one_batch, trainer
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors import safe_open
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ssl_modules import ContrastiveModule
from ssl_modules.augmentations import POLICIES, PatchGrid
from ssl_modules.batch import read_batch
from ssl_modules.encoders import shrink_stem
from ssl_modules.extractions import Extraction
from ssl_modules.losses import Loss
from ssl_modules.objective import objective
from ssl_modules.optim import Schedule, WarmupCosine
from ssl_modules.similarities import Similarity

ASPECTS = ["augmentation", "encoder", "extraction", "similarity", "loss"]

pytestmark = pytest.mark.parametrize("case", CASES, ids=str)


def test_the_five_aspects_come_first_in_order_and_the_rest_by_name(case):
    parameters = inspect.signature(case.method).parameters
    first, rest = {}, {}
    for name, parameter in parameters.items():
        {parameter.POSITIONAL_OR_KEYWORD: first, parameter.KEYWORD_ONLY: rest}[parameter.kind][name] = parameter
    assert list(parameters) == [*first, *rest]
    assert list(first) == ASPECTS
    of_all = {name for name, p in inspect.signature(ContrastiveModule).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert set(rest) == of_all
    assert {"image_size", "in_channels", "mean", "std", "optimizer", "schedule", "base_batch_size"} <= of_all


def test_the_defaults_are_the_recipe(case):
    defaults = {name: p.default for name, p in inspect.signature(case.method).parameters.items()}
    assert defaults["augmentation"] in POLICIES
    assert isinstance(defaults["encoder"], str)
    for name, kind in {"extraction": Extraction, "similarity": Similarity, "loss": Loss, "schedule": Schedule}.items():
        assert isinstance(defaults[name], kind), name
    assert isinstance(defaults["optimizer"], partial)
    assert issubclass(defaults["optimizer"].func, torch.optim.Optimizer)
    assert defaults["base_batch_size"] is None or defaults["base_batch_size"] >= 1
    assert not [name for name, default in defaults.items() if default is inspect.Parameter.empty]


def test_the_type_hints_resolve(case):
    own = inspect.signature(case.method.__init__).parameters
    assert set(get_type_hints(case.method.__init__)) == {*own, "return"} - {"self"}
    of_all = inspect.signature(ContrastiveModule.__init__).parameters
    assert set(get_type_hints(ContrastiveModule.__init__)) == {*of_all, "return"} - {"self"}


def test_a_module_has_copies_of_its_objects_and_of_the_defaults(case):
    given = {**case.small(), "schedule": WarmupCosine(0.5)}
    defaults = {name: p.default for name, p in inspect.signature(case.method).parameters.items()}
    for arguments in (given, {"encoder": ENCODER}):
        one, other = case.method(**arguments), case.method(**arguments)
        for name in ("augmentation", "extraction", "similarity", "loss", "schedule"):
            own = getattr(one, name)
            assert own is not getattr(other, name), name
            assert own is not arguments.get(name, defaults[name]), name
            assert type(own) is type(getattr(other, name)), name
        parameters = {id(p) for p in one.parameters()}
        assert parameters.isdisjoint(id(p) for p in other.parameters())


@pytest.mark.slow
def test_the_defaults_train_one_step(case):
    seed_everything(0)
    module = case.method(**case.full)
    before = {name: p.clone() for name, p in module.named_parameters()}
    t = trainer(max_steps=1)
    labels = torch.arange(12)[:, None] // torch.tensor([2, 4])  # a class and a superclass, for ranks
    t.fit(module, DataLoader(TensorDataset(images(12, 3, 32), labels), batch_size=12))
    assert t.callback_metrics["train/loss"].isfinite()
    for name, p in module.named_parameters():
        assert p.isfinite().all(), name
    moved = [name for name, p in module.named_parameters() if not torch.equal(p, before[name])]
    assert any(name.startswith("encoder.") for name in moved)
    assert any(name.startswith("extraction.") for name in moved) == any(
        name.startswith("extraction.") for name in before
    )


def test_the_loss_falls_on_a_tiny_set(case):
    seed_everything(0)
    module = case.build(optimizer=partial(torch.optim.AdamW, lr=3e-3), schedule=WarmupCosine(0.1))
    if module.teacher is not None:  # freeze teacher and queue: both may keep the loss from falling
        module.teacher.momentum, module.teacher.schedule = 1.0, "constant"
        module.extraction.after_backward = lambda: None
    losses = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(outputs["loss"].item())

    batch = (fixed_views(case), torch.zeros(8))
    trainer(max_steps=50, callbacks=[Watch()]).fit(module, one_batch(batch, 50))
    assert losses[-1] < case.falls_to * losses[0]


def test_every_trainable_parameter_has_a_gradient_within_two_steps(case):
    seed_everything(0)
    module = case.build()
    reached = set()

    class Watch(Callback):
        def on_after_backward(self, trainer, pl_module):
            reached.update(name for name, grad in gradients(pl_module).items() if grad.any())

    trainer(max_steps=2, callbacks=[Watch()]).fit(module, one_batch(images(), 2))
    assert {name for name, p in module.named_parameters() if p.requires_grad} == reached


@pytest.mark.parametrize("block", [1, 3])
def test_blocks_equal_the_whole(case, block):
    results = []
    for anchor_block in (0, block):
        seed_everything(0)
        module = case.build(anchor_block=anchor_block).double()
        loss = module.training_step((fixed_views(case, dtype=torch.float64), None), 0)["loss"]
        loss.backward()
        results.append(gradients(module) | {"loss": loss.detach()})
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("channels", [1, 3])
def test_one_channel_and_three(case, channels):
    module = case.build(in_channels=channels)
    t = trainer(max_steps=1)
    t.fit(module, one_batch(images(8, channels)))
    assert t.callback_metrics["train/loss"].isfinite()
    module.eval()
    features = module(images(3, channels))
    assert features.shape == (3, module.encoder.out_channels[-1])
    torch.testing.assert_close(module(images(3, channels).float() / 255), features)
    with pytest.raises(ValueError, match=f"have {4 - channels} channels.*in_channels={channels}"):
        module(images(3, 4 - channels))


def test_mixed_precision_is_finite(case):
    seed_everything(0)
    module = case.build()
    seen = []

    class Watch(Callback):
        def on_after_backward(self, trainer, pl_module):
            seen.extend(gradients(pl_module).values())

    t = trainer(max_steps=1, precision="bf16-mixed", callbacks=[Watch()])
    t.fit(module, one_batch(images()))
    assert t.callback_metrics["train/loss"].isfinite()
    assert seen
    assert all(grad.isfinite().all() for grad in seen)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeddings_with_a_zero_row_are_finite(case, dtype):
    module = case.build()
    batch, generator = read_batch((fixed_views(case), None)), torch.Generator()
    contrasts = module.contrasts(batch, module.embed(module.views(batch, generator)), generator)
    for c in contrasts:
        anchors = c.anchors.detach().to(dtype)
        anchors[0] = 0
        anchors.requires_grad_()
        half = replace(c, anchors=anchors, candidates=c.candidates.detach().to(dtype))
        loss = objective([half], module.similarity, module.loss)
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert anchors.grad.isfinite().all()


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
@pytest.mark.parametrize("small_stem", [False, True])
def test_the_exported_encoder_is_the_plain_backbone(case, ending, small_stem, tmp_path):
    seed_everything(0)
    module = case.build(small_stem=small_stem, mean=(0.25,), std=(0.5,))
    trainer(max_steps=2).fit(module, one_batch(images(), 2))
    module.eval()
    path = tmp_path / f"encoder.{ending}"
    weights = module.export_encoder(path)
    if ending == "pt":
        stored = torch.load(path, weights_only=True)
        metadata, from_file = stored["metadata"], stored["state_dict"]
    else:
        with safe_open(path, "pt") as file:
            metadata = json.loads(file.metadata()["ssl_modules"])
            from_file = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    torch.testing.assert_close(from_file, weights, rtol=0, atol=0)
    assert metadata == {
        "architecture": ENCODER,
        "image_size": SIZE,
        "in_channels": 1,
        "mean": [0.25],
        "std": [0.5],
        "small_stem": small_stem,
        "patches": None if module.augmentation.patches is None else list(module.augmentation.patches),
    }
    plain = timm.create_model(metadata["architecture"], in_chans=metadata["in_channels"], num_classes=0).eval()
    if metadata["small_stem"]:
        shrink_stem(plain)
    plain.load_state_dict(from_file)
    x = (images() / 255 - 0.25) / 0.5
    if metadata["patches"]:
        x = PatchGrid(*metadata["patches"]).transform(x)  # [N, rows, cols, ch, h, w]
        features = plain(x.flatten(0, 2)).unflatten(0, x.shape[:3]).mean((1, 2))
    else:
        features = plain(x)
    torch.testing.assert_close(features, module(images()), rtol=1e-5, atol=1e-6)


def run(case, seed, epochs=2):
    """Train on the same batches in the same order; return losses, views and the final state."""
    seed_everything(seed)
    module = case.build()
    losses, views = [], []
    module.augmentation.register_forward_hook(lambda _, __, output: views.append(output))

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(outputs["loss"].item())

    loader = DataLoader(TensorDataset(images(16)), batch_size=8)
    trainer(max_epochs=epochs, callbacks=[Watch()]).fit(module, loader)
    return losses, views, module.state_dict()


def test_a_seed_fixes_the_run_and_an_epoch_has_views_of_its_own(case):
    losses, views, state = run(case, seed=1)
    again, same_views, same_state = run(case, seed=1)
    others, other_views, _ = run(case, seed=2)
    assert losses == again
    torch.testing.assert_close(same_views, views, rtol=0, atol=0)
    torch.testing.assert_close(same_state, state, rtol=0, atol=0)
    assert losses[0] != others[0]
    assert not torch.equal(views[0][0], other_views[0][0])
    first_epoch, second_epoch = views[:2], views[2:]
    for one, other in zip(first_epoch, second_epoch, strict=True):  # views of the same images
        assert all(not torch.equal(a, b) for a, b in zip(one, other, strict=True))


class DropoutNet(nn.Module):
    """An encoder that draws from the global random state at every step."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(8, 8, 1))
        self.third = nn.Conv2d(8, 16, 3)

    def forward(self, x):
        first = self.first(x)
        second = self.second(first)
        return first, second, self.third(second)


def resumable_run(case, encoder, folder=None, ckpt_path=None, *, seed=0, every=1, **kwargs):
    seed_everything(seed)
    module = case.build(encoder=encoder())
    callbacks = []
    if folder is not None:
        callbacks = [
            ModelCheckpoint(folder, "{step}", auto_insert_metric_name=False, every_n_train_steps=every, save_top_k=-1),
            ModelCheckpoint(folder, "end-{epoch}", auto_insert_metric_name=False, save_top_k=-1, every_n_epochs=1),
        ]
    t = trainer(max_epochs=2, callbacks=callbacks, enable_checkpointing=bool(callbacks), **kwargs)
    t.fit(module, datamodule=digits(), ckpt_path=ckpt_path)
    return {
        "module": module.state_dict(),
        "optimizer": t.optimizers[0].state_dict()["state"],
        "schedule": t.lr_scheduler_configs[0].scheduler.state_dict()["last_epoch"],
        "seed": module._run_seed,
    }


@pytest.mark.parametrize(
    ("encoder", "accumulate"),
    [(DropoutNet, 1), (DropoutNet, 2), pytest.param(lambda: ENCODER, 1, marks=pytest.mark.slow)],
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(case, encoder, accumulate, tmp_path):
    kwargs = {"accumulate_grad_batches": accumulate}
    per_epoch = 6 // accumulate
    whole = resumable_run(case, encoder, tmp_path, every=per_epoch // 2, **kwargs)
    for name in (f"{per_epoch // 2}", f"{per_epoch}", "end-0"):  # the middle of an epoch, and its end
        resumed = resumable_run(case, encoder, None, tmp_path / f"{name}.ckpt", seed=99, **kwargs)
        torch.testing.assert_close(resumed, whole, rtol=0, atol=0, msg=lambda m, name=name: f"{name}.ckpt: {m}")
