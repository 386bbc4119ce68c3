"""The notebooks run from top to bottom, and match their scripts."""

import json
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient
from processes import THREADS
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from ssl_modules.checkpoint import load_module
from ssl_modules.datamodules import DigitsDataModule

REPOSITORY = Path(__file__).parents[2]
NOTEBOOKS = REPOSITORY / "examples" / "notebooks"
SCRIPTS = sorted(NOTEBOOKS.glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_notebook_is_that_of_its_script(script):
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    expected = jupytext.read(script)
    cells, expected_cells = ([(cell.cell_type, cell.source) for cell in n.cells] for n in (notebook, expected))
    assert cells == expected_cells, "run: make notebooks"
    assert not any(cell.get("outputs") for cell in notebook.cells), "run: make notebooks"


def check_first_steps(folder, pictures, history, same):
    assert history[-1]["probe/knn_top1"] > history[0]["probe/knn_top1"] + 0.05
    assert history[-1]["probe/linear_top1"] > history[0]["probe/linear_top1"]
    assert history[-1]["train/loss_epoch"] < history[-1]["train/chance"]
    assert same
    assert pictures == 2


def check_compare_runs(folder, pictures, probes, measures):
    untrained, low, high = probes.values()
    for metric in ("knn: top1", "few-label: 10%/top1", "retrieval: recall@1", "retrieval: map", "retrieval: curve_ap"):
        assert 0 < untrained[metric] < high[metric] < low[metric] < 1
    data = DigitsDataModule()
    data.setup()
    for name, temperature in (("T = 0.1", 0.1), ("T = 1", 1.0)):
        module = load_module(folder / "runs" / name / "last.ckpt").eval()
        assert module.loss.temperature == temperature
        features = normalize(module(data.test_set.images).detach().numpy())
        nearest = NearestNeighbors(n_neighbors=2).fit(features).kneighbors(features, return_distance=False)[:, 1]
        recall = (data.test_set.targets[nearest] == data.test_set.targets).double().mean().item()
        assert probes[name]["retrieval: recall@1"] == pytest.approx(recall)

    untrained, low, high = measures.values()
    assert 1 <= untrained["RankMe"] < 10 < high["RankMe"] < low["RankMe"] <= 96
    assert untrained["feature std"] < 0.01
    assert 0.07 < high["feature std"] < 96**-0.5
    assert 0 < untrained["alignment"] < high["alignment"] < low["alignment"] < 4
    assert low["uniformity"] < high["uniformity"] < untrained["uniformity"] < 0
    assert 1 < untrained["similarity ratio"] < low["similarity ratio"] < high["similarity ratio"]
    assert pictures == 5


# For each notebook: the check, and the variables that it takes.
CHECKS = {
    "first_steps": (check_first_steps, "history, same"),
    "compare_runs": (check_compare_runs, "probes, measures"),
}


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_notebook_runs(script, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", str(THREADS))  # for a network this small, more threads are slower
    check, variables = CHECKS[script.stem]
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(f"import json; print(json.dumps([{variables}]))"))
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    check(tmp_path, sum("image/png" in output.get("data", {}) for output in outputs), *json.loads(outputs[-1].text))
