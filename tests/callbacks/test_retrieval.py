import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_similarity
from strangers import IMAGES, TARGETS, embed, own, stranger, train_loader, trainer
from torch.utils.data import DataLoader, TensorDataset

from ssl_modules.callbacks import OnlineKNNProbe, OnlineRetrieval
from ssl_modules.evaluation import retrieval


@pytest.mark.parametrize("gallery", ["train", "test"])
def test_equals_scikit_learn(gallery):
    module = stranger()
    features = embed(module, IMAGES).astype(float)  # float64, as many float32 cosines differ only by rounding
    queries, truth = features[300:500], TARGETS[300:500].numpy()
    searched, labels = (features[:300], TARGETS[:300].numpy()) if gallery == "train" else (queries, truth)
    precisions, hits = [], []
    for i, scores in enumerate(cosine_similarity(queries, searched)):
        others = np.arange(len(scores)) != (i if gallery == "test" else -1)
        related = labels[others] == truth[i]
        precisions.append(average_precision_score(related, scores[others]))
        hits.append(related[scores[others].argsort()[::-1][:3]].any())

    take = lambda module, images: module.encoder(images).double()  # noqa: E731
    metrics = OnlineRetrieval(**own(), features=take, gallery=gallery, k=(3,)).evaluate(module)
    expected = {"retrieval/recall_at_3": np.mean(hits), "retrieval/map": np.mean(precisions)}
    assert metrics == pytest.approx(expected, abs=1e-6)


def test_every_level_in_one_pass(tmp_path):
    levels = torch.stack([TARGETS, TARGETS // 5], dim=1)
    parts = (slice(300), slice(300, 500))
    train, test = (DataLoader(TensorDataset(IMAGES[part], levels[part]), batch_size=64) for part in parts)
    probes = [OnlineRetrieval(train=train, test=test, level=level, name=f"level{level}") for level in (0, 1)]
    knn = OnlineKNNProbe(train=train, test=test, level=0)
    module, seen = stranger(), []
    module.encoder.register_forward_hook(lambda part, images, output: seen.append(0 if part.training else len(output)))
    fit = trainer(tmp_path, [*probes, knn], max_epochs=1)
    fit.fit(module, train_loader())
    assert sum(seen) == 500 + 3 * 128  # one pass for all, and a trial batch of each loader per callback
    for probe in probes:
        assert fit.callback_metrics[f"{probe.name}/map"] == np.float32(probe.evaluate(module)[f"{probe.name}/map"])
    assert probes[0].result["level0/map"] < probes[1].result["level1/map"]


def test_fast_dev_run_has_fewer_images_than_k(tmp_path):
    fit = trainer(tmp_path, [OnlineRetrieval(**own(), k=(1, 100, 200), gallery="test")], fast_dev_run=True)
    fit.fit(stranger(), train_loader())
    assert {"retrieval/recall_at_1", "retrieval/recall_at_200", "retrieval/map"} <= fit.callback_metrics.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": (0, 1)}, r"k: expected one or more numbers of at least 1, got \[0, 1\]"),
        ({"k": ()}, "k: expected one or more numbers"),
        ({"gallery": "bank"}, "gallery: expected 'train' or 'test', got 'bank'"),
    ],
)
def test_constructor_errors(options, message):
    with pytest.raises(ValueError, match=message):
        OnlineRetrieval(**options)


def test_a_bank_with_fewer_images_than_k_is_named():
    with pytest.raises(ValueError, match=r"k: expected numbers in \[1, 300\].* got \[301\]"):
        OnlineRetrieval(**own(), k=(301,)).evaluate(stranger())


def test_centre_gives_the_metrics_of_the_function():
    module = stranger()
    features = torch.as_tensor(embed(module, IMAGES))
    found = retrieval(features[300:500], TARGETS[300:500], features[:300], TARGETS[:300], k=(1,), centre=True)
    metrics = OnlineRetrieval(**own(), features="encoder", k=(1,), centre=True).evaluate(module)
    assert metrics == pytest.approx(
        {"retrieval/recall_at_1": found["recall@1"], "retrieval/map": found["map"]}, abs=1e-6
    )
    with_mean = OnlineRetrieval(**own(), features="encoder", k=(1,)).evaluate(module)
    assert metrics["retrieval/map"] != with_mean["retrieval/map"]
