"""Tests that every method must pass on a GPU."""

import pytest
import torch
from conformance.cases import CASES, digits, fixed_views, gradients, images, one_batch, trainer
from conformance.test_methods import resumable_run
from lightning.pytorch import seed_everything
from needs import needs_gpu

from ssl_modules import AMDIM, YADIM
from ssl_modules.batch import read_batch
from ssl_modules.callbacks import OnlineKNNProbe, OnlineLinearProbe

pytestmark = [needs_gpu, pytest.mark.parametrize("case", CASES, ids=str)]
GPU = {"accelerator": "gpu", "devices": 1}


def test_a_gpu_gives_the_gradient_of_the_cpu(case):
    if case.method in (AMDIM, YADIM):
        pytest.skip("it draws its anchors' places, which differ between devices")
    found = []
    for device in ("cpu", "cuda"):
        seed_everything(0)
        module = case.build().double().to(device)
        views = [view.to(device) for view in fixed_views(case, dtype=torch.float64)]
        loss = module.training_step((views, None), 0)["loss"]
        loss.backward()
        found.append({name: g.cpu() for name, g in gradients(module).items()} | {"loss": loss.detach().cpu()})
    torch.testing.assert_close(found[1], found[0], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_it_trains_in_every_precision(case, precision):
    module = case.build()
    t = trainer(max_steps=4, precision=precision, **GPU)
    t.fit(module, one_batch(images(), 4))
    assert t.callback_metrics["train/loss"].isfinite()
    assert all(p.isfinite().all() for p in module.parameters())


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(case, tmp_path):
    options = {**GPU, "deterministic": "warn"}
    whole = resumable_run(case, lambda: "test_resnet", tmp_path, every=3, **options)
    resumed = resumable_run(case, lambda: "test_resnet", None, tmp_path / "3.ckpt", seed=99, **options)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


def test_making_views_does_not_wait_for_the_gpu(case):
    module = case.build().cuda()
    batch, generator = read_batch(images().cuda(), 1), torch.Generator("cuda")
    module.views(batch, generator)  # the first time, constants are copied to the GPU
    torch.cuda.set_sync_debug_mode("error")
    try:
        module.views(batch, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("probe", [OnlineKNNProbe, OnlineLinearProbe])
def test_probes_give_the_metrics_of_a_cpu(case, probe):
    seed_everything(0)
    module = case.build().double().eval()
    data = digits(200)
    data.setup("fit")
    probes = probe(train=data.train_set, test=data.train_set), probe(train=data.train_set, test=data.train_set)
    results = [p.evaluate(module.to(device)) for p, device in zip(probes, ("cpu", "cuda"), strict=True)]
    assert results[1] == pytest.approx(results[0], abs=1e-6)
