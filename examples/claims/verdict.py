"""Judge claims by differences between runs with the same seed."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "results"))

from run import complete
from table import COLUMNS, interval

__all__ = ["COLUMNS", "complete", "gains", "verdict"]
SHOWS, DOES_NOT_SHOW, UNDECIDED = "shows it", "does not show it", "can't be decided here"


def verdict(differences: Sequence[float]) -> str:
    """Return the mean difference with its 95 % interval, and what the runs say about a claim that it is positive.

    Args:
        differences: one difference for each seed, in percentage points.

    Returns:
        "shows it" if the interval is above 0, "does not show it" if it is below 0, else "can't be decided here". One
        seed has no interval, so it can't decide a claim.
    """
    if len(differences) == 1:
        return f"{differences[0]:+.1f}, one seed: {UNDECIDED}"
    middle, half = mean(differences), interval(list(differences))
    said = SHOWS if middle > half else DOES_NOT_SHOW if middle < -half else UNDECIDED
    return f"{middle:+.1f} ± {half:.1f}, {len(differences)} seeds: {said}"


def gains(lines: Sequence[Mapping[str, Any]], row: str, other: str, metric: str) -> list[float]:
    """Return by how many percentage points a row exceeds another row, for each seed that both have."""
    ours, others = ({line["seed"]: line for line in lines if line["row"] == name} for name in (row, other))
    return [100 * (ours[seed][metric] - others[seed][metric]) for seed in sorted(ours.keys() & others.keys())]
