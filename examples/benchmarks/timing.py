"""Measure how long functions take. The functions run in turn, so that other programs slow all of them equally.

On a busy machine, only the ratios of the times are reliable.
"""

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ssl_modules.utils.memory import keep_freed_memory


def interleaved(candidates: dict[str, Callable[[], Any]], rounds: int = 5) -> dict[str, float]:
    """Run all functions in turn, in one round to warm up and ``rounds`` more; return the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds + 1):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(times[1:]) for name, times in seconds.items()}


def gradients(runs: dict[str, Callable[[], Tensor | tuple[Tensor, ...]]], rounds: int) -> list[tuple[str | float, ...]]:
    """Return a row for each run: name, ms, its ratio to "ours", MiB and their ratio to "ours".

    Args:
        runs: functions that return the same gradient, as one or several tensors; each is checked against the first's.
        rounds: see :func:`interleaved`.
    """
    expected = _as_tuple(next(iter(runs.values()))())
    largest = max(x.abs().max().item() for x in expected)
    for run in runs.values():
        torch.testing.assert_close(_as_tuple(run()), expected, rtol=1e-3, atol=1e-3 * largest)
    seconds = interleaved(runs, rounds)
    memory = {name: peak_mib(run) for name, run in runs.items()}
    return [(n, 1000 * s, s / seconds["ours"], memory[n], memory[n] / memory["ours"]) for n, s in seconds.items()]


def _as_tuple(found: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else found


GRADIENTS_HEADER = ("loss", "ms", "ours is faster by", "MiB", "ours needs less by")


def with_and_without_kept_memory() -> Iterator[str]:
    """Yield "glibc's default", then keep freed memory, as our fits on a CPU do, and yield "freed memory kept"."""
    yield "glibc's default"
    if keep_freed_memory():  # false with another allocator, or if the environment configures malloc
        yield "freed memory kept"


def peak_mib(run: Callable[[], Any]) -> float:
    """Return the peak memory of PyTorch's allocator during a run, in addition to what it held before, in MiB."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / 2**20


@contextmanager
def threads(count: int):
    """Set PyTorch's number of threads inside a ``with`` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def print_table(title: str, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Print a Markdown table; numbers have three significant digits."""
    print(f"\n{title}\n")
    print("|", " | ".join(header), "|")
    print("|" + "---|" * len(list(header)))
    for row in rows:
        print("|", " | ".join(f"{_short(cell)}" for cell in row), "|", flush=True)


def _short(cell: Any) -> str:
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:,.0f}" if cell >= 100 else f"{cell:.3g}"


def machine() -> str:
    """Describe the machine that the numbers were measured on."""
    processor = f"{os.cpu_count()} cores, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    return f"{processor}, torch {torch.__version__}"
