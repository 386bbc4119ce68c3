"""Compare runs with the same seed, and judge claims by their differences."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from scipy.stats import t

SHOWS, DOES_NOT_SHOW, UNDECIDED = "shows it", "does not show it", "can't be decided here"


def gains(lines: Sequence[Mapping[str, Any]], row: str, other: str, metric: str) -> list[float]:
    """Return by how many percentage points a row exceeds another row, for each seed that both have."""
    ours, others = ({line["seed"]: line for line in lines if line["row"] == name} for name in (row, other))
    return [100 * (ours[seed][metric] - others[seed][metric]) for seed in sorted(ours.keys() & others.keys())]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of two or more values, and half the width of its 95 % interval by Student's t distribution."""
    return mean(values), float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5


def difference(values: Sequence[float]) -> str:
    """Return a mean difference as text, with its interval if there are several values."""
    if len(values) < 2:
        return "".join(f"{value:+.1f}" for value in values)
    return "{:+.1f} ± {:.1f}".format(*interval(values))


def verdict(differences: Sequence[float]) -> str:
    """Return a mean difference, and what it says about the claim that the difference is positive.

    Args:
        differences: a difference for each seed, in percentage points.

    Returns:
        "shows it" if the interval is above 0, "does not show it" if it is below 0, else "can't be decided here". One
        seed has no interval, so it can't decide a claim.
    """
    said = UNDECIDED
    if len(differences) > 1:
        middle, half = interval(differences)
        said = SHOWS if middle > half else DOES_NOT_SHOW if middle < -half else UNDECIDED
    return f"{difference(differences)} (seeds: {len(differences)}): {said}"
