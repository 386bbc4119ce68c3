"""The command runs in several processes, also on several nodes. If a process dies, the others end too."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from processes import run_on_nodes

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
    assert re.search(r"The process of rank 1 was killed by SIGKILL \(PID \d+\)\.\s*$", run.stderr), run.stderr[-3000:]
