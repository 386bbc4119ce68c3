import random
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from strangers import (
    IMAGES,
    TARGETS,
    TRAIN,
    data_module,
    embed,
    own,
    pl,
    stranger,
    test_loader,
    train_loader,
    trainer,
)
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ssl_modules.callbacks import OnlineKNNProbe, OnlineLinearProbe, OnlineProbe, OnlineSGDProbe
from ssl_modules.evaluation.batches import endless_batches

# ---------------------------------------------------------------------------------------------------- the values


def test_knn_equals_scikit_learn():
    module = stranger()
    reference = KNeighborsClassifier(
        7, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.1)
    )
    reference.fit(embed(module, IMAGES[:300]), TARGETS[:300])
    votes = reference.predict_proba(embed(module, IMAGES[300:500]))
    truth = TARGETS[300:500].numpy()
    top5 = [target in row for target, row in zip(truth, (-votes).argsort(1, kind="stable")[:, :5], strict=True)]

    metrics = OnlineKNNProbe(**own(), features="encoder", k=7, temperature=0.1).evaluate(module)
    assert metrics == {
        "probe/knn_top1": (votes.argmax(1) == truth).mean(),
        "probe/knn_top5": np.mean(top5),
    }


def test_ridge_equals_scikit_learn():
    module = stranger()
    reference = make_pipeline(StandardScaler(), Ridge(alpha=0.1 * 300))
    reference.fit(embed(module, IMAGES[:300]).astype(float), np.eye(10)[TARGETS[:300]])
    scores = reference.predict(embed(module, IMAGES[300:500]).astype(float))

    truth = TARGETS[300:500].numpy()
    metrics = OnlineLinearProbe(**own(), features="encoder", penalty=0.1).evaluate(module)
    assert metrics["probe/linear_top1"] == (scores.argmax(1) == truth).mean()


def test_sgd_head_makes_the_steps_of_adam(tmp_path):
    class Frozen(type(stranger())):
        def training_step(self, batch, batch_idx):
            return self.head(torch.ones(1, 32)).sum()  # batch norm gets no input, so the features don't change

    module = Frozen()
    probe = OnlineSGDProbe(**own(), features="encoder", num_classes=10, learning_rate=0.01)
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
    assert probe.result["probe/sgd_top1"] == (scores.argmax(1) == TARGETS[300:500]).double().mean().item()


