import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from strangers import IMAGES, TARGETS, data_module, embed, own, stranger, train_loader, trainer
from torch.utils.data import DataLoader, TensorDataset

from ssl_modules.callbacks import OnlineKNNProbe, OutOfDistributionProbe

OUTLIERS = IMAGES[500:620].roll(1, dims=3)  # digits shifted by a pixel


def outliers():
    return DataLoader(TensorDataset(OUTLIERS), batch_size=50)


def test_equals_scikit_learn():
    module = stranger().double()
    take = lambda module, images: module.encoder(images.double())  # noqa: E731
    module.eval()
    with torch.no_grad():
        bank, test, others = (normalize(take(module, x).numpy()) for x in (IMAGES[:300], IMAGES[300:500], OUTLIERS))
    images, labels = np.concatenate([test, others]), TARGETS[:300].numpy()
    gaussian = np.max([GaussianMixture(1).fit(bank[labels == c]).score_samples(images) for c in range(10)], axis=0)
    distance = NearestNeighbors(n_neighbors=9).fit(bank).kneighbors(images)[0][:, -1]
    means = normalize([bank[labels == c].mean(0) for c in range(10)])
    truth = [1] * 200 + [0] * 120
    expected = {
        "ood/gaussian_auroc": roc_auc_score(truth, gaussian),
        "ood/neighbours_auroc": roc_auc_score(truth, -distance),
        "ood/cosine_auroc": roc_auc_score(truth, (images @ means.T).max(1)),
    }
    metrics = OutOfDistributionProbe(**own(), outliers=outliers(), features=take, k=9).evaluate(module)
    assert set(metrics) == {*expected, *(name.replace("auroc", "fpr95") for name in expected)}
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert 0.5 < expected["ood/gaussian_auroc"] < 1


@pytest.mark.parametrize("source", ["loader", "with labels", "tensors", "datamodule"])
def test_outliers_may_come_in_any_form(tmp_path, source):
    given = {
        "loader": outliers(),
        "with labels": DataLoader(TensorDataset(OUTLIERS, torch.zeros(120)), batch_size=7),
        "tensors": list(OUTLIERS.split(64)),
        "datamodule": data_module(),
    }[source]
    module = stranger()
    probe = OutOfDistributionProbe(**own(), outliers=given, features="encoder")
    fit = trainer(tmp_path, [probe, OnlineKNNProbe(**own())], max_epochs=1)
    fit.fit(module, train_loader())
    expected = IMAGES[100:200] if source == "datamodule" else OUTLIERS
    found, _ = probe.read("outliers", module, None)
    np.testing.assert_allclose(found.numpy(), embed(module, expected), rtol=1e-5, atol=1e-6)
    assert fit.callback_metrics["ood/gaussian_auroc"] == np.float32(probe.result["ood/gaussian_auroc"])
    assert probe.result["scores"] == "gaussian neighbours cosine"


def test_the_bank_size_limits_the_outliers():
    probe = OutOfDistributionProbe(**own(), outliers=outliers(), bank_size=60)
    assert len(probe.read("outliers", stranger(), None)[0]) == 60


def test_fast_dev_run_has_fewer_images_than_k(tmp_path):
    probe = OutOfDistributionProbe(**own(), outliers=outliers(), k=200)
    fit = trainer(tmp_path, [probe], fast_dev_run=True)
    fit.fit(stranger(), train_loader())
    assert "ood/neighbours_fpr95" in fit.callback_metrics


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"scores": ("energy",)},
            "scores: expected a list of 'gaussian', .* or 'cosine', got \\('energy',\\)",
        ),
        ({"scores": ()}, "scores: expected one or more, got none"),
        ({"k": 0}, "k: expected a number of at least 1, got 0"),
        (
            {"outliers": []},
            "expected samples of the outliers loader, got none; give .* as outliers=",
        ),
        (
            {"outliers": [{"x": OUTLIERS}]},
            "outliers: expected batches of images or .*, got dict\\(x: Tensor\\); pass prepare_outliers=",
        ),
        (
            {"outliers": [OUTLIERS * torch.nan]},
            "ood, outliers data: expected finite features, got NaN or infinity in batch 0",
        ),
        ({"k": 301}, r"k: expected a number from 1 to 300, .* got 301"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        OutOfDistributionProbe(**{**own(), "outliers": outliers(), **options}).evaluate(stranger())


def test_without_outliers_the_error_says_what_to_give():
    with pytest.raises(TypeError, match="outliers: expected images of another data set, got None; give a loader"):
        OutOfDistributionProbe(**own(), outliers=None)
