"""A run resumed from a checkpoint of any hook logs the same as an uninterrupted run."""

import pytest
import torch
from conformance.cases import CASES, digits
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger

from ssl_modules.callbacks import OnlineKNNProbe
from ssl_modules.datamodules import ImageDataModule


class Rows(Logger):
    """A logger that keeps the logged values by step."""

    name, version = "rows", 0

    def __init__(self):
        super().__init__()
        self.rows = {}

    def log_metrics(self, metrics, step=None):
        row = self.rows.setdefault(step, {})
        repeated = (row.keys() & metrics.keys()) - {"epoch"}
        assert not repeated, f"logged twice at step {step}: {repeated}"
        row |= {name: value for name, value in metrics.items() if name == "train/loss_epoch" or name[:6] != "train/"}

    def log_hyperparams(self, *args, **kwargs):
        pass


class Saves(Callback):
    """A callback that saves a checkpoint in each hook, and the log so far."""

    def __init__(self, folder, rows):
        self.folder, self.rows, self.saved = folder, rows, {}

    def _save(self, trainer, hook):
        if self.folder is None or trainer.sanity_checking:
            return
        path = self.folder / f"{len(self.saved)}.ckpt"
        trainer.save_checkpoint(path)
        self.saved[hook, trainer.global_step, len(self.saved)] = path, {s: dict(r) for s, r in self.rows.rows.items()}

    def on_train_batch_end(self, trainer, *_):
        self._save(trainer, "batch")

    def on_validation_batch_end(self, trainer, *_):
        self._save(trainer, "validation batch")

    def on_validation_end(self, trainer, *_):
        self._save(trainer, "validation")


def run(folder=None, path=None, **settings):
    seed_everything(0 if path is None else 1)
    parts = digits()
    data = ImageDataModule(parts._parts[0], num_classes=10, mean=parts.mean, std=parts.std, batch_size=8, val_size=16)
    module, rows = CASES[0].build(), Rows()
    saves = Saves(folder, rows)
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        logger=rows,
        callbacks=[OnlineKNNProbe(k=4), saves],
        **quiet,
        **settings,
    )
    trainer.fit(module, datamodule=data, ckpt_path=path)
    return rows.rows, module.state_dict(), saves.saved


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{}, {"check_val_every_n_epoch": 2}, {"val_check_interval": 2}, {"limit_val_batches": 0}], ids=str
)
def test_nothing_that_was_pending_is_left_out(tmp_path, settings):
    rows, weights, saved = run(tmp_path, **settings)
    assert sum("train/loss_epoch" in row for row in rows.values()) == 2
    for point, (path, before) in saved.items():
        after, resumed, _ = run(path=path, **settings)
        merged = before
        for step, row in after.items():
            merged[step] = merged.get(step, {}) | row
        drop = {"epoch"}
        for step, row in rows.items():
            expected = {name: value for name, value in row.items() if name not in drop}
            found = {name: value for name, value in merged.get(step, {}).items() if name not in drop}
            assert found == pytest.approx(expected, rel=1e-6), (point, step)
        torch.testing.assert_close(resumed, weights, rtol=0, atol=0, msg=lambda m, point=point: f"{point}: {m}")


def test_the_last_batch_of_an_epoch(tmp_path):
    rows, _, saved = run(tmp_path)
    path = next(path for (hook, step, _), (path, _) in saved.items() if (hook, step) == ("batch", 4))
    after, _, _ = run(path=path)
    assert after.keys() >= {3, 7}
    assert after[3] == pytest.approx(rows[3], rel=1e-6)
    assert {"val/loss", "probe/knn_top1", "train/loss_epoch"} <= after[3].keys()
