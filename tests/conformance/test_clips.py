"""Methods train on clips, resume bit for bit, and give the same gradient in two processes."""

from functools import partial
from typing import Any

import pytest
import torch
from conformance.cases import one_batch, trainer
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from processes import run_in_processes
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from videos import write

from ssl_modules import BYOL, RINCE, SCE, ContrastiveModule, FineTuning, MoCo, SimCLR, load_module
from ssl_modules.augmentations import BYOLViews, ClipViews, MoCoViews, SCEViews, SimCLRViews
from ssl_modules.callbacks import OnlineKNNProbe, OnlineLinearProbe, OnlineRetrieval
from ssl_modules.datamodules import VideoFolderDataModule
from ssl_modules.encoders import SmallR3D
from ssl_modules.extractions import Predictor, Queue
from ssl_modules.losses import RINCELoss, SCELoss
from ssl_modules.optim import Constant

SIZE = 8


def of_two_clips(view, other=None):
    return ClipViews([view, view if other is None else other], clips=(0, 1))


METHODS: dict[str, tuple[type[ContrastiveModule], dict[str, Any], float]] = {  # the loss falls to this share
    "SimCLR": (SimCLR, {"augmentation": of_two_clips(SimCLRViews(SIZE, views=1, strength=0.5, blur=False))}, 0.1),
    "MoCo": (
        MoCo,
        {
            "augmentation": of_two_clips(MoCoViews(SIZE, views=1, blur=False)),
            "extraction": Queue(out_dim=16, size=20, momentum=0.9),
        },
        0.2,
    ),
    "BYOL": (
        BYOL,
        {
            "augmentation": of_two_clips(*BYOLViews(SIZE, blur=False).parts),
            "extraction": Predictor(32, 16, 32, momentum=0.9),
        },
        0.1,
    ),
    "SCE": (
        SCE,
        {
            "augmentation": of_two_clips(SCEViews(SIZE, ["strong-alpha"]), SCEViews(SIZE, ["strong-beta"])),
            "extraction": Queue(
                out_dim=16, batch_norm=True, size=40, symmetric=True, reference=True, predictor_dim=16, momentum=0.9
            ),
            "loss": SCELoss(temperature=0.1, teacher_temperature=0.05, positive_target="zero"),
        },
        0.4,  # can't fall below the entropy of its target
    ),
    "RINCE": (
        RINCE,
        {
            "augmentation": ClipViews([MoCoViews(SIZE, views, blur=False) for views in (2, 1, 1)], clips=(0, 1, 2)),
            "extraction": Queue(out_dim=16, size=40, view_ranks=(1, 2, 3), momentum=0.9),
            "loss": RINCELoss((0.1, 0.225, 0.35)),
        },
        0.6,  # the loss of rank 2 pushes keys of rank 3 away
    ),
}
each_method = pytest.mark.parametrize("name", METHODS)


def build(name: str, channels: int = 1, **given: Any) -> ContrastiveModule:
    method, arguments, _ = METHODS[name]
    settings = {
        "encoder": SmallR3D(channels, width=4),
        "image_size": SIZE,
        "in_channels": channels,
        "optimizer": partial(torch.optim.AdamW, lr=3e-3),
        "base_batch_size": None,
        "schedule": Constant(),
    }
    return method(**{**settings, **arguments, **given})


def videos(count=8, clips=3, channels=1, seed=1):
    shape = (count, clips, channels, 4, 10, 10)
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def batch(**given):
    pixels = videos(**given)
    rows = torch.arange(len(pixels))
    return pixels, rows % 2, rows, torch.zeros(pixels.shape[:2])


@each_method
def test_the_loss_falls_on_a_few_videos(name):
    seed_everything(0)
    module = build(name)
    if module.teacher is not None:  # a moving teacher or queue may keep the loss from falling
        module.teacher.momentum, module.teacher.schedule = 1.0, "constant"
        module.extraction.after_backward = lambda: None
    views = module.augmentation(videos(), torch.Generator().manual_seed(0))
    losses = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(outputs["loss"].item())

    trainer(max_steps=60, callbacks=[Watch()]).fit(module, one_batch((views, torch.zeros(8)), 60))
    assert losses[-1] < METHODS[name][2] * losses[0]


