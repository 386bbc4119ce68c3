"""Do ranks of similarity improve a representation? RINCE beside InfoNCE and supervised contrastive learning.

    python examples/claims/rince_ranks.py [--seeds 0 1 2] [--device cuda] [--jobs 2]

RINCE's paper (arXiv 2201.11736) claims that ranked positives improve classification, retrieval and the detection of
outliers, and that noisy ranks still help. The rows have the same encoder, views, queue, optimiser and steps:

- MoCo: InfoNCE, which learns without labels;
- RINCE, one rank: images of the same class are positives, as in supervised contrastive learning;
- RINCE, labels: images of the same class have rank 1, images of the same coarse class have rank 2;
- RINCE, noisy ranks: the same, but a fifth of the training images have a random coarse class.

The runs are rows of docs/results.md, on Fashion-MNIST scattered. The script trains the rows that are missing, which
takes 18 minutes of one core for a run. Then it prints the verdicts and draws rince_ranks.png. The differences are
between runs with the same seed.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from verdict import COLUMNS, complete, gains, verdict

ROWS = ("MoCo", "RINCE, one rank", "RINCE, labels", "RINCE, noisy ranks")
METRICS = ("knn", "linear", "retrieval", "coarse", "ood")
PAIRS = (
    ("RINCE, labels", "MoCo"),
    ("RINCE, labels", "RINCE, one rank"),
    ("RINCE, noisy ranks", "RINCE, one rank"),
)


def verdicts(lines: list[dict[str, Any]]) -> list[str]:
    """Return a line for each pair of rows and each metric."""
    return [
        f"{row} - {other}, {COLUMNS[metric]}: {verdict(found)}"
        for row, other in PAIRS
        for metric in METRICS
        if (found := gains(lines, row, other, metric))
    ]


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path("rince_ranks.png"))
    args = parser.parse_args()
    lines = complete("scattered", ROWS, args.seeds, device=args.device, count=args.jobs).lines
    print("\n".join(verdicts(lines)))
    draw(lines, args.out)


if __name__ == "__main__":
    main()
