"""Sorting networks by their definition, one number at a time."""

from math import atan, ceil, copysign, erf, exp, log, log2, pi, sqrt

DISTRIBUTIONS = {
    "cauchy": lambda s, d: 0.5 + atan(s * d) / pi,
    "logistic": lambda s, d: 1 / (1 + exp(-s * d)),
    "logistic_phi": lambda s, d: 1 / (1 + exp(-s * d / (abs(d) + 1e-10) ** 0.25)),
    "gaussian": lambda s, d: 0.5 + 0.5 * erf(s * d / sqrt(2)),
    "reciprocal": lambda s, d: 0.5 + 0.5 * s * d / (2 + abs(s * d)),
    "optimal": lambda s, d: (
        0.5 + s * d if abs(s * d) <= 0.25 else (d > 0) - copysign(1, d) / (16 * (abs(s * d) + 1e-10))
    ),
}


def odd_even(n):
    return [(i, i + 1) for layer in range(n) for i in range(layer % 2, n - 1, 2)]


def bitonic(n):
    """Return comparators (wire of the smaller, wire of the larger). Of 2^k wires only the last n are used."""
    size = 2 ** ceil(log2(n))
    comparators = []
    for block in range(ceil(log2(n))):
        for m in (2**j for j in reversed(range(block + 1))):
            for i in (i for i in range(size) if i // m % 2 == 0):
                pair = (i, i + m) if i // 2 ** (block + 1) % 2 == 0 else (i + m, i)
                if min(pair) >= size - n:
                    comparators.append(tuple(wire - (size - n) for wire in pair))
    return comparators


def slow_loss(row, negatives, steepness=1.0, network=odd_even, distribution="cauchy"):
    """Compute the loss by its definition, one number at a time, with the full soft permutation."""
    x, n = list(row), len(row)
    q = [[float(r == c) for c in range(n)] for r in range(n)]
    for i, j in network(n):
        alpha = DISTRIBUTIONS[distribution](steepness, x[j] - x[i])
        for values in (x, *q):
            a, b = values[i], values[j]
            values[i], values[j] = alpha * a + (1 - alpha) * b, (1 - alpha) * a + alpha * b
    own = [sum(q[r][c] for c in range(n) if (c < negatives) == (r < negatives)) for r in range(n)]
    return -sum(log(m) for m in own) / n
