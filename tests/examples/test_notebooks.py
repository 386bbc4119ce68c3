"""The notebooks run from top to bottom, and are what their scripts say."""

import json
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

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


def test_first_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # more only wait for each other with so small a network
    notebook = nbformat.read(NOTEBOOKS / "first_steps.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("import json; print(json.dumps([history, same]))"))
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()

    history, same = json.loads(notebook.cells[-1].outputs[0].text)
    assert history[-1]["probe/knn_top1"] > history[0]["probe/knn_top1"] + 0.05
    assert history[-1]["probe/linear_top1"] > history[0]["probe/linear_top1"]
    assert history[-1]["train/loss_epoch"] < history[-1]["train/chance"]
    assert same
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in str(output)]
    assert len(pictures) == 2
