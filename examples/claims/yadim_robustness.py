"""How much do AMDIM, CPC and YADIM depend on the encoder, and on the maps or patches that are compared?

    python examples/claims/yadim_robustness.py            # about 2 hours of one core

Every method trains with every encoder and every extraction of its grid. All train for the same epochs on the same
images, scikit-learn's digits, with the same optimiser, colour jitter and crops. This tests a claim by Falcon and Cho,
arXiv 2009.00104: YADIM depends less on both choices than AMDIM and CPC do. With the same extraction, our reconstruction
of YADIM on whole images differs from AMDIM only by the clip of the loss. On patches, it lies between AMDIM and CPC.

The script writes yadim_robustness.md, with all accuracies and their mean and spread (standard deviation) over each
method's grid, and draws them in yadim_robustness.png. Then it judges the claim by the spread of AMDIM or CPC minus the
spread of YADIM, for each seed. k-NN: k = 20, T = 0.07; linear: ridge.
"""

import argparse
import itertools
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import lightning.pytorch as pl
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import nn

from ssl_modules import AMDIM, CPC, YADIM, ContrastiveModule
from ssl_modules.augmentations import ColorJitter, PatchGrid, RandomResizedCrop, Views
from ssl_modules.callbacks import OnlineKNNProbe, OnlineLinearProbe
from ssl_modules.datamodules import DigitsDataModule
from ssl_modules.encoders import AMDIMEncoder, CPCEncoder
from ssl_modules.extractions import Extraction, LocalMaps, PatchContext
from ssl_modules.optim import WarmupCosine

sys.path.append(str(Path(__file__).parents[1] / "results"))

from paired import verdict

SIZE, PATCH, OVERLAP = 8, 5, 4  # pixels; a grid of 4 x 4 patches
PROBES = {"k-NN": (OnlineKNNProbe, "probe/knn_top1"), "linear": (OnlineLinearProbe, "probe/linear_top1")}

TIMM = {"ResNet": "test_resnet", "EfficientNet": "test_efficientnet"}  # timm's smallest, 0.4 million parameters
OF_IMAGES: dict[str, str | Callable[[], nn.Module]] = {
    "AMDIM's": partial(AMDIMEncoder, SIZE, 1, width=32, features=128, depth=2),
    **TIMM,
}
OF_PATCHES: dict[str, str | Callable[[], nn.Module]] = {
    "CPC's": partial(CPCEncoder, PATCH, 1, layers=(1, 1, 1, 1), width=8),
    **TIMM,
}
MARKERS = {"AMDIM's": "o", "CPC's": "s", "ResNet": "D", "EfficientNet": "^"}

LOCAL: dict[str, Callable[[], Extraction]] = {
    strategy: partial(LocalMaps, strategy, out_dim=128) for strategy in ("last", "multi-pair", "same-map", "random")
}
context = partial(PatchContext, distances=(2, 3), hidden_dim=64, blocks=3)
CONTEXT: dict[str, Callable[[], Extraction]] = {
    "down": context,
    "four directions": partial(context, directions=("down", "up", "right", "left")),
    "shared predictor": partial(context, shared_predictor=True),
    "triangular weights": partial(context, weights="triangular"),
}


class Grid(NamedTuple):
    """A method, the number of views, whether they are cut into patches, and its encoders and extractions."""

    method: type[ContrastiveModule]
    views: int
    patches: bool
    encoders: dict[str, str | Callable[[], nn.Module]]
    extractions: dict[str, Callable[[], Extraction]]

    def build(self, encoder: str, extraction: str, data: DigitsDataModule) -> ContrastiveModule:
        cut = [PatchGrid(PATCH, OVERLAP)] if self.patches else []
        crop, colors = RandomResizedCrop(SIZE, scale=(0.7, 1.0)), ColorJitter(0.4, 0.4, 0.0, 0.0, p=0.8)
        network = self.encoders[encoder]
        return self.method(
            Views([crop, colors, *cut], self.views),
            network if isinstance(network, str) else network(),
            self.extractions[extraction](),
            image_size=SIZE,
            in_channels=data.in_channels,
            mean=data.mean,
            std=data.std,
            optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=1e-4),
            schedule=WarmupCosine(warmup=0.1, ramp="(s+1)/W"),
            decay_norms=False,
        )


GRIDS = {
    "AMDIM": Grid(AMDIM, 2, False, OF_IMAGES, LOCAL),
    "CPC": Grid(CPC, 1, True, OF_PATCHES, CONTEXT),
    "YADIM": Grid(YADIM, 2, False, OF_IMAGES, LOCAL),
    "YADIM, patches": Grid(YADIM, 2, True, OF_PATCHES, LOCAL),
}


class Cell(NamedTuple):
    method: str
    encoder: str
    extraction: str
    accuracy: dict[str, list[float]]  # for each probe, a value per seed


def evaluate(module: nn.Module, data: DigitsDataModule) -> dict[str, float]:
    return {name: probe(datamodule=data).evaluate(module)[metric] for name, (probe, metric) in PROBES.items()}


