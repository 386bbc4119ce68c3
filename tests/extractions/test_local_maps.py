from itertools import permutations
from math import exp, log, sqrt, tanh
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_in_processes
from torch import nn
from torch.nn.functional import batch_norm, conv2d

from ssl_modules.extractions import LocalMaps
from ssl_modules.extractions.local_maps import ResidualHead
from ssl_modules.losses import InfoNCE
from ssl_modules.objective import objective
from ssl_modules.similarities import ScaledDot

REFERENCE = Path(__file__).parents[1] / "reference"
BLOCKS = [0, 1, 3, None]


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def ids_of(images, first=100):
    return first + torch.arange(images)[:, None]


def maps(sizes, images=3, dim=5, views=2, seed=1):
    """Return embeddings of each view as the heads do: ``[N, L, D]`` by index of the map."""
    g = generator(seed)
    return [
        {i: torch.randn(images, size, dim, generator=g, dtype=torch.float64) for i, size in enumerate(sizes)}
        for _ in range(views)
    ]


def built(pairs, channels=(6, 6, 6), **arguments):
    extraction = LocalMaps(pairs, **arguments)
    extraction.build(channels)
    return extraction


# ---- against the official code --------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("clip", [10, 20])
@pytest.mark.parametrize("official", ["public", "bolts"])
def test_one_direction_is_the_official_one(official, clip, block):
    v = np.load(REFERENCE / "amdim_1_nce.npz")
    src, trg = (torch.tensor(v[name], requires_grad=True) for name in ("src", "trg"))  # [n, d], [n, d, L]
    views = [{0: trg.mT.detach(), 1: src[:, None]}, {0: trg.mT, 1: src.detach()[:, None]}]
    forth, _ = built([(-1, -2)], (6, 6))(views, None, ids_of(4), None)
    forth.weight = 1.0
    loss = objective([forth], ScaledDot(), InfoNCE(clip=clip, l2=0.05), block)
    loss.backward()
    expected = v[f"{official}_c{clip}_nce"] + v[f"{official}_c{clip}_reg"]
    assert loss.item() == pytest.approx(expected, abs=1e-10)
    np.testing.assert_allclose(src.grad, v[f"{official}_c{clip}_dsrc"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(trg.grad, v[f"{official}_c{clip}_dtrg"], rtol=0, atol=1e-10)
    single = objective([forth], ScaledDot(), InfoNCE(clip=clip), block)  # without the penalty
    assert single.item() == pytest.approx(v[f"{official}_c{clip}_nce"], abs=1e-10)


def test_one_direction_is_the_official_one_in_single_precision():
    v = np.load(REFERENCE / "amdim_1_nce.npz")
    src, trg = (torch.tensor(v[name], dtype=torch.float32) for name in ("src", "trg"))
    views = [{0: trg.mT, 1: src[:, None]}] * 2
    forth, _ = built([(-1, -2)], (6, 6))(views, None, ids_of(4), None)
    forth.weight = 1.0
    loss = objective([forth], ScaledDot(), InfoNCE(clip=10.0, l2=0.05))
    assert loss.item() == pytest.approx(v["f32_nce"] + v["f32_reg"], abs=1e-5)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_objective_of_amdim_is_the_official_one(block, monkeypatch):
    v = np.load(REFERENCE / "amdim_3_multiscale.npz")
    of_maps = {
        f"{name}_{view}": torch.tensor(v[f"{name}_{view}"], requires_grad=True)
        for name in ("r7", "r5", "r1")
        for view in ("x1", "x2")
    }
    views = [
        {i: of_maps[f"{name}_{view}"].flatten(2).mT for i, name in enumerate(("r7", "r5", "r1"))}
        for view in ("x1", "x2")
    ]
    places = [torch.tensor(v[f"idx5_{view}"])[None] for view in ("x1", "x2")]
    monkeypatch.setattr(torch, "randint", lambda *_, **__: places.pop(0))
    contrasts = built("multi-pair")(views, None, ids_of(3), None)
    assert not places
    loss = objective(contrasts, ScaledDot(), InfoNCE(clip=20.0, l2=0.05), block)
    loss.backward()
    assert loss.item() == pytest.approx(v["total"], abs=1e-10)
    for name, m in of_maps.items():
        np.testing.assert_allclose(m.grad, v[f"d_{name}"], rtol=0, atol=1e-10)
    for name, pair in zip(("l15", "l17", "l55"), (contrasts[:2], contrasts[2:4], contrasts[4:]), strict=True):
        assert objective(pair, ScaledDot(), InfoNCE(clip=20.0)).item() == pytest.approx(v[name], abs=1e-10)


# ---- against a slow version -----------------------------------------------------------------------------------------


def slow_nce(anchors, candidates, clip, l2):
    """Compute the equation one number at a time, for ``[n, d]`` against ``[n, L, d]``."""
    n, locations, d = candidates.shape
    u = [
        [[float(anchors[i] @ candidates[j, m]) / sqrt(d) for m in range(locations)] for j in range(n)] for i in range(n)
    ]
    s = [[[clip * tanh(x / clip) for x in row] for row in matrix] for matrix in u]
    terms = [
        -log(exp(p) / (exp(p) + sum(exp(x) for j in range(n) if j != i for x in s[i][j])))
        for i in range(n)
        for p in s[i][i]
    ]
    squares = [x * x for matrix in u for row in matrix for x in row]
    return sum(terms) / len(terms) + l2 * sum(squares) / len(squares)


@pytest.mark.parametrize("scale", [1.0, 30.0])  # scores of order 1, or mostly beyond the clip
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize(
    ("pairs", "compared"),
    [
        ("last", [(2, 2)]),
        ("multi-pair", [(2, 1), (2, 0), (1, 1)]),
        ("same-map", [(2, 2), (1, 1), (0, 0)]),
        ([(0, -1), (1, 2)], [(0, 2), (1, 2)]),
    ],
)
def test_a_pair_is_the_mean_of_its_directions(pairs, compared, views, scale):
    z = maps((4, 3, 1), views=views)
    z = [{i: scale * m for i, m in view.items()} for view in z]
    contrasts = built(pairs, source="pooled")(z, None, ids_of(3), None)
    loss = objective(contrasts, ScaledDot(), InfoNCE(clip=10.0, l2=0.05))
    directions = list(permutations(range(views), 2))
    expected = sum(
        slow_nce(z[u][i].mean(1), z[v][j], 10.0, 0.05) / len(directions) for i, j in compared for u, v in directions
    )
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_saturated_scores_keep_a_gradient_by_the_penalty_alone():
    z = maps((1,), images=4)
    anchors = (1e4 * z[0][0]).requires_grad_()
    [forth, _] = built("last", (6,))([{0: anchors}, z[1]], None, ids_of(4), None)
    clipped, penalised = (objective([forth], ScaledDot(), InfoNCE(clip=10.0, l2=l2)) for l2 in (0.0, 0.05))
    assert clipped.isfinite()
    [alone] = torch.autograd.grad(clipped, anchors)
    [both] = torch.autograd.grad(penalised, anchors)
    u = (anchors[:, 0] @ z[1][0][:, 0].T / sqrt(5)).detach()
    assert u.abs().min() > 100  # all scores are beyond the clip
    assert alone.abs().max() < 1e-12
    of_penalty = 0.5 * 0.05 * 2 / 16 * u @ z[1][0][:, 0] / sqrt(5)  # each direction has weight 0.5
    torch.testing.assert_close(both[:, 0], of_penalty)


# ---- which vectors are compared -------------------------------------------------------------------------------------


def test_anchors_are_of_the_source_and_candidates_all_locations_of_the_target():
    z = maps((4, 1), images=3)
    forth, back = built([(-1, 0)], (6, 6))(z, None, ids_of(3), None)
    for c, u, v in ((forth, 0, 1), (back, 1, 0)):
        assert torch.equal(c.anchors, z[u][1][:, 0])
        for image in range(3):
            for location in range(4):
                assert torch.equal(c.candidates[4 * image + location], z[v][0][image, location])
        assert torch.equal(c.relation[:], torch.eye(3, dtype=torch.int8).repeat_interleave(4, dim=1))
        assert c.weight == 0.5


def test_one_random_location_of_each_image_and_view_is_the_anchor_of_all_its_pairs():
    z = maps((3, 9), images=200)
    extraction = built([(-1, -1), (-1, 0)], (6, 6))
    contrasts = extraction(z, None, ids_of(200), generator())
    drawn = []
    for view, (to_last, to_first) in enumerate(((contrasts[0], contrasts[2]), (contrasts[1], contrasts[3]))):
        assert torch.equal(to_last.anchors, to_first.anchors)
        here = (z[view][1] == to_last.anchors[:, None]).all(2)  # [N, L]
        assert torch.equal(here.sum(1), torch.ones(200, dtype=torch.int64))
        drawn.append(here.int().argmax(1))
        assert drawn[-1].bincount(minlength=9).min() > 5  # draws all locations; expects 22 of each
    assert (drawn[0] != drawn[1]).any()
    again, others = (extraction(z, None, ids_of(200), generator(seed))[0].anchors for seed in (1, 2))
    assert torch.equal(again, contrasts[0].anchors)
    assert not torch.equal(others, contrasts[0].anchors)


def test_the_random_strategy_draws_one_pair_a_step():
    z = maps((4, 3, 1))
    extraction, g = built("random"), generator()
    sizes = []
    for _ in range(60):
        forth, back = extraction(z, None, ids_of(3), g)
        assert forth.candidates.shape == back.candidates.shape
        assert torch.equal(forth.anchors, z[0][2][:, 0])
        sizes.append(len(forth.candidates) // 3)
    assert {size: 10 < sizes.count(size) < 30 for size in (4, 3, 1)} == {4: True, 3: True, 1: True}


def draws_of_a_process(rank):
    z = maps((4, 3, 9), images=6)
    own = slice(3 * rank, 3 * rank + 3)
    z = [{i: m[own] for i, m in view.items()} for view in z]
    g = generator(rank + 1)  # as in training, where it differs between processes
    contrasts = [c for _ in range(8) for c in built("random")(z, None, ids_of(6)[own], g)]
    return [(c.anchors, c.candidates, c.relation[:]) for c in contrasts]


def test_two_processes_draw_what_one_draws():
    first, second = run_in_processes(draws_of_a_process)
    z, g = maps((4, 3, 9), images=6), generator(1)
    whole = [c for _ in range(8) for c in built("random")(z, None, ids_of(6), g)]
    for c, one, two in zip(whole, first, second, strict=True):
        assert torch.equal(torch.cat([one[0], two[0]]), c.anchors)
        assert torch.equal(one[1], c.candidates)
        assert torch.equal(two[1], c.candidates)
        assert torch.equal(torch.cat([one[2], two[2]]), c.relation[:])


# ---- heads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "dim"), [(4, 4), (4, 7), (7, 4)])
def test_a_head_is_two_1x1_convolutions_beside_a_skip_and_a_batch_norm(channels, dim):
    head, x = ResidualHead(channels, dim).double(), torch.randn(3, channels, 2, 5, generator=generator()).double()
    nn.init.normal_(head.residual.weight)
    w = {name: getattr(head, name).weight[:, :, None, None] for name in ("hidden", "residual", "skip")}
    y = conv2d(conv2d(x, w["hidden"]).relu(), w["residual"]) + conv2d(x, w["skip"])
    expected = batch_norm(y, None, None, training=True)
    torch.testing.assert_close(head(x.flatten(2).mT), expected.flatten(2).mT, rtol=0, atol=1e-12)
    assert sum(p.numel() for p in head.parameters()) == 2 * channels * dim + dim * dim + 2 * dim


@pytest.mark.parametrize("dim", [4, 7])
def test_a_head_begins_near_the_identity(dim):
    head = ResidualHead(4, dim)
    assert not head.residual.weight.any()
    off = head.skip.weight.detach() - torch.eye(dim, 4)
    assert torch.equal(off.diagonal(), torch.zeros(4))
    assert 0 < off.abs().max() <= 0.01


def test_channels_differ_and_embeddings_do_not():
    extraction = built("multi-pair", (2, 3, 4, 5), out_dim=6)
    shapes = ((2, 8, 8), (3, 4, 5), (4, 2, 2), (5, 1, 1))
    views = [extraction.heads(tuple(torch.rand(2, *shape) for shape in shapes)) for _ in range(2)]
    assert {i: tuple(z.shape) for i, z in views[0].items()} == {1: (2, 20, 6), 2: (2, 4, 6), 3: (2, 1, 6)}
    contrasts = extraction(views, None, ids_of(2), generator())
    assert {c.anchors.shape[1] for c in contrasts} == {c.candidates.shape[1] for c in contrasts} == {6}


def test_a_deepest_map_without_a_head_gives_the_width():
    extraction = built("multi-pair", (3, 3, 8), out_dim=None)
    m = (torch.rand(2, 3, 7, 7), torch.rand(2, 3, 5, 5), torch.rand(2, 8, 1, 1))
    z = extraction.heads(m)
    assert torch.equal(z[2], m[2].flatten(2).mT)
    assert [tuple(z[i].shape) for i in (0, 1)] == [(2, 49, 8), (2, 25, 8)]


@pytest.mark.parametrize("axes", [(4,), (2, 3), (2, 3, 2)])
def test_any_number_of_spatial_axes(axes):
    extraction = built("last", (3,), out_dim=4)
    views = [(torch.rand(2, 3, *axes),) for _ in range(2)]
    z = [extraction.heads(m) for m in views]
    flat = [extraction.heads((m[0].reshape(2, 3, -1),)) for m in views]
    torch.testing.assert_close(z, flat)
    forth, _ = extraction(z, None, ids_of(2), generator())
    assert torch.equal(forth.candidates, z[1][0].flatten(0, 1))


def test_two_steps_reach_every_parameter():
    torch.manual_seed(0)
    extraction = built("same-map", (4, 5, 6), out_dim=7)
    optimizer = torch.optim.SGD(extraction.parameters(), lr=0.1)
    reached = set()
    for _ in range(2):
        m = [(torch.randn(4, 4, 3, 3), torch.randn(4, 5, 2, 2), torch.randn(4, 6, 1, 1)) for _ in range(2)]
        contrasts = extraction([extraction.heads(x) for x in m], None, ids_of(4), generator())
        optimizer.zero_grad()
        objective(contrasts, ScaledDot(), InfoNCE(clip=10.0, l2=0.05)).backward()
        reached |= {name for name, p in extraction.named_parameters() if p.grad.any()}
        optimizer.step()
    assert reached == {name for name, _ in extraction.named_parameters()}


@pytest.mark.parametrize(("normalised", "deepest"), [(True, nn.Identity), (False, ResidualHead)])
def test_a_deepest_map_that_is_normalised_needs_no_head(normalised, deepest):
    extraction = LocalMaps()
    extraction.build((4, 5, 6), normalised=normalised)
    heads = extraction.heads.by_map
    assert [type(heads[i]) for i in "012"] == [ResidualHead, ResidualHead, deepest]
    assert {head.norm.num_features for head in heads.values() if type(head) is ResidualHead} == {
        6 if normalised else 512
    }


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pairs": "all"}, "pairs: expected 'last', .* or a list of .*, got 'all'"),
        ({"pairs": []}, r"pairs: .* got \[\]"),
        ({"out_dim": 0}, "out_dim: expected a positive number, got 0; or give 'auto' or None"),
        ({"out_dim": "same"}, "out_dim: .* got 'same'"),
        ({"source": "first"}, "source: .* got 'first'"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalMaps(**arguments)


@pytest.mark.parametrize(("pairs", "index"), [([(-1, 2)], 2), ([(-3, -1)], -3), ("multi-pair", -3)])
def test_refuses_an_index_of_no_map(pairs, index):
    message = f"pairs: there is no map {index}, because the encoder gives 2 maps: 0 to 1, shallow to deep, or -2 to -1"
    with pytest.raises(ValueError, match=message):
        built(pairs, (6, 6))


def test_refuses_to_leave_the_representation_out():
    with pytest.raises(ValueError, match=r"pairs: .* has the deepest map, -1, which is the representation"):
        built([(0, 1)])


def test_one_view_or_one_image_leaves_nothing_to_compare():
    extraction = built("last", (6,))
    with pytest.raises(ValueError, match="views: expected at least 2 per image, got 1"):
        extraction(maps((1,), views=1), None, ids_of(3), None)
    with pytest.raises(ValueError, match=r"batch: 1 image has no negatives; .*at least 2 and drop_last=True"):
        extraction(maps((1,), images=1), None, ids_of(1), None)
    with pytest.raises(ValueError, match=r"batch: 1 image is too few for batch norm; .*at least 2 and drop_last=True"):
        extraction.heads((torch.rand(1, 6, 1, 1),))
