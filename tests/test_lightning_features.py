"""Tries each row of docs/lightning.md with SimCLR, with MoCo (a teacher and a queue), and with fine-tuning."""

import os
import pickle
import re
from copy import deepcopy
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import tuned
from conformance import cases
from lightning.pytorch import callbacks
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from ssl_modules import FineTuning, MoCo, SimCLR
from ssl_modules.augmentations import MoCoViews, SimCLRViews
from ssl_modules.datamodules import ImageDataModule, TensorImages
from ssl_modules.encoders import Encoder, Representation
from ssl_modules.extractions import Queue

pytestmark = pytest.mark.slow  # a sweep over features; make check runs it

PAGE = (Path(__file__).parents[1] / "docs" / "lightning.md").read_text()
SGD = partial(torch.optim.SGD, lr=0.01)
SMALL = {"encoder": "test_resnet", "image_size": 8, "in_channels": 1, "optimizer": SGD, "base_batch_size": None}


def simclr(**given):
    return SimCLR(**{"augmentation": SimCLRViews(8, strength=0.5, blur=False), **SMALL, **given})


def moco(**given):
    queue = Queue(out_dim=16, size=16, momentum=0.9)
    return MoCo(**{"augmentation": MoCoViews(8, blur=False), "extraction": queue, **SMALL, **given})


def finetuning(channels_last=None):
    encoder = Encoder("test_resnet", image_size=8, in_channels=1, channels_last=channels_last)
    return FineTuning(encoder, 10, optimizer=SGD)


MODULES = (simclr, moco, finetuning)


def data(**given):
    train, test = (TensorImages(tuned.images(n), tuned.labels(n)) for n in (40, 16))
    return ImageDataModule(train, test, num_classes=10, **{"batch_size": 8, "val_size": 8, **given})


def fit(build, *used, module=None, ckpt_path=None, **flags):
    run = cases.trainer(**{"max_epochs": 2, "limit_train_batches": 2, "callbacks": list(used), **flags})
    module = build() if module is None else module
    run.fit(module, data(), ckpt_path=ckpt_path)
    assert all(p.isfinite().all() for p in module.parameters())
    return run


def logs(build, logger, *used):
    fit(build, *used, logger=logger, log_every_n_steps=1)


def prunes(build):
    run = fit(build, callbacks.ModelPruning("l1_unstructured", amount=0.5))
    weights = [m.weight for m in run.lightning_module.modules() if isinstance(m, torch.nn.Conv2d)]
    assert sum((w == 0).sum() for w in weights) > 0.4 * sum(w.numel() for w in weights)


