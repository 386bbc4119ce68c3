import weakref

import pytest
import torch
from processes import run_in_processes
from strangers import IMAGES, NAMESPACES, TARGETS, data_module, own, pl, stranger, test_loader, train_loader, trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ssl_modules.callbacks import OnlineKNNProbe, OnlineLinearProbe
from ssl_modules.evaluation.shared_features import _OF_TRAINER, SharedFeatures, shared_features

BOTH, TRIED = 500, 128  # images of a pass over own(), and of a probe's trial before the first epoch


def count_images(module):
    """Return a list that collects the sizes of the batches in eval mode."""
    seen = []

    def count(part, images, output):
        if not part.training:
            seen.append(len(images[0]))

    module.encoder.register_forward_hook(count)
    return seen


def take_first_two(batch):
    return batch[0], batch[1]


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize(
    ("options", "images"),
    [
        ({}, BOTH),
        ({"bank_size": 100}, BOTH + 100),  # both share the test images
        ({"features": None}, 2 * BOTH),
        ({"prepare": take_first_two}, 2 * BOTH),
        (own(), 2 * BOTH),
    ],
)
def test_one_pass_for_equal_settings(tmp_path, namespace, options, images):
    first = {**own(), "features": "encoder"}
    probes = [OnlineKNNProbe(**first), OnlineLinearProbe(**{**first, **options})]
    module = stranger(namespace)
    seen = count_images(module)
    trainer(tmp_path, probes, namespace).fit(module, train_loader())
    assert sum(seen) == 2 * images + 2 * TRIED  # 2 epochs; 2 probes
    for probe in probes:
        assert probe.evaluate(module).items() <= probe.result.items()


def test_two_levels_need_one_pass(tmp_path):
    levels = torch.stack([TARGETS, TARGETS // 5], dim=1)
    parts = (slice(300), slice(300, 500))
    train, test = (DataLoader(TensorDataset(IMAGES[part], levels[part]), batch_size=64) for part in parts)
    probes = [OnlineKNNProbe(train=train, test=test, level=level, name=f"level{level}") for level in (0, 1)]
    module = stranger()
    seen = count_images(module)
    trainer(tmp_path, probes, max_epochs=1).fit(module, train_loader())
    assert sum(seen) == BOTH + 2 * TRIED
    results = [probe.result[f"{probe.name}/knn_top1"] for probe in probes]
    assert results == [probe.evaluate(module)[f"{probe.name}/knn_top1"] for probe in probes]
    assert results[0] < results[1]


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("given", ["to the probes", "to the Trainer", "loaders"])
def test_data_modules_and_the_trainers_loaders_are_read_once(tmp_path, namespace, given):
    data = data_module(namespace, probe_loaders=False)
    probes = [
        probe(datamodule=data if given == "to the probes" else None, features="encoder")
        for probe in (OnlineKNNProbe, OnlineLinearProbe)
    ]
    module = stranger(namespace, validates=given == "loaders")
    seen = count_images(module)
    options = {"datamodule": data} if given == "to the Trainer" else {"train_dataloaders": train_loader()}
    if given == "loaders":
        options["val_dataloaders"] = test_loader()
    trainer(tmp_path, probes, namespace, max_epochs=1, num_sanity_val_steps=0).fit(module, **options)
    assert sum(seen) == BOTH + 2 * TRIED + (200 if given == "loaders" else 0)  # Lightning's validation reads 200 too
    assert data.setups == (given != "loaders")


class Flip(pl.Callback):
    """Changes the weights between two probes, as weight averaging does."""

    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.encoder[0].weight.data.neg_()


def test_weights_that_change_between_two_probes_need_another_pass(tmp_path):
    data = {**own(), "features": "encoder"}

    class Flipping(OnlineKNNProbe):
        def measure(self, module, trainer):
            metrics = super().measure(module, trainer)
            if trainer is not None:
                Flip().on_train_epoch_end(trainer, module)
            return metrics

    before, after = Flipping(**data, name="before"), OnlineKNNProbe(**data, name="after")
    module = stranger()
    trainer(tmp_path, [before, after], max_epochs=1).fit(module, train_loader())
    assert after.evaluate(module).items() <= after.result.items()
    Flip().on_train_epoch_end(None, module)
    assert before.evaluate(module).items() <= before.result.items()
    assert before.result["before/knn_top1"] != after.result["after/knn_top1"]


@pytest.mark.parametrize(
    "change",
    [
        lambda module: module[1].weight.data.neg_(),
        lambda module: setattr(module[1], "weight", nn.Parameter(-module[1].weight)),
        lambda module: module[2].running_mean.add_(1),
        lambda module: module.double(),
        lambda module: module.append(nn.Linear(8, 8)),
    ],
)
def test_changed_modules_need_another_pass(change):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8))
    take = lambda module, images: module(images.to(module[1].weight.dtype))  # noqa: E731
    loader, shared = test_loader(), SharedFeatures()
    first, targets = shared.read(module, loader, features=take)
    assert torch.equal(targets, TARGETS[300:500])
    assert shared.read(module, loader, features=take)[0] is first
    change(module)
    second, _ = shared.read(module, loader, features=take)
    module.eval()
    torch.testing.assert_close(second, take(module, IMAGES[300:500]))
    assert second.dtype != first.dtype or not torch.equal(first, second)


