"""The configs of the papers' main experiments, in examples/configs, have the values of the official programs."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from examples.recipes import RECIPES

from ssl_modules import augmentations, optim
from ssl_modules.cli import ContrastiveCLI

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())


def operation(transform: augmentations.Operation) -> tuple:
    """Return an operation as a tuple, in the form of recipes.py."""
    given = transform.arguments
    fixed, name, shown = {
        "RandomResizedCrop": ({}, "crop", ["interpolation"]),
        "RandomHorizontalFlip": ({}, "flip", ["p"]),
        "ColorJitter": ({"mode": "exact"}, "jitter", ["brightness", "contrast", "saturation", "hue", "p"]),
        "RandomGrayscale": ({}, "gray", ["p"]),
        "GaussianBlur": ({"sigma": (0.1, 2.0)}, "blur", ["p"]),
        "RandomSolarize": ({}, "solarize", ["threshold", "p"]),
        "PatchGrid": ({}, "patches", ["size", "overlap"]),
    }[type(transform).__name__]
    assert {key: given[key] for key in fixed} == fixed
    shown = [given[key] for key in shown]
    if name == "crop":
        shown = [*given["scale"], *shown, tuple(given["ratio"])]
    return (name, *shown)


def views(augmentation: augmentations.Augmentation) -> list[list[tuple]]:
    """Return the operations of each view."""
    if isinstance(augmentation, augmentations.Views):
        return [[operation(t) for t in augmentation.transforms]] * augmentation.arguments["views"]
    shared = [operation(t) for t in augmentation.shared]
    return [[*shared, *view] for part in augmentation.parts for view in views(part)]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_have_the_options_of_the_official_program(name):
    config, official = read(name), RECIPES[name]
    model, trainer, data = config["model"]["init_args"], config["trainer"], config["data"]["init_args"]
    assert official.model.items() <= model.items()
    assert official.extraction.items() <= model["extraction"]["init_args"].items()
    loss = model["loss"].get("init_args", {})
    assert loss == loss | official.loss
    optimizer = dict(model["optimizer"]["init_args"], name=model["optimizer"]["class_path"].rpartition(".")[2])
    rate = optimizer.pop("lr")
    assert optimizer == official.optimizer
    images = data["batch_size"] * trainer.get("devices", 1) * trainer.get("num_nodes", 1)
    assert images == official.images
    base = model["base_batch_size"]
    assert (rate if base is None else rate * images / base) == pytest.approx(official.rate)
    assert trainer["max_epochs"] == official.epochs
    assert trainer["precision"] == official.precision
    assert trainer["sync_batchnorm"] == official.sync_batchnorm


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_have_the_learning_rate_of_the_official_program(name):
    given = read(name)["model"]["init_args"]["schedule"]
    schedule = getattr(optim, given["class_path"])(**given["init_args"])
    epochs = RECIPES[name].epochs
    for step, factor in RECIPES[name].schedule:
        assert schedule(step, steps=10 * epochs, steps_per_epoch=10) == pytest.approx(factor, abs=1e-12), step


@pytest.mark.filterwarnings("ignore")  # torch deprecates step(epoch)
def test_amdim_lowers_the_rate_an_epoch_after_the_official_milestones():
    """The official program calls ``scheduler.step(epoch)`` after the epoch, so the rate changes in the next one."""
    ours = optim.MultiStep(**read("amdim_imagenet")["model"]["init_args"]["schedule"]["init_args"])
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    official = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[30, 45], gamma=0.2)
    rates = []
    for epoch in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        official.step(epoch)
    after_warmup = [ours(600 + 1000 * epoch, steps=50_000, steps_per_epoch=1000) for epoch in range(50)]
    assert after_warmup == pytest.approx(rates)
    assert {*rates[:31]} == {1.0}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_build_and_make_the_views_of_the_official_program(name):
    one_cpu = [
        "--trainer.devices=1",
        "--trainer.num_nodes=1",
        "--trainer.accelerator=cpu",
        "--trainer.precision=32-true",
    ]
    large = RECIPES[name].optimizer["name"] == "Adam"  # AMDIM and CPC, with hundreds of millions of parameters
    with torch.device("meta" if large else "cpu"):  # "meta" allocates no memory
        cli = ContrastiveCLI(run=False, args=["--config", str(CONFIGS / f"{name}.yaml"), *one_cpu])
    assert views(cli.model.augmentation) == RECIPES[name].views
    groups = cli.model.param_groups()
    assert len(groups) == (1 if RECIPES[name].model["decay_norms"] else 2)


HEADERS = {path.stem: path.read_text().partition("seed_everything")[0] for path in CONFIGS.glob("*.yaml")}


@pytest.mark.parametrize("name", RECIPES)
def test_headers_of_recipes_name_the_official_command_and_the_differences(name):
    for word in ("command", "official", "differs"):
        assert f"#   {word}  " in HEADERS[name]
    if name != "cpc_imagenet":
        repository, commit = RECIPES[name].source.replace(",", "").replace(":", "").split()[:2]
        assert f"#   official  {repository} at {commit[:7]}" in HEADERS[name]


@pytest.mark.parametrize("name", [n for n in HEADERS if n.startswith(("s2r2_", "yadim_")) and "Not run" in HEADERS[n]])
def test_headers_say_where_there_is_no_official_code(name):
    assert "#   official  none: no code was published" in HEADERS[name]
