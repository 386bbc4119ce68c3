"""Do ranks of similarity improve a representation? RINCE compared with InfoNCE and supervised contrastive learning.

    python examples/claims/rince_ranks.py [--seeds 0 1 2] [--device cuda] [--jobs 2]

RINCE's paper (arXiv 2201.11736) claims that ranked positives improve classification, retrieval and the detection of
outliers, and that noisy ranks still help. The rows have the same encoder, views, queue, optimiser and steps:

- MoCo: InfoNCE, which learns without labels;
- RINCE, one rank: images of the same class are positives, as in supervised contrastive learning;
- RINCE, labels: images of the same class have rank 1, images of the same coarse class have rank 2;
- RINCE, noisy ranks: the same, but a fifth of the training images have a coarse class that is drawn at random.

The runs are rows of docs/results.md, on Fashion-MNIST scattered. The script first trains the runs that are missing. A
run takes about half an hour of one core. Then the script prints the verdicts and draws rince_ranks.png. It judges ranks
against one rank by linear accuracy, between runs with the same seed. The other metrics have no verdict: with many
comparisons, some would look decided by chance. There is no verdict on RINCE against MoCo: RINCE has labels and MoCo has
none, so a difference doesn't show what the ranks contribute.
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
from table import COLUMNS

ROWS = ("MoCo", "RINCE, one rank", "RINCE, labels", "RINCE, noisy ranks")
METRICS = ("knn", "linear", "retrieval", "coarse", "ood")
PAIRS = (
    ("RINCE, labels", "MoCo"),
    ("RINCE, labels", "RINCE, one rank"),
    ("RINCE, noisy ranks", "RINCE, one rank"),
)


def verdicts(lines: list[dict[str, Any]]) -> list[str]:
    """Return two lines for each pair of rows.

    The first line gives the difference in linear accuracy, and the verdict if both rows have labels. The second line
    gives the differences in the other metrics.
    """
    out = []
    for row, other in PAIRS:
        found = {metric: gains(lines, row, other, metric) for metric in METRICS}
        others = ", ".join(f"{COLUMNS[metric]} {difference(found[metric])}" for metric in METRICS if metric != "linear")
        if found["linear"]:
            linear = difference(found["linear"]) if other == "MoCo" else verdict(found["linear"])
            out += [f"{row} - {other}: linear {linear}", f"    {others}"]
    return out


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Draw a panel for each metric, with a point for each run."""
    figure, panels = plt.subplots(1, len(METRICS), figsize=(12, 2.4), sharey=True, layout="constrained")
    for axes, metric in zip(panels, METRICS, strict=True):
        for y, row in enumerate(reversed(ROWS)):
            values = [100 * line[metric] for line in lines if line["row"] == row]
            axes.scatter(values, [y] * len(values), alpha=0.8)
        axes.set(title=f"{COLUMNS[metric]}, %", yticks=range(len(ROWS)), yticklabels=reversed(ROWS))
        axes.grid(axis="x", alpha=0.3)
    figure.suptitle("One point per seed; Fashion-MNIST scattered")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    judge(__file__, __doc__, ROWS, verdicts, draw)
