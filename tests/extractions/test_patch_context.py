from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_in_processes
from torch import nn
from torch.nn.functional import conv2d, pad

from ssl_modules.extractions import PatchContext
from ssl_modules.extractions.patch_context import ContextNetwork
from ssl_modules.losses import InfoNCE
from ssl_modules.objective import objective
from ssl_modules.similarities import Dot

REFERENCE = Path(__file__).parents[1] / "reference"
BLOCKS = [0, 7, None]
ALL = ("down", "up", "right", "left")


def ids_of(images):
    return torch.arange(images)[:, None]


def grid(images=2, dim=6, rows=5, cols=3, seed=1):
    return torch.randn(images, dim, rows, cols, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(dim=6, seed=0, **arguments):
    torch.manual_seed(seed)
    extraction = PatchContext(**{"out_dim": 4, "hidden_dim": 5, "blocks": 2, "distances": (2, 3)} | arguments)
    extraction.build((3, dim))
    return extraction.double()


def contrasts_of(extraction, z):
    return extraction([extraction.heads((z,))], None, ids_of(len(z)), None)


# ---- against lightning-bolts ----------------------------------------------------------------------------------------


class BoltsPixelCNN(nn.Module):
    """lightning-bolts' context network with both defects: a row of ones on top, and a 1x3 layer without padding."""

    def __init__(self, weights, blocks):
        super().__init__()
        self.weights = weights
        self.blocks = blocks

    def forward(self, z):
        for i in range(self.blocks):
            w = [(self.weights[f"{i}.{j}.weight"], self.weights[f"{i}.{j}.bias"]) for j in (0, 2, 4, 6)]
            c = conv2d(conv2d(z, *w[0]).relu(), *w[1])
            c = conv2d(pad(c, (0, 0, 1, 0), value=1.0), *w[2], padding=(0, 1)).relu()
            z = z + conv2d(c, *w[3])
        return z.relu()


def bolts_context(v, prefix, blocks):
    weights = {name.removeprefix(prefix): torch.tensor(v[name]) for name in v.files if name.startswith(prefix)}
    return BoltsPixelCNN(weights, blocks)


def task(**arguments):
    """Return the extraction with the weights of the reference's task and with its context network."""
    v = np.load(REFERENCE / "cpc_1_task7.npz")
    extraction = built(out_dim=5, distances=(2, 3, 4, 5, 6), shared_predictor=True, **arguments)
    extraction.heads.targets.load_state_dict(
        {name: torch.tensor(v[f"w.target_cnn.{name}"]) for name in ("weight", "bias")}
    )
    extraction.predictors["down"].load_state_dict(
        {name: torch.tensor(v[f"w.pred_cnn.{name}"]) for name in ("weight", "bias")}
    )
    extraction.contexts["down"] = bolts_context(v, "w.context_cnn.blocks.", 2)
    return v, extraction


@pytest.mark.parametrize("block", BLOCKS)
def test_the_triangular_loss_is_that_of_bolts(block):
    v, extraction = task(weights="triangular")
    z = torch.tensor(v["z"], requires_grad=True)
    contrasts = contrasts_of(extraction, z)
    loss = objective(contrasts, Dot(), InfoNCE(), block)
    loss.backward()
    assert loss.item() == pytest.approx(v["loss"], abs=1e-10)
    np.testing.assert_allclose(z.grad, v["dz"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_steps_of_unit_weight_are_those_of_bolts(block):
    v, extraction = task()
    z = torch.tensor(v["z"], requires_grad=True)
    contrasts = contrasts_of(extraction, z)
    each = [objective([c], Dot(), InfoNCE(), block).item() for c in contrasts]
    np.testing.assert_allclose(each, v["per_step"], rtol=0, atol=1e-10)
    objective(contrasts, Dot(), InfoNCE(), block).backward()
    np.testing.assert_allclose(z.grad, v["dz_unweighted"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("distance", [1, 2, 3, 4])
def test_a_step_on_a_grid_that_is_not_square_is_that_of_bolts(distance):
    v = np.load(REFERENCE / "cpc_3_step_ce.npz")
    targets, predictions = (torch.tensor(v[name], requires_grad=True) for name in ("targets", "preds"))  # [2, 4, 5, 3]
    extraction = built(dim=4, distances=[distance])
    extraction.contexts["down"] = extraction.predictors["down"] = nn.Identity()
    contrasts = extraction([(predictions, targets)], None, ids_of(2), None)
    loss = objective(contrasts, Dot(), InfoNCE())
    loss.backward()
    assert loss.item() == pytest.approx(v[f"i{distance - 1}_loss"], abs=1e-10)
    np.testing.assert_allclose(targets.grad, v[f"i{distance - 1}_dtargets"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(predictions.grad, v[f"i{distance - 1}_dpreds"], rtol=0, atol=1e-10)


# ---- the context ----------------------------------------------------------------------------------------------------


def seen(network, rows, cols, dim):
    """Return which contexts depend on which patches: ``[rows, cols (of the context), rows, cols (of the patch)]``."""
    z = grid(1, dim, rows, cols)
    moves = torch.zeros(rows, cols, rows, cols, dtype=torch.bool)
    before = network(z)
    for row in range(rows):
        for col in range(cols):
            changed = z.clone()
            changed[:, :, row, col] += 1.0
            moves[:, :, row, col] = (network(changed) != before).any(dim=(0, 1))
    return moves


def intended(rows, cols, blocks):
    """Contexts see their own row and those above. Each block adds a row, and a column on each side."""
    field = torch.zeros(rows, cols, rows, cols, dtype=torch.bool)
    for i, j, k, m in np.ndindex(rows, cols, rows, cols):
        field[i, j, k, m] = 0 <= i - k <= blocks and abs(j - m) <= blocks
    return field


def open_network(dim, blocks):
    """Build a network with positive weights, so that no ReLU hides a dependence."""
    network = ContextNetwork(dim, 5, blocks).double()
    for p in network.parameters():
        nn.init.uniform_(p, 0.01, 0.1)
    return network


@pytest.mark.parametrize("blocks", [1, 2, 5])
@pytest.mark.parametrize(("rows", "cols"), [(7, 7), (6, 4)])
def test_a_context_sees_its_row_and_those_above(rows, cols, blocks):
    torch.manual_seed(0)
    network = open_network(4, blocks)
    z_moves = seen(lambda z: network(z.abs()), rows, cols, 4)
    assert torch.equal(z_moves, intended(rows, cols, blocks))


def test_that_of_bolts_does_not():
    v = np.load(REFERENCE / "cpc_4_pixelcnn.npz")
    network = bolts_context(v, "w.blocks.", 5)
    np.testing.assert_allclose(network(torch.tensor(v["z"])), v["out"], rtol=0, atol=1e-12)  # same network
    field = torch.tensor(v["rf"])
    assert field[3, 0].nonzero().tolist() == [[3, 0]]  # at the border, a context sees only its own patch
    assert not torch.equal(field, intended(7, 7, 5))


@pytest.mark.parametrize("direction", ALL)
def test_a_prediction_depends_on_no_patch_ahead(direction):
    rows, cols, distance = 5, 4, 2
    extraction = built(distances=[distance], directions=[direction])
    extraction.contexts[direction] = open_network(6, 2)
    nn.init.uniform_(extraction.predictors[direction].weight, 0.1, 1.0)
    ahead = {"down": (1, 0), "up": (-1, 0), "right": (0, 1), "left": (0, -1)}[direction]

    def predictions(z):
        [c] = contrasts_of(extraction, z)
        return c

    z = grid(1, 6, rows, cols).abs()
    before = predictions(z)
    own = before.relation[:].int().argmax(1)  # the patch that each anchor predicts
    place = [(int(p) // cols - distance * ahead[0], int(p) % cols - distance * ahead[1]) for p in own]
    assert len(set(place)) == len(place) == (rows - 2) * cols if ahead[0] else rows * (cols - 2)
    assert all(0 <= r < rows and 0 <= c < cols for r, c in place)
    for row, col in np.ndindex(rows, cols):
        changed = z.clone()
        changed[:, :, row, col] += 1.0
        moved = (predictions(changed).anchors != before.anchors).any(1)
        for (r, c), m in zip(place, moved, strict=True):
            behind = (r - row) * ahead[0] + (c - col) * ahead[1]  # rows or columns to the changed patch
            aside = abs((r - row) * ahead[1]) + abs((c - col) * ahead[0])
            assert m == (0 <= behind <= 2 and aside <= 2), (row, col, r, c)


# ---- which vectors are compared -------------------------------------------------------------------------------------


def slow_cpc(extraction, z, direction, i, distance):
    """Compute the equation one prediction at a time, indexing the grid without turning it."""
    images, _, rows, cols = z.shape
    turned = {"down": z, "up": z.flip(2), "right": z.transpose(2, 3), "left": z.flip(3).transpose(2, 3)}[direction]
    context = extraction.contexts[direction](turned)
    layer = extraction.predictors[direction]
    part = slice(4 * i, 4 * i + 4)
    targets = extraction.heads.targets(z)
    terms = []
    for n, row, col in np.ndindex(images, rows, cols):
        r, c = {
            "down": (row - distance, col),
            "up": (row + distance, col),
            "right": (row, col - distance),
            "left": (row, col + distance),
        }[direction]
        if not (0 <= r < rows and 0 <= c < cols):
            continue
        at = {"down": (r, c), "up": (rows - 1 - r, c), "right": (c, r), "left": (cols - 1 - c, r)}[direction]
        anchor = layer.weight[part, :, 0, 0] @ context[n, :, at[0], at[1]] + layer.bias[part]
        scores = 0.1 * torch.einsum("d,ndrc->nrc", anchor, targets)
        terms.append(log(scores.exp().sum()) - float(scores[n, row, col]))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("directions", [("down",), ("left", "up"), ALL])
def test_predictions_are_compared_with_all_targets(directions):
    extraction, z = built(directions=directions), grid(rows=5, cols=4)
    contrasts = contrasts_of(extraction, z)
    expected = [
        slow_cpc(extraction, z, direction, i, distance) for direction in directions for i, distance in enumerate((2, 3))
    ]
    each = [objective([c], Dot(), InfoNCE()).item() * len(directions) for c in contrasts]
    assert each == pytest.approx(expected, abs=1e-12)
    total = objective(contrasts, Dot(), InfoNCE()).item()
    assert total == pytest.approx(sum(expected) / len(directions), abs=1e-12)


def test_alike_scores_cost_the_log_of_all_patches():
    extraction, z = built(scale=1e-9), grid(images=3)
    loss = objective(contrasts_of(extraction, z), Dot(), InfoNCE())
    assert loss.item() == pytest.approx(2 * log(3 * 5 * 3), abs=1e-6)


def test_weights_of_the_distances():
    z = grid(rows=7)
    distances = (2, 5, 3)
    unit, triangular = (
        [c.weight for c in contrasts_of(built(distances=distances, weights=w), z)] for w in ("unit", "triangular")
    )
    assert unit == [1, 1, 1]
    assert triangular == [1, 4, 2]


def test_a_shared_predictor_predicts_the_same_for_all_distances():
    z = grid()
    near, far = contrasts_of(built(shared_predictor=True), z)
    near, far = near.anchors.view(2, 3, 3, 4), far.anchors.view(2, 2, 3, 4)  # [N, rows - distance, cols, D]
    torch.testing.assert_close(near[:, :2], far)
    near, far = contrasts_of(built(), z)
    assert not torch.isclose(near.anchors.view(2, 3, 3, 4)[:, :2], far.anchors.view(2, 2, 3, 4)).any()


def test_views_are_compared_each_by_itself():
    extraction = built()
    one, other = grid(seed=1), grid(seed=2)
    both = extraction([extraction.heads((z,)) for z in (one, other)], None, ids_of(2), None)
    expected = [objective(contrasts_of(extraction, z), Dot(), InfoNCE()) for z in (one, other)]
    torch.testing.assert_close(objective(both, Dot(), InfoNCE()), sum(expected) / 2)


def contrasts_of_a_process(rank):
    extraction, z = built(directions=ALL), grid(images=4, rows=5, cols=4)
    return [(c.anchors, c.candidates, c.relation[:]) for c in contrasts_of(extraction, z[2 * rank : 2 * rank + 2])]


def test_two_processes_compare_what_one_does():
    first, second = run_in_processes(contrasts_of_a_process)
    whole = contrasts_of(built(directions=ALL), grid(images=4, rows=5, cols=4))
    for c, one, two in zip(whole, first, second, strict=True):
        torch.testing.assert_close(torch.cat([one[0], two[0]]), c.anchors)
        torch.testing.assert_close(one[1], c.candidates)
        assert torch.equal(one[1], two[1])
        assert torch.equal(torch.cat([one[2], two[2]]), c.relation[:])


def test_every_parameter_has_a_gradient():
    extraction = built(directions=ALL)
    objective(contrasts_of(extraction, grid(rows=5, cols=5)), Dot(), InfoNCE()).backward()
    assert all(p.grad is not None and p.grad.any() for p in extraction.parameters())


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_dim": 0}, "out_dim: expected a positive number, got 0"),
        ({"hidden_dim": 0}, "hidden_dim: .* got 0"),
        ({"blocks": 0}, "blocks: .* got 0"),
        ({"scale": 0.0}, "scale: .* got 0.0"),
        ({"distances": []}, r"distances: .* at least 1, got \[\]"),
        ({"distances": [0]}, r"distances: .* got \[0\]"),
        ({"distances": [2, 2]}, r"distances: expected different numbers, got \[2, 2\]"),
        ({"distances": [1], "weights": "triangular"}, r"distances: .* at least 2, got \[1\]"),
        ({"directions": []}, r"directions: expected some of down, up, right, left, each once, got \[\]"),
        ({"directions": ["north"]}, r"directions: .* got \['north'\]"),
        ({"directions": ["up", "up"]}, r"directions: .* got \['up', 'up'\]"),
        ({"weights": "linear"}, "weights: .* got 'linear'"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        PatchContext(**arguments)


def test_refuses_a_grid_that_is_too_small():
    message = "distances: in a grid of 3 x 5 patches none lies 3 from another in the direction down; .* below 3"
    with pytest.raises(ValueError, match=message):
        contrasts_of(built(), grid(rows=3, cols=5))
    contrasts_of(built(directions=["left"]), grid(rows=3, cols=5))


@pytest.mark.parametrize("axes", [(4,), (5, 3, 2)])
def test_refuses_what_is_no_grid_of_patches(axes):
    with pytest.raises(ValueError, match=r"maps: expected a grid of patches \[N, C, rows, cols\], got "):
        built().heads((torch.rand(2, 6, *axes),))
