"""Show how InfoNCE, average precision and group ordering change similarities, on scikit-learn's digits.

    python examples/losses.py [--steps 80]

The script trains three encoders with the same initial weights on the same images and views, one with each loss, and
draws losses.png. This takes a minute and a half on one core. Each loss has the projector of its method. GroCo's
projector ends in a batch norm, which spreads the vectors before the first step. GroCo's candidates have no gradient,
and its negatives are the same view of other images.

The upper row shows the cosines of positive and of negative pairs at each step: the mean, and the middle 80 % as a
shaded area.

The lower row shows GroCo's soft sort for one anchor. The first panel shows the cosines of the anchor with its ten
hardest negatives and its three positives, before and after training. The other panels show the soft permutation matrix.
Each cell shows the probability that the score of its row gets the place of its column in the sorted order. Darker cells
have higher probabilities. The positives are the rows below the horizontal line. The loss is low if they get the places
to the right of the vertical line. With a higher steepness, the sort is closer to an exact sort.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from diffsort import DiffSortNet
from torch import Tensor

from ssl_modules import Contrast, ContrastiveModule
from ssl_modules.augmentations import ColorJitter, RandomResizedCrop, Views
from ssl_modules.batch import read_batch
from ssl_modules.datamodules import DigitsDataModule
from ssl_modules.extractions import AllViews
from ssl_modules.losses import AveragePrecisionLoss, GroCoLoss, InfoNCE, Loss
from ssl_modules.similarities import Cosine

PICTURE = Path("losses.png")
IMAGES, VIEWS = 64, 4
NEGATIVES = 10
OPTIMIZER = partial(torch.optim.AdamW, lr=1e-3, weight_decay=1e-4)


class Cosines(NamedTuple):
    """Cosines of all positive and all negative pairs of a batch, and one anchor's row for GroCo [K + P]."""

    positives: Tensor
    negatives: Tensor
    row: Tensor


def build(extraction: AllViews, loss: Loss, data: DigitsDataModule) -> ContrastiveModule:
    augmentation = Views([RandomResizedCrop(8, scale=(0.7, 1.0)), ColorJitter(brightness=0.4, contrast=0.4)], VIEWS)
    return ContrastiveModule(
        augmentation,
        "resnet10t",
        extraction,
        Cosine(),
        loss,
        image_size=data.image_size,
        in_channels=data.in_channels,
        mean=data.mean,
        std=data.std,
        optimizer=OPTIMIZER,
    )


@torch.no_grad()
def cosines(contrast: Contrast) -> Cosines:
    scores, relation = Cosine()(contrast.anchors, contrast.candidates), contrast.relation[:]
    hardest = scores[0][relation[0] == 0].topk(NEGATIVES).values.flip(0)
    row = torch.cat([hardest, scores[0][relation[0] > 0].sort().values])
    return Cosines(scores[relation > 0], scores[relation == 0], row)


def train(extraction: AllViews, loss: Loss, steps: int) -> list[Cosines]:
    """Train, and return the cosines of each step's batch."""
    torch.manual_seed(0)
    data = DigitsDataModule()
    data.setup()
    module = build(extraction, loss, data)
    optimizer = OPTIMIZER(module.parameters())
    generator = torch.Generator().manual_seed(0)
    seen = []
    for _ in range(steps):
        rows = torch.randperm(len(data.train_set), generator=generator)[:IMAGES]
        batch = read_batch(data.train_set.images[rows])
        [contrast] = module.contrasts(batch, module.embed(module.views(batch, generator)), generator)
        seen.append(cosines(contrast))
        optimizer.zero_grad()
        module.objective([contrast]).backward()
        optimizer.step()
    return seen


def draw_training(axis: plt.Axes, seen: list[Cosines]) -> None:
    for color, name in (("C0", "positives"), ("C3", "negatives")):
        values = [getattr(step, name) for step in seen]
        low, high = torch.stack([v.quantile(torch.tensor([0.1, 0.9])) for v in values], dim=1)
        axis.fill_between(range(len(seen)), low, high, color=color, alpha=0.2, linewidth=0)
        axis.plot([v.mean() for v in values], color=color, label=name)
    axis.set(xlabel="step", ylim=(-0.6, 1.02))
    axis.grid(alpha=0.3)


def draw_row(axis: plt.Axes, first: Tensor, last: Tensor) -> None:
    groups = ["C3"] * NEGATIVES + ["C0"] * (len(first) - NEGATIVES)
    for x, (row, name) in enumerate(((first, "before"), (last, "after"))):
        axis.scatter([x] * len(row), row, color=groups, alpha=0.6)
        axis.annotate(name, (x, -0.55), ha="center")
    axis.set(xlim=(-0.5, 1.5), ylim=(-0.6, 1.02), xticks=[], ylabel="cosine", title="one anchor's row, positives blue")
    axis.grid(alpha=0.3)


def draw_sort(axis: plt.Axes, row: Tensor, steepness: float, title: str) -> None:
    _, permutation = DiffSortNet("odd_even", len(row), steepness=steepness, distribution="cauchy")(row[None])
    axis.imshow(permutation[0], cmap="Greys", vmin=0, vmax=0.4)
    axis.axhline(NEGATIVES - 0.5, color="C0", linewidth=1)
    axis.axvline(NEGATIVES - 0.5, color="C0", linewidth=1)
    axis.set(xticks=[], yticks=[], xlabel="place", ylabel="score", title=f"{title}, steepness {steepness:g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=80)
    args = parser.parse_args()
    groco = AllViews(output_norm=True, same_view_negatives=True, stop_gradient=True)
    runs = {
        "InfoNCE (SimCLR)": train(AllViews(), InfoNCE(temperature=0.2), args.steps),
        "average precision (S2R2)": train(AllViews(), AveragePrecisionLoss(), args.steps),
        "group ordering (GroCo)": train(groco, GroCoLoss(NEGATIVES), args.steps),
    }
    figure = plt.figure(figsize=(12, 7), layout="constrained")
    above, below = figure.subfigures(2, 1)
    axes = above.subplots(1, 3, sharey=True)
    for axis, (name, seen) in zip(axes, runs.items(), strict=True):
        draw_training(axis, seen)
        axis.set(title=name)
    axes[0].set(ylabel="cosine")
    axes[0].legend(frameon=False, loc="lower right", ncols=2)

    first, *_, last = (step.row for step in runs["group ordering (GroCo)"])
    axes = below.subplots(1, 4)
    draw_row(axes[0], first, last)
    draw_sort(axes[1], first, 1.0, "before")
    draw_sort(axes[2], last, 1.0, "after")
    draw_sort(axes[3], last, 10.0, "after")
    figure.savefig(PICTURE, dpi=120)
    for name, seen in runs.items():
        print(f"{name}: positives {seen[-1].positives.mean():.2f}, negatives {seen[-1].negatives.mean():.2f}")
    print(f"picture: {PICTURE.resolve()}")


if __name__ == "__main__":
    main()
