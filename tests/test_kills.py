"""Runs that are killed at random moments leave a checkpoint that loads, and continue exactly.

``KILLS=50 pytest tests/test_kills.py`` is the long form, over all methods.
"""

import csv
import multiprocessing
import os
import random
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conformance.cases import CASES, digits
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from processes import THREADS

from ssl_modules import LastCheckpoint, SafeCheckpointIO
from ssl_modules.callbacks import OnlineKNNProbe
from ssl_modules.datamodules import ImageFolderDataModule
from ssl_modules.utils.checkpoint_io import read_checkpoint

KILLS = int(os.environ.get("KILLS", "4"))
EPOCHS = 3
SHARED_MEMORY = Path("/dev/shm")  # another file system than the temporary folder's


def train(case, images, folder, workers, every):
    """Train, from the last checkpoint if there is one, and write the final state."""
    os.setsid()  # in its own session, the process can be killed together with its workers
    torch.set_num_threads(THREADS)
    seed_everything(random.randrange(1000) if (folder / "last.ckpt").exists() else 0)
    data = ImageFolderDataModule(
        images, in_channels=1, image_size=8, decode_size=8, batch_size=8, val_size=16, num_workers=workers
    )
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=CSVLogger(folder, flush_logs_every_n_steps=1),
        callbacks=[OnlineKNNProbe(k=4), LastCheckpoint(dirpath=folder, **every)],
        plugins=[SafeCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    path = folder / "last.ckpt"
    module = case.build()
    trainer.fit(module, datamodule=data, ckpt_path=path if path.exists() else None)
    torch.save(module.state_dict(), folder / "final.part")
    (folder / "final.part").rename(folder / "final.pt")


def start(*arguments):
    process = multiprocessing.get_context("forkserver").Process(target=train, args=arguments)
    process.start()
    return process


def finished(*arguments):
    """Train to the end; return the seconds that it took."""
    begin = time.monotonic()
    process = start(*arguments)
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - begin


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    data = digits()
    for i, (image, target) in enumerate(zip(*data._parts[0][:48], strict=True)):
        place = folder / str(int(target))
        place.mkdir(exist_ok=True)
        Image.fromarray(image[0].numpy()).save(place / f"{i}.png")
    return folder


def evaluated(folder):
    """Return, for each metric, the epochs for which any attempt logged it."""
    epochs = {}
    for path in folder.glob("lightning_logs/version_*/metrics.csv"):
        for row in csv.DictReader(path.open()):
            for name, value in row.items():
                if value and name in ("val/loss", "probe/knn_top1", "train/loss_epoch"):
                    epochs.setdefault(name, set()).add(int(row["epoch"]))
    return epochs


@pytest.mark.slow
@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_run_continues_exactly(number, images, tmp_path):
    draw = random.Random(number)
    case = CASES[number % len(CASES)]
    workers = number % 2
    every = draw.choice([{}, {"every_n_train_steps": 1}, {"every_n_train_steps": 2}, {"every_n_train_steps": 4}])
    whole, folder = tmp_path / "whole", tmp_path / "run"
    if number // 2 % 2 and SHARED_MEMORY.is_dir():
        folder = SHARED_MEMORY / f"kills-{os.getpid()}-{number}"
    try:
        for place in (whole, folder):
            place.mkdir()
        seconds = finished(case, images, whole, workers, every)
        for _ in range(draw.randint(1, 3)):
            process = start(case, images, folder, workers, every)
            process.join(seconds * draw.uniform(0.3, 1.0))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.join()
            if (folder / "last.ckpt").exists():
                read_checkpoint(folder / "last.ckpt")
        finished(case, images, folder, workers, every)
        assert evaluated(folder) == evaluated(whole)
        torch.testing.assert_close(torch.load(folder / "final.pt"), torch.load(whole / "final.pt"), rtol=0, atol=0)
    finally:
        if SHARED_MEMORY in folder.parents:
            shutil.rmtree(folder, ignore_errors=True)
