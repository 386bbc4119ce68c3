import importlib

import numpy as np
import pytest
import torch
from strangers import (
    IMAGES,
    NAMESPACES,
    TARGETS,
    TEST,
    Spy,
    data_module,
    own,
    pl,
    stranger,
    test_loader,
    train_loader,
    trainer,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ssl_modules.callbacks import OnlineKNNProbe, OnlineLinearProbe, OnlineSGDProbe

# ------------------------------------------------------------------------------ both Trainers, and when probes run


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.parametrize("manual", [False, True])
def test_checkpoints_can_follow_the_probes(tmp_path, namespace, validates, manual):
    framework = importlib.import_module(namespace)
    best = framework.callbacks.ModelCheckpoint(tmp_path, monitor="probe/knn_top1", mode="max", save_top_k=-1)
    stopping = framework.callbacks.EarlyStopping("probe/linear_top1", mode="max", patience=5)
    # Although the checkpoint is listed first, the Trainer moves it behind the probes.
    probes = [OnlineKNNProbe(**own(), features="encoder"), OnlineLinearProbe(**own(), features="encoder")]
    module = stranger(namespace, validates, manual)
    fit = trainer(tmp_path, [best, stopping, *probes], namespace, enable_checkpointing=True)
    fit.fit(module, train_loader(), test_loader() if validates else None)

    assert len(best.best_k_models) == 2  # one per epoch
    assert set(fit.callback_metrics) >= {f"probe/{kind}_top{k}" for kind in ("knn", "linear") for k in (1, 5)}
    assert stopping.best_score.item() >= np.float32(probes[1].result["probe/linear_top1"])
    for path, score in best.best_k_models.items():
        stored = torch.load(path, weights_only=True)
        result = stored["callbacks"]["OnlineKNNProbe{'name': 'probe'}"]["result"]
        assert np.float32(result["probe/knn_top1"]) == score.item()
        assert {"k": 20, "temperature": 0.07, "bank_size": 5_000}.items() <= result.items()
        # The stored value was measured with the stored weights.
        module.load_state_dict(stored["state_dict"])
        assert probes[0].evaluate(module)["probe/knn_top1"] == result["probe/knn_top1"]


@pytest.mark.parametrize(
    ("validates", "options", "epochs"),
    [
        (False, {}, [0, 1]),
        (True, {}, [0, 1]),
        (True, {"num_sanity_val_steps": 0}, [0, 1]),
        (True, {"check_val_every_n_epoch": 2}, [1]),
        (True, {"val_check_interval": 2, "limit_train_batches": 4}, [0, 0, 1, 1]),
        (True, {"limit_val_batches": 0}, [0, 1]),
        (True, {"limit_val_batches": 1, "limit_train_batches": 1}, [0, 1]),
        (False, {"accumulate_grad_batches": 2, "limit_train_batches": 3}, [0, 1]),
        (False, {"fast_dev_run": True}, [0]),
        (True, {"fast_dev_run": 2}, [0]),
    ],
)
def test_when_it_runs(tmp_path, validates, options, epochs):
    probe = Spy(**own(), features="encoder")
    module = stranger(validates=validates)
    trainer(tmp_path, [probe], **options).fit(module, train_loader(), test_loader())
    assert probe.calls == epochs
    if "fast_dev_run" not in options:  # limits don't apply to the probe's data
        assert probe.result["probe/knn_top1"] == probe.evaluate(module)["probe/knn_top1"]


@pytest.mark.parametrize("nothing", [[], DataLoader(TEST, batch_size=300, drop_last=True)])
def test_an_empty_validation_part_is_no_validation_loop(tmp_path, nothing):
    data = data_module()
    data.val_dataloader = lambda: nothing
    probe = Spy()
    best = pl.callbacks.ModelCheckpoint(tmp_path, monitor="probe/knn_top1", mode="max", save_top_k=-1)
    trainer(tmp_path, [probe, best], enable_checkpointing=True).fit(stranger(validates=True), datamodule=data)
    assert probe.calls == [0, 1]
    assert len(best.best_k_models) == 2


def test_fast_dev_run_has_fewer_images_than_k(tmp_path):
    probes = [OnlineKNNProbe(**own(), k=200), OnlineSGDProbe(**own(), num_classes=10)]
    fit = trainer(tmp_path, probes, fast_dev_run=True)
    fit.fit(stranger(), train_loader())
    assert {"probe/knn_top1", "probe/sgd_top1"} <= fit.callback_metrics.keys()


def test_every_n_epochs_and_in_the_last(tmp_path):
    probe = Spy(**own(), every_n_epochs=2)
    trainer(tmp_path, [probe], max_epochs=5).fit(stranger(), train_loader())
    assert probe.calls == [1, 3, 4]


def test_epochs_without_validation_do_not_count_against_it(tmp_path):
    probe = Spy(**own(), every_n_epochs=2)
    fit = trainer(tmp_path, [probe], max_epochs=7, check_val_every_n_epoch=3)
    fit.fit(stranger(validates=True), train_loader(), test_loader())
    assert probe.calls == [2, 5]


def test_it_runs_in_a_test_run_with_its_own_data(tmp_path):
    probe = Spy(**own())
    module = stranger()
    module.test_step = lambda batch, batch_idx: None
    [result] = trainer(tmp_path, [probe]).test(module, test_loader(), verbose=False)
    assert result["probe/knn_top1"] == np.float32(probe.evaluate(module)["probe/knn_top1"])


def test_it_runs_in_validate_too(tmp_path):
    module = stranger(validates=True)
    probe = OnlineKNNProbe(**own(), every_n_epochs=10)
    metrics = trainer(tmp_path, [probe]).validate(module, test_loader(), verbose=False)[0]
    assert metrics["probe/knn_top1"] == np.float32(probe.evaluate(module)["probe/knn_top1"])


def test_logger_gets_the_values(tmp_path):
    logger = pl.loggers.CSVLogger(tmp_path)
    probe = OnlineKNNProbe(**own())
    trainer(tmp_path, [probe], logger=logger, max_epochs=1, log_every_n_steps=1).fit(stranger(), train_loader())
    rows = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("probe/knn_top1")
    values = [float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column]]
    assert values == [pytest.approx(probe.result["probe/knn_top1"], abs=1e-7)]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precisions(tmp_path, precision):
    probes = [
        OnlineKNNProbe(**own()),
        OnlineLinearProbe(**own()),
        OnlineSGDProbe(**own(), num_classes=10),
    ]
    fit = trainer(tmp_path, probes, precision=precision, max_epochs=1, limit_train_batches=2)
    fit.fit(stranger(), train_loader())
    assert {"probe/knn_top1", "probe/linear_top1", "probe/sgd_top1"} <= fit.callback_metrics.keys()


