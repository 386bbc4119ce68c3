"""Compare the time of the ranking losses and their gradients with that of published implementations and of InfoNCE.

    python examples/benchmarks/ranking.py [--threads 1] [--rounds 5]

All losses use float32. "Published" computes a loss as the authors' code does. GroCo's code multiplies a soft
permutation matrix by the dense matrices of every layer of diffsort's network, with one call per view. Smooth-AP's code
compares all pairs of candidates of each query, in a tensor [M, M, M] for M views. Rows with "of scores" leave out
normalisation and matrix products, which are the same in both implementations. The script checks that both
implementations of a loss agree. It times them in turn: first with glibc's default for memory, and then while the
process keeps the memory that it frees, as every fit of ssl-modules on a CPU does. Memory is the peak memory that
PyTorch allocates during a run, in addition to the embeddings.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffsort import DiffSortNet
from pytorch_metric_learning.losses import FastAPLoss
from timing import interleaved, machine, peak_mib, print_table, threads, with_and_without_kept_memory
from torch import Tensor

from ssl_modules.contrast import Relation
from ssl_modules.extractions import AllViews
from ssl_modules.losses import AveragePrecisionLoss, GroCoLoss, InfoNCE, Loss
from ssl_modules.losses.sorting import odd_even_cauchy
from ssl_modules.objective import objective
from ssl_modules.similarities import Cosine

NEGATIVES = 10  # negatives per anchor, GroCo's default


class Row(NamedTuple):
    """Two losses to compare on the same tensor."""

    name: str
    loss: Callable[[Tensor], Tensor]
    other: str
    other_loss: Callable[[Tensor], Tensor]
    x: Tensor
    equal: bool = True  # whether both are the same function


def embeddings(views: int, images: int, dim: int) -> Tensor:
    return torch.randn(views, images, dim, generator=torch.Generator().manual_seed(0))


def through(extraction: AllViews, loss: Loss) -> Callable[[Tensor], Tensor]:
    """Return a method's loss as a function of embeddings [V, N, D], computed as in a training step."""

    def value(z: Tensor) -> Tensor:
        contrasts = extraction(list(z), None, torch.arange(z.shape[1])[:, None], None)
        return objective(contrasts, Cosine(), loss)

    return value


# ---- GroCo -----------------------------------------------------------------------------------------------------------


def published_rows(network: DiffSortNet, negatives: int, rows: Tensor) -> Tensor:
    """Return the loss of ordered rows [R, n]: the cross-entropy of the probability that a score keeps its group."""
    _, permutation = network(rows)
    target = (torch.arange(rows.shape[1]) >= negatives).float().expand_as(rows)
    positive = permutation[..., negatives:].sum(-1).clamp(0, 1)
    negative = permutation[..., :negatives].sum(-1).clamp(0, 1)
    return (F.binary_cross_entropy(positive, target) + F.binary_cross_entropy(negative, 1 - target)) / 2


def our_rows(negatives: int, rows: Tensor) -> Tensor:
    return odd_even_cauchy(rows, negatives, steepness=1.0).mean()


def published_groco(network: DiffSortNet, z: Tensor) -> Tensor:
    """Compute GroCo's loss of embeddings [V, N, D], one view at a time."""
    losses = []
    for v, anchors in enumerate(z):
        others = [view.detach() for u, view in enumerate(z) if u != v]
        scores = F.normalize(anchors) @ F.normalize(anchors.detach()).T
        hardest = scores.masked_fill(torch.eye(len(scores), dtype=torch.bool), -torch.inf).topk(NEGATIVES)[0].flip(1)
        positives = torch.stack([F.cosine_similarity(anchors, view) for view in others], dim=1).sort(1)[0]
        losses.append(published_rows(network, NEGATIVES, torch.cat([hardest, positives], dim=1)))
    return torch.stack(losses).mean()


def groco_rows() -> Iterator[Row]:
    for n, negatives, rows in ((NEGATIVES + 1, NEGATIVES, 1024), (128, 96, 8)):
        x = torch.rand(rows, n, generator=torch.Generator().manual_seed(0)) * 2 - 1
        x = torch.cat([part.sort(1)[0] for part in x.split([negatives, n - negatives], dim=1)], dim=1)
        published = partial(published_rows, DiffSortNet("odd_even", n, steepness=1.0), negatives)
        yield Row(f"sorting {rows} rows of {n}", partial(our_rows, negatives), "diffsort's network", published, x)
    groco = through(AllViews(same_view_negatives=True, stop_gradient=True), GroCoLoss())
    for views in (2, 4):
        published = partial(published_groco, DiffSortNet("odd_even", NEGATIVES + views - 1, steepness=1.0))
        z = embeddings(views, 256, 128)
        yield Row(f"GroCo, {views} views of 256 images, D = 128", groco, "published", published, z)
    z = embeddings(2, 256, 128)
    info_nce = through(AllViews(), InfoNCE(temperature=0.1))
    yield Row("GroCo, 2 views of 256 images, D = 128", groco, "SimCLR's InfoNCE", info_nce, z, equal=False)


# ---- average precision, S2R2 -----------------------------------------------------------------------------------------

BINS = 20
TEMPERATURE = 0.01


def published_smooth(views: int, scores: Tensor) -> Tensor:
    """Compute Smooth-AP of scores [M, M] from the differences of all candidate pairs of each query [M, M, M]."""

    def of_same_image(x: Tensor) -> Tensor:
        blocks = x.unflatten(1, (views, -1)).unflatten(0, (views, -1))  # [V, N, V, N]
        return blocks.diagonal(dim1=1, dim2=3).permute(2, 0, 1)  # [N, V, V]

    places = of_same_image(soft_places(scores[None])[0])
    among_positives = soft_places(of_same_image(scores))
    precision = among_positives / places * (1 - torch.eye(views))
    return 1 - precision.sum(2).mean() / (views - 1)


