import importlib
import random
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ssl_modules.callbacks import OnlineKNNProbe, OnlineLinearProbe
from ssl_modules.callbacks.features import endless_batches

NAMESPACES = ["lightning.pytorch", "pytorch_lightning"]
pl = importlib.import_module(NAMESPACES[0])

_images, _targets = load_digits(return_X_y=True)
IMAGES = torch.from_numpy(_images).float().reshape(-1, 1, 8, 8) / 16
TARGETS = torch.from_numpy(_targets)
TRAIN, TEST = TensorDataset(IMAGES[:300], TARGETS[:300]), TensorDataset(IMAGES[300:500], TARGETS[300:500])


def train_loader():
    return DataLoader(TRAIN, batch_size=64, shuffle=True)


def test_loader():
    return DataLoader(TEST, batch_size=64)


test_loader.__test__ = False


def own():
    return {"train": train_loader(), "test": test_loader()}


def stranger(namespace=NAMESPACES[0], validates=False, manual=False):
    """A supervised module of someone else: batch norm, dropout, a frozen part in eval mode, logits as output."""
    framework = importlib.import_module(namespace)

    class Stranger(framework.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = not manual
            self.encoder = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
            )
            self.dropout = nn.Dropout(0.5)
            self.head = nn.Linear(32, 10)
            self.losses = []

        def forward(self, images):
            return self.head(self.dropout(self.encoder(images)))

        def training_step(self, batch, batch_idx):
            loss = F.cross_entropy(self(batch[0]), batch[1])
            self.log("loss", loss)
            self.losses.append(loss.item())
            if manual:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    if validates:
        Stranger.validation_step = lambda self, batch, batch_idx: self.log(
            "val_loss", F.cross_entropy(self(batch[0]), batch[1])
        )
    torch.manual_seed(0)
    return Stranger()