def unfreezes(build):
    if build is not finetuning:
        pytest.skip("only FineTuning has a backbone and a head")
    before, module = {}, build()

    class Encoders(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            before[trainer.current_epoch] = pl_module.encoder.network.conv1[0].weight.detach().clone()

    first = module.encoder.network.conv1[0].weight.detach().clone()
    unfreezing = callbacks.BackboneFinetuning(unfreeze_backbone_at_epoch=1)
    checkpoint = callbacks.ModelCheckpoint("run", save_top_k=-1, filename="{epoch}")
    fit(build, unfreezing, Encoders(), checkpoint, module=module, max_epochs=3, enable_checkpointing=True)
    assert torch.equal(before[0], first)
    assert not torch.equal(before[1], first)
    fit(build, callbacks.BackboneFinetuning(unfreeze_backbone_at_epoch=1), max_epochs=3, ckpt_path="run/epoch=1.ckpt")


def averages(build, **settings):
    def ema():
        return callbacks.EMAWeightAveraging(decay=0.5, use_buffers=False)

    module, again = build(), build()
    checkpoint = callbacks.ModelCheckpoint("run", save_top_k=-1, filename="{epoch}")
    torch.manual_seed(0)
    fit(build, ema(), checkpoint, module=module, max_epochs=3, enable_checkpointing=True)
    torch.manual_seed(0)
    fit(build, ema(), module=again, max_epochs=3, ckpt_path="run/epoch=1.ckpt")
    assert tuned.equal(module.state_dict(), again.state_dict())
    if build is moco:  # the queue must hold MoCo's keys, not averages of keys
        torch.testing.assert_close(module.extraction.keys.norm(dim=1), torch.ones(16))


def keeps_checkpoints(build):
    kinds = [
        callbacks.ModelCheckpoint("a", "{epoch}", monitor="val/loss", save_top_k=2, save_last=True),
        callbacks.ModelCheckpoint("b", every_n_train_steps=2, save_top_k=-1),
        callbacks.ModelCheckpoint("c", save_weights_only=True, save_on_train_epoch_end=True),
        callbacks.ModelCheckpoint("d", monitor="train/loss", mode="max", save_last="link"),
    ]
    run = fit(build, *kinds, enable_checkpointing=True)
    files = list(Path().rglob("*.ckpt"))
    assert len(files) >= 7
    for path in files:
        type(run.lightning_module).load_from_checkpoint(path)


def keeps_one_on_an_exception(build):
    def stop(*_):
        raise KeyError("stop")

    used = callbacks.OnExceptionCheckpoint("run"), callbacks.LambdaCallback(on_train_batch_end=stop)
    with pytest.raises(KeyError):
        fit(build, *used, enable_checkpointing=True)
    assert Path("run/on_exception.ckpt").exists()


def writes_predictions(build):
    class Writer(callbacks.BasePredictionWriter):
        rows = 0

        def write_on_batch_end(self, trainer, pl_module, prediction, *_):
            self.rows += len(prediction[0])

    writer = Writer("batch")
    cases.trainer(callbacks=[writer]).predict(build(), data())
    assert writer.rows == 16


def evaluates_without_inference_mode(build):
    run = fit(build, inference_mode=False)
    run.validate(run.lightning_module, datamodule=data(), verbose=False)
    run.test(run.lightning_module, datamodule=data(), verbose=False)


def measures_throughput(build):
    monitor = callbacks.ThroughputMonitor(batch_size_fn=lambda batch: len(batch[0]), window_size=2)
    logs(build, CSVLogger("."), monitor)


def exports(build):
    module, images, more = build().eval(), torch.rand(4, 1, 8, 8), torch.rand(7, 1, 8, 8)
    for strict in (False, True):
        dynamic = ({0: torch.export.Dim("n")},)
        program = torch.export.export(module, (images,), dynamic_shapes=dynamic, strict=strict)
        torch.testing.assert_close(program.module()(more), module(more))
    run = cases.trainer(max_epochs=1)
    run.strategy.connect(module)
    run.save_checkpoint("last.ckpt")
    loaded = type(module).load_from_checkpoint("last.ckpt").eval()
    torch.testing.assert_close(torch.export.export(loaded, (images,)).module()(images), module(images))
    bytes_ = (images * 255).to(torch.uint8)
    torch.testing.assert_close(torch.export.export(module, (bytes_,)).module()(bytes_), module(bytes_))


def exports_onnx(build):
    pytest.importorskip("onnx", reason="the dev group has it")
    pytest.importorskip("onnxscript", reason="the dev group has it")
    runtime = pytest.importorskip("onnxruntime", reason="the dev group has it")
    module, more = build().eval(), torch.rand(7, 1, 8, 8)
    dynamic = ({0: torch.export.Dim("n")},)
    module.to_onnx("module.onnx", torch.rand(4, 1, 8, 8), dynamo=True, dynamic_shapes=dynamic, verbose=False)
    session = runtime.InferenceSession("module.onnx")
    [found] = session.run(None, {session.get_inputs()[0].name: more.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), module(more).detach(), rtol=1e-4, atol=1e-5)


def compiles(build):
    module, images = build().eval(), torch.rand(4, 1, 8, 8)
    torch.compiler.reset()  # compilations in other tests count towards torch's limit
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images), module(images))
    fit(build, module=torch.compile(build(), backend="aot_eager"), max_epochs=1)


def traces(build):
    module, images, more = build().eval(), torch.rand(4, 1, 8, 8), torch.rand(7, 1, 8, 8)
    traced = module.to_torchscript(method="trace", example_inputs=images)
    torch.testing.assert_close(traced(more), module(more))
    representation = Representation(module.encoder)
    torch.testing.assert_close(torch.jit.trace(representation, images)(more), representation(more))


def maps_over_images(build):
    module, images = build(channels_last=False).eval(), torch.rand(3, 1, 8, 8)
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def output(parameters, image):
        return torch.func.functional_call(module, parameters, (image[None],)).sum()

    each = torch.func.vmap(torch.func.grad(output), in_dims=(None, 0))(parameters, images)
    name = next(name for name in parameters if name.startswith("encoder"))
    expected = [torch.func.grad(output)(parameters, image)[name] for image in images]
    torch.testing.assert_close(each[name], torch.stack(expected), rtol=1e-3, atol=1e-5)


def quantises(build):
    module = build().eval()
    small = torch.ao.quantization.quantize_dynamic(module, {torch.nn.Linear}, dtype=torch.qint8)
    assert small(torch.rand(4, 1, 8, 8)).shape == module(torch.rand(4, 1, 8, 8)).shape


