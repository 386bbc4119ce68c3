"""Does GroCo give better neighbourhoods than SimCLR? k-NN and linear accuracy, with 2 and 4 views.

    python examples/claims/groco_neighbours.py [--seeds 0 1 2] [--device cuda] [--jobs 2]

GroCo's paper (arXiv 2301.02009) claims that its loss improves neighbourhoods, because it orders positives before
negatives. If this is true, k-NN accuracy gains more over SimCLR than linear accuracy does. The script therefore judges
the gain of k-NN accuracy minus the gain of linear accuracy, between runs with the same seed.

The runs are rows of docs/results.md, on Fashion-MNIST scattered. The script first trains the runs that are missing. A
run takes about 40 minutes of one core with 2 views, and 80 minutes with 4 views. Then the script prints the verdicts
and draws groco_neighbours.png.
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

sys.path.append(str(Path(__file__).parents[1] / "results"))

from claim import judge
from paired import difference, gains, verdict

PAIRS = {"2 views": ("GroCo", "SimCLR"), "4 views": ("GroCo, 4 views", "SimCLR, 4 views")}


def verdicts(lines: list[dict[str, Any]]) -> list[str]:
    """Return a line for each number of views."""
    out = []
    for views, (row, other) in PAIRS.items():
        knn, linear = (gains(lines, row, other, metric) for metric in ("knn", "linear"))
        if knn:
            more = [a - b for a, b in zip(knn, linear, strict=True)]
            out.append(f"{views}: k-NN {difference(knn)}, linear {difference(linear)}, k-NN - linear {verdict(more)}")
    return out


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Draw each run by its linear and its k-NN accuracy."""
    figure, axes = plt.subplots(figsize=(5.5, 4.5), layout="constrained")
    for views, marker in zip(PAIRS, ("o", "s"), strict=True):
        for row, color in zip(PAIRS[views], ("tab:orange", "tab:blue"), strict=True):
            runs = [line for line in lines if line["row"] == row]
            x, y = ([100 * run[metric] for run in runs] for metric in ("linear", "knn"))
            axes.scatter(x, y, marker=marker, color=color, label=f"{row.partition(',')[0]}, {views}")
    axes.set(
        xlabel="linear accuracy, %", ylabel="k-NN accuracy, %", title="One point per seed; Fashion-MNIST scattered"
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    judge(__file__, __doc__, [row for pair in PAIRS.values() for row in pair], verdicts, draw)
