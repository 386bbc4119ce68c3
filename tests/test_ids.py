from functools import partial

import pytest
import torch
from conformance.cases import trainer
from modules import Net, build, pixels
from torch.utils.data import DataLoader

from ssl_modules import RINCE
from ssl_modules.augmentations import SimCLRViews
from ssl_modules.batch import read_batch
from ssl_modules.extractions import LabelRanks, Queue, RankTable


def ranked(ranks=None, size=32):
    return RINCE(
        SimCLRViews(8, strength=0.5, blur=False),
        Net(),
        Queue(out_dim=5, size=size, ranks=LabelRanks() if ranks is None else ranks),
        image_size=8,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        base_batch_size=None,
    )


def labels(n=8):
    return torch.arange(n)[:, None] // torch.tensor([2, 4])


def test_ids_are_new_at_every_step_and_labels_follow_from_finer_to_coarser():
    module = ranked()
    targets = labels()
    targets[3] = -1
    trainer(max_steps=3).fit(module, DataLoader([(pixels(), targets)] * 3, batch_size=None))
    ids = module.extraction.ids[:24]
    assert len(ids[:, 0].unique()) == 24
    assert (ids[:, 0] >= 0).all()
    assert torch.equal(ids[:, 1:], targets.repeat(3, 1))
    assert (module.extraction.ids[24:] == -1).all()


def test_ids_have_no_labels_where_nothing_reads_them():
    batch = read_batch((pixels(), labels()))
    assert torch.equal(batch.ids(0, build().extraction.levels), torch.arange(8)[:, None])
    assert torch.equal(read_batch(pixels()).ids(0, build().extraction.levels), torch.arange(8)[:, None])


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_one_level_of_labels_may_be_a_vector(dtype):
    module = ranked(RankTable([[1, 2], [2, 1]]))
    expected = torch.stack([torch.arange(8), torch.arange(8) % 2], dim=1)
    targets = (torch.arange(8) % 2).to(dtype)
    assert torch.equal(read_batch((pixels(), targets)).ids(0, module.extraction.levels), expected)
    assert torch.equal(read_batch((pixels(), targets[:, None])).ids(0, module.extraction.levels), expected)


@pytest.mark.parametrize("stage", ["fit", "validate"])
@pytest.mark.parametrize(
    ("ranks", "batch", "message"),
    [
        (LabelRanks(), pixels(), r"targets: got none, but .* reads labels; give a loader of \(images, targets\)"),
        (LabelRanks(), (pixels(), list("abcdefgh")), "targets: got none, but"),
        (LabelRanks(), (pixels(), torch.arange(8)), r"targets: expected 2 level.* \[8, 2\], .* got a tensor \[8\]"),
        (LabelRanks(1), (pixels(), labels()), r"targets: expected 1 level.* \[8, 1\], .* got a tensor \[8, 2\]"),
        (LabelRanks(), (pixels(), labels(6)), r"targets: .* \[8, 2\], .* got a tensor \[6, 2\]"),
        (LabelRanks(), (pixels(), torch.rand(8, 2)), r"targets: .* integers .* got a tensor \[8, 2\] of torch.float32"),
        (RankTable([[1, 0], [0, 1]]), (pixels(), torch.arange(8)), r"targets: .* a table of 2 classes, got 2"),
    ],
)
def test_labels_that_ranks_cannot_read_are_refused(ranks, batch, message, stage):
    with pytest.raises(ValueError, match=message):
        getattr(trainer(max_steps=1), stage)(ranked(ranks), DataLoader([batch], batch_size=None))


def test_ranks_of_labels_without_a_temperature_are_refused():
    module = ranked(LabelRanks(3))
    targets = torch.tensor([[0, 0, 0], [1, 1, 0]]).repeat(4, 1)
    with pytest.raises(ValueError, match=r"relation: expected ranks up to 2 .* got 3; give RINCELoss a temperature"):
        trainer(max_steps=2).fit(module, DataLoader([(pixels(), targets)] * 2, batch_size=None))