def copies(build):
    module, images = build().eval(), torch.rand(2, 1, 8, 8)
    for copy in (deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(copy(images), module(images))


def logs_to_wandb(build):
    wandb = pytest.importorskip("wandb", reason="wandb is large and not in the dev group")
    logs(build, WandbLogger(save_dir=".", offline=True))
    wandb.finish()


def logs_to_mlflow(build):
    pytest.importorskip("mlflow", reason="mlflow is large and not in the dev group")
    logs(build, MLFlowLogger("run", tracking_uri="sqlite:///runs.db"))


def with_flags(**flags):
    return lambda build: fit(build, **flags)


def with_callback(make, **flags):
    return lambda build: fit(build, make(), **flags)


ELSEWHERE = {
    "LearningRateFinder": "tests/test_tuners.py",
    "BatchSizeFinder": "tests/test_tuners.py",
    "fixed logger version": "tests/cli/test_saved_config.py",
    "several processes": "tests/conformance/test_processes.py",
    "sync_batchnorm": "tests/utils/test_strategies.py",
    '"fsdp"': "tests/utils/test_strategies.py",
}
ROWS = {
    "ModelPruning": prunes,
    "BackboneFinetuning": unfreezes,
    "EMAWeightAveraging": averages,
    "StochasticWeightAveraging": with_callback(
        lambda: callbacks.StochasticWeightAveraging(swa_lrs=1e-3, swa_epoch_start=1), max_epochs=3
    ),
    "gradient_clip_val": with_flags(gradient_clip_val=0.5),
    "accumulate_grad_batches": with_flags(accumulate_grad_batches=2),
    "GradientAccumulationScheduler": with_callback(lambda: callbacks.GradientAccumulationScheduler({0: 2, 1: 1})),
    "DeviceStatsMonitor": lambda build: logs(build, CSVLogger("."), callbacks.DeviceStatsMonitor(cpu_stats=True)),
    "LearningRateMonitor": lambda build: logs(build, CSVLogger("."), callbacks.LearningRateMonitor(log_momentum=True)),
    "ModelSummary": with_callback(lambda: callbacks.ModelSummary(max_depth=3), enable_model_summary=True),
    "RichModelSummary": with_callback(callbacks.RichModelSummary, enable_model_summary=True),
    "RichProgressBar": with_callback(callbacks.RichProgressBar, enable_progress_bar=True),
    "TQDMProgressBar": with_callback(callbacks.TQDMProgressBar, enable_progress_bar=True),
    "Timer": with_callback(lambda: callbacks.Timer("00:01:00:00")),
    "EarlyStopping": with_callback(lambda: callbacks.EarlyStopping("val/loss", patience=1)),
    "ModelCheckpoint": keeps_checkpoints,
    "OnExceptionCheckpoint": keeps_one_on_an_exception,
    "overfit_batches": with_flags(overfit_batches=2),
    "fast_dev_run": with_flags(fast_dev_run=True),
    "detect_anomaly": with_flags(detect_anomaly=True),
    "profiler": with_flags(profiler="simple"),
    "val_check_interval": with_flags(val_check_interval=1),
    "reload_dataloaders_every_n_epochs": with_flags(reload_dataloaders_every_n_epochs=1),
    "inference_mode=False": evaluates_without_inference_mode,
    '"16-mixed"': with_flags(precision="16-mixed"),
    '"bf16-mixed"': with_flags(precision="bf16-mixed"),
    '"64-true"': with_flags(precision="64-true"),
    "ThroughputMonitor": measures_throughput,
    "BasePredictionWriter": writes_predictions,
    "CSVLogger": lambda build: logs(build, CSVLogger(".")),
    "TensorBoardLogger": lambda build: logs(build, TensorBoardLogger(".", log_graph=True)),
    "WandbLogger": logs_to_wandb,
    "MLFlowLogger": logs_to_mlflow,
    "torch.export": exports,
    "to_onnx": exports_onnx,
    "torch.compile": compiles,
    "to_torchscript": traces,
    "torch.func": maps_over_images,
    "quantize_dynamic": quantises,
    "deepcopy": copies,
}
NO_PREDICTIONS = {"BasePredictionWriter"}  # rows that need a predict_step, which FineTuning doesn't define


@pytest.mark.slow
@pytest.mark.parametrize("build", MODULES, ids=lambda build: build.__name__)
@pytest.mark.parametrize("name", ROWS)
def test_a_feature_works(name, build, tmp_path, monkeypatch):
    if build is finetuning and name in NO_PREDICTIONS:
        pytest.skip("FineTuning predicts through module(images)")
    monkeypatch.chdir(tmp_path)
    ROWS[name](build)


def test_each_row_of_the_page_has_a_test():
    rows = re.findall(r"^\| `([^`]+)`", PAGE, flags=re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == ROWS.keys() | ELSEWHERE.keys()
    for path in ELSEWHERE.values():
        assert os.path.exists(Path(__file__).parents[1] / path)