@each_method
@pytest.mark.parametrize("channels", [1, 3])
def test_it_trains_validates_and_gives_features_of_any_channels(name, channels):
    seed_everything(0)
    module = build(name, channels)
    before = {key: p.detach().clone() for key, p in module.named_parameters()}
    t = trainer(max_steps=2)
    loader = one_batch(batch(channels=channels), 2)
    t.fit(module, loader, loader)
    assert {"train/loss", "val/loss", "val/contrast_top1"} <= {*t.callback_metrics}
    assert all(value.isfinite() for value in t.callback_metrics.values())
    moved = {key for key, p in module.named_parameters() if not torch.equal(p, before[key])}
    assert moved >= {key for key, p in module.named_parameters() if p.requires_grad}
    assert module(videos(channels=channels)).shape == (8, 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for number in range(8):
        write(root / f"{number}.mp4", 20 + number)
    return root


@each_method
def test_a_run_resumed_within_an_epoch_equals_the_uninterrupted_run_bit_for_bit(name, folder, tmp_path):
    def run(checkpoints=None, ckpt_path=None, seed=0):
        seed_everything(seed)
        module = build(name)
        data = VideoFolderDataModule(
            folder,
            class_folders=False,
            frames=4,
            seconds=0.3,
            clips=3,
            in_channels=1,
            image_size=SIZE,
            batch_size=2,
            num_workers=0,
        )
        every = ModelCheckpoint(
            checkpoints, "{step}", auto_insert_metric_name=False, every_n_train_steps=3, save_top_k=-1
        )
        callbacks = [] if checkpoints is None else [every]
        t = trainer(max_epochs=2, callbacks=callbacks, enable_checkpointing=bool(callbacks))
        t.fit(module, data, ckpt_path=ckpt_path)
        return {"module": module.state_dict(), "optimizer": t.optimizers[0].state_dict()["state"]}

    whole = run(tmp_path)
    resumed = run(None, tmp_path / "6.ckpt", seed=99)  # after two of the four batches of the second epoch
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)
    again = load_module(tmp_path / "6.ckpt").eval()
    assert again(videos()).shape == (8, 32)


def gradient(name, rows):
    seed_everything(0)
    module = build(name).double()
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.eval()
    views = module.augmentation(videos(6), torch.Generator().manual_seed(0))
    given = [view.double()[rows] for view in views], None, torch.arange(6)[rows]
    loss = module.training_step(given, 0)["loss"]
    loss.backward()
    module.extraction.after_backward()
    state = {key: value for key, value in module.extraction.state_dict().items() if key in ("keys", "ids")}
    return {"loss": loss.detach()} | {key: p.grad for key, p in module.named_parameters() if p.grad is not None}, state


def gradients_of_a_process(rank):
    return [gradient(name, slice(3 * rank, 3 * rank + 3)) for name in METHODS]


@pytest.fixture(scope="module")
def of_two_processes():
    return dict(zip(METHODS, zip(*run_in_processes(gradients_of_a_process), strict=True), strict=True))


@each_method
def test_two_processes_give_gradient_and_queue_of_one(of_two_processes, name):
    (first, state), (second, other) = of_two_processes[name]
    mean = {key: (first[key] + second[key]) / 2 for key in first}
    expected, queue = gradient(name, slice(None))
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(state, other, rtol=0, atol=0)
    torch.testing.assert_close(state, queue, rtol=0, atol=1e-10)


def test_probes_read_videos():
    module = build("SimCLR").eval()
    train, test = (DataLoader(TensorDataset(videos(12, seed=seed), torch.arange(12) % 2), 4) for seed in (1, 2))
    for probe in (
        OnlineKNNProbe(train=train, test=test, k=3),
        OnlineLinearProbe(train=train, test=test),
        OnlineRetrieval(train=train, test=test, k=(1,)),
    ):
        assert all(0 <= value <= 1 for value in probe.evaluate(module).values())


def test_fine_tuning_averages_the_probabilities_of_the_clips():
    seed_everything(0)
    encoder = build("SimCLR").encoder
    module = FineTuning(encoder, num_classes=2, optimizer=partial(torch.optim.SGD, lr=0.1)).eval()
    probabilities = torch.stack([module(clip).softmax(1) for clip in videos().unbind(1)]).mean(0)
    torch.testing.assert_close(module(videos()).exp(), probabilities)
    torch.testing.assert_close(module(videos(clips=1)), module(videos(clips=1)[:, 0]).log_softmax(1))
    several = FineTuning(
        encoder, num_classes=3, target_type="multilabel", optimizer=partial(torch.optim.SGD, lr=0.1)
    ).eval()
    expected = torch.stack([several(clip).sigmoid() for clip in videos().unbind(1)]).mean(0)
    torch.testing.assert_close(several(videos()).sigmoid(), expected)
    t = trainer(max_steps=2)
    t.fit(module.train(), one_batch(batch(), 2), one_batch(batch(), 1))
    assert {"train/loss", "val/top1"} <= {*t.callback_metrics}
