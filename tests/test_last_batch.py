"""A last batch that is too small raises an error before the first step, for all causes."""

import warnings

import pytest
import torch
from conformance.cases import CASES, SIZE, images, trainer
from modules import Net, build, pixels
from processes import run_in_processes
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, TensorDataset, random_split

from ssl_modules import FineTuning, last_batch
from ssl_modules.augmentations import RandomHorizontalFlip, SimCLRViews, Views
from ssl_modules.datamodules import ImageDataModule, TensorImages
from ssl_modules.encoders import Encoder
from ssl_modules.extractions import Queue

TOO_SMALL = "batch: the last one of an epoch has 1 image, with which a step fails: .*; pass drop_last=True"
ONE_IMAGE_TRAINS = {"CPC"}  # its negatives are patches of the same image, and it has no batch norm in this form


def set_of(n):
    return TensorDataset(images(n), torch.zeros(n, dtype=torch.int64))


def steps_of(module, loader, **given):
    """Return the number of training steps of one epoch."""
    steps = []
    module.on_train_batch_end = lambda *args: steps.append(args)
    trainer(**{"max_epochs": 1, **given}).fit(module, loader)
    return len(steps)


def test_a_fit_says_it_before_the_first_step_and_changes_nothing():
    for case in CASES:
        if str(case) in ONE_IMAGE_TRAINS:
            assert steps_of(case.build(), DataLoader(set_of(33), batch_size=8)) == 5
            continue
        module = case.build()
        before = {name: value.clone() for name, value in module.state_dict().items()}
        with pytest.raises(ValueError, match=TOO_SMALL):
            steps_of(module, DataLoader(set_of(33), batch_size=8))
        for name, value in module.state_dict().items():
            assert torch.equal(value, before[name]), (case, name)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_advice_works(case):
    assert steps_of(case.build(), DataLoader(set_of(33), batch_size=8, drop_last=True)) == 4
    assert steps_of(case.build(), DataLoader(set_of(33), batch_size=11)) == 3


@pytest.mark.parametrize("case", CASES, ids=str)
def test_validation_takes_a_last_batch_of_one_image(case):
    assert trainer().validate(case.build(), DataLoader(set_of(33), batch_size=8), verbose=False)


def batches(n, drop_last=False):
    return BatchSampler(RandomSampler(range(n)), 8, drop_last=drop_last)


@pytest.mark.parametrize(
    ("loader", "repaired"),
    [
        (
            DataLoader(random_split(set_of(66), [33, 33])[0], batch_size=8, shuffle=True),
            DataLoader(random_split(set_of(66), [33, 33])[0], batch_size=8, shuffle=True, drop_last=True),
        ),
        (
            DataLoader(set_of(33), batch_sampler=batches(33)),
            DataLoader(set_of(33), batch_sampler=batches(33, drop_last=True)),
        ),
        (
            DataLoader(set_of(33), batch_sampler=[[0, 1, 2], [3], [4, 5, 6]]),
            DataLoader(set_of(33), batch_sampler=[[0, 1, 2], [3, 4, 5, 6]]),
        ),
    ],
    ids=["subset", "batch sampler", "list of batches"],
)
def test_each_loader_of_a_known_length_is_checked(loader, repaired):
    with pytest.raises(ValueError, match=TOO_SMALL):
        steps_of(CASES[0].build(), loader)
    assert steps_of(CASES[0].build(), repaired) == len(repaired)


def test_a_last_batch_that_is_never_reached_is_no_matter():
    loader = DataLoader(set_of(33), batch_size=8)
    assert steps_of(CASES[0].build(), loader, limit_train_batches=4) == 4
    assert steps_of(CASES[0].build(), loader, max_epochs=-1, max_steps=4) == 4
    assert steps_of(CASES[0].build(), loader, max_epochs=-1, max_steps=2, accumulate_grad_batches=2) == 4
    for reached in ({"max_steps": 5}, {"max_steps": 3, "accumulate_grad_batches": 2}):
        with pytest.raises(ValueError, match=TOO_SMALL):
            steps_of(CASES[0].build(), loader, max_epochs=-1, **reached)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(images(16))


def test_a_loader_of_unknown_batches_is_not_checked():
    assert last_batch.smallest_batch(DataLoader(Stream(), batch_size=5)) is None
    assert last_batch.smallest_batch([images(3)]) is None
    assert last_batch.smallest_batch(DataLoader([images(3)], batch_size=None)) is None
    module = CASES[0].build()
    assert steps_of(module, DataLoader(Stream(), batch_size=8), max_epochs=-1, max_steps=2) == 2