def test_another_module_needs_another_pass():
    first, second = nn.Flatten(), nn.Sequential(nn.Flatten(), nn.Softmax(dim=1))  # neither has weights
    loader, shared = test_loader(), SharedFeatures()
    shared.read(first, loader)
    torch.testing.assert_close(shared.read(second, loader)[0], second(IMAGES[300:500]))


def test_sparse_buffers_are_never_taken_for_equal():
    module, shared, loader = nn.Flatten(), SharedFeatures(), test_loader()
    module.register_buffer("graph", torch.eye(3).to_sparse())
    first, _ = shared.read(module, loader)
    second, _ = shared.read(module, loader)
    assert first is not second
    assert torch.equal(first, second)


def test_evaluate_follows_the_weights():
    probe, module = OnlineKNNProbe(**own(), features="encoder"), stranger()
    seen = count_images(module)
    first = probe.evaluate(module)
    Flip().on_train_epoch_end(None, module)
    assert probe.evaluate(module) == OnlineKNNProbe(**own(), features="encoder").evaluate(module) != first
    assert sum(seen) == 3 * BOTH


class Held(OnlineKNNProbe):
    """A probe that counts which of its features are still in memory."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.references = []

    def read(self, *arguments):
        labelled = super().read(*arguments)
        self.references.append(weakref.ref(labelled.features))
        return labelled

    @property
    def held(self):
        return sum(reference() is not None for reference in self.references)


class Memory(pl.Callback):
    """Records how many features are in memory between the two probes, and when training continues."""

    def __init__(self, probe):
        self.probe, self.between, self.later = probe, [], []

    def on_train_epoch_end(self, *_):
        self.between.append(self.probe.held)

    def on_validation_epoch_end(self, *_):
        self.between.append(self.probe.held)

    def on_test_epoch_end(self, *_):
        self.between.append(self.probe.held)

    def on_train_batch_start(self, *_):
        self.later.append(self.probe.held)


@pytest.mark.parametrize("validates", [False, True])
def test_features_are_freed(tmp_path, validates):
    data = {**own(), "features": "encoder"}
    probe = Held(**data)
    memory = Memory(probe)
    module = stranger(validates=validates)
    module.test_step = lambda batch, batch_idx: None
    run = trainer(tmp_path, [probe, memory, OnlineLinearProbe(**data)], num_sanity_val_steps=0)
    run.fit(module, train_loader(), test_loader())
    # With validation, features are freed before the training epoch ends.
    assert memory.between == ([2, 0, 2, 0] if validates else [2, 2])
    assert memory.later == [0] * 10
    assert probe.held == 0
    run.test(module, test_loader(), verbose=False)
    assert memory.between.pop() == 2
    assert probe.held == 0
    probe.evaluate(module)
    assert len(probe.references) == 8
    assert probe.held == 0


# ------------------------------------------------------------------------------------------- one store for a Trainer


class Failure(pl.Callback):
    """Fails at the end of the first epoch."""

    def on_train_epoch_end(self, trainer, pl_module):
        raise RuntimeError("enough")


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("fails", [False, True])
def test_no_store_outlives_a_run(tmp_path, namespace, fails):
    data = data_module(namespace)  # the data module refers to the Trainer
    run = trainer(tmp_path, [OnlineKNNProbe(), *([Failure()] if fails else [])], namespace, max_epochs=1)
    try:
        run.fit(stranger(namespace), datamodule=data)
    except RuntimeError:
        assert fails
    assert run not in _OF_TRAINER


class Reader(pl.Callback):
    """A user's callback that reads the Trainer's shared features."""

    def on_train_epoch_end(self, trainer, pl_module):
        shared_features(trainer).read(pl_module, self.loader, features="encoder", precision=trainer.precision_plugin)


@pytest.mark.parametrize("first", [False, True])
def test_who_reads_first_makes_no_difference(tmp_path, first):
    data = own()
    reader, probe = Reader(), OnlineKNNProbe(**data, features="encoder", bank_size=None)
    reader.loader = data["train"]
    module = stranger()
    seen = count_images(module)
    trainer(tmp_path, [reader, probe] if first else [probe, reader], max_epochs=1).fit(module, train_loader())
    assert sum(seen) == BOTH + TRIED


class Levels:
    """Samples with targets [N, levels]. The second loader has one batch, so the second process gets none."""

    images, targets = IMAGES[:90].flatten(1), torch.stack([TARGETS, TARGETS // 5], dim=1)[:90]

    @classmethod
    def loaders(cls):
        data = TensorDataset(cls.images, cls.targets)
        return DataLoader(data, batch_size=16), [data[:3]]


def reads(rank):
    """Read several times. Before the last read, one process changes a weight."""
    module = nn.Linear(64, 8, bias=False)
    nn.init.constant_(module.weight, 1.0)
    seen = []
    module.register_forward_hook(lambda part, images, output: seen.append(len(output)))
    many, one_batch = Levels.loaders()
    shared = SharedFeatures()
    results = [shared.read(module, loader) for loader in (many, one_batch, many, one_batch)]
    counts = [sum(seen)]
    if rank == 1:
        module.weight.data[0, 0] += 1e-7
    results.append(shared.read(module, many))
    return results, [*counts, sum(seen)]


def test_two_processes_agree_on_what_is_shared():
    (first, first_counts), (second, second_counts) = run_in_processes(reads)
    # The first loader has 90 samples: batches 0 to 4 have 16 samples, batch 5 has 10 samples. The second loader has one
    # batch of 3 samples. Process 0 encodes batches 0, 2 and 4, and the batch of 3 samples. Process 1 encodes batches 1,
    # 3 and 5. After a weight has changed in process 1, both processes encode their batches of the first loader again.
    assert first_counts == [16 * 3 + 3, 16 * 3 + 3 + 16 * 3]
    assert second_counts == [16 * 2 + 10, 2 * (16 * 2 + 10)]
    for results in (first, second):
        for (features, found), size in zip(results, (90, 3, 90, 3, 90), strict=True):
            assert torch.equal(found, Levels.targets[:size])
            expected = Levels.images[:size].sum(dim=1, keepdim=True).expand(-1, 8)
            torch.testing.assert_close(features, expected, rtol=1e-6, atol=0)
