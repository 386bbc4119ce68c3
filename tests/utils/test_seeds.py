import torch

from ssl_modules.utils.seeds import derive_generator, derive_seed, global_random_state, set_global_random_state


def test_a_seed_follows_from_its_parts_alone_in_every_process():
    assert derive_seed(3, "views", 1, 2) == 7416202826431075329  # the same in every process, unlike hash()


def test_parts_do_not_run_into_each_other():
    parts = [(1, 23), (12, 3), (1, 2, 3), ("1", 23), ("1", "23"), (123,), ("a", "b"), ("ab",)]
    seeds = {derive_seed(*p) for p in parts}
    assert len(seeds) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_of_neighbouring_steps_are_unrelated():
    draws = torch.stack([torch.rand(200, generator=derive_generator(0, "views", step)) for step in range(50)])
    correlations = torch.corrcoef(draws).fill_diagonal_(0)
    assert correlations.abs().max() < 0.35  # 5 standard deviations of 1 / sqrt(200)
    again = torch.rand(200, generator=derive_generator(0, "views", 7))
    assert torch.equal(again, draws[7])


def test_the_global_state_comes_back():
    state = global_random_state()
    first = torch.rand(3)
    torch.rand(10)
    set_global_random_state(state)
    assert torch.equal(torch.rand(3), first)
