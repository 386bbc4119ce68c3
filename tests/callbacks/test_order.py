"""A probe's place in the Trainer's list of callbacks makes no difference, and errors name colliding metrics."""

import importlib
import re

import pytest
import torch
from strangers import NAMESPACES, Spy, own, pl, stranger, test_loader, train_loader, trainer

from ssl_modules.callbacks import (
    CollapseMonitor,
    EmbeddingPlot,
    OnlineKNNProbe,
    OnlineLinearProbe,
    OnlineRetrieval,
    ViewGrid,
)


class Weights(Spy):
    """Records the weights that it evaluates."""

    def measure(self, module, trainer):
        self.weights = module.head.weight.clone()
        return super().measure(module, trainer)


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("place", [0, 1])
def test_a_probe_evaluates_the_averaged_weights_that_the_validation_uses(tmp_path, namespace, place):
    module = stranger(namespace, validates=True)
    used = []
    module.validation_step = lambda batch, batch_idx: used.append(module.head.weight.clone())
    probe = Weights(**own())
    callbacks = [importlib.import_module(namespace).callbacks.EMAWeightAveraging(decay=0.5)]
    callbacks.insert(place, probe)
    run = trainer(tmp_path, callbacks, namespace, max_epochs=1)
    trained = []
    module.on_train_epoch_end = lambda: trained.append(module.head.weight.clone())
    run.fit(module, train_loader(), test_loader())
    assert torch.equal(probe.weights, used[-1])
    assert not torch.equal(probe.weights, trained[-1])


class Reader(pl.Callback):
    """Reads the metrics in the first hook in which other callbacks can read them."""

    def __init__(self):
        self.read = []

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.note(trainer)

    def on_train_epoch_end(self, trainer, pl_module):
        self.note(trainer)

    def note(self, trainer):
        self.read.append({name: value.item() for name, value in trainer.callback_metrics.items() if "/" in name})


@pytest.mark.parametrize("validates", [False, True])
def test_a_callback_listed_before_a_probe_reads_the_metrics_of_the_same_epoch(tmp_path, validates):
    reader, probe, monitor = Reader(), OnlineKNNProbe(**own()), CollapseMonitor(features="encoder")
    values = []
    module = stranger(validates=validates)
    module.on_train_epoch_end = lambda: values.append((probe.result["probe/knn_top1"], len(reader.read)))
    fit = trainer(tmp_path, [reader, probe, monitor], max_epochs=3)
    fit.fit(module, train_loader(), test_loader() if validates else None)
    assert len({value for value, _ in values}) > 1  # otherwise, an old value would go unnoticed
    for value, count in values:
        assert reader.read[count - 1]["probe/knn_top1"] == torch.tensor(value).item()
        assert "repr/std" in reader.read[count - 1]


@pytest.mark.parametrize("validates", [False, True])
def test_a_scheduler_reads_the_metric_of_the_same_epoch(tmp_path, validates):
    probe, seen = OnlineKNNProbe(**own()), []

    class Plateau(torch.optim.lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics, epoch=None):
            seen.append((float(metrics), torch.tensor(probe.result["probe/knn_top1"]).item()))
            super().step(metrics)

    module = stranger(validates=validates)
    optimizer = module.configure_optimizers()
    scheduler = {"scheduler": Plateau(optimizer, mode="max"), "monitor": "probe/knn_top1"}
    module.configure_optimizers = lambda: {"optimizer": optimizer, "lr_scheduler": scheduler}
    trainer(tmp_path, [probe], max_epochs=3).fit(module, train_loader(), test_loader() if validates else None)
    assert len(seen) == 3
    assert all(read == own for read, own in seen)


def test_other_callbacks_keep_their_order(tmp_path):
    readers = [Reader() for _ in range(3)]
    probes = [OnlineKNNProbe(**own()), OnlineLinearProbe(**own())]
    run = trainer(tmp_path, [readers[0], probes[0], readers[1], probes[1], readers[2]], max_epochs=1)
    run.fit(stranger(), train_loader())
    assert run.callbacks == [*probes, *readers]


@pytest.mark.parametrize(
    "make",
    [
        lambda **name: OnlineKNNProbe(**own(), **name),
        lambda **name: OnlineRetrieval(**own(), **name),
        lambda **name: EmbeddingPlot(**own(), **name),
        lambda **name: CollapseMonitor(features="encoder", **name),
        lambda **name: ViewGrid(augmentation=lambda images, generator: [images], **name),
    ],
)
def test_two_callbacks_of_the_same_class_need_two_names(tmp_path, make):
    module = stranger()
    with pytest.raises(ValueError, match=r"name: expected another name for each .* of a Trainer, got ") as error:
        trainer(tmp_path, [make(), make()]).fit(module, train_loader())
    assert module.losses == []
    name = re.search(r'name="(\w+)"', str(error.value))[1]
    trainer(tmp_path, [make(), make(name=name)], fast_dev_run=True).fit(module, train_loader())


@pytest.mark.parametrize("hook", ["validation_step", "on_validation_epoch_end", "on_train_epoch_end"])
def test_an_error_names_a_metric_that_the_module_also_logs(tmp_path, hook):
    module = stranger(validates=True)
    setattr(module, hook, lambda *batch: module.log("probe/knn_top1", 0.5))
    with pytest.raises(ValueError, match=r'metrics that nothing else logs, got .probe/knn_top1.*name="probe_2"'):
        trainer(tmp_path, [OnlineKNNProbe(**own())]).fit(module, train_loader(), test_loader())
    fit = trainer(tmp_path, [OnlineKNNProbe(**own(), name="probe_2")])
    fit.fit(module, train_loader(), test_loader())
    assert fit.callback_metrics["probe/knn_top1"] == 0.5
    assert {"probe_2/knn_top1", "probe/knn_top1"} <= fit.callback_metrics.keys()


def test_an_error_names_a_metric_that_two_callbacks_log(tmp_path):
    class Mine(OnlineKNNProbe):
        pass

    with pytest.raises(ValueError, match="another callback logs as well; give this Mine another name"):
        trainer(tmp_path, [OnlineKNNProbe(**own()), Mine(**own(), k=1)]).fit(stranger(), train_loader())


def test_a_trainer_that_fits_twice_logs_again(tmp_path):
    run = trainer(tmp_path, [OnlineKNNProbe(**own()), CollapseMonitor(features="encoder")], max_epochs=1)
    module = stranger()
    run.fit(module, train_loader())
    run.fit_loop.max_epochs = 2
    run.fit(module, train_loader())
    run.validate(stranger(validates=True), test_loader(), verbose=False)
    assert "probe/knn_top1" in run.callback_metrics