def train(grid: Grid, encoder: str, extraction: str, epochs: int, seed: int) -> dict[str, float]:
    pl.seed_everything(seed, verbose=False)
    data = DigitsDataModule(batch_size=128)
    data.setup()
    module = grid.build(encoder, extraction, data)
    if epochs:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        pl.Trainer(max_epochs=epochs, accelerator="cpu", enable_model_summary=False, **quiet).fit(module, data)
    return evaluate(module, data)


def fill(epochs: int, seeds: list[int]) -> list[Cell]:
    """Measure all cells. Each encoder also has a cell without training, whose extraction is empty."""
    cells = []
    for method, grid in GRIDS.items():
        untrained = [(encoder, "") for encoder in grid.encoders]
        for encoder, extraction in [*untrained, *itertools.product(grid.encoders, grid.extractions)]:
            if extraction:
                runs = [train(grid, encoder, extraction, epochs, seed) for seed in seeds]
            else:
                runs = [train(grid, encoder, next(iter(grid.extractions)), 0, seed) for seed in seeds]
            accuracy = {name: [run[name] for run in runs] for name in PROBES}
            cells.append(Cell(method, encoder, extraction, accuracy))
            print(method, encoder, extraction or "untrained", accuracy, flush=True)
    return cells


def means(cells: list[Cell], method: str, probe: str) -> list[float]:
    """Return an accuracy for each trained cell of a method: the mean over seeds."""
    return [mean(c.accuracy[probe]) for c in cells if c.method == method and c.extraction]


def spreads(cells: list[Cell], method: str, probe: str) -> list[float]:
    """Return, for each seed, the standard deviation of the accuracy over the trained cells, in percentage points."""
    by_seed = zip(*(c.accuracy[probe] for c in cells if c.method == method and c.extraction), strict=True)
    return [100 * stdev(values) for values in by_seed]


def verdicts(cells: list[Cell]) -> list[str]:
    """Return a line for each comparison of spreads and each probe."""
    out = []
    for other, ours in (("AMDIM", "YADIM"), ("CPC", "YADIM, patches")):
        for probe in PROBES:
            pairs = zip(spreads(cells, other, probe), spreads(cells, ours, probe), strict=True)
            out.append(f"spread of {other} - spread of {ours}, {probe}: {verdict([a - b for a, b in pairs])}")
    return out


def table(cells: list[Cell]) -> str:
    lines = ["| method | k-NN: mean, spread, lowest | linear: mean, spread, lowest |", "|---|---|---|"]
    for method in GRIDS:
        row = [means(cells, method, probe) for probe in PROBES]
        columns = (f"{100 * mean(a):.1f}, {100 * stdev(a):.1f}, {100 * min(a):.1f}" for a in row)
        lines.append(f"| {method} | {' | '.join(columns)} |")
    lines += ["", "| method | encoder | extraction | k-NN | linear |", "|---|---|---|---|---|"]
    for c in cells:
        columns = (" / ".join(f"{100 * a:.1f}" for a in c.accuracy[probe]) for probe in PROBES)
        lines.append(f"| {c.method} | {c.encoder} | {c.extraction or 'untrained'} | {' | '.join(columns)} |")
    return "\n".join(lines)


def draw(cells: list[Cell], path: Path) -> None:
    figure, axes = plt.subplots(1, len(PROBES), figsize=(9, 4), sharey=True, layout="constrained")
    for axis, probe in zip(axes, PROBES, strict=True):
        for x, method in enumerate(GRIDS):
            trained = [c for c in cells if c.method == method and c.extraction]
            values = means(cells, method, probe)
            for c, value in zip(trained, values, strict=True):
                place = list(GRIDS[method].extractions).index(c.extraction)
                axis.plot(x - 0.3 + 0.1 * place, 100 * value, MARKERS[c.encoder], color=f"C{place}", alpha=0.7)
            axis.errorbar(
                x + 0.2, 100 * mean(values), 100 * stdev(values), fmt="_", color="k", markersize=14, capsize=4
            )
        axis.set(
            xticks=range(len(GRIDS)), xticklabels=GRIDS, title=f"{probe} accuracy, %", xlim=(-0.6, len(GRIDS) - 0.4)
        )
        axis.grid(axis="y", alpha=0.3)
    for encoder, marker in MARKERS.items():
        axes[0].plot([], [], marker, color="gray", label=encoder)
    axes[0].legend(title="encoder", fontsize=8)
    for place, names in enumerate(zip(LOCAL, CONTEXT, strict=True)):
        axes[1].plot([], [], "s", color=f"C{place}", label="; ".join(names))
    axes[1].legend(title="extraction; CPC's", fontsize=8, loc="lower left")
    figure.suptitle("Each point a run; bars are mean and standard deviation over the grid")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("yadim_robustness"), help="path of files, without extension")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
    start = time.process_time()
    cells = fill(args.epochs, args.seeds)
    spent = (
        f"{args.epochs} epochs of 1,437 digits, seeds {args.seeds}, {time.process_time() - start:.0f} s of processor "
        f"time, {os.cpu_count()} cores, torch {torch.__version__}"
    )
    text = f"{spent}\n\n{table(cells)}\n\n" + "\n".join(f"- {line}" for line in verdicts(cells)) + "\n"
    args.out.with_suffix(".md").write_text(text)
    draw(cells, args.out.with_suffix(".png"))
    print(f"\n{text}")


if __name__ == "__main__":
    main()
