"""The search runs from its command line, is seeded, and reads no test images."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from ssl_modules import cli
from ssl_modules.datamodules import DigitsDataModule

SCRIPT = Path(__file__).parents[2] / "examples" / "sweep.py"
spec = importlib.util.spec_from_file_location("sweep", SCRIPT)
sweep = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sweep)


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Return a list that collects the model and the data of each trial."""
    monkeypatch.chdir(tmp_path)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # monkeypatch restores them after the test
        monkeypatch.setenv(name, "0")
    seen = []

    class Recorder(cli.ContrastiveCLI):
        def before_fit(self):
            seen.append((self.model, self.datamodule))

    monkeypatch.setattr(cli, "ContrastiveCLI", Recorder)
    return seen


@pytest.mark.slow
def test_three_trials(runs, monkeypatch, capsys):
    loaders = []
    monkeypatch.setattr(DigitsDataModule, "test_dataloader", loaders.append)
    monkeypatch.setattr(
        "sys.argv", ["sweep.py", "--trials=3", "--epochs=1", "--trainer.limit_train_batches=2", "--data.batch_size=32"]
    )
    sweep.main()
    out = capsys.readouterr().out
    rows = re.findall(r"^\| (\d) \| ([\d.e-]+) \| (\d+) \| ([\d.e-]+) \| ([\d.]+)% \|$", out, flags=re.MULTILINE)
    assert {row[0] for row in rows} == {"0", "1", "2"}
    scores = [float(row[-1]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] > 10  # chance, with ten classes
    for number, temperature, out_dim, learning_rate, _ in rows:
        module, data = runs[int(number)]
        assert module.loss.temperature == pytest.approx(float(temperature))
        assert module.extraction.out_dim == int(out_dim)
        assert module.optimizer([module.encoder.mean]).defaults["lr"] == pytest.approx(float(learning_rate))
        assert module.base_batch_size is None  # as in the config
        assert len(data.val_set) == sweep.VALIDATION
        assert data.batch_size == 32
    assert not loaders
    _, best, width, rate, _ = rows[0]
    command = re.search(r"^best: ssl-modules (.*)$", out, flags=re.MULTILINE)[1]
    assert shlex.split(command)[3:] == [
        f"--model.loss.temperature={best}",
        f"--model.extraction.out_dim={width}",
        f"--model.optimizer.lr={rate}",
    ]


def test_a_search_chooses_the_same_settings_again(monkeypatch):
    monkeypatch.setattr(sweep, "fit", lambda folder, epochs, arguments: len("".join(arguments)))
    first, again = (sweep.table(sweep.search(4, 1, [])) for _ in range(2))
    assert first == again
