"""All losses over two processes with different numbers of positives."""

import torch
from processes import run_in_processes

from ssl_modules import Contrast, Relation
from ssl_modules.contrast import Paired
from ssl_modules.losses import Alignment, AveragePrecisionLoss, GroCoLoss, RINCELoss, SCELoss, SupConLoss
from ssl_modules.objective import objective
from ssl_modules.similarities import Cosine

LOSSES = [
    Alignment(),
    SCELoss(0.3, 0.2),
    SupConLoss(0.3),
    SupConLoss(0.3, "in"),
    RINCELoss((0.3, 0.5)),
    RINCELoss([0.4], "in", cumulative=True),
]
LOSSES += [AveragePrecisionLoss(temperature=0.1), AveragePrecisionLoss("binned"), GroCoLoss(3)]


def problem():
    """Ten images: the first half has most of the positives in the queue."""
    g = torch.Generator().manual_seed(5)
    x, keys, queue = (torch.randn(n, 5, generator=g, dtype=torch.float64) for n in (10, 10, 12))
    labels = torch.tensor([[0, 0], [0, 0], [0, 0], [1, 0], [0, 0], [2, 1], [3, 1], [4, 2], [5, 3], [6, 3]])
    queue_labels = torch.tensor([[0, 0]] * 4 + [[1, 0], [2, 1], [7, 4], [8, 4], [9, 4], [9, 5], [9, 5], [9, 5]])
    weight = torch.randn(5, 5, generator=g, dtype=torch.float64)
    return x, keys, queue, labels, queue_labels, weight


def value_and_gradient(loss, rows):
    x, keys, queue, labels, queue_labels, weight = problem()
    weight.requires_grad_()
    relation = Relation(labels[rows], queue_labels)
    contrast = Contrast(x[rows] @ weight, queue, relation, reference=keys[rows])
    value = objective([contrast], Cosine(), loss, 2)
    value.backward()
    return value.detach(), weight.grad


def of_queue(rows):
    """Return SCE's loss and gradient. Each anchor has one positive, so the loss uses its fused form."""
    x, keys, queue, _, _, weight = problem()
    weight.requires_grad_()
    keys = keys[rows]
    relation = Paired(torch.arange(len(keys)), len(keys) + len(queue), len(keys))
    value = objective(
        [Contrast(x[rows] @ weight, torch.cat([keys, queue]), relation, keys)], Cosine(), SCELoss(0.3, 0.2)
    )
    value.backward()
    return value.detach(), weight.grad


def of_process(rank):
    part = slice(7) if rank == 0 else slice(7, 10)
    return [value_and_gradient(loss, slice(5 * rank, 5 * rank + 5)) for loss in LOSSES] + [of_queue(part)]


def test_two_processes_give_the_gradient_of_one_with_uneven_positives():
    expected = [value_and_gradient(loss, slice(10)) for loss in LOSSES] + [of_queue(slice(10))]
    for (value, gradient), first, second in zip(expected, *run_in_processes(of_process), strict=True):
        # DDP averages over processes.
        torch.testing.assert_close((first[0] + second[0]) / 2, value, rtol=0, atol=1e-12)
        torch.testing.assert_close((first[1] + second[1]) / 2, gradient, rtol=0, atol=1e-12)
        assert (first[0] - second[0]).abs() > 0.01  # the processes' shares differ
