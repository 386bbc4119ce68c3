"""The command runs in several processes, also on several nodes. If a process dies, the others end too."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from processes import run_on_nodes

from ssl_modules.utils.lightning import ended_processes

FIT = ("-m", "ssl_modules", "fit", "--model=SimCLR", "--model.encoder=test_resnet", "--data=DigitsDataModule")
KILL = ("--trainer.callbacks=killing.Kill", "--trainer.callbacks.rank=1")
TESTS = str(Path(__file__).parents[1])


def options(**trainer):
    trainer |= {"strategy": "ddp", "accelerator": "cpu", "logger": "false"}
    return [f"--trainer.{name}={value}" for name, value in trainer.items()]


@pytest.mark.slow
def test_a_killed_process_is_reported_and_ends_the_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = run_on_nodes(*FIT, *options(num_nodes=2, devices=1), *KILL, PYTHONPATH=TESTS)
    assert first.returncode != 0
    assert re.search("RuntimeError: .*gloo", first.stdout), first.stdout[-3000:]  # the connection broke
    assert second.returncode != 0
    assert "rank      : 1" in second.stdout
    assert "SIGKILL" in second.stdout


@pytest.mark.slow
def test_without_torchrun_the_error_names_the_killed_process(tmp_path):
    command = [sys.executable, *FIT, *options(devices=2), *KILL]
    environment = {**os.environ, "PYTHONPATH": TESTS, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    ours = r"The process of rank 1 was killed by SIGKILL \(PID \d+\)\."
    # If the first process takes more than five seconds to end, Lightning ends it with a message of its own.
    lightnings = r"\[rank: 1\] Child process with PID \d+ terminated with code -9"
    assert re.search(f"{ours}|{lightnings}", run.stderr), run.stderr[-3000:]


def test_ended_processes_are_described_by_rank():
    programs = ["import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "", "raise SystemExit(3)", "input()"]
    processes = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) for code in programs]
    for process in processes[:3]:
        process.wait()
    launcher = _SubprocessScriptLauncher(LightningEnvironment(), num_processes=5, num_nodes=2)
    launcher.procs = processes
    trainer = SimpleNamespace(strategy=SimpleNamespace(launcher=launcher), node_rank=1, num_devices=5)
    killed, _, failed, _ = (process.pid for process in processes)
    assert ended_processes(trainer) == [
        f"The process of rank 6 was killed by SIGKILL (PID {killed}).",
        f"The process of rank 8 ended with exit code 3 (PID {failed}).",
    ]
    processes[3].communicate(b"\n")
