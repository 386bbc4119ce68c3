"""The command runs on several nodes. If a process dies, the others end too."""

import re
from pathlib import Path

import pytest
from processes import run_on_nodes


@pytest.mark.slow
def test_a_killed_process_is_reported_and_ends_the_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit = ["-m", "ssl_modules", "fit", "--model=SimCLR", "--model.encoder=test_resnet", "--data=DigitsDataModule"]
    trainer = {"num_nodes": 2, "devices": 1, "strategy": "ddp", "accelerator": "cpu", "logger": "false"}
    options = [f"--trainer.{name}={value}" for name, value in trainer.items()]
    kill = ["--trainer.callbacks=killing.Kill", "--trainer.callbacks.rank=1"]
    first, second = run_on_nodes(*fit, *options, *kill, PYTHONPATH=str(Path(__file__).parents[1]))
    assert first.returncode != 0
    assert re.search("RuntimeError: .*gloo", first.stdout), first.stdout[-3000:]  # closed or reset by the other process
    assert second.returncode != 0
    assert "rank      : 1" in second.stdout
    assert "SIGKILL" in second.stdout
