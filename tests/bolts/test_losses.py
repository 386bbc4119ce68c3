"""Compare our losses with those of lightning-bolts: values and gradients, on random input."""

import pytest
import torch
from pl_bolts.losses.self_supervised_learning import CPCTask, FeatureMapContrastiveTask, nt_xent_loss
from torch import nn
from torch.nn import functional as F

from ssl_modules.extractions import AllViews, LocalMaps, PatchContext
from ssl_modules.extractions.local_maps import LocalHeads
from ssl_modules.losses import InfoNCE
from ssl_modules.objective import objective
from ssl_modules.similarities import Cosine, Dot, ScaledDot


def leaves(*shapes, scale=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [(scale * torch.randn(s, generator=generator, dtype=dtype)).requires_grad_() for s in shapes]


def same(ours, theirs, inputs, **tolerance):
    torch.testing.assert_close(ours, theirs, **tolerance)
    gradients = torch.autograd.grad(ours, inputs, retain_graph=True, allow_unused=True)
    expected = torch.autograd.grad(theirs, inputs, allow_unused=True)
    for gradient, reference in zip(gradients, expected, strict=True):
        if reference is not None:
            torch.testing.assert_close(gradient, reference, **tolerance)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_simclr(temperature):
    first, second = leaves((6, 5), (6, 5))
    contrasts = AllViews()([first, second], None, torch.arange(6)[:, None], None)
    ours = objective(contrasts, Cosine(), InfoNCE(temperature=temperature))
    theirs = nt_xent_loss(F.normalize(first), F.normalize(second), temperature)
    same(ours, theirs, [first, second], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("pairs", "comparisons"),
    [("multi-pair", "01, 02, 11"), ("same-map", "00, 11, 22"), ([(-2, -3), (-1, -1), (-3, -1)], "12, 00, 20")],
)
@pytest.mark.parametrize(("clip", "scale"), [(20.0, 1.0), (10.0, 3.0)])
def test_amdim(pairs, comparisons, clip, scale, monkeypatch):
    def same_draw(*bounds_and_size, **_):
        *_, bound, size = bounds_and_size
        return (7 * torch.arange(torch.Size(size).numel()) % bound).view(size)

    monkeypatch.setattr(torch, "randint", same_draw)  # draws the random locations
    one, five, seven = (4, 8, 1, 1), (4, 8, 5, 5), (4, 8, 7, 7)
    # bolts computes its scores in float32
    maps = leaves(one, five, seven, one, five, seven, scale=scale, dtype=torch.float32)
    losses, penalty = FeatureMapContrastiveTask(comparisons, tclip=clip)(tuple(maps[:3]), tuple(maps[3:]))

    extraction = LocalMaps(pairs)
    extraction.build((8, 8, 8))
    heads = LocalHeads({i: nn.Identity() for i in range(3)})
    views = [heads(tuple(reversed(view))) for view in (maps[:3], maps[3:])]
    contrasts = extraction(views, None, torch.arange(4)[:, None], None)
    ours = objective(contrasts, ScaledDot(), InfoNCE(clip=clip, l2=0.05))
    same(ours, losses.sum() + penalty, maps, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("grid", [(7, 7), (4, 5)])
def test_cpc(grid):
    torch.manual_seed(0)
    task = CPCTask(num_input_channels=12, target_dim=6).double()
    [z] = leaves((3, 12, *grid))
    extraction = PatchContext(out_dim=6, distances=range(2, grid[0]), shared_predictor=True, weights="triangular")
    extraction.build((12,))
    extraction.heads.targets = task.target_cnn
    extraction.contexts["down"] = task.context_cnn
    extraction.predictors["down"] = task.pred_cnn
    contrasts = extraction([extraction.heads((z,))], None, torch.arange(3)[:, None], None)
    same(objective(contrasts, Dot(), InfoNCE()), task(z), [z, *task.parameters()], rtol=1e-9, atol=1e-11)
