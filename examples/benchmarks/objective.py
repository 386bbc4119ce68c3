"""Compare the time and memory of SimCLR's loss and its gradient with those of two other implementations.

    python examples/benchmarks/objective.py [--images 512 4096 8192] [--threads 1] [--rounds 3]

All losses take the same float32 embeddings of 2 N views, with D = 128 dimensions, and have temperature 0.1. "Plain" is
the cross-entropy over the whole matrix of cosines with a masked diagonal. "lightly" is NTXentLoss of the library
lightly. "Ours" is the loss of ssl-modules, which processes large batches in blocks of anchors. The runs first use
glibc's default for memory, and then keep the memory that they free, as every fit of ssl-modules on a CPU does. MiB is
the peak memory that PyTorch allocates during a run, in addition to the embeddings. The script checks that all gradients
agree.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from timing import GRADIENTS_HEADER, gradients, machine, print_table, threads, with_and_without_kept_memory
from torch import Tensor

from ssl_modules import Contrast, Relation
from ssl_modules.losses import InfoNCE
from ssl_modules.objective import objective
from ssl_modules.similarities import Cosine

DIM = 128
TEMPERATURE = 0.1


def plain(z: Tensor) -> Tensor:
    z = F.normalize(z)
    scores = (z @ z.T / TEMPERATURE).masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
    return F.cross_entropy(scores, torch.arange(len(z)).roll(len(z) // 2))


def lightly(z: Tensor) -> Tensor:
    return NTXentLoss(TEMPERATURE)(*z.chunk(2))


def ours(z: Tensor) -> Tensor:
    ids = torch.arange(len(z) // 2).repeat(2)[:, None]
    relation = Relation(ids, ids, excluded=torch.arange(len(z))[:, None])
    return objective([Contrast(z, z, relation)], Cosine(), InfoNCE(TEMPERATURE))


LOSSES = {"plain": plain, "lightly": lightly, "ours": ours}


def gradient(loss: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    return torch.autograd.grad(loss(z), z)[0]


def measure(images: int, rounds: int) -> list[tuple[str | float, ...]]:
    z = torch.randn(2 * images, DIM, generator=torch.Generator().manual_seed(0)).requires_grad_()
    runs = {name: partial(gradient, loss, z) for name, loss in LOSSES.items()}
    # Repeat short runs more often: their times are noisier.
    return [(f"2 x {images}", *row) for row in gradients(runs, rounds * max(1, 4096 // images))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[512, 4096, 8192])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(machine())
    with threads(args.threads):
        for memory in with_and_without_kept_memory():
            rows = [row for images in args.images for row in measure(images, args.rounds)]
            title = f"Loss and gradient, D = {DIM}, {args.threads} thread(s), {memory}"
            print_table(title, ("views", *GRADIENTS_HEADER), rows)


if __name__ == "__main__":
    main()
