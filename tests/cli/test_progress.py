import os
import re
import sys

import pytest

from ssl_modules.cli.progress import shortened

pty = pytest.importorskip("pty", reason="the system has no pseudo-terminals")
termios = pytest.importorskip("termios")

ARGS = (
    "fit --model SimCLR --model.encoder test_resnet --data DigitsDataModule --trainer.accelerator cpu "
    "--trainer.max_epochs 2 --trainer.limit_train_batches 3 --trainer.logger false --trainer.enable_checkpointing false"
)


def in_terminal(command, columns):
    """Return what a command writes to a terminal of this width, without the codes for colours and moves."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(command[0], command, os.environ | {"COLUMNS": str(columns), "LINES": "40", "TERM": "xterm"})
    termios.tcsetwinsize(terminal, (40, columns))
    written = b""
    try:
        while part := os.read(terminal, 2**16):
            written += part
    except OSError:  # the command has ended
        pass
    assert os.waitpid(child, 0)[1] == 0, written.decode()
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode())


@pytest.mark.slow
def test_the_bar_shows_the_loss_and_one_metric_of_each_probe_in_80_columns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = in_terminal([sys.executable, "-m", "ssl_modules", *ARGS.split()], 80)
    bars = written[written.index("Epoch 0/1") :].split("Epoch 1/1")
    last = bars[-1].splitlines()
    assert "…" not in "".join(bars)
    for name in ("loss", "knn_top1", "linear_top1"):
        assert any(re.search(rf"(^|\s){name}: \d+\.\d{{3}}\s*$", line) for line in last), (name, last)
    for name in ("chance", "top5", "v_num", "probe/"):
        assert name not in bars[-1]


def test_names_stay_whole_if_their_last_parts_are_equal():
    metrics = {"train/loss": 1, "a/b/top1": 2, "c/top1": 3, "plain": 4}
    assert shortened(metrics) == {"loss": 1, "a/b/top1": 2, "c/top1": 3, "plain": 4}