def test_levels_choose_the_column():
    levels = torch.stack([TARGETS, TARGETS // 5], dim=1)
    train, test = (
        DataLoader(TensorDataset(IMAGES[s], levels[s]), batch_size=64) for s in (slice(300), slice(300, 500))
    )
    fine = OnlineKNNProbe(train=train, test=test, level=0, features="encoder").evaluate(stranger())
    coarse = OnlineKNNProbe(train=train, test=test, level=1, features="encoder").evaluate(stranger())
    assert fine == OnlineKNNProbe(**own(), features="encoder").evaluate(stranger())
    assert list(coarse) == ["probe/knn_top1"]  # no top 5 with two classes
    assert coarse["probe/knn_top1"] > fine["probe/knn_top1"]


def test_a_class_without_training_images_is_never_guessed():
    few = TensorDataset(IMAGES[:300][TARGETS[:300] < 9], TARGETS[:300][TARGETS[:300] < 9])
    nine = TARGETS[300:500] == 9
    probe = OnlineKNNProbe(
        train=DataLoader(few, batch_size=64),
        test=DataLoader(TensorDataset(IMAGES[300:500][nine], TARGETS[300:500][nine])),
    )
    assert probe.evaluate(nn.Flatten()) == {"probe/knn_top1": 0.0, "probe/knn_top5": 0.0}


# -------------------------------------------------------------------------------- probes don't change the run


class Moody(Dataset):
    """A data set that draws from every global random state."""

    def __len__(self):
        return 96

    def __getitem__(self, index):
        noise = torch.rand(1) + random.random() + float(np.random.rand())  # noqa: NPY002
        return IMAGES[index] + 0.01 * noise, TARGETS[index]


def test_a_loader_with_a_generator_of_its_own_is_left_as_it_is(tmp_path):
    def run(callbacks):
        module = stranger(validates=True)
        pl.seed_everything(3)
        loader = DataLoader(Moody(), batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(5))
        fit = trainer(tmp_path, callbacks)
        fit.fit(module, loader, DataLoader(Moody(), batch_size=32))
        draws = torch.rand(1).item(), random.random(), np.random.rand()  # noqa: NPY002
        return module.state_dict(), module.losses, draws, loader.generator.get_state().tolist()

    plain = run([])
    probed = run([OnlineKNNProbe(features="encoder"), OnlineSGDProbe(features="encoder", num_classes=10)])
    assert all(torch.equal(plain[0][name], probed[0][name]) for name in plain[0])
    assert plain[1:] == probed[1:]


# ---------------------------------------------------------------------------------------------------------- errors


class Stream(IterableDataset):
    def __iter__(self):
        return iter(TRAIN)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OnlineKNNProbe(train=train_loader()), "test: expected a loader beside train=, got None"),
        (lambda: OnlineKNNProbe(test=test_loader()), "train: expected a loader beside test=, got None"),
        (
            lambda: OnlineKNNProbe(**own(), datamodule=data_module()),
            "datamodule: expected None beside train=",
        ),
        (lambda: OnlineKNNProbe(k=0), "k: expected a number of at least 1, got 0"),
        (lambda: OnlineKNNProbe(temperature=0.0), "temperature: expected a positive number, got 0.0"),
        (lambda: OnlineKNNProbe(bank_size=0), "bank_size: expected a number of at least 1, got 0"),
        (lambda: OnlineKNNProbe(every_n_epochs=0), "every_n_epochs: expected a number of at least 1, got 0"),
        (
            lambda: OnlineLinearProbe(fit="ridge"),
            "fit: expected no such argument, got 'ridge'; OnlineLin",
        ),
        (lambda: OnlineLinearProbe(fit="sgd"), "got 'sgd'; .* OnlineSGDProbe what fit=\"sgd\" was"),
        (lambda: OnlineKNNProbe(k=2.5), "k: expected int, got 2.5"),
        (lambda: OnlineKNNProbe(level=torch.nan), "level: expected int or None, got nan"),
        (OnlineProbe, "abstract method '?measure'?"),
        (lambda: OnlineLinearProbe(penalty=0.0), "penalty: expected a positive number, got 0.0"),
        (lambda: OnlineSGDProbe(learning_rate=0.0), "learning_rate: expected a positive number"),
    ],
)
def test_constructor_errors(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize(
    ("probe", "loaders", "message"),
    [
        (OnlineKNNProbe(**own(), features="encodr"), {}, "near matches: encoder"),
        (OnlineKNNProbe(**own(), features="encoder.0"), {}, r"\[64, 8, 8, 8\].*pool the output"),
        (OnlineKNNProbe(), {}, "expected one test loader with labels in the run, got none"),
        (OnlineKNNProbe(), {"train_dataloaders": [train_loader(), train_loader()]}, "got 2 of them"),
        (
            OnlineKNNProbe(),
            {"train_dataloaders": DataLoader(Stream(), batch_size=64)},
            "got the Trainer's DataLoader with an order of its own",
        ),
        (OnlineKNNProbe(), {"train_dataloaders": DataLoader(TensorDataset(IMAGES[:64]))}, "without labels"),
        (
            OnlineKNNProbe(train=DataLoader(TensorDataset((255 * IMAGES).byte(), TARGETS)), test=test_loader()),
            {},
            "as the weights of Stranger are, got uint8; .* prepare=",
        ),
        (OnlineSGDProbe(**own()), {}, "give num_classes="),
        (
            OnlineSGDProbe(**own(), num_classes=3),
            {},
            "num_classes: expected more .* got 3 and .* targets from",
        ),
    ],
)
def test_errors_show_before_the_first_epoch_ends(tmp_path, probe, loaders, message):
    module = stranger()
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, [probe]).fit(module, **{"train_dataloaders": train_loader(), **loaders})
    assert len(module.losses) <= 1


def test_evaluate_without_data():
    with pytest.raises(ValueError, match="expected data, got none; give labelled loaders, train= and test="):
        OnlineKNNProbe().evaluate(stranger())
    with pytest.raises(ValueError, match=r"k: expected a number from 1 to 300, .* got 301"):
        OnlineKNNProbe(**own(), k=301).evaluate(stranger())
    with pytest.raises(ValueError, match="expected a head that has learned, got none before the first training step"):
        OnlineSGDProbe(**own()).evaluate(stranger())
    with pytest.raises(ValueError, match="expected samples of the test loader, got none"):
        OnlineKNNProbe(train=train_loader(), test=[]).evaluate(stranger())


def test_a_diverged_module_is_named():
    module = stranger()
    nn.init.constant_(module.head.bias, float("nan"))
    with pytest.raises(ValueError, match="probe, test data: expected finite features, got NaN or infinity in batch 0"):
        OnlineKNNProbe(**own()).evaluate(module)


def test_a_probe_may_call_the_module_in_eval_mode_and_leaves_its_mode():
    class Calling(OnlineProbe):
        def measure(self, module, trainer):
            self.mode = module.training
            return {"zero": 0.0}

    probe, module = Calling(**own()), stranger().train()
    probe.evaluate(module)
    assert not probe.mode
    assert module.training