def soft_places(scores: Tensor) -> Tensor:
    """Soft rank [G, Q, Q] of candidate i for query q, without q itself, from scores [G, Q, Q] of G groups."""
    size = scores.shape[1]
    repeated = scores[:, :, None].repeat(1, 1, size, 1)  # [G, q, i, j]
    others = 1 - torch.eye(size)
    mask = others[:, None, :] * others  # without q and without i: [q, i, j]
    exponent = (-(repeated - repeated.mT) / TEMPERATURE).clamp(-50, 50)
    return 1 + (1 / (1 + exponent.exp()) * mask).sum(3)


def dense_binned(views: int, scores: Tensor) -> Tensor:
    """Compute binned AP of scores [M, M] from the shares of all candidates in all bins [M, Q, M]."""
    others = 1 - torch.eye(len(scores))
    width = 2 / (BINS - 1)
    centres = torch.linspace(1, -1, BINS)[:, None]
    share = (1 - (scores[:, None, :] - centres).abs() / width).relu() * others[:, None, :]
    positive = torch.eye(len(scores) // views).repeat(views, views)
    positives = (share * positive[:, None, :]).sum(2)
    precision = positives.cumsum(1) / share.sum(2).cumsum(1).clamp(min=1e-12)
    return 1 - (positives * precision).sum(1).mean() / (views - 1)


def of_embeddings(loss: Callable[[int, Tensor], Tensor], z: Tensor) -> Tensor:
    """Apply a loss of scores [M, M] to embeddings [V, N, D]."""
    return loss(len(z), cosines(z))


def cosines(z: Tensor) -> Tensor:
    x = F.normalize(z.flatten(0, 1))
    return x @ x.T


def fast_ap(z: Tensor) -> Tensor:
    return FastAPLoss(num_bins=BINS - 1)(z.flatten(0, 1), torch.arange(z.shape[1]).repeat(len(z)))


def average_precision_rows() -> Iterator[Row]:
    smooth, binned = AveragePrecisionLoss(), AveragePrecisionLoss("binned")
    for name, loss, other, other_loss, images in (
        ("smooth", smooth, "published", published_smooth, 32),
        ("smooth", smooth, "published", published_smooth, 128),
        ("binned", binned, "all bins", dense_binned, 128),
    ):
        z, size = embeddings(4, images, 128), f"4 views of {images} images"
        yield Row(f"{name} AP of scores, {size}", of_scores(4, images, loss), other, partial(other_loss, 4), cosines(z))
        whole = partial(of_embeddings, other_loss)
        yield Row(f"{name} AP, {size}, D = 128", through(AllViews(), loss), other, whole, z)
    z = embeddings(4, 128, 128)
    name = "binned AP, 4 views of 128 images, D = 128"
    yield Row(name, through(AllViews(), binned), "pytorch-metric-learning's FastAP", fast_ap, z)
    z, info_nce = embeddings(2, 256, 128), through(AllViews(), InfoNCE(temperature=0.1))
    for name, loss in (("smooth", smooth), ("binned", binned)):
        row = f"{name} AP, 2 views of 256 images, D = 128"
        yield Row(row, through(AllViews(), loss), "SimCLR's InfoNCE", info_nce, z, equal=False)


def of_scores(views: int, images: int, loss: Loss) -> Callable[[Tensor], Tensor]:
    """Return a loss as a function of scores [M, M], for SimCLR's relation between the views."""
    ids = torch.arange(images).repeat(views)[:, None]
    relation = Relation(ids, ids, excluded=torch.arange(len(ids))[:, None])[:]
    return partial(loss, relation=relation)


def memory_rows() -> Iterator[tuple[str | float, ...]]:
    """Yield the peak MiB of both AP surrogates for several numbers of images, and the size of one score matrix."""
    losses = [through(AllViews(), loss) for loss in (AveragePrecisionLoss(), AveragePrecisionLoss("binned"))]
    for images in (128, 256, 512):
        z = embeddings(4, images, 128).requires_grad_()
        matrix = 4 * (4 * images) ** 2 / 2**20
        yield f"4 x {images}", *(peak_mib(partial(gradient, loss, z)) for loss in losses), matrix


# ---- all ------------------------------------------------------------------------------------------------------------


def gradient(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.autograd.grad(loss(x), x)[0]


def repeat(run: Callable[[], Tensor], calls: int) -> None:
    for _ in range(calls):
        run()


def measure(row: Row, rounds: int) -> tuple[str | float, ...]:
    x = row.x.requires_grad_()
    runs = {"ours": partial(gradient, row.loss, x), row.other: partial(gradient, row.other_loss, x)}
    if row.equal:
        expected = runs[row.other]()
        torch.testing.assert_close(runs["ours"](), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
    # Call short runs several times in a row, so that caches are as warm as in long runs.
    calls = {name: max(1, int(0.05 / seconds)) for name, seconds in interleaved(runs, 1).items()}
    seconds = interleaved({name: partial(repeat, run, calls[name]) for name, run in runs.items()}, rounds)
    ours, other = (seconds[name] / calls[name] for name in runs)
    return row.name, 1000 * ours, row.other, 1000 * other, other / ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(machine())
    header = ("loss and gradient", "ms", "beside", "ms", "ours is faster by")
    with threads(args.threads):
        for memory in with_and_without_kept_memory():
            rows = (measure(row, args.rounds) for row in chain(average_precision_rows(), groco_rows()))
            print_table(f"{args.threads} thread(s), {memory}", header, rows)
        print_table("Memory, MiB", ("views", "smooth AP", "binned AP", "one matrix of scores"), memory_rows())


if __name__ == "__main__":
    main()
