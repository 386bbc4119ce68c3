"""The first ten minutes: each step does what its printed line says."""

import importlib.util
import re
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples" / "ten_minutes.py"
spec = importlib.util.spec_from_file_location("ten_minutes", SCRIPT)
ten_minutes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ten_minutes)

REPOSITORY = SCRIPT.parents[1]


@pytest.mark.slow
def test_every_step_prints_its_line(tmp_path, monkeypatch, capsys):
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # monkeypatch restores them after the test
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # for the process that loads the checkpoint
    modules = []

    def fit(module, *args, fit=ten_minutes.fit, **kwargs):
        modules.append(module)
        return fit(module, *args, **kwargs)

    monkeypatch.setattr(ten_minutes, "fit", fit)
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)  # its effect would outlast this test
    monkeypatch.setattr("sys.argv", ["ten_minutes.py", "--folder", str(tmp_path)])
    ten_minutes.main()

    pictures = list((tmp_path / "images").rglob("*.png"))
    assert {path.parent.name for path in pictures} == {"circle", "cross", "square"}
    assert len(pictures) == 90
    assert {Image.open(path).size for path in pictures} == {(40, 40)}

    first, timm_name, own, temperature, augmentation, loss, _, resumed = modules
    assert first.encoder.name == "resnet18"
    assert timm_name.encoder.name == "test_resnet"
    assert own.encoder.out_channels == (64,)
    assert temperature.loss.temperature == 0.5
    assert augmentation.augmentation.sizes == (40, 40, 40)
    assert type(loss) is ten_minutes.Decorrelated
    assert resumed.trainer.current_epoch == 3

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert all("k-NN accuracy" in line for line in lines[1:-1])
    assert ["extra loss" in line for line in lines] == [False] * 6 + [True] + [False] * 2
    assert "resumed, 6 steps in all" in lines[7]  # 3 epochs of 2 batches of 30 images
    assert float(re.search(r"at most (\S+)$", lines[8])[1]) == pytest.approx(0, abs=1e-4)
