import itertools

import pytest
import torch
from scipy.stats import chisquare
from torch.utils.data import DistributedSampler

from ssl_modules.datamodules import EpochSampler


def order(epoch=0, **kwargs):
    sampler = EpochSampler(range(101), **kwargs)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_order_follows_from_seed_and_epoch_alone():
    before = torch.get_rng_state()
    torch.manual_seed(1)
    first = order(seed=3, epoch=2)
    torch.manual_seed(2)
    assert order(seed=3, epoch=2) == first
    orders = [tuple(order(seed=seed, epoch=epoch)) for seed, epoch in itertools.product(range(4), range(4))]
    assert len(set(orders)) == 16  # neither seed + 1 nor epoch + 1 repeats an order
    assert all(sorted(indices) == list(range(101)) for indices in orders)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    order()
    assert torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(before)


def test_permutations_are_uniform():
    sampler = EpochSampler(range(3))
    counts = dict.fromkeys(itertools.permutations(range(3)), 0)
    for epoch in range(1200):
        sampler.set_epoch(epoch)
        counts[tuple(sampler)] += 1
    assert chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_processes_share_the_epoch(replicas):
    parts = [order(num_replicas=replicas, rank=rank, drop_last=True) for rank in range(replicas)]
    together = [index for step in zip(*parts, strict=True) for index in step]
    assert together == order()[: 101 // replicas * replicas]  # disjoint, complete, and in the order of one process


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("size", "replicas"), [(7, 1), (7, 2), (7, 4), (2, 5), (1, 2)])
def test_sequential_order_is_the_one_of_torch(size, replicas, drop_last):
    for rank in range(replicas):
        kwargs = {"num_replicas": replicas, "rank": rank, "shuffle": False, "drop_last": drop_last}
        ours, theirs = EpochSampler(range(size), **kwargs), DistributedSampler(range(size), **kwargs)
        assert list(ours) == list(theirs)
        assert len(ours) == len(theirs)


def test_skip_counts_once():
    sampler = EpochSampler(range(5), shuffle=False)
    sampler.skip = 3
    assert list(sampler) == [3, 4]
    assert list(sampler) == [0, 1, 2, 3, 4]
