"""Classes of checkpoints are found in a process that has imported nothing but the function that loads them."""

import subprocess
import sys

import lightning.pytorch as pl
import pytest

from ssl_modules import SimCLR


@pytest.mark.slow
def test_a_fresh_process_loads_a_checkpoint(tmp_path):
    module = SimCLR(encoder="test_resnet", image_size=8)
    trainer = pl.Trainer(barebones=True, accelerator="cpu")
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    script = "from ssl_modules.checkpoint import load_module; print(type(load_module('last.ckpt')).__name__)"
    found = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "SimCLR", found.stderr
