"""``ssl-modules evaluate``: evaluate a representation, or the features that predict wrote, by standard protocols."""

import json
import math
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything

from ssl_modules.cli.failures import cannot_hold
from ssl_modules.cli.parser import Parser
from ssl_modules.datamodules import BaseDataModule
from ssl_modules.downstream import PROTOCOLS, Protocol, Results, Split, evaluate, evaluate_features, representation
from ssl_modules.evaluation import StoredFeatures
from ssl_modules.module import ContrastiveModule
from ssl_modules.utils.configurable import NotInCheckpoint, class_path, storable
from ssl_modules.version import __version__


def table(results: Results) -> str:
    """A Markdown table of the metrics in %, one row per metric.

    Example:
        >>> print(table({"knn": {"top1": 0.98114}}))
        | protocol | metric | % |
        |---|---|---|
        | knn | top1 | 98.11 |
    """
    rows = [
        f"| {name} | {metric} | {100 * value:.2f} |"
        for name, metrics in results.items()
        for metric, value in metrics.items()
    ]
    return "\n".join(["| protocol | metric | % |", "|---|---|---|", *rows])


def main(args: Sequence[str]) -> None:
    """Run ``ssl-modules evaluate``.

    Args:
        args: command-line arguments after the command's name.
    """
    parser = _parser()
    config, given = (parser.parse_args(list(args), defaults=defaults) for defaults in (True, False))
    for name in {"data", "outliers"} & set(vars(given)):
        config[name] = given[name]  # only what was given: the classes fill in their own defaults
    if config.out.is_dir():
        parser.error(f"out: {config.out} is a folder; give a file, such as {config.out / 'evaluation.json'}")
    seed_everything(0, verbose=False)  # for what has no seed of its own, such as an untrained encoder
    of_features = any(config[name] is not None for name in _FEATURES)
    if problem := _problem(given, of_features):
        parser.error(problem)
    try:
        built = parser.instantiate_classes(config)
        chosen = {name: dict(built[name.replace("-", "_")].items()) for name in built.protocol}
        results, split, origin = (_from_features if of_features else _from_images)(built, chosen)
    except NotInCheckpoint as error:
        parser.error(cannot_hold(error.name, error.kind))
    except (ValueError, TypeError, FileNotFoundError) as error:
        parser.error(str(error))
    print(table(results))
    record = {
        # JSON has no NaN
        "results": {
            name: {metric: None if math.isnan(value) else value for metric, value in metrics.items()}
            for name, metrics in results.items()
        },
        "protocol": {name: storable(keywords) for name, keywords in chosen.items()} | {"split": split},
        **origin,
        "software": {
            "ssl_modules": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": config.device,
            "commit": _commit(),
        },
    }
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(record, indent=1, default=str) + "\n")
    print(f"with the whole protocol: {config.out}")


_ENCODER = ("ckpt", "encoder", "pretrained", "weights", "mean", "std", "small_stem")
_FEATURES = ("features.train", "features.test", "features.outliers")
# The command sets these parameters of the protocols itself, so they are not options.
_GIVEN: set[str | int] = {"train", "test", "outliers", "module", "data", "level", "split"}


def _problem(given: Any, of_features: bool) -> str | None:
    """Return an error message if the options that choose what to evaluate are wrong, or None."""
    if not of_features:
        if "data" in given:
            return None
        return "data is missing; give --data, such as --data DigitsDataModule, or --features.train and --features.test"
    for name in _FEATURES[:2]:
        if name not in given:
            return f"{name} is missing; give the folder that ssl-modules predict wrote"
    others = [name for name in ("data", "outliers", "model", "split", *_ENCODER) if name in given]
    if others:
        return f"{', '.join(others)}: these options need images, not features; leave out --{' --'.join(others)}"
    return None


def _from_images(built: Any, protocols: dict[Any, dict[str, Any]]) -> tuple[Results, str, dict[str, Any]]:
    """Evaluate a representation; return results, split, and a description of the representation and the data."""
    options = {name: built[name] for name in _ENCODER}
    module = representation(built.data, **options)
    results = evaluate(module.to(built.device), built.data, protocols, outliers=built.outliers, split=built.split)
    origin = {
        "representation": {**options, "class_path": class_path(type(module))},
        "data": _described(built.data),
        "outliers": built.outliers and _described(built.outliers),
    }
    return results, built.split, origin


def _from_features(built: Any, protocols: dict[Any, dict[str, Any]]) -> tuple[Results, str | None, dict[str, Any]]:
    """Evaluate features; return the results, the split, and a description of the features."""
    paths = dict(built.features.items())
    parts = {name: path and _read(f"features.{name}", path) for name, path in paths.items()}
    train, test, outliers = parts.values()
    results = evaluate_features(train, test, protocols, outliers=outliers, device=built.device)
    data = {name: part and {"path": paths[name], **part.record} for name, part in parts.items()}
    return results, test.record.get("part"), {"data": data}


def _read(name: str, path: str) -> StoredFeatures:
    try:
        return StoredFeatures(path)
    except ValueError as error:
        raise ValueError(f"{name}: {str(error).removeprefix('path: ')}") from error


def _parser() -> Parser:
    parser = Parser(prog="ssl-modules evaluate", description=__doc__)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_argument("--ckpt", type=str | None, help="checkpoint of a method, by Trainer or command line")
    parser.add_argument(
        "--model",
        type=type[ContrastiveModule] | None,
        help="import path of the checkpoint's class if it is your own, such as my_code.MyMethod",
    )
    parser.add_argument("--encoder", type=str | None, help="name of a timm model")
    parser.add_argument("--pretrained", type=bool, default=False, help="whether to load timm's pretrained weights")
    parser.add_argument(
        "--weights", type=str | None, help="file of weights that export wrote, or any file of weights with --encoder"
    )
    parser.add_argument(
        "--mean", type=list[float] | None, help="mean of each channel, required for weights that export did not write"
    )
    parser.add_argument("--std", type=list[float] | None, help="standard deviation of each channel, as for --mean")
    parser.add_argument(
        "--small_stem", type=bool | None, help="whether a ResNet given by name has the stem for small images"
    )
    parser.add_subclass_arguments(BaseDataModule, "data", required=False, help="labelled data to evaluate on")
    parser.add_subclass_arguments(
        BaseDataModule, "outliers", required=False, help="data whose test images are the outliers for ood"
    )
    for name, part in zip(_FEATURES, ("the training images", "the images to evaluate on", "outliers"), strict=True):
        parser.add_argument(f"--{name}", type=str | None, help=f"folder of features of {part}, written by predict")
    parser.add_argument("--protocol", type=Protocol, nargs="+", default=["knn", "linear"])
    parser.add_argument("--split", type=Split, default="test", help="part to evaluate on")
    parser.add_argument("--device", type=str, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("evaluation.json"), help="file of the results and settings")
    for name, function in PROTOCOLS.items():
        parser.add_function_arguments(function, name.replace("-", "_"), skip=_GIVEN)
    return parser


def _described(data: BaseDataModule) -> dict[str, Any]:
    return {"class_path": class_path(type(data)), "init_args": storable(data.arguments), "image": data.dims}


def _commit() -> str | None:
    """The Git commit of the current folder, marked if files have changed since; None if there is none."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # Git is not installed
        return None
    return found.stdout.strip() or None
