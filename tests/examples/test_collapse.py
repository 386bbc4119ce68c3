"""The picture of collapse shows what CollapseMonitor measured in each run."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "collapse.py"
spec = importlib.util.spec_from_file_location("collapse", SCRIPT)
collapse = importlib.util.module_from_spec(spec)
spec.loader.exec_module(collapse)


def test_the_picture_has_a_curve_of_each_run_for_each_metric():
    curves = {
        name: [{metric: 10.0 * i + j + epoch for j, metric in enumerate(collapse.METRICS)} for epoch in range(3)]
        for i, name in enumerate(collapse.RUNS)
    }
    shown = [line for axis in collapse.draw(curves).axes for line in axis.lines]
    found = {(line.get_label(), *line.get_ydata()) for line in shown}
    assert found == {(name, *[e[m] for e in epochs]) for name, epochs in curves.items() for m in collapse.METRICS}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["SimSiam", "SwAV"])
def test_the_collapsing_run_has_less_spread_and_rank(method):
    safe, collapsed = (collapse.train(*run, epochs=2) for name, run in collapse.RUNS.items() if name.startswith(method))
    assert len(safe) == len(collapsed) == 2
    for metric in ("embedding/std", "embedding/rankme"):
        assert collapsed[-1][metric] < safe[-1][metric]
    assert "train/loss_epoch" in safe[-1]
