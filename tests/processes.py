"""Run a function in new processes: in one process, or in several that form a gloo group, as in DDP.

The processes are forked from a server that has only imported the package. Therefore each process starts fast and has
the state of a new interpreter. ``run_on_nodes`` starts programs as a cluster does, by torchrun.
"""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

THREADS = int(os.environ.get("TORCH_THREADS", "1"))  # torch's threads in each test process

# A new interpreter would need seconds for these imports.
multiprocessing.set_forkserver_preload(
    ["lightning.pytorch", "pytest", "ssl_modules.callbacks", "ssl_modules.datamodules"]
)


def run_in_processes(function: Callable[..., Any], *args: Any, processes: int = 2) -> list[Any]:
    """Run ``function(rank, *args)`` in each process of a group; return the results, tensors and plain data."""
    return _start(_run_in_group, function, args, processes)


def run_in_a_process(function: Callable[..., Any], *args: Any, environment: Mapping[str, str] | None = None) -> Any:
    """Run ``function(*args)`` in a new process and return the result. By default, it has this process's environment."""
    [result] = _start(_run_alone, function, (dict(os.environ if environment is None else environment), *args), 1)
    return result


def run_script(path: Path, *arguments: str, folder: Path, **environment: str) -> None:
    """Run ``python path *arguments`` in the given folder, in its own process."""
    run_in_a_process(_as_main, str(path), arguments, str(folder), environment={**os.environ, **environment})


def run_on_nodes(*command: str, nodes: int = 2, **given: str) -> list[subprocess.CompletedProcess]:
    """Run ``torchrun --nnodes=... --node_rank=... command`` once for each node, all on the loopback address.

    Args:
        command: program and arguments.
        nodes: number of nodes.
        given: variables of the environment.

    Returns:
        For each node, torchrun's exit code, and the output of torchrun and its process as one text.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", f"--nnodes={nodes}"]
    torchrun += ["--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={port}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), **given}
    started = [
        subprocess.Popen(
            [*torchrun, f"--node_rank={node}", *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for node in range(nodes)
    ]
    with ThreadPoolExecutor(nodes) as readers:
        outputs = list(readers.map(lambda process: process.communicate()[0], started))
    return [
        subprocess.CompletedProcess(process.args, process.returncode, output)
        for process, output in zip(started, outputs, strict=True)
    ]


def _as_main(path: str, arguments: tuple[str, ...], folder: str) -> None:
    os.chdir(folder)
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")


def _start(run: Callable[..., None], function: Callable[..., Any], args: tuple, processes: int) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(run, (function, args, processes, folder), nprocs=processes, start_method="forkserver")
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=False) for rank in range(processes)]


def _run_in_group(rank: int, function: Callable[..., Any], args: tuple, processes: int, folder: str) -> None:
    torch.set_num_threads(THREADS)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=processes)
    torch.save(function(rank, *args), Path(folder, f"{rank}.pt"))
    dist.barrier()
    # End without destroying the group, because this can deadlock in torch 2.6: it holds the GIL while it waits for a
    # thread, and the thread needs the GIL to free its last tensor.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _run_alone(rank: int, function: Callable[..., Any], args: tuple, processes: int, folder: str) -> None:
    environment, *rest = args
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(THREADS)
    torch.save(function(*rest), Path(folder, f"{rank}.pt"))
