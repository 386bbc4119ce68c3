import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from ssl_modules.callbacks.features import (
    endless_batches,
    features_and_targets,
    is_rereadable,
    shared_batches,
    undisturbed,
)


class Counting(IterableDataset):
    def __iter__(self):
        return iter(range(10))


class Noisy(Dataset):
    """Draws from every global random state, as data sets with augmentation do."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.rand(1) + random.random() + float(np.random.rand())  # noqa: NPY002


DATA = list(range(10))


def read(loader, size=None):
    return [sample for _, batch in shared_batches(loader, size) for sample in batch.tolist()]


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(range(10), batch_size=3),
        DataLoader(range(10), batch_size=3, shuffle=True, drop_last=True),
        DataLoader(range(10), batch_size=3, num_workers=1, persistent_workers=True),
        DataLoader(range(10), batch_sampler=BatchSampler(RandomSampler(range(10)), 3, drop_last=True)),
        DataLoader(DATA, batch_size=3, sampler=DistributedSampler(DATA, num_replicas=1, rank=0)),
        DataLoader(DATA, batch_size=3, sampler=DistributedSampler(DATA, num_replicas=2, rank=1)),
    ],
)
def test_every_sample_once_in_order(loader):
    assert read(loader) == list(range(10))


def test_a_sampler_split_over_something_else_is_refused():
    loader = DataLoader(range(10), sampler=DistributedSampler([5, 3, 1], num_replicas=2, rank=1))
    with pytest.raises(ValueError, match="split among 2 processes by DistributedSampler"):
        read(loader)


def test_subsets_stay_subsets():
    assert read(DataLoader(Subset(range(10), [7, 2]), shuffle=True)) == [7, 2]
    assert read(DataLoader(range(10), sampler=SubsetRandomSampler([7, 2]))) == [2, 7]


def test_other_loaders_are_iterated_as_they_are():
    sampler = WeightedRandomSampler([0.0] * 9 + [1.0], num_samples=4)
    assert read(DataLoader(range(10), sampler=sampler, batch_size=3)) == [9] * 4
    assert read(DataLoader(Counting(), batch_size=4)) == list(range(10))
    assert read([torch.tensor([3, 1]), torch.tensor([2])]) == [3, 1, 2]
    assert not is_rereadable(DataLoader(Counting()))


def test_size_is_a_fixed_random_choice():
    data = list(range(1000))
    first, second = read(DataLoader(data, batch_size=64), 100), read(DataLoader(data, batch_size=7, shuffle=True), 100)
    assert first == second == sorted(set(first))
    assert len(first) == 100
    assert 400 < sum(first) / 100 < 600  # not the head of a data set sorted by class; 500 +- 3.5 standard errors


def test_endless_batches_pass_over_everything_in_new_orders():
    loader = DataLoader(range(10), batch_size=4)
    stream = endless_batches(loader)
    first, second = (torch.cat([next(stream) for _ in range(3)]).tolist() for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    resumed = endless_batches(loader, start=2)
    assert torch.cat([next(resumed) for _ in range(4)]).tolist() == first[8:] + second


def test_endless_batches_refuse_a_generator():
    stream = endless_batches(batch for batch in [torch.ones(2)])
    next(stream)
    with pytest.raises(ValueError, match="give a loader, not a generator"):
        next(stream)


def test_undisturbed_restores_modes_and_random_states():
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2).eval(), nn.Dropout()))
    modes = [part.training for part in module.modules()]
    torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002
    expected = [torch.rand(1).item(), random.random(), np.random.rand()]  # noqa: NPY002
    torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002
    with undisturbed(module):
        seen = list(DataLoader(Noisy(), shuffle=True))
        assert len(seen) == 4
        assert not any(part.training for part in module.modules())
        assert not module(torch.ones(1, 2)).requires_grad
    assert [torch.rand(1).item(), random.random(), np.random.rand()] == expected  # noqa: NPY002
    assert [part.training for part in module.modules()] == modes


def test_undisturbed_restores_modes_after_an_error():
    module = nn.Dropout()
    with pytest.raises(RuntimeError), undisturbed(module):
        raise RuntimeError
    assert module.training


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        self.head = nn.Linear(3, 2)
        self.twice = nn.Identity()

    def forward(self, images):
        return self.head(self.twice(self.twice(self.encoder(images))))


IMAGES, TARGETS = torch.rand(5, 1, 2, 2), torch.arange(5)


def test_the_three_ways_to_features_agree():
    net = Net()
    expected = net.encoder(IMAGES)
    for features in ("encoder", "encoder.1", lambda module, images: module.encoder(images)):
        found, targets = features_and_targets(net, (IMAGES, TARGETS, "more"), features=features)
        assert torch.equal(found, expected)
        assert torch.equal(targets, TARGETS)
    assert torch.equal(features_and_targets(net, [IMAGES, TARGETS])[0], net(IMAGES))
    assert not net.encoder._forward_hooks


def test_prepare_and_level():
    batch = {"x": IMAGES * 2, "y": torch.stack([TARGETS, TARGETS // 2], dim=1)}
    net = Net()
    found, targets = features_and_targets(net, batch, prepare=lambda b: (b["x"] / 2, b["y"]), level=1)
    assert torch.equal(found, net(IMAGES))
    assert targets.tolist() == [0, 0, 1, 1, 2]


def test_uint8_passes_where_it_is_expected():
    net, pixels = Net(), torch.ones(5, 1, 2, 2, dtype=torch.uint8)
    net.accepts_uint8 = True
    features = lambda module, images: module.encoder(images.float())  # noqa: E731
    found, _ = features_and_targets(net, (pixels, TARGETS), features=features)
    assert torch.equal(found, net.encoder(pixels.float()))
    del net.accepts_uint8
    assert torch.equal(features_and_targets(net, (pixels, TARGETS), features=features)[0], found)
    assert features_and_targets(nn.Flatten(), (pixels, TARGETS))[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        ((IMAGES, TARGETS), {"features": "encodr"}, "'encodr' is no submodule of Net; near matches: encoder"),
        ((IMAGES, TARGETS), {"features": "twice"}, "called 2 times"),
        ((IMAGES, TARGETS), {"features": lambda module, images: images}, r"\[5, 1, 2, 2\] for 5 images.*; pool it"),
        ((IMAGES, TARGETS), {"features": lambda module, images: [images]}, "a list, not one tensor"),
        ((IMAGES, TARGETS), {"level": 0}, "level=0 does not fit"),
        ((IMAGES, TARGETS[:, None].repeat(1, 2)), {}, r"targets of shape \[5, 2\].*level= a column"),
        ((IMAGES, TARGETS[:, None].repeat(1, 2)), {"level": 2}, "level=2"),
        ((IMAGES, TARGETS[:4]), {}, "for 4 images"),
        ((IMAGES, TARGETS.float()), {}, "class indices, but got torch.float32; give prepare="),
        (((IMAGES * 255).byte(), TARGETS), {}, "Net has floating-point weights .* uint8 images; give prepare="),
        (IMAGES, {}, "without labels; .* train= and test="),
        ((IMAGES,), {}, "without labels"),
        (((IMAGES, IMAGES), TARGETS), {}, r"tuple\(tuple, Tensor\).*prepare="),
        ({"x": IMAGES}, {}, "the loader delivers dict"),
        ((IMAGES, TARGETS), {"prepare": lambda batch: batch[0]}, "prepare must return .* gave Tensor"),
    ],
)
def test_errors_name_the_argument(batch, options, message):
    with pytest.raises(ValueError, match=message):
        features_and_targets(Net(), batch, **options)
