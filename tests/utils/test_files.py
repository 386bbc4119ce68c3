"""Writing a file creates its folder, follows the umask, and replaces an earlier file only when it is complete."""

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import tuned
from modules import build

from ssl_modules import SafeCheckpointIO
from ssl_modules.cli import main
from ssl_modules.encoders.export import load_encoder
from ssl_modules.utils.files import replacing


@pytest.fixture(params=[0o022, 0o027, 0o002], ids=oct)
def allowed(request):
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("name", ["encoder.safetensors", "encoder.pt"])
def test_an_export_creates_its_folder_and_follows_the_umask(tmp_path, allowed, name):
    path = tmp_path / "new" / "folder" / name
    module = build("test_resnet")
    module.export_encoder(path)
    assert mode(path) == allowed
    assert os.listdir(path.parent) == [name]
    assert tuned.equal(load_encoder(path).network.state_dict(), module.encoder.network.state_dict())


def test_a_checkpoint_follows_the_umask(tmp_path, allowed):
    path = tmp_path / "new" / "last.ckpt"
    SafeCheckpointIO().save_checkpoint({"state_dict": {}}, path)
    assert mode(path) == allowed


def test_after_an_error_the_previous_file_remains_and_no_other(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")

    def fail():
        with replacing("notes", path) as file:
            file.write(b"new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("target", ["", "file/encoder.pt"])
def test_an_export_that_cannot_be_written_gives_an_error_of_one_line(tmp_path, target):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "encoder.pt").mkdir()
    path = tmp_path / (target or "encoder.pt")
    with pytest.raises(OSError, match=r"path: .*encoder.pt can't be written, with .* MiB free there: \w+"):
        build("test_resnet").export_encoder(path)


@pytest.mark.slow
def test_the_commands_create_the_folders_that_they_write_to(tmp_path, monkeypatch, capsys, allowed):
    monkeypatch.chdir(tmp_path)
    data = ("--data", "DigitsDataModule")
    quiet = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.default_root_dir=a/b/run")
    main(["fit", "--model", "SimCLR", "--model.encoder=test_resnet", *data, "--trainer.max_steps=1", *quiet])
    [ckpt] = Path("a").rglob("last.ckpt")
    config = next(Path("a").rglob("config.yaml"))
    main(["export", "--ckpt", str(ckpt), "--out", "c/d/encoder.safetensors"])
    main(["evaluate", "--ckpt", str(ckpt), *data, "--protocol", "knn", "--out", "e/f/evaluation.json"])
    main(["predict", "--config", str(config), "--ckpt_path", str(ckpt)])
    [features] = Path("a").rglob("features.npz")
    assert len(np.load(features)["features"]) == 360
    assert json.loads(Path("e/f/evaluation.json").read_text())
    for path in (ckpt, config, features, Path("c/d/encoder.safetensors"), Path("e/f/evaluation.json")):
        assert mode(path) == allowed, path
    with pytest.raises(SystemExit):
        main(["export", "--ckpt", str(ckpt), "--out", "encoder.txt"])
    assert "expected a folder, or a file ending in .safetensors, .pt, .pt2 or .onnx" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["export", "--ckpt", str(ckpt), "--out", f"{ckpt}/encoder.pt"])
    assert "can't be written" in capsys.readouterr().err
