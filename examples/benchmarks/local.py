"""Compare the time and memory of AMDIM's loss and its gradient with those of two other implementations.

    python examples/benchmarks/local.py [--images 200] [--dim 256] [--threads 1] [--rounds 5]

The embeddings of two views have the shapes of AMDIM's encoder: maps of 1 x 1, 5 x 5 and 7 x 7 locations, float32. For
lightning-bolts, the channels come first in memory, as in its encoder. For the other implementations, they come last, as
in the encoder of ssl-modules. ssl-modules ("ours") holds the scores of one comparison at a time. "All at once" computes
the same loss in plain PyTorch, and autograd keeps the scores of all six comparisons until the end. If pl_bolts is
installed, as in the environment of ``make test-bolts``, the script also measures the loss of lightning-bolts. The runs
first use glibc's default for memory, and then keep the memory that they free. MiB is the peak memory that PyTorch
allocates during a run, in addition to the maps. All implementations use the same random locations.
"""

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from timing import GRADIENTS_HEADER, gradients, machine, print_table, threads, with_and_without_kept_memory
from torch import Tensor

from ssl_modules.extractions import LocalMaps
from ssl_modules.losses import InfoNCE
from ssl_modules.objective import objective
from ssl_modules.similarities import ScaledDot

Maps = list[list[Tensor]]  # the maps of each view

SIDES = (7, 5, 1)  # sides of the maps, from shallow to deep


def ours(maps: Maps) -> Tensor:
    extraction = LocalMaps("multi-pair")
    extraction.build([1] * len(SIDES))
    views = [{i: m.flatten(2).mT for i, m in enumerate(view)} for view in maps]
    ids = torch.arange(len(maps[0][0]))[:, None]
    contrasts = extraction(views, None, ids, torch.Generator().manual_seed(0))
    return objective(contrasts, ScaledDot(), InfoNCE(clip=20.0, l2=0.05))


def plain(maps: Maps) -> Tensor:
    """Compute AMDIM's objective in plain form: autograd keeps all six score matrices."""
    g, images = torch.Generator().manual_seed(0), len(maps[0][0])
    local, middle, deep = zip(*([m.flatten(2).mT for m in view] for view in maps), strict=True)  # [N, L, D]
    drawn = [m[torch.arange(images), torch.randint(m.shape[1], (1, images), generator=g)[0]] for m in middle]
    anchors = [z[:, 0] for z in deep]
    total = torch.zeros(())
    for sources, targets in ((anchors, middle), (anchors, local), (drawn, middle)):
        for u, v in ((0, 1), (1, 0)):
            scores = torch.einsum("ad,cld->acl", sources[u], targets[v]) / sources[u].shape[1] ** 0.5
            clipped = 20 * torch.tanh(scores / 20)
            own = torch.eye(images, dtype=torch.bool)
            negatives = clipped.masked_fill(own[..., None], -torch.inf).flatten(1).logsumexp(1)
            positives = clipped[own]  # [N, L]
            loss = torch.nn.functional.softplus(negatives[:, None] - positives).mean()
            total = total + (loss + 0.05 * scores.square().mean()) / 2
    return total


def bolts(maps: Maps) -> Tensor:
    from pl_bolts.losses.self_supervised_learning import FeatureMapContrastiveTask  # noqa: PLC0415  (optional)

    # Draw the same random locations as ours, in the order in which bolts uses them.
    g, images = torch.Generator().manual_seed(0), len(maps[0][0])
    drawn = iter([torch.randint(25, (1, images), generator=g)[0] for _ in maps])

    def draw(*bounds_and_size: Any, device: Any = None) -> Tensor:
        *_, high, size = bounds_and_size
        return torch.zeros(size, dtype=torch.long) if high == 1 else next(drawn).view(size)

    original, torch.randint = torch.randint, draw
    try:
        losses, penalty = FeatureMapContrastiveTask("01, 02, 11", tclip=20.0)(*(tuple(view[::-1]) for view in maps))
    finally:
        torch.randint = original
    return losses.sum() + penalty


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    g = torch.Generator().manual_seed(1)
    channels_first = [[torch.randn(args.images, args.dim, n, n, generator=g) for n in SIDES] for _ in range(2)]
    channels_last = [[m.to(memory_format=torch.channels_last) for m in view] for view in channels_first]

    def gradient(of: Callable[[Maps], Tensor], maps: Maps) -> tuple[Tensor, ...]:
        leaves = [m.requires_grad_() for view in maps for m in view]
        return torch.autograd.grad(of(maps), leaves)

    runs = {
        "all at once": lambda: gradient(plain, channels_last),
        "ours": lambda: gradient(ours, channels_last),
    }
    if find_spec("pl_bolts"):
        runs = {"lightning-bolts": lambda: gradient(bolts, channels_first), **runs}
    print(machine())
    with threads(args.threads):
        for memory in with_and_without_kept_memory():
            title = f"AMDIM, {args.images} images, D = {args.dim}, {args.threads} thread(s), {memory}"
            print_table(title, GRADIENTS_HEADER, gradients(runs, args.rounds))


if __name__ == "__main__":
    main()
