"""Run a function in several gloo processes, as data-parallel training does."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_in_processes(function: Callable[..., Any], *args: Any, processes: int = 2) -> list[Any]:
    """What ``function(rank, *args)`` returns in each process; tensors and plain data."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_run, (function, args, processes, folder), nprocs=processes)
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=False) for rank in range(processes)]


def _run(rank: int, function: Callable[..., Any], args: tuple, processes: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=processes)
    try:
        torch.save(function(rank, *args), Path(folder, f"{rank}.pt"))
    finally:
        dist.destroy_process_group()
