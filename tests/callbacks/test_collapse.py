import math
import re
import warnings

import numpy as np
import pytest
import torch
from processes import run_in_processes
from strangers import NAMESPACES, stranger, train_loader, trainer

from ssl_modules.callbacks import CollapseMonitor
from ssl_modules.evaluation import feature_std, rankme, uniformity


def watched(change=lambda module, step, features: features, **options):
    """Return a module whose steps return features. The module also keeps the features, in one list per epoch."""
    module = stranger(**options)
    module.seen = [[]]
    step = module.training_step

    def training_step(batch, batch_idx):
        features = change(module, batch_idx, module.encoder(batch[0]).detach())
        module.seen[-1].append(features)
        return {"loss": step(batch, batch_idx), "features": features}

    module.training_step = training_step
    module.on_train_epoch_end = lambda: module.seen.append([])
    return module


def expected(features):
    std = feature_std(features) * math.sqrt(features.shape[1])
    return {"repr/std": std, "repr/rankme": rankme(features), "repr/uniformity": uniformity(features)}


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("manual", [False, True])
@pytest.mark.parametrize(("size", "kept"), [(100, 100), (64, 64), (2048, 300)])
def test_measures_the_last_features_of_each_epoch(tmp_path, namespace, manual, size, kept):
    module = watched(namespace=namespace, manual=manual)
    fit = trainer(tmp_path, [CollapseMonitor(size=size)], namespace)
    fit.fit(module, train_loader())
    last = torch.cat(module.seen[1])[-kept:]
    assert len(last) == kept
    for name, value in expected(last).items():
        assert fit.callback_metrics[name].item() == np.float32(value)


def test_collapse_is_seen(tmp_path):
    fit = trainer(tmp_path, [CollapseMonitor()])
    with pytest.warns(
        UserWarning, match=r"repr: the features collapse. After epoch 0, repr/std is 0; for evenly"
    ) as seen:
        fit.fit(watched(lambda module, step, features: torch.ones_like(features)), train_loader())
    assert sum("the features collapse" in str(warning.message) for warning in seen) == 1
    assert fit.callback_metrics["repr/std"] == 0
    assert fit.callback_metrics["repr/rankme"].item() == pytest.approx(1, abs=1e-3)
    assert fit.callback_metrics["repr/uniformity"].item() == pytest.approx(0, abs=1e-12)


def test_features_that_spread_give_no_warning(tmp_path):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        trainer(tmp_path, [CollapseMonitor()]).fit(watched(), train_loader())
    assert not [warning for warning in seen if "the features collapse" in str(warning.message)]


def test_skipped_steps_and_single_images_are_no_mistakes(tmp_path):
    module = stranger()
    module.training_step = lambda batch, batch_idx: None
    trainer(tmp_path, [CollapseMonitor()], max_epochs=1).fit(module, train_loader())
    one = watched(lambda module, step, features: features[:1])
    fit = trainer(tmp_path, [CollapseMonitor()], fast_dev_run=True)
    fit.fit(one, train_loader())
    assert "repr/std" not in fit.callback_metrics


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda module, step, x: x.reshape(-1, 8, 2, 2),
            r"\"features\" \[N, D\], got a dict {'loss': .*'features': a tensor \[64, 8, 2, 2\]",
        ),
        (
            lambda module, step, x: x * (torch.nan if step == 3 else 1),
            "expected finite features, got NaN or infinity in batch 3 of epoch 0",
        ),
    ],
)
def test_errors(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, [CollapseMonitor()]).fit(watched(change), train_loader())


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("encodr", "expected a submodule of Stranger, got 'encodr'; near matches: encoder"),
        ("encoder.0", r"features: expected vectors .* from 'encoder.0' .* got a tensor \[64, 8, 8, 8\]"),
        ("unused", "features: expected vectors .* from 'unused' .* got nothing; name a submodule that the step calls"),
    ],
)
def test_a_submodule_without_features_is_told_how(tmp_path, features, message):
    module = stranger()
    module.unused = torch.nn.Identity()
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, [CollapseMonitor(features=features)]).fit(module, train_loader())
    assert len(module.losses) <= 1
    assert not any(part._forward_hooks for part in module.modules())


