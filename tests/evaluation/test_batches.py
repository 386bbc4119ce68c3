import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from ssl_modules.evaluation.batches import endless_batches, sample_count, shared_batches


class Counting(IterableDataset):
    def __iter__(self):
        return iter(range(10))


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
    assert sample_count(loader) == 10
    assert sample_count(loader, 4) == 4


def test_a_sampler_split_over_something_else_is_refused():
    loader = DataLoader(range(10), sampler=DistributedSampler([5, 3, 1], num_replicas=2, rank=1))
    with pytest.raises(ValueError, match="one of 2 processes, by DistributedSampler"):
        read(loader)


def test_subsets_stay_subsets():
    assert read(DataLoader(Subset(range(10), [7, 2]), shuffle=True)) == [7, 2]
    assert read(DataLoader(range(10), sampler=SubsetRandomSampler([7, 2]))) == [2, 7]


def test_other_loaders_are_iterated_as_they_are():
    sampler = WeightedRandomSampler([0.0] * 9 + [1.0], num_samples=4)
    assert read(DataLoader(range(10), sampler=sampler, batch_size=3)) == [9] * 4
    assert read(DataLoader(Counting(), batch_size=4)) == list(range(10))
    assert read([torch.tensor([3, 1]), torch.tensor([2])]) == [3, 1, 2]
    assert sample_count(DataLoader(Counting())) is None


def test_size_is_a_fixed_random_choice():
    data = list(range(1000))
    first, second = read(DataLoader(data, batch_size=64), 100), read(DataLoader(data, batch_size=7, shuffle=True), 100)
    assert first == second == sorted(set(first))
    assert len(first) == 100
    assert 400 < sum(first) / 100 < 600  # not just the first rows; 500 +- 3.5 standard errors


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
