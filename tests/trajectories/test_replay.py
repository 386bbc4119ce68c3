"""Our methods repeat recorded runs of official programs. The script also reads other files of the same format."""

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn
from trajectories import replay
from trajectories.by_hand import Placed
from trajectories.programs import PROGRAMS
from trajectories.recorded import FILES, Run, TinyNet

from ssl_modules.augmentations import ReadyViews
from ssl_modules.extractions import LocalMaps


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_step_equals_the_official_one(path):
    worst, case = replay.differences(Run(path))
    assert worst.keys() >= {"student", "buffers", "lr", "loss"}
    assert {name: value for name, value in worst.items() if value > case.tolerance} == {}


def run_script(monkeypatch, *paths):
    monkeypatch.setattr(sys, "argv", ["replay.py", *map(str, paths)])
    return replay.main()


@pytest.mark.parametrize(("record", "factor"), [("lr", 1.001), ("student", 1.001), ("teacher_buffers", 1.001)])
def test_a_difference_in_any_record_is_reported(tmp_path, monkeypatch, capsys, record, factor):
    [path] = [path for path in FILES if path.stem == "moco"]
    arrays = dict(np.load(path))
    arrays[record] = arrays[record] * factor
    np.savez(tmp_path / "changed.npz", **arrays)
    assert run_script(monkeypatch, path, tmp_path / "changed.npz") == 1
    official, _, changed, _ = capsys.readouterr().out.splitlines()
    assert official.startswith("moco: equal within 1e-09: ")
    assert changed.startswith("changed: DIFFERENT within 1e-09: ")
    assert f"{record} 1e-03" in changed


COMMON = {"epochs": 2, "batches_per_epoch": 3, "batch": 16, "weight_decay": 0.01, "lr": 0.01}
TEACHER = {"teacher_momentum": 0.9, "momentum_schedule": "cosine", "queue": 48, "out_dim": 16}
FORMS = {
    "AMDIM": {
        "ndf": 4,
        "n_rkhs": 32,
        "n_depth": 1,
        "tclip": 20.0,
        "l2": 0.05,
        "betas": [0.8, 0.999],
        "optimizer": "adam",
    },
    "BYOL": {"optimizer": "sgd", "views": "each alone", "hidden": 12, **TEACHER},
    "SimCLR": {"optimizer": "adam", "views": "joint", "temperature": 0.2, "out_dim": 8},
    "SCE": {
        "optimizer": "sgd",
        "sym": True,
        "num_global_crops": 2,
        "num_local_crops": 1,
        "teacher_splits": 4,
        "temp": 0.1,
        "temp_m": 0.07,
        "coeff": 0.5,
        "warmup_epochs": 1,
        "own_teacher": False,
        "projector": "{'hidden_dims': [14, 14], 'num_layers': 3, 'last_norm': False}",
        "predictor": "{'hidden_dims': [9], 'num_layers': 2}",
        **TEACHER,
    },
}


@pytest.mark.parametrize("method", FORMS)
def test_other_files_of_the_same_form_are_read(tmp_path, monkeypatch, capsys, method):
    path = tmp_path / "other.npz"
    write_own_run(path, method)
    assert run_script(monkeypatch, path) == 0, capsys.readouterr().out


def write_own_run(path, method):
    """Write a run of our own method in the format of the recorded files."""
    rng = np.random.default_rng(0)
    side = 32 if method == "AMDIM" else 8
    sizes = [side, side, 6] if method == "SCE" else [side, side]
    arrays = {f"views_{i}": rng.integers(256, size=(3, 16, 3, s, s), dtype=np.uint8) for i, s in enumerate(sizes)}
    arrays["labels"] = rng.integers(4, size=(3, 16))
    arrays["lr"] = np.full(6, 0.01)
    if method == "AMDIM":
        arrays["lr"] *= np.arange(1, 7) / 500
        arrays["places"] = rng.integers(25, size=(6, 4, 16))
    meta = {"method": method, "source": "made here", "settings": COMMON | FORMS[method]}
    np.savez(path, meta=json.dumps(meta), **arrays)
    run = Run(path)
    case = PROGRAMS[method](run)
    torch.manual_seed(0)
    module = case.method(
        augmentation=ReadyViews(sizes),
        image_size=side,
        base_batch_size=None,
        **{"encoder": TinyNet(True)} | case.arguments,
    ).double()
    parts = {"enc": module.encoder.network, "head": module.extraction.heads}
    if isinstance(predictor := getattr(module.extraction, "predictor", None), nn.Module):
        parts["pred"] = predictor
    for name, part in parts.items():
        arrays |= {f"{name}_{i}": p.detach().numpy() for i, p in enumerate(part.parameters())}
    if hasattr(module.extraction, "keys"):
        arrays["queue_init"] = module.extraction.keys.numpy()
    np.savez(path, meta=json.dumps(meta), **arrays)
    run = Run(path)
    rows = replay.train(run, PROGRAMS[method](run))
    for name, values in rows.items():
        arrays |= {name: np.stack(values), f"{name}_rows": np.arange(len(values))}
    np.savez(path, meta=json.dumps(meta), **arrays)


def test_no_method_is_subclassed():
    for path in FILES:
        run = Run(path)
        assert PROGRAMS[run.method](run).method.__module__.startswith("ssl_modules.methods.")


def test_recorded_positions_replace_random_ones():
    placed = Placed(torch.tensor([[[1, 0]]]))
    z = torch.arange(12.0).view(2, 3, 2)
    assert torch.equal(placed._anchors(z, None), z[[0, 1], [1, 0]])
    assert isinstance(placed.eval(), LocalMaps)
