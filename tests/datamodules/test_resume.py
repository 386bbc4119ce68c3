"""A resumed run sees the batches that the uninterrupted one saw, through a real Trainer."""

import os

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from processes import run_in_processes
from torch.utils.data import Dataset

from ssl_modules.datamodules import ImageDataModule, StreamingDataModule, TensorImages, write_shards
from ssl_modules.utils.plain_checkpoint import STATE
from ssl_modules.utils.resuming import ExactResume

SIZE, BATCH = 25, 4  # 6 batches per epoch; one image is left over
EPOCHS = 3


class Plain(Dataset):
    """A map-style data set whose images' pixels equal their row."""

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        return torch.full((1, 2, 2), index, dtype=torch.uint8), index % 3


class Noisy(Plain):
    """The same data set, but workers draw its images at random."""

    def __getitem__(self, index):
        return torch.randint(256, (1, 2, 2), dtype=torch.uint8), index % 3


class Recorder(LightningModule):
    """Keeps the input of each training step."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        images, targets, index = batch
        self.seen.append((self.current_epoch, batch_idx, index.tolist(), targets.tolist(), images.flatten().tolist()))
        return self.weight * 1.0

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data(kind="memory", batch=BATCH, **kwargs):
    if kind == "memory":
        images = torch.arange(SIZE, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
        train = TensorImages(images, torch.arange(SIZE) % 3)
    else:
        train = {"workers": Plain, "noisy": Noisy}[kind]()
    return ImageDataModule(
        train,
        num_classes=3,
        mean=(0.5,),
        std=(0.5,),
        batch_size=batch,
        num_workers=2,
        return_index=True,
        **kwargs,
    )


def run(folder, datamodule, ckpt_path=None, checkpoint=None, max_epochs=EPOCHS, **kwargs):
    module = Recorder()
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=checkpoint is not None,
        callbacks=[checkpoint] if checkpoint else None,
        **kwargs,
    )
    trainer.fit(module, datamodule=datamodule, ckpt_path=ckpt_path)
    return module.seen


def every_step(folder):
    return ModelCheckpoint(folder, "{step}", auto_insert_metric_name=False, every_n_train_steps=1, save_top_k=-1)


@pytest.mark.parametrize("kind", ["memory", "workers"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_any_step_resumes_exactly(tmp_path, kind, accumulate):
    whole = run(tmp_path, data(kind), checkpoint=every_step(tmp_path), accumulate_grad_batches=accumulate)
    assert [(epoch, batch) for epoch, batch, *_ in whole] == [(e, b) for e in range(EPOCHS) for b in range(6)]
    per_epoch = 6 // accumulate
    # Resume in the middle and at the end of an epoch. Images in memory are fast, so try three more steps with them.
    quick = (1, per_epoch + 1, 2 * per_epoch) if kind == "memory" else ()
    for step in (per_epoch // 2 + 1, per_epoch, *quick):
        rest = run(tmp_path, data(kind), tmp_path / f"{step}.ckpt", accumulate_grad_batches=accumulate)
        assert rest == whole[step * accumulate :], step


@pytest.mark.parametrize("kind", ["memory", "noisy"])
def test_epoch_end_resumes_exactly(tmp_path, kind):
    checkpoint = ModelCheckpoint(tmp_path, "{epoch}", auto_insert_metric_name=False, save_top_k=-1)
    whole = run(tmp_path, data(kind), checkpoint=checkpoint)
    rest = run(tmp_path, data(kind), tmp_path / "0.ckpt")
    assert rest == whole[6:]  # also with images that workers draw: each epoch reseeds them


def test_resumes_exactly_with_validation_and_limited_epochs(tmp_path):
    kwargs = {"limit_train_batches": 3, "val_check_interval": 2, "num_sanity_val_steps": 1}
    whole = run(tmp_path, data(val_size=5), checkpoint=every_step(tmp_path), **kwargs)
    assert len(whole) == 3 * EPOCHS
    for step in (1, 2, 3, 4):
        assert run(tmp_path, data(val_size=5), tmp_path / f"{step}.ckpt", **kwargs) == whole[step:], step


def test_resumes_exactly_by_steps(tmp_path):
    kwargs = {"max_epochs": -1, "max_steps": 15}
    whole = run(tmp_path, data(), checkpoint=every_step(tmp_path), **kwargs)
    for step in (5, 6, 9):
        assert run(tmp_path, data(), tmp_path / f"{step}.ckpt", **kwargs) == whole[step:], step


def test_a_longer_run_goes_on_from_a_finished_one(tmp_path):
    whole = run(tmp_path, data())
    run(tmp_path, data(), checkpoint=every_step(tmp_path), max_epochs=2)
    assert run(tmp_path, data(), tmp_path / "12.ckpt") == whole[12:]


def test_checkpoint_holds_no_live_objects(tmp_path):
    run(tmp_path, data(), checkpoint=every_step(tmp_path), max_epochs=1)
    checkpoint = torch.load(tmp_path / "4.ckpt", weights_only=True)
    assert checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{"epoch": 0, "images": 4 * BATCH}]


def test_overfit_batches_and_fast_dev_run_work(tmp_path):
    seen = run(tmp_path, data(), overfit_batches=2, max_epochs=2)
    assert [index for _, _, index, *_ in seen] == [[0, 1, 2, 3], [4, 5, 6, 7]] * 2
    assert len(run(tmp_path, data(), fast_dev_run=True)) == 1


class Resuming(ExactResume, Recorder):
    """Has the hooks of our modules."""

    def on_save_checkpoint(self, checkpoint):
        checkpoint[STATE] = {}
        super().on_save_checkpoint(checkpoint)


def parts_of_runs(rank, folder, url, runs):
    """Return the epochs and rows of each step of this process, for each run. The first run saves after every step."""
    os.environ["LOCAL_RANK"] = str(rank)
    several, parts = torch.distributed.get_world_size(), []
    for batch_size, ckpt_path in runs:
        settings = {"num_workers": 0, "return_index": True, "window": 2, "batch_size": batch_size}
        datamodule = data(batch=batch_size) if url is None else StreamingDataModule(url, **settings)
        module = Resuming()
        trainer = Trainer(
            max_epochs=2,
            accelerator="cpu",
            devices=several,
            strategy="ddp" if several > 1 else "auto",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[every_step(folder)] if ckpt_path is None else [],
            enable_checkpointing=ckpt_path is None,
        )
        trainer.fit(module, datamodule=datamodule, ckpt_path=ckpt_path)
        parts.append([(epoch, rows) for epoch, _, rows, *_ in module.seen])
    return parts


def steps(parts):
    """Return for each step the epoch and the sorted rows of all processes."""
    return [(own[0][0], sorted(row for _, rows in own for row in rows)) for own in zip(*parts, strict=True)]


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(data(), folder / "shards", images_per_shard=5)
    return folder / "shards"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "before", "after"), [("memory", 1, 2), ("memory", 3, 2), ("stream", 1, 2), ("stream", 2, 1)]
)
def test_another_number_of_processes_continues_a_run(tmp_path, stream, kind, before, after):
    url = stream if kind == "stream" else None
    runs = [(6 // before, None)]
    [whole] = zip(*run_in_processes(parts_of_runs, tmp_path, url, runs, processes=before), strict=True)
    whole = steps(whole)
    assert [epoch for epoch, _ in whole] == [0, 0, 0, 0, 1, 1, 1, 1]
    runs = [(6 // after, tmp_path / "2.ckpt"), (6 // after, tmp_path / "4.ckpt"), (3, tmp_path / "2.ckpt")]
    middle, end, other = zip(*run_in_processes(parts_of_runs, tmp_path, url, runs, processes=after), strict=True)
    assert steps(middle) == whole[2:]  # with the same number of images per step
    assert steps(end) == whole[4:]
    rest = [row for epoch, rows in steps(other) for row in rows if epoch == 0]
    seen = [row for _, rows in whole[:2] for row in rows]
    assert len(rest) == len(set(rest)) == (SIZE - 12) // after // 3 * 3 * after
    assert not set(seen) & set(rest)
    assert {epoch for epoch, _ in steps(other)} == {0, 1}
