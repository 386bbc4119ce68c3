"""Claims are judged by differences between runs with the same seed, and figures show the measured values."""

import importlib
import itertools
import sys
from pathlib import Path

import pytest
import torch

from ssl_modules.batch import read_batch
from ssl_modules.datamodules import DigitsDataModule

pytest.importorskip("matplotlib")
ROOT = Path(__file__).parents[2]
FOLDER, RESULTS, PAGE = ROOT / "examples" / "claims", ROOT / "examples" / "results", ROOT / "docs" / "results.md"


@pytest.fixture
def scripts(monkeypatch):
    """Return a function that imports a script of the folder by its name."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), str(RESULTS), *sys.path])
    yield importlib.import_module
    for path in [*FOLDER.glob("*.py"), *RESULTS.glob("*.py")]:
        sys.modules.pop(path.stem, None)


@pytest.fixture
def robustness(scripts):
    return scripts("yadim_robustness")


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([1.0, 1.2, 1.1], "+1.1 ± 0.2 (seeds: 3): shows it"),
        ([-1.0, -1.2, -1.1], "-1.1 ± 0.2 (seeds: 3): does not show it"),
        ([1.0, -0.5, 0.4], "+0.3 ± 1.9 (seeds: 3): can't be decided here"),
        ([5.0], "+5.0 (seeds: 1): can't be decided here"),
    ],
)
def test_the_interval_of_the_differences_decides(scripts, differences, said):
    assert scripts("paired").verdict(differences) == said


def lines(row, seeds, **metrics):
    """Return runs of a row; a metric grows by 0.001 with the seed."""
    return [{"row": row, "seed": s, **{k: v + 0.001 * s for k, v in metrics.items()}} for s in seeds]


def test_gains_are_those_of_common_seeds(scripts):
    runs = lines("RINCE", (2, 0), knn=0.6) + lines("MoCo", (0, 1, 2), knn=0.5)
    assert scripts("paired").gains(runs, "RINCE", "MoCo", "knn") == pytest.approx([10.0, 10.0])


def test_groco_is_judged_by_neighbours_beyond_the_linear_classifier(scripts, tmp_path):
    groco = scripts("groco_neighbours")
    runs = lines("SimCLR", range(3), knn=0.5, linear=0.6) + lines("GroCo", range(3), knn=0.52, linear=0.65)
    assert groco.verdicts(runs) == [
        "2 views: k-NN +2.0 ± 0.0, linear +5.0 ± 0.0, k-NN - linear -3.0 ± 0.0 (seeds: 3): does not show it"
    ]
    groco.draw(runs, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_rince_is_judged_by_linear_accuracy(scripts, tmp_path):
    rince = scripts("rince_ranks")
    same = dict.fromkeys(rince.METRICS, 0.5)
    runs = lines("RINCE, one rank", [0, 1], **same) + lines(
        "RINCE, labels", [0, 1], **same | {"linear": 0.6, "coarse": 0.7}
    )
    assert rince.verdicts(runs) == [
        "RINCE, labels - RINCE, one rank: linear +10.0 ± 0.0 (seeds: 2): shows it",
        "    k-NN +0.0 ± 0.0, retrieval +0.0 ± 0.0, coarse retrieval +20.0 ± 0.0, OOD AUROC +0.0 ± 0.0",
    ]
    # Against MoCo, labels and ranks act together, so there is no verdict.
    runs = [line | {"row": line["row"].replace("RINCE, one rank", "MoCo")} for line in runs]
    assert rince.verdicts(runs)[0] == "RINCE, labels - MoCo: linear +10.0 ± 0.0"
    rince.draw(runs, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_claims_train_rows_that_the_results_have(scripts):
    groco, rince, rows = scripts("groco_neighbours"), scripts("rince_ranks"), scripts("rows")
    assert {*rince.ROWS, *sum(groco.PAIRS.values(), ())} <= {*rows.ROWS}


@pytest.mark.parametrize("script", ["groco_neighbours", "rince_ranks"])
def test_the_page_on_results_holds_the_verdicts(scripts, script):
    verdicts = scripts(script).verdicts(scripts("run").Table(RESULTS / "scattered.jsonl").lines)
    assert "\n".join(["```text", *verdicts, "```"]) in PAGE.read_text(), f"run {FOLDER / script}.py"


def test_the_lead_of_a_method_is_a_mean_over_the_epochs_of_training(scripts):
    leads = scripts("s2r2_epochs").leads([[0.1, 0.5, 0.7]], [[0.3, 0.4, 0.6]])
    assert leads == pytest.approx([10.0])


@pytest.mark.parametrize("method", ["AMDIM", "CPC", "YADIM", "YADIM, patches"])
def test_every_cell_has_a_loss(robustness, method):
    data, grid = DigitsDataModule(), robustness.GRIDS[method]
    images = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    for encoder, extraction in itertools.product(grid.encoders, grid.extractions):
        module = grid.build(encoder, extraction, data)
        batch, generator = read_batch(images), torch.Generator()
        contrasts = module.contrasts(batch, module.embed(module.views(batch, generator)), generator)
        assert module.objective(contrasts).isfinite()


def test_the_table_and_the_figure_are_of_the_cells(robustness, tmp_path):
    cells = []
    for method, grid in robustness.GRIDS.items():
        for i, (encoder, extraction) in enumerate(
            (e, x) for e in grid.encoders for x in ("", *list(grid.extractions)[:2])
        ):
            accuracy = {"k-NN": [0.5 + 0.02 * i, 0.6 + 0.02 * i], "linear": [0.9, 0.9]}
            cells.append(robustness.Cell(method, encoder, extraction, accuracy))
    lines = robustness.table(cells).splitlines()
    # Cells 1, 2, 4, 5, 7 and 8 are trained. Their means over seeds are 0.57, 0.59, 0.63, 0.65, 0.69 and 0.71.
    assert lines[2] == "| AMDIM | 64.0, 5.5, 57.0 | 90.0, 0.0, 90.0 |"
    assert "| CPC | CPC's | untrained | 50.0 / 60.0 | 90.0 / 90.0 |" in lines
    assert "| YADIM | ResNet | multi-pair | 60.0 / 70.0 | 90.0 / 90.0 |" in lines
    # The cells of a method are the same in both seeds up to a constant, and the same for all methods.
    assert (
        robustness.verdicts(cells)[0]
        == "spread of AMDIM - spread of YADIM, k-NN: +0.0 ± 0.0 (seeds: 2): can't be decided here"
    )
    robustness.draw(cells, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
