import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from processes import run_in_processes

from ssl_modules.callbacks import CollapseMonitor
from ssl_modules.evaluation import top_k_accuracy
from tests.callbacks import two_processes as script


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run_in_processes(script.run, str(folder))
    return folder


def test_two_processes_give_the_values_of_one(run):
    logged = [json.loads((run / f"{rank}.json").read_text()) for rank in range(2)]
    assert logged[0] == logged[1]

    stored = torch.load(run / "0.pt", weights_only=True)
    module = script.Supervised()
    module.load_state_dict(stored["module"])
    *closed_form, sgd = script.probes()
    for probe in closed_form:
        metrics = probe.evaluate(module)
        assert len(metrics) >= 2
        for name, value in metrics.items():
            assert logged[0][name] == np.float32(value)  # the Trainer logs float32
    assert logged[0]["probe/knn_top1"] > 0.5

    images, targets = zip(*script.loaders()[1].dataset, strict=True)
    with torch.no_grad():
        features = module.encoder(torch.stack(images))
    scores = F.linear(features, stored["head"]["weight"], stored["head"]["bias"])
    assert logged[0][f"{sgd.name}/sgd_top1"] == np.float32(top_k_accuracy(scores, torch.stack(targets)))


def test_the_monitor_measures_the_last_features_of_both(run):
    logged = json.loads((run / "0.json").read_text())
    seen = [torch.load(run / f"{rank}.pt", weights_only=True)["seen"] for rank in range(2)]
    assert [len(features) for features in seen] == [166, 166]
    # 101 of each process, of which the first one's oldest is one too many.
    features = torch.cat([seen[0][-100:], seen[1][-101:]])
    for name, value in CollapseMonitor().measure(features).items():
        assert logged[name] == pytest.approx(value, rel=1e-6)


def test_one_process_draws(run):
    files = {file.name for file in (run / "pictures").iterdir()}
    assert files == {"views_epoch0_step0.png", "embedding_epoch0_step6.png", "neighbours_epoch0_step6.png"}


def test_both_processes_hold_the_same_head(run):
    first, second = (torch.load(run / f"{rank}.pt", weights_only=True)["head"] for rank in range(2))
    assert first["weight"].abs().max() > 0
    assert torch.equal(first["weight"], second["weight"])
    assert torch.equal(first["bias"], second["bias"])


def test_both_processes_agree_on_what_is_shared(run):
    first, second = (torch.load(run / f"{rank}.pt", weights_only=True) for rank in range(2))
    # Batches 0, 2, 4 and 1, 3, 5 of 90 samples; a weight that changed in one process is a new pass for both.
    assert first["counts"] == [16 * 3 + 3, 16 * 3 + 3 + 16 * 3]
    assert second["counts"] == [16 * 2 + 10, 2 * (16 * 2 + 10)]
    images, targets = script.levels()[0].dataset.tensors
    for results in (first["results"], second["results"]):
        for (features, found), size in zip(results, (90, 3, 90, 3, 90), strict=True):
            assert torch.equal(found, targets[:size])
            expected = images[:size].sum(dim=1, keepdim=True).expand(-1, 8)
            torch.testing.assert_close(features, expected, rtol=1e-6, atol=0)