@pytest.mark.parametrize("manual", [False, True])
def test_a_step_that_returns_its_loss_alone_is_told_once_and_not_measured(tmp_path, manual):
    module = stranger(manual=manual)
    fit = trainer(tmp_path, [CollapseMonitor()], max_epochs=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit.fit(module, train_loader())
    [said] = [str(w.message) for w in caught if "nothing is measured" in str(w.message)]
    assert re.match(
        r"repr: nothing is measured; .* got a dict {'loss': a tensor \[\]}; return .* key= the name .* features= the n",
        said,
    )
    assert len(module.losses) == 2 * len(train_loader())
    assert not any(name.startswith("repr/") for name in fit.callback_metrics)


def test_manual_optimisation_that_returns_nothing_is_told_how(tmp_path):
    module = stranger(manual=True)
    module.training_step = lambda batch, batch_idx: None
    with pytest.raises(ValueError, match=r"got a dict {}; return"):
        trainer(tmp_path, [CollapseMonitor()]).fit(module, train_loader())


def test_the_monitor_reads_features_under_another_key(tmp_path):
    module = watched()
    step = module.training_step

    def renamed(batch, batch_idx):
        outputs = step(batch, batch_idx)
        return {"loss": outputs["loss"], "embedding": outputs["features"], "features": "other"}

    module.training_step = renamed
    with pytest.raises(ValueError, match=r"'embedding': a tensor \[64, 32\].* key= the name of the entry"):
        trainer(tmp_path, [CollapseMonitor()], max_epochs=1).fit(module, train_loader())
    module.seen = [[]]
    fit = trainer(tmp_path, [CollapseMonitor(key="embedding", size=100)], max_epochs=1)
    fit.fit(module, train_loader())
    for name, value in expected(torch.cat(module.seen[0])[-100:]).items():
        assert fit.callback_metrics[name].item() == np.float32(value)


def test_size_is_checked():
    with pytest.raises(ValueError, match="size: expected a number of at least 2, got 1"):
        CollapseMonitor(size=1)


def test_the_first_output_of_a_submodule(tmp_path):
    module = stranger()
    module.encoder.append(torch.nn.Unflatten(1, (32, 1, 1)))
    seen = []

    def training_step(batch, batch_idx):
        first, second = (module.encoder(images).flatten(1) for images in (batch[0], batch[0].flip(3)))
        seen.append(first.detach())
        return (first - second).square().mean()

    module.training_step = training_step
    fit = trainer(tmp_path, [CollapseMonitor(features="encoder")], max_epochs=1)
    fit.fit(module, train_loader())
    for name, value in expected(torch.cat(seen)).items():
        assert fit.callback_metrics[name].item() == np.float32(value)


FEATURES = torch.randn(44, 5, generator=torch.Generator().manual_seed(0))


def gathered(rank):
    monitor = CollapseMonitor(size=30)
    for step, batch in enumerate(FEATURES.split(11)[rank::2]):  # 22 rows per process; 15 are kept
        monitor.on_train_batch_end(None, None, {"features": batch}, None, step)
    return monitor._gathered(torch.device("cpu"))


def test_two_processes_measure_all_features():
    first, second = run_in_processes(gathered)
    assert torch.equal(first[0], second[0])
    rows = {tuple(row) for row in first[0].tolist()}
    parts = FEATURES.split(11)
    kept = torch.cat([torch.cat(parts[rank::2])[-15:] for rank in range(2)])
    assert rows == {tuple(row) for row in kept.tolist()}
    assert expected(first[0]) == pytest.approx(expected(kept), rel=1e-12)