def trainer(folder, callbacks, namespace=NAMESPACES[0], **options):
    options = {"max_epochs": 2, "logger": False, "enable_checkpointing": False, **options}
    return importlib.import_module(namespace).Trainer(
        accelerator="cpu", callbacks=callbacks, default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip


class Spy(OnlineKNNProbe):
    """Counts the evaluations."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.calls = []

    def _evaluate(self, module, trainer):
        if trainer is not None:
            self.calls.append(trainer.current_epoch)
        return super()._evaluate(module, trainer)


def embed(module, images):
    module.eval()
    with torch.no_grad():
        features = module.encoder(images).numpy()
    module.train()
    return features


# ---------------------------------------------------------------------------------------------------- the values


def test_knn_equals_scikit_learn():
    module = stranger()
    reference = KNeighborsClassifier(
        7, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.1)
    )
    reference.fit(embed(module, IMAGES[:300]), TARGETS[:300])
    votes = reference.predict_proba(embed(module, IMAGES[300:500]))
    top5 = [target in row for target, row in zip(_targets[300:500], (-votes).argsort(1, kind="stable")[:, :5])]  # noqa: B905

    metrics = OnlineKNNProbe(**own(), features="encoder", k=7, temperature=0.1).evaluate(module)
    assert metrics == {
        "probe/knn_top1": (votes.argmax(1) == _targets[300:500]).mean(),
        "probe/knn_top5": np.mean(top5),
    }


def test_ridge_equals_scikit_learn():
    module = stranger()
    reference = make_pipeline(StandardScaler(), Ridge(alpha=0.1 * 300))
    reference.fit(embed(module, IMAGES[:300]).astype(float), np.eye(10)[TARGETS[:300]])
    scores = reference.predict(embed(module, IMAGES[300:500]).astype(float))

    metrics = OnlineLinearProbe(**own(), features="encoder", penalty=0.1).evaluate(module)
    assert metrics["probe/linear_top1"] == (scores.argmax(1) == _targets[300:500]).mean()


def test_sgd_head_makes_the_steps_of_adam(tmp_path):
    class Frozen(type(stranger())):
        def training_step(self, batch, batch_idx):
            return self.head(torch.ones(1, 32)).sum()  # batch norm sees nothing: the features stand still

    module = Frozen()
    probe = OnlineLinearProbe(**own(), features="encoder", fit="sgd", num_classes=10, learning_rate=0.01)
    trainer(tmp_path, [probe], max_epochs=12).fit(module, train_loader())

    head = nn.Linear(32, 10)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for images, targets in islice(endless_batches(train_loader()), 12 * 5):
        features = torch.from_numpy(embed(module, images))
        optimizer.zero_grad()
        F.cross_entropy(head(features), targets).backward()
        optimizer.step()
    torch.testing.assert_close(probe._head[0], head.weight.detach(), rtol=0, atol=1e-5)
    torch.testing.assert_close(probe._head[1], head.bias.detach(), rtol=0, atol=1e-5)
    scores = head(torch.from_numpy(embed(module, IMAGES[300:500])))
    assert probe.result["probe/linear_top1"] == (scores.argmax(1) == TARGETS[300:500]).double().mean().item()


def test_levels_choose_the_column():
    levels = torch.stack([TARGETS, TARGETS // 5], dim=1)
    train, test = (
        DataLoader(TensorDataset(IMAGES[s], levels[s]), batch_size=64) for s in (slice(300), slice(300, 500))
    )
    fine = OnlineKNNProbe(train=train, test=test, level=0, features="encoder").evaluate(stranger())
    coarse = OnlineKNNProbe(train=train, test=test, level=1, features="encoder").evaluate(stranger())
    assert fine == OnlineKNNProbe(**own(), features="encoder").evaluate(stranger())
    assert list(coarse) == ["probe/knn_top1"]  # two classes have no top 5
    assert coarse["probe/knn_top1"] > fine["probe/knn_top1"]


def test_a_class_without_training_images_is_never_guessed():
    few = TensorDataset(IMAGES[:300][TARGETS[:300] < 9], TARGETS[:300][TARGETS[:300] < 9])
    nine = TARGETS[300:500] == 9
    probe = OnlineKNNProbe(
        train=DataLoader(few, batch_size=64),
        test=DataLoader(TensorDataset(IMAGES[300:500][nine], TARGETS[300:500][nine])),
    )
    assert probe.evaluate(nn.Flatten()) == {"probe/knn_top1": 0.0, "probe/knn_top5": 0.0}


# ------------------------------------------------------------------------------------- the run is left as it is


class Moody(Dataset):
    """Draws from every global random state."""

    def __len__(self):
        return 96

    def __getitem__(self, index):
        noise = torch.rand(1) + random.random() + float(np.random.rand())  # noqa: NPY002
        return IMAGES[index] + 0.01 * noise, TARGETS[index]


@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.parametrize("generator", [None, 5])
def test_probes_change_nothing(tmp_path, validates, generator):
    def run(callbacks):
        module = stranger(validates=validates)
        module.encoder[1].eval()
        pl.seed_everything(3)
        seeded = None if generator is None else torch.Generator().manual_seed(generator)
        loader = DataLoader(Moody(), batch_size=32, shuffle=True, generator=seeded)
        fit = trainer(tmp_path, callbacks)
        fit.fit(module, loader, DataLoader(Moody(), batch_size=32))
        logged = {
            name: value for name, value in fit.callback_metrics.items() if not name.startswith(("a/", "b/", "c/"))
        }
        draws = torch.rand(1).item(), random.random(), np.random.rand()  # noqa: NPY002
        modes = [part.training for part in module.modules()]
        return module.state_dict(), module.losses, logged, draws, modes, fit.callback_metrics

    data = {} if validates else own()  # the Trainer's own loaders, or the probe's
    plain = run([])
    probed = run(
        [
            OnlineKNNProbe(**data, features="encoder", name="a"),
            OnlineLinearProbe(**data, features="encoder", name="b"),
            OnlineLinearProbe(**data, features="encoder", fit="sgd", num_classes=10, name="c"),
        ]
    )
    assert {"a/knn_top1", "b/linear_top1", "c/linear_top1"} <= probed[-1].keys()
    assert plain[0].keys() == probed[0].keys()
    assert all(torch.equal(plain[0][name], probed[0][name]) for name in plain[0])
    assert plain[1:-1] == probed[1:-1]
    assert plain[-2].count(False) == 1  # the frozen batch norm


# --------------------------------------------------------------------------------------------- both Trainers, when


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.parametrize("manual", [False, True])
def test_checkpoints_can_follow_the_probes(tmp_path, namespace, validates, manual):
    framework = importlib.import_module(namespace)
    best = framework.callbacks.ModelCheckpoint(tmp_path, monitor="probe/knn_top1", mode="max", save_top_k=-1)
    stopping = framework.callbacks.EarlyStopping("probe/linear_top1", mode="max", patience=5)
    # The checkpoint stands first: the Trainer moves it behind the probes.
    probes = [OnlineKNNProbe(**own(), features="encoder"), OnlineLinearProbe(**own(), features="encoder")]
    module = stranger(namespace, validates, manual)
    fit = trainer(tmp_path, [best, stopping, *probes], namespace, enable_checkpointing=True)
    fit.fit(module, train_loader(), test_loader() if validates else None)

    assert len(best.best_k_models) == 2  # one an epoch
    assert set(fit.callback_metrics) >= {f"probe/{kind}_top{k}" for kind in ("knn", "linear") for k in (1, 5)}
    assert stopping.best_score.item() >= np.float32(probes[1].result["probe/linear_top1"])
    for path, score in best.best_k_models.items():
        stored = torch.load(path, weights_only=True)
        result = stored["callbacks"]["OnlineKNNProbe{'name': 'probe'}"]["result"]
        assert np.float32(result["probe/knn_top1"]) == score.item()
        assert {"k": 20, "temperature": 0.07, "bank_size": 10_000}.items() <= result.items()
        # The value is that of the weights beside it.
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
    if "fast_dev_run" not in options:  # limits are not for the probe's data
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
    probes = [OnlineKNNProbe(**own(), k=200), OnlineLinearProbe(**own(), fit="sgd", num_classes=10)]
    fit = trainer(tmp_path, probes, fast_dev_run=True)
    fit.fit(stranger(), train_loader())
    assert {"probe/knn_top1", "probe/linear_top1"} <= fit.callback_metrics.keys()


def test_every_n_epochs_and_in_the_last(tmp_path):
    probe = Spy(**own(), every_n_epochs=2)
    trainer(tmp_path, [probe], max_epochs=5).fit(stranger(), train_loader())
    assert probe.calls == [1, 3, 4]


def test_epochs_without_validation_do_not_count_against_it(tmp_path):
    probe = Spy(**own(), every_n_epochs=2)
    fit = trainer(tmp_path, [probe], max_epochs=7, check_val_every_n_epoch=3)
    fit.fit(stranger(validates=True), train_loader(), test_loader())
    assert probe.calls == [2, 5]


def test_it_judges_in_a_test_run_with_data_of_its_own(tmp_path):
    probe = Spy(**own())
    module = stranger()
    module.test_step = lambda batch, batch_idx: None
    [result] = trainer(tmp_path, [probe]).test(module, test_loader(), verbose=False)
    assert result["probe/knn_top1"] == np.float32(probe.evaluate(module)["probe/knn_top1"])


def test_validate_judges_as_well(tmp_path):
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
        OnlineLinearProbe(**own(), name="a"),
        OnlineLinearProbe(**own(), fit="sgd", num_classes=10),
    ]
    fit = trainer(tmp_path, probes, precision=precision, max_epochs=1, limit_train_batches=2)
    fit.fit(stranger(), train_loader())
    assert {"probe/knn_top1", "probe/linear_top1", "a/linear_top1"} <= fit.callback_metrics.keys()


# ------------------------------------------------------------------------------------------------------------ data


def data_module(namespace=NAMESPACES[0], probe_loaders=True):
    framework = importlib.import_module(namespace)

    class Data(framework.LightningDataModule):
        num_classes = 10
        setups = 0

        def setup(self, stage):
            self.setups += 1

        def train_dataloader(self):
            return DataLoader(TRAIN, batch_size=64, shuffle=True)

        def val_dataloader(self):
            return DataLoader(TEST, batch_size=64)

    if probe_loaders:
        Data.probe_train_dataloader = lambda self: DataLoader(TensorDataset(IMAGES[:100], TARGETS[:100]), batch_size=64)
        Data.probe_test_dataloader = lambda self: DataLoader(TensorDataset(IMAGES[100:200], TARGETS[100:200]))
    return Data()


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
    probes = [OnlineKNNProbe(datamodule=data), OnlineLinearProbe(datamodule=data, fit="sgd")]
    trainer(tmp_path, probes, max_epochs=1).fit(module, DataLoader(TensorDataset(IMAGES[:64]), batch_size=32))
    assert data.setups == 2  # one for each probe
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


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_resume_goes_on_with_the_same_head(tmp_path, namespace):
    def run(epochs, checkpoint=None, callbacks=True):
        probes = [
            OnlineLinearProbe(**own(), features="encoder", fit="sgd", num_classes=10),
            OnlineLinearProbe(**own(), features="encoder", name="second"),
            OnlineKNNProbe(**own(), features="encoder"),
        ]
        module = stranger(namespace)
        module.dropout.p = 0.0
        fit = trainer(tmp_path, probes if callbacks else [], namespace, max_epochs=epochs)
        fit.fit(module, DataLoader(TRAIN, batch_size=64), ckpt_path=checkpoint)
        return fit, module, probes

    _, whole, expected = run(3)
    first, _, _ = run(1)
    first.save_checkpoint(tmp_path / "one.ckpt")
    second, resumed, probes = run(3, tmp_path / "one.ckpt")
    assert all(torch.equal(whole.state_dict()[name], value) for name, value in resumed.state_dict().items())
    assert torch.equal(probes[0]._head[0], expected[0]._head[0])
    assert probes[0]._steps == expected[0]._steps == 15
    for probe, reference in zip(probes, expected, strict=True):
        assert probe.result == reference.result
    assert second.current_epoch == 3

    without, _, _ = run(2, tmp_path / "one.ckpt", callbacks=False)  # leave the probes away
    assert without.current_epoch == 2
    without.save_checkpoint(tmp_path / "none.ckpt")
    _, _, late = run(3, tmp_path / "none.ckpt")  # and take new ones
    assert late[0]._steps == 5


def test_resume_with_another_head_is_refused(tmp_path):
    fit = trainer(tmp_path, [OnlineLinearProbe(**own(), fit="sgd", num_classes=10)], max_epochs=1)
    fit.fit(stranger(), train_loader())
    fit.save_checkpoint(tmp_path / "one.ckpt")
    other = trainer(tmp_path, [OnlineLinearProbe(**own(), fit="sgd", num_classes=11)])
    with pytest.raises(ValueError, match=r"head is \[10, 10\] but .* make it \[11, 10\]"):
        other.fit(stranger(), train_loader(), ckpt_path=tmp_path / "one.ckpt")


def test_a_checkpoint_right_after_resume_keeps_the_head(tmp_path):
    probe = OnlineLinearProbe(**own(), fit="sgd", num_classes=10)
    trainer(tmp_path, [probe], max_epochs=1).fit(stranger(), train_loader())
    stored = probe.state_dict()
    resumed = OnlineLinearProbe(**own(), fit="sgd", num_classes=10)
    resumed.load_state_dict(stored)
    assert resumed.state_dict() == stored
    assert resumed.evaluate(stranger()) == probe.evaluate(stranger())


def test_a_second_run_starts_with_a_new_head(tmp_path):
    probe = OnlineLinearProbe(**own(), fit="sgd", num_classes=10, features="encoder")
    heads = []
    for _ in range(2):
        fit = trainer(tmp_path, [probe], max_epochs=1)
        pl.seed_everything(0)
        fit.fit(stranger(), train_loader())
        heads.append(probe._head[0])
    assert torch.equal(*heads)
    assert probe._steps == 5
    fit.fit_loop.max_epochs = 2  # the same Trainer goes on
    fit.fit(fit.lightning_module, train_loader())
    assert probe._steps == 10


def test_two_of_a_kind_need_two_names(tmp_path):
    with pytest.raises(RuntimeError, match="state_key"):
        trainer(tmp_path, [OnlineKNNProbe(**own()), OnlineKNNProbe(**own())])


# ---------------------------------------------------------------------------------------------------------- errors


class Stream(IterableDataset):
    def __iter__(self):
        return iter(TRAIN)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OnlineKNNProbe(train=train_loader()), "train= was given without test="),
        (lambda: OnlineKNNProbe(test=test_loader()), "test= was given without train="),
        (lambda: OnlineKNNProbe(**own(), datamodule=data_module()), "either the two loaders or a datamodule"),
        (lambda: OnlineKNNProbe(k=0), "k must be >= 1"),
        (lambda: OnlineKNNProbe(temperature=0.0), "temperature must be positive"),
        (lambda: OnlineKNNProbe(bank_size=0), "bank_size must be >= 1"),
        (lambda: OnlineKNNProbe(every_n_epochs=0), "every_n_epochs must be >= 1"),
        (lambda: OnlineLinearProbe(fit="adam"), "fit must be .* got 'adam'"),
        (lambda: OnlineLinearProbe(penalty=0.0), "penalty must be positive"),
        (lambda: OnlineLinearProbe(learning_rate=0.0), "learning_rate must be positive"),
    ],
)
def test_constructor_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("probe", "loaders", "message"),
    [
        (OnlineKNNProbe(**own(), features="encodr"), {}, "near matches: encoder"),
        (OnlineKNNProbe(**own(), features="encoder.0"), {}, r"\[64, 8, 8, 8\].*pool it"),
        (OnlineKNNProbe(), {}, "needs one test loader with labels but the run has none"),
        (OnlineKNNProbe(), {"train_dataloaders": [train_loader(), train_loader()]}, "has 2 of them"),
        (
            OnlineKNNProbe(),
            {"train_dataloaders": DataLoader(Stream(), batch_size=64)},
            "DataLoader with an order of its own",
        ),
        (OnlineKNNProbe(), {"train_dataloaders": DataLoader(TensorDataset(IMAGES[:64]))}, "without labels"),
        (
            OnlineKNNProbe(train=DataLoader(TensorDataset((255 * IMAGES).byte(), TARGETS)), test=test_loader()),
            {},
            "Stranger has floating-point weights .* prepare=",
        ),
        (OnlineLinearProbe(**own(), fit="sgd"), {}, "give num_classes="),
        (OnlineLinearProbe(**own(), fit="sgd", num_classes=3), {}, "num_classes=3 but .* targets from"),
        (OnlineKNNProbe(**own(), k=301), {"epoch": True}, r"k must be in \[1, 300\].* got 301"),
    ],
)
def test_errors_show_before_the_first_epoch_ends(tmp_path, probe, loaders, message):
    module = stranger()
    loaders = dict(loaders)
    late = loaders.pop("epoch", False)
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, [probe]).fit(module, **{"train_dataloaders": train_loader(), **loaders})
    assert len(module.losses) <= (5 if late else 1)


def test_evaluate_without_data():
    with pytest.raises(ValueError, match="has no data: give it labelled loaders, train= and test="):
        OnlineKNNProbe().evaluate(stranger())
    with pytest.raises(ValueError, match="no head before the first training step"):
        OnlineLinearProbe(**own(), fit="sgd").evaluate(stranger())
    with pytest.raises(ValueError, match="the test loader delivers no samples"):
        OnlineKNNProbe(train=train_loader(), test=[]).evaluate(stranger())


def test_a_diverged_module_is_named():
    module = stranger()
    nn.init.constant_(module.head.bias, float("nan"))
    with pytest.raises(ValueError, match="probe, test data: 200 of 200 features hold NaN"):
        OnlineKNNProbe(**own()).evaluate(module)
