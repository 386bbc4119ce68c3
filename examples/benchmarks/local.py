"""AMDIM's objective with its gradient: time and memory beside all score matrices at once, and beside lightning-bolts.

    python examples/benchmarks/local.py [--images 200] [--dim 256] [--threads 1] [--rounds 5]

Embeddings of two views as AMDIM's encoder gives them: maps of 1 x 1, 5 x 5 and 7 x 7 locations, float32. Ours has the
scores of one comparison at a time; "all at once" is the same objective differentiated by autograd, which keeps those of
all six until the end. Where pl_bolts is installed, as in the environment of ``make test-bolts``, its task is there as
well. First as glibc treats memory by default, then with freed memory kept. MiB: the most that PyTorch's allocator held
during a run beyond the maps. Random locations are the same for all.
"""

import argparse
from importlib.util import find_spec
from typing import Any

import torch
from timing import GRADIENTS_HEADER, gradients, machine, print_table, threads, with_and_without_kept_memory
from torch import Tensor

from ssl_modules.extractions import LocalMaps
from ssl_modules.losses import InfoNCE
from ssl_modules.objective import objective
from ssl_modules.similarities import ScaledDot

SIDES = (7, 5, 1)  # of the maps, shallow to deep


def ours(maps: list[list[Tensor]], block: int | None = None) -> Tensor:
    extraction = LocalMaps("multi-pair")
    extraction.build([1] * len(SIDES))
    views = [{i: m.flatten(2).mT for i, m in enumerate(view)} for view in maps]
    ids = torch.arange(len(maps[0][0]))[:, None]
    contrasts = extraction(views, None, ids, torch.Generator().manual_seed(0))
    return objective(contrasts, ScaledDot(), InfoNCE(clip=20.0, l2=0.05), block)


def bolts(maps: list[list[Tensor]]) -> Tensor:
    from pl_bolts.losses.self_supervised_learning import FeatureMapContrastiveTask  # noqa: PLC0415  (an extra)

    # The random locations that ours has, in the order in which bolts asks for them.
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
    shapes = [(args.images, args.dim, side, side) for side in SIDES]
    maps = [[torch.randn(shape, generator=g).requires_grad_() for shape in shapes] for _ in range(2)]
    leaves = maps[0] + maps[1]

    def gradient(loss: Tensor) -> Tensor:
        return torch.cat([x.flatten() for x in torch.autograd.grad(loss, leaves)])

    runs = {
        "all at once": lambda: gradient(ours(maps, block=0)),
        "ours": lambda: gradient(ours(maps)),
    }
    if find_spec("pl_bolts"):
        runs = {"lightning-bolts": lambda: gradient(bolts(maps)), **runs}
    print(machine())
    with threads(args.threads):
        for memory in with_and_without_kept_memory():
            title = f"AMDIM, {args.images} images, D = {args.dim}, {args.threads} thread(s), {memory}"
            print_table(title, GRADIENTS_HEADER, gradients(runs, args.rounds))


if __name__ == "__main__":
    main()
