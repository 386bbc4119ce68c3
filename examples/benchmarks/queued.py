"""Compare the time and memory of SCE's and RINCE's losses and their gradients with those of a plain implementation.

    python examples/benchmarks/queued.py [--keys 4096 65536] [--threads 1] [--rounds 7]

There are B = 256 anchors with one key each, and a queue of K keys, all float32 vectors of D = 128 dimensions. "Plain"
computes the equation with whole matrices [B, K], and autograd computes the gradient. "Ours" is the loss of ssl-modules.
SCE has the temperatures 0.1 and 0.05. RINCE "out-in" has the temperatures 0.1 and 0.225. Its ranks come from random
labels of 100 classes in 20 superclasses, and its time includes the comparison of the labels. The runs first use glibc's
default for memory, and then keep the memory that they free, as every fit of ssl-modules on a CPU does. MiB is the peak
memory that PyTorch allocates during a run, in addition to anchors and keys. The script checks that all gradients agree.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timing import GRADIENTS_HEADER, gradients, machine, print_table, threads, with_and_without_kept_memory
from torch import Tensor

from ssl_modules import Contrast
from ssl_modules.contrast import Paired
from ssl_modules.extractions import LabelRanks
from ssl_modules.losses import Loss, RINCELoss, SCELoss
from ssl_modules.objective import objective
from ssl_modules.similarities import Cosine

ANCHORS = 256
DIM = 128


@dataclass
class Problem:
    """Anchors, their own keys and the queue; keys have unit length. Ids are the image and its two labels."""

    anchors: Tensor  # [B, D]
    own: Tensor  # [B, D]
    queue: Tensor  # [K, D]
    ids: Tensor  # [B, 3]
    queue_ids: Tensor  # [K, 3]

    @classmethod
    def random(cls, keys: int) -> "Problem":
        g = torch.Generator().manual_seed(0)
        anchors = torch.randn(ANCHORS, DIM, generator=g)
        own = F.normalize(anchors + torch.randn(ANCHORS, DIM, generator=g))
        queue = F.normalize(torch.randn(keys, DIM, generator=g))
        classes = torch.randint(100, (ANCHORS + keys,), generator=g)
        ids = torch.stack([torch.arange(ANCHORS + keys), classes, classes // 5], dim=1)
        return cls(anchors.requires_grad_(), own, queue, *ids.split([ANCHORS, keys]))


def plain_sce(p: Problem, temperature: float = 0.1, teacher_temperature: float = 0.05) -> Tensor:
    anchors = F.normalize(p.anchors)
    scores = torch.cat([(anchors * p.own).sum(1, keepdim=True), anchors @ p.queue.T], dim=1) / temperature
    with torch.no_grad():
        teacher = (p.own @ p.queue.T / teacher_temperature).softmax(dim=1)
        target = torch.cat([torch.full((len(anchors), 1), 0.5), 0.5 * teacher], dim=1)
    return -(target * scores.log_softmax(dim=1)).sum(1).mean()


def plain_rince(p: Problem, temperatures: tuple[float, float] = (0.1, 0.225)) -> Tensor:
    anchors = F.normalize(p.anchors)
    scores = torch.cat([(anchors * p.own).sum(1, keepdim=True), anchors @ p.queue.T], dim=1)
    same_class, same_superclass = (p.ids[:, level, None] == p.queue_ids[:, level] for level in (1, 2))
    first = F.pad(same_class, (1, 0), value=True)
    second = F.pad(same_superclass & ~same_class, (1, 0))
    negative = F.pad(~same_superclass, (1, 0))

    s = scores / temperatures[0]
    farther = s.masked_fill(first, -torch.inf).logsumexp(dim=1, keepdim=True)
    out = (torch.logaddexp(s, farther) - s).masked_fill(~first, 0).sum() / first.sum()
    s = scores / temperatures[1]
    positives = s.masked_fill(~second, -torch.inf).logsumexp(dim=1)
    both = torch.logaddexp(positives, s.masked_fill(~negative, -torch.inf).logsumexp(dim=1))
    has_positive = second.any(dim=1)
    inside = (both - positives)[has_positive].mean()
    return (out + inside) / 2


def ours(p: Problem, loss: Loss, ranks: Callable | None = None) -> Tensor:
    relation = Paired(torch.arange(ANCHORS), ANCHORS + len(p.queue), ANCHORS, ranks)
    reference = p.own if isinstance(loss, SCELoss) else None
    return objective([Contrast(p.anchors, torch.cat([p.own, p.queue]), relation, reference)], Cosine(), loss)


def measure(keys: int, rounds: int) -> list[tuple[str | float, ...]]:
    p = Problem.random(keys)
    by_labels = LabelRanks()

    def ranks(rows: slice) -> Tensor:
        return by_labels(p.ids[rows], p.queue_ids, lambda: p.own[rows] @ p.queue.T)

    losses = {
        "SCE": {"plain": lambda: plain_sce(p), "ours": lambda: ours(p, SCELoss())},
        "RINCE": {"plain": lambda: plain_rince(p), "ours": lambda: ours(p, RINCELoss((0.1, 0.225)), ranks)},
    }
    rows = []
    for name, forms in losses.items():
        runs = {key: lambda form=form: torch.autograd.grad(form(), p.anchors)[0] for key, form in forms.items()}
        rows += [(f"{keys:,}", f"{name}, {key}", *values) for key, *values in gradients(runs, rounds)]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, nargs="+", default=[4096, 65536])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    print(machine())
    with threads(args.threads):
        for memory in with_and_without_kept_memory():
            rows = [row for keys in args.keys for row in measure(keys, args.rounds)]
            title = f"Loss and gradient of {ANCHORS} anchors, D = {DIM}, {args.threads} thread(s), {memory}"
            print_table(title, ("keys", *GRADIENTS_HEADER), rows)


if __name__ == "__main__":
    main()
