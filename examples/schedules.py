"""Draw the learning rate of each method over the run, as in the configs of examples/configs.

    python examples/schedules.py [--output docs/schedules.svg]

Each method has a panel that shows the factor of the learning rate over the share of the run. The warm-up is orange. If
the warm-up is short, an inset shows the beginning of the run. The script needs matplotlib (extra "viz").
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_modules import optim
from ssl_modules.optim import FactorSchedule
from ssl_modules.optim.schedules import amount_of

CONFIGS = Path(__file__).parent / "configs"
PICTURE = Path(__file__).parents[1] / "docs" / "schedules.svg"
PANELS = (
    "simclr_imagenet",
    "moco_imagenet",
    "byol_imagenet",
    "sce_imagenet",
    "rince_cifar100",
    "groco_imagenet",
    "amdim_imagenet",
    "cpc_imagenet",
    "s2r2_imagenet",
    "yadim_imagenet",
    "swav_imagenet",
    "simsiam_imagenet",
    "supcon_imagenet",
    "ressl_imagenet",
)
IMAGES = {"ImageNetDataModule": 1_281_167, "CIFAR100DataModule": 50_000}  # training images
SHORT = 0.03  # warm-ups below this share of the run get an inset
POINTS = 400
CURVE, WARMUP = "tab:blue", "tab:orange"


@dataclass
class Recipe:
    """A method's schedule and the length of its run."""

    method: str
    schedule: FactorSchedule
    epochs: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Number of steps in the run."""
        return self.epochs * self.steps_per_epoch

    @property
    def warmup(self) -> int:
        """Number of warm-up steps; 0 without a warm-up."""
        if isinstance(self.schedule, optim.EpochCosine):  # its warm-up is given in epochs
            return amount_of(self.schedule.warmup, self.epochs) * self.steps_per_epoch
        return self.schedule.warmup_steps(self.steps, self.steps_per_epoch)

    def factors(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Return steps from ``first`` to ``last`` as shares of the run, and their factors."""
        steps = np.unique(np.linspace(first, last, POINTS).round().astype(int))
        factors = [self.schedule(int(step), self.steps, self.steps_per_epoch) for step in steps]
        return steps / self.steps, np.array(factors)


def read(name: str) -> Recipe:
    """Read the recipe of a config in examples/configs."""
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    trainer, data, model = config["trainer"], config["data"], config["model"]
    given = model["init_args"]["schedule"]
    schedule = getattr(optim, given["class_path"])(**given.get("init_args", {}))
    batch = data["init_args"]["batch_size"] * trainer.get("devices", 1) * trainer.get("num_nodes", 1)
    return Recipe(model["class_path"], schedule, trainer["max_epochs"], IMAGES[data["class_path"]] // batch)


def draw(recipes: list[Recipe]) -> Figure:
    """Draw one panel for each recipe."""
    rows = -(-len(recipes) // 5)
    figure, axes = plt.subplots(rows, 5, figsize=(12, 2.5 * rows), sharex=True, sharey=True, layout="constrained")
    for axis in axes.flat[len(recipes) :]:
        axis.remove()
    for axis, recipe in zip(axes.flat, recipes, strict=False):
        axis.set_title(f"{recipe.method}, {recipe.epochs:,} epochs", fontsize=10)
        _curve(axis, recipe, recipe.steps - 1)
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.05, 1.1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axis.grid(alpha=0.3)
        if 0 < recipe.warmup < SHORT * recipe.steps:
            _inset(axis, recipe)
    figure.supxlabel("share of the run", fontsize=10)
    figure.supylabel("factor of the learning rate", fontsize=10)
    return figure


def _curve(axis: Axes, recipe: Recipe, last: int) -> None:
    axis.plot(*recipe.factors(recipe.warmup, last), color=CURVE, linewidth=1.8)
    if recipe.warmup:
        axis.plot(*recipe.factors(0, recipe.warmup), color=WARMUP, linewidth=1.8)


def _inset(axis: Axes, recipe: Recipe) -> None:
    """Draw the beginning of the run in the free space below the curve."""
    inset = axis.inset_axes((0.13, 0.2, 0.23, 0.34))
    _curve(inset, recipe, 2 * recipe.warmup)
    end = 2 * recipe.warmup / recipe.steps
    inset.set(xlim=(0, end), ylim=(-0.05, 1.15), xticks=[0, end], yticks=[])
    inset.set_xticklabels(["0", f"{100 * end:.2g} %"], fontsize=8)
    inset.grid(alpha=0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=PICTURE, help="file to write, such as a .svg or a .png")
    output = parser.parse_args().output
    plt.rcParams["svg.hashsalt"] = "schedules"  # the same file in each run
    figure = draw([read(name) for name in PANELS])
    figure.savefig(output, dpi=120, metadata={"Date": None} if output.suffix == ".svg" else None)
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
