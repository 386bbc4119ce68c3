import os
from itertools import chain

import pytest
import torch
from torch import distributed

from ssl_modules.datamodules import EpochSampler, ImageDataModule, ResumableDataLoader, TensorImages


def loader(size=10, rank=0, replicas=1, seed=0, **kwargs):
    sampler = EpochSampler(range(size), seed=seed, num_replicas=replicas, rank=rank)
    return ResumableDataLoader(range(size), 2, sampler=sampler, generator=torch.Generator(), **kwargs)


def batches(of):
    return [batch.tolist() for batch in of]


@pytest.mark.parametrize("workers", [0, 2])
def test_state_goes_on_with_the_next_batch(workers):
    source = loader(num_workers=workers)
    source.sampler.set_epoch(4)
    whole = batches(source)
    iterator = iter(source)
    for done in range(1, 6):
        next(iterator)
        assert source.state_dict() == {"epoch": 4, "images": 2 * done}  # only delivered images, also with workers
        resumed = loader()
        resumed.load_state_dict(source.state_dict())
        assert batches(resumed) == whole[done:]
        assert batches(resumed) == whole  # a state is used only once


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("drop_last", [False, True])
def test_another_number_of_processes_continues_without_repeating_or_losing_an_image(before, after, drop_last):
    def of_all(number):
        made = [loader(29, rank, number, drop_last=drop_last) for rank in range(number)]
        for own in made:
            own.sampler.drop_last = drop_last
        return made

    stopped = of_all(before)
    iterators = [iter(own) for own in stopped]
    seen = [i for _ in range(2) for iterator in iterators for i in next(iterator).tolist()]
    resumed = of_all(after)
    counts = set()
    for own in resumed:
        own.load_state_dict(stopped[0].state_dict())
        counts.add((own.batches_before, len(own)))
    ahead = [batches(own) for own in resumed]
    rest = [i for batches in ahead for batch in batches for i in batch]
    order = batches(loader(29))
    assert sorted(seen) == sorted(list(chain(*order))[: len(seen)])  # the order is that of one process
    if drop_last:
        assert len(seen + rest) == len(set(seen + rest)) > 29 - 2 * after
    else:
        assert set(seen + rest) == set(range(29))
        assert len(rest) < 29 - len(seen) + after  # some images are read twice, so that all processes have equally many
    [(before_, whole)] = counts
    assert {len(batches) for batches in ahead} == {whole - before_}


def test_another_epoch_begins_at_its_head():
    resumed, fresh = loader(), loader()
    resumed.load_state_dict({"epoch": 4, "images": 6})
    for source in (resumed, fresh):
        source.sampler.set_epoch(5)
    assert batches(resumed) == batches(fresh)


def test_an_iterator_never_asked_uses_nothing_up():
    resumed, fresh = loader(), loader()
    resumed.load_state_dict({"epoch": 0, "images": 6})
    iter(resumed)
    assert batches(resumed) == batches(fresh)[3:]


def test_two_iterators_at_once_keep_their_own_place():
    source = loader()
    first, second = iter(source), iter(source)
    one = [next(first).tolist()]
    assert batches(second) == batches(loader())
    one += batches(first)
    assert one == batches(loader())


@pytest.mark.parametrize("workers", [0, 2])
def test_global_random_state_stays(workers):
    state = torch.get_rng_state()
    batches(loader(num_workers=workers))
    assert torch.equal(torch.get_rng_state(), state)


class WorkerSeed(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.initial_seed()


def worker_seeds(epoch, rank=0, seed=0):
    sampler = EpochSampler(range(4), seed=seed, num_replicas=2, rank=rank)
    sampler.set_epoch(epoch)
    source = ResumableDataLoader(WorkerSeed(), 1, sampler=sampler, num_workers=1, generator=torch.Generator())
    return {value for batch in source for value in batch.tolist()}


def test_worker_seeds_follow_from_seed_epoch_and_rank():
    assert worker_seeds(0) == worker_seeds(0)
    distinct = [worker_seeds(0), worker_seeds(1), worker_seeds(0, rank=1), worker_seeds(0, seed=1)]
    assert len(set.union(*distinct)) == 4


class Deadly(torch.utils.data.Dataset):
    """Kills the worker that reads row 5, or raises a given error that looks like a killed worker."""

    def __init__(self, error=None):
        self.error = error

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index == 5 and self.error:
            raise self.error
        if index == 5:
            os._exit(1)
        return index


def deadly(workers=1, error=None):
    sampler = EpochSampler(range(10), shuffle=False)
    return ResumableDataLoader(Deadly(error), 2, sampler=sampler, num_workers=workers, generator=torch.Generator())


@pytest.mark.slow
def test_a_batch_that_kills_its_worker_again_is_an_error():
    source = deadly()
    with (
        pytest.warns(UserWarning, match="a DataLoader worker died .* starting new workers at batch"),
        pytest.raises((RuntimeError, ConnectionError, EOFError)),
    ):
        list(source)
    assert source.state_dict()["images"] <= 4  # batches that the worker had prefetched are lost


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("error", [EOFError("mine"), ConnectionError("mine"), RuntimeError("mine")])
def test_errors_of_the_data_set_are_no_deaths(workers, error):
    with pytest.raises(type(error), match="mine"):
        list(deadly(workers, error))


@pytest.fixture
def process_group(monkeypatch):
    """Pretend to be in a group of two processes; return a function that sets the rank."""
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    return lambda rank: monkeypatch.setattr(distributed, "get_rank", lambda: rank)


def test_each_process_of_a_group_reads_its_share(process_group):
    images = torch.arange(11, dtype=torch.uint8).view(-1, 1, 1, 1)
    part = TensorImages(images, images.flatten())
    data = ImageDataModule(part, part, num_classes=11, batch_size=2)
    data.setup()
    train, test, probe = [], [], []
    for rank in range(2):
        process_group(rank)
        train.append([images.flatten().tolist() for images, _ in data.train_dataloader()])
        test.append([row for _, targets in data.test_dataloader() for row in targets.tolist()])
        probe.append([row for _, targets in data.probe_train_dataloader() for row in targets.tolist()])
    assert [[len(batch) for batch in batches] for batches in train] == [[2, 2]] * 2
    assert len({row for batches in train for batch in batches for row in batch}) == 8  # disjoint
    assert test == probe == [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 0]]  # filled up with the first row