# ------------------------------------------------------------------------------------------------------------ data


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_the_trainers_datamodule(tmp_path, namespace):
    for probe_loaders, train, test in ((True, slice(100), slice(100, 200)), (False, slice(300), slice(300, 500))):
        data, module = data_module(namespace, probe_loaders), stranger(namespace)
        probe = OnlineKNNProbe()
        trainer(tmp_path, [probe], namespace, max_epochs=1).fit(module, datamodule=data)
        assert data.setups == 1
        loaders = (DataLoader(TensorDataset(IMAGES[part], TARGETS[part]), batch_size=64) for part in (train, test))
        expected = OnlineKNNProbe(train=next(loaders), test=next(loaders)).evaluate(module)
        assert expected.items() <= probe.result.items()


def test_a_datamodule_of_its_own_beside_unlabelled_training(tmp_path):
    class Unlabelled(type(stranger())):
        def training_step(self, batch, batch_idx):
            return self(batch[0]).square().mean()

    data, module = data_module(), Unlabelled()
    probes = [OnlineKNNProbe(datamodule=data), OnlineSGDProbe(datamodule=data)]
    trainer(tmp_path, probes, max_epochs=1).fit(module, DataLoader(TensorDataset(IMAGES[:64]), batch_size=32))
    assert data.setups == 1  # once for both probes
    assert probes[0].evaluate(module).items() <= probes[0].result.items()
    assert probes[1]._head[0].shape == (10, 10)


def test_a_datamodule_that_draws_does_not_move_the_run():
    data = data_module()
    data.setup = lambda stage: torch.rand(3)
    torch.manual_seed(1)
    OnlineKNNProbe(datamodule=data).evaluate(nn.Flatten())
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))


def test_evaluate_sets_its_datamodule_up():
    data = data_module()
    probe = OnlineKNNProbe(datamodule=data)
    assert probe.evaluate(stranger()) == probe.evaluate(stranger())
    assert data.setups == 1


# ---------------------------------------------------------------------------------------------------------- resume


def test_resume_with_another_head_is_refused(tmp_path):
    fit = trainer(tmp_path, [OnlineSGDProbe(**own(), num_classes=10)], max_epochs=1)
    fit.fit(stranger(), train_loader())
    fit.save_checkpoint(tmp_path / "one.ckpt")
    other = trainer(tmp_path, [OnlineSGDProbe(**own(), num_classes=11)])
    with pytest.raises(ValueError, match=r"expected a head \[11, 10\] .* got \[10, 10\] in the checkpoint"):
        other.fit(stranger(), train_loader(), ckpt_path=tmp_path / "one.ckpt")


def test_a_checkpoint_right_after_resume_keeps_the_head(tmp_path):
    probe = OnlineSGDProbe(**own(), num_classes=10)
    trainer(tmp_path, [probe], max_epochs=1).fit(stranger(), train_loader())
    stored = probe.state_dict()
    resumed = OnlineSGDProbe(**own(), num_classes=10)
    resumed.load_state_dict(stored)
    assert resumed.state_dict() == stored
    assert resumed.evaluate(stranger()) == probe.evaluate(stranger())


def test_a_second_run_starts_with_a_new_head(tmp_path):
    probe = OnlineSGDProbe(**own(), num_classes=10, features="encoder")
    heads = []
    for _ in range(2):
        fit = trainer(tmp_path, [probe], max_epochs=1)
        pl.seed_everything(0)
        fit.fit(stranger(), train_loader())
        heads.append(probe._head[0])
    assert torch.equal(*heads)
    assert probe._steps == 5
    fit.fit_loop.max_epochs = 2  # continue with the same Trainer
    fit.fit(fit.lightning_module, train_loader())
    assert probe._steps == 10


def test_a_probe_of_the_trainers_loaders_does_not_run_in_a_test_run(tmp_path):
    probe = OnlineKNNProbe(features="encoder")
    module = stranger(validates=True)
    module.test_step = lambda batch, batch_idx: None
    trainer(tmp_path, [probe]).fit(module, train_loader(), test_loader())
    assert probe.result is not None
    [result] = trainer(tmp_path, [probe]).test(module, test_loader(), verbose=False)
    assert not result