VECTORS = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8))


@pytest.mark.parametrize(
    ("given", "n", "cause"),
    [
        ({"view_statistics": "each"}, 17, "1 image is too few for batch norm"),
        ({"batch_norm_splits": 4}, 19, "6 images don't make batch_norm_splits=4 equal parts"),
        ({"encoder": VECTORS, "extraction": Queue(8, 4, size=32)}, 17, "more than 1 value per channel .*"),
        ({"extraction": Queue(8, 4, size=0, keys_as_negatives=True)}, 17, "1 image has no negatives"),
    ],
    ids=["projector", "parts", "network", "negatives"],
)
def test_the_cause_is_named(given, n, cause):
    with pytest.raises(ValueError, match=f"batch: the last one of an epoch has .* fails: .*{cause}; pass drop_last"):
        steps_of(build(**given), DataLoader(TensorDataset(pixels(n)), batch_size=8))
    assert steps_of(build(**given), DataLoader(TensorDataset(pixels(n)), batch_size=8, drop_last=True)) == 2


def test_a_single_image_trains_where_nothing_compares_images():
    module = build(extraction=Queue(8, 4, size=32))
    assert steps_of(module, DataLoader(TensorDataset(pixels(17)), batch_size=8)) == 3


def weights(check, monkeypatch):
    if not check:
        monkeypatch.setattr(last_batch, "check_last_batch", lambda *args: None)
        monkeypatch.setattr("ssl_modules.hooks.check_last_batch", lambda *args: None)
    torch.manual_seed(0)
    module = build(nn.Sequential(Net(), nn.Dropout(0.2)))
    trainer(max_epochs=2).fit(module, DataLoader(TensorDataset(pixels(19)), batch_size=8, shuffle=True))
    return module.state_dict()


def test_the_check_changes_nothing_in_the_run(monkeypatch):
    checked, plain = weights(True, monkeypatch), weights(False, monkeypatch)
    for name, value in checked.items():
        assert torch.equal(value, plain[name]), name


def one_of_two(rank):
    images = TensorDataset(pixels(34))  # 17 a process
    with pytest.raises(ValueError, match="batch: the last one of an epoch has 1 image per process, with which a step"):
        steps_of(build(view_statistics="each"), DataLoader(images, batch_size=8), strategy="ddp", devices=2)
    return steps_of(build(), DataLoader(images, batch_size=8, drop_last=True), strategy="ddp", devices=2)


@pytest.mark.slow
def test_processes_are_told_their_share():
    assert run_in_processes(one_of_two) == [2, 2]


def test_fine_tuning_says_it_too():
    encoder = Encoder("test_resnet", image_size=SIZE, in_channels=1)
    data = ImageDataModule(
        TensorImages(images(33), torch.arange(33) % 2), num_classes=2, mean=(0.5,), std=(0.2,), batch_size=8
    )
    data.setup()

    def tuned(**given):
        return FineTuning(encoder, 2, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1), **given)

    with pytest.raises(ValueError, match=TOO_SMALL):
        steps_of(tuned(), data.supervised_dataloader())
    data.batch_size = 11  # the second advice of the message, because this loader keeps its last batch
    assert steps_of(tuned(), data.supervised_dataloader()) == 3
    data.batch_size = 8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert steps_of(tuned(freeze=True), data.supervised_dataloader()) == 5


def test_fine_tuning_tries_its_view_when_it_is_built():
    encoder = Encoder("test_resnet", image_size=SIZE, in_channels=1)

    def tuned(encoder, augmentation):
        return FineTuning(
            encoder, 2, augmentation=augmentation, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1)
        )

    with pytest.raises(ValueError, match="augmentation: fine-tuning takes one view of an image, got 2; make one"):
        tuned(encoder, Views([RandomHorizontalFlip()], views=2))
    many = Encoder("test_resnet", image_size=SIZE, in_channels=5)
    with pytest.raises(ValueError, match=r"augmentation: .* needs 1 or 3 channels, got in_channels=5"):
        tuned(many, SimCLRViews(SIZE, views=1, blur=False))
    fixed = Encoder("amdim", image_size=SIZE, in_channels=1)
    with pytest.raises(ValueError, match=r"encoder: amdim can't take images .* 16 pixels \(a view of the augmentation"):
        tuned(fixed, SimCLRViews(16, views=1, blur=False))
