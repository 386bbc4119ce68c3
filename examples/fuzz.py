"""Check that the constructors refuse invalid arguments, and that the error names the argument.

    python examples/fuzz.py --cases 2000 --seed 0        # minutes on one core

The script starts from a valid call of each public class and replaces one argument by an invalid value: a wrong type,
NaN, a number outside the documented range, an empty or too long list, an unknown name, or a class instead of an object.
The invalid values depend only on the argument's type and name, not on the code that checks it; see ``nonsense.py``.

The script prints the invalid values that were accepted, the errors that do not name the argument, and the errors that
are neither a ValueError nor a TypeError. Then it prints a table of their numbers. It exits with 1 if an invalid value
was accepted, or if fewer than 95 % of the errors name their argument.
"""

import argparse
import collections
import importlib
import inspect
import os
import random
import re
import sys
import tempfile
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from nonsense import ALLOWED, nonsense
from PIL import Image
from torch import nn

from ssl_modules import augmentations as aug
from ssl_modules import extractions as ext
from ssl_modules.datamodules import ImageDataModule, TensorImages, write_shards
from ssl_modules.encoders import Encoder
from ssl_modules.losses import InfoNCE
from ssl_modules.similarities import Cosine

PACKAGES = (
    "ssl_modules",
    *(
        f"ssl_modules.{name}"
        for name in (
            "augmentations",
            "encoders",
            "extractions",
            "losses",
            "similarities",
            "methods",
            "optim",
            "callbacks",
            "datamodules",
        )
    ),
)
SHARE_NAMED = 0.95  # minimum share of errors that name their argument

# Valid arguments of each class that has required arguments.
NORMALISATION = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
BASELINES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "AMDIMViews": lambda _: {"size": 16},
    "BYOLViews": lambda _: {"size": 16},
    "CPCViews": lambda _: {"size": 16, "patches": (8, 4)},
    "ClipViews": lambda _: {"parts": [aug.SimCLRViews(16)], "clips": (0,)},
    "Foreign": lambda _: {"transform": nn.Identity(), "size": 16},
    "GroCoViews": lambda _: {"size": 16},
    "JointViews": lambda _: {"parts": [aug.SimCLRViews(16)]},
    "MoCoViews": lambda _: {"size": 16},
    "PatchGrid": lambda _: {"size": 8},
    "RandomResizedCrop": lambda _: {"size": 16},
    "ReadyViews": lambda _: {"sizes": (16, 16)},
    "ReSSLViews": lambda _: {"size": 16},
    "SCEViews": lambda _: {"size": 16},
    "SimCLRViews": lambda _: {"size": 16},
    "SwAVViews": lambda _: {"size": 16, "small_size": 8},
    "Views": lambda _: {"transforms": [aug.RandomHorizontalFlip()]},
    "YADIMViews": lambda _: {"size": 16},
    "AMDIMEncoder": lambda _: {"width": 4, "features": 16, "depth": 1},
    "CPCEncoder": lambda _: {"layers": (1, 1, 1, 1), "width": 2},
    "DetectionBackbone": lambda _: {"encoder": encoder(), "levels": 2, "out_channels": 4},
    "Encoder": lambda _: {"encoder": "test_resnet", "image_size": 8, "in_channels": 3, **NORMALISATION},
    "Representation": lambda _: {"encoder": encoder()},
    "SplitBatchNorm2d": lambda _: {"norm": nn.BatchNorm2d(4), "splits": 2},
    "SplitBatchNorm3d": lambda _: {"norm": nn.BatchNorm3d(4), "splits": 2},
    "Teacher": lambda _: {"encoder": nn.Identity(), "heads": nn.Identity(), "momentum": 0.9, "schedule": "constant"},
    "RankTable": lambda _: {"table": [[1, 0], [0, 1]]},
    "SimilarityRanks": lambda _: {"similarities": [[1.0, 0.5], [0.5, 1.0]], "thresholds": [0.4]},
    "RINCELoss": lambda _: {"temperatures": (0.1, 0.2)},
    "MultiStep": lambda _: {"milestones": (1, 2)},
    "TorchSchedule": lambda _: {"scheduler": partial(torch.optim.lr_scheduler.StepLR, step_size=1)},
    "Contrast": lambda _: {
        "anchors": torch.zeros(2, 3),
        "candidates": torch.zeros(4, 3),
        "relation": torch.zeros(2, 4, dtype=torch.int8),
    },
    "Relation": lambda _: {"anchor_ids": torch.zeros(2, 1).long(), "candidate_ids": torch.zeros(4, 1).long()},
    "ContrastiveModule": lambda _: {
        "augmentation": "simclr",
        "encoder": "test_resnet",
        "extraction": ext.AllViews(out_dim=4),
        "similarity": Cosine(),
        "loss": InfoNCE(),
        "image_size": 8,
        **NORMALISATION,
        "optimizer": partial(torch.optim.SGD, lr=0.1),
    },
    "FineTuning": lambda _: {
        "encoder": encoder(),
        "num_classes": 3,
        "optimizer": partial(torch.optim.SGD, lr=0.1),
    },
    "ReSSL": lambda _: {
        "encoder": "test_resnet",
        "extraction": ext.Queue(size=64, reference=True),
        "image_size": 8,
        **NORMALISATION,
    },
    "SwAV": lambda _: {"augmentation": "simclr", "encoder": "test_resnet", "image_size": 8, **NORMALISATION},
    **{
        name: lambda _: {"encoder": "test_resnet", "image_size": 8, **NORMALISATION}
        for name in (
            "AMDIM",
            "BYOL",
            "CPC",
            "GroCo",
            "MoCo",
            "RINCE",
            "S2R2",
            "SCE",
            "SimCLR",
            "YADIM",
            "SimSiam",
            "SupCon",
        )
    },
    "OutOfDistributionProbe": lambda _: {"outliers": [(torch.zeros(2, 3, 8, 8), torch.zeros(2).long())]},
    "ImageDataModule": lambda _: {"num_classes": 2, "train": tensor_images(), **NORMALISATION},
    "ImageFiles": lambda folder: {"root": folder, "paths": ["a/0.png", "b/1.png"], "image_size": 8},
    "ImageFolderDataModule": lambda folder: {"root": folder, "image_size": 8, **NORMALISATION},
    "StreamingDataModule": lambda folder: {"url": shards(folder)},
    "VideoFiles": lambda folder: {"root": videos(folder), "paths": ["a/0.mp4", "b/1.mp4"], "image_size": 8},
    "VideoFolderDataModule": lambda folder: {"root": videos(folder)},
    "TensorImages": lambda _: {"images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)},
    "EpochSampler": lambda _: {"dataset": range(8)},
}
# Other arguments that an argument needs to have an effect.
BESIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("AllViews", "positive_count"): {"same_view_negatives": True},
    ("Queue", "teacher_count"): {"symmetric": True},
    ("FineTuning", "level"): {"target_type": "hierarchical"},
    ("GroCoViews", "small_size"): {"small_views": 1},
}
# Classes that are not tested, because they use the constructor of torch.
LEFT_OUT = {"ResumableDataLoader"}


class Case(NamedTuple):
    package: str
    cls: type
    argument: str
    what: str
    value: Any


class Result(NamedTuple):
    case: Case
    error: Exception | None

    @property
    def names_argument(self) -> bool:
        return re.search(rf"(?<![\w.]){self.case.argument}\b", str(self.error)) is not None


def shards(folder: Path) -> Path:
    if not (folder / "shards").exists():
        write_shards(ImageDataModule(tensor_images(), num_classes=2, **NORMALISATION), folder / "shards")
    return folder / "shards"


def videos(folder: Path) -> Path:
    for name in ("a/0.mp4", "b/1.mp4"):
        path = folder / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # the constructors only list files
    return folder / "videos"


def encoder() -> Encoder:
    return Encoder("test_resnet", image_size=8, in_channels=3)


def tensor_images() -> Any:
    return TensorImages(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))


def make_folder(folder: Path) -> Path:
    """Write two classes with one tiny image each; return the folder."""
    for i, name in enumerate("ab"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / name / f"{i}.png")
    return folder


def cases_of(package: str, cls: type, folder: Path) -> Iterator[Case]:
    arguments = baseline(cls, folder)
    hints = _hints(cls)
    for name, parameter in inspect.signature(cls).parameters.items():
        annotation = hints.get(name, parameter.annotation)
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or isinstance(annotation, str):
            continue
        if annotation in (parameter.empty, Any):
            continue
        default = None if parameter.default is parameter.empty else parameter.default
        allowed = {what for argument, what, _ in ALLOWED if argument == name}
        seen = set()
        for what, value in nonsense(name, annotation, arguments.get(name, default)):
            if what not in allowed and what not in seen:
                seen.add(what)
                yield Case(package, cls, name, what, value)


def _hints(cls: type) -> Mapping[str, Any]:
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if "__init__" in vars(base):
            try:
                hints |= typing.get_type_hints(base.__init__)
            except (NameError, TypeError):  # the name is imported only for type checkers
                continue
    return hints


def baseline(cls: type, folder: Path) -> dict[str, Any]:
    return BASELINES.get(cls.__name__, lambda _: {})(folder)


def public_classes() -> Iterator[tuple[str, type]]:
    """Yield each public class that can be built and takes arguments, once, with its package."""
    found: dict[type, str] = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", ()):
            cls = getattr(module, name)
            is_ours = isinstance(cls, type) and cls.__module__.startswith("ssl_modules") and name not in LEFT_OUT
            if is_ours and not inspect.isabstract(cls):
                found[cls] = package  # the last package that exports it is the most specific
    for cls, package in found.items():
        if any(p.kind is not p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values()):
            yield package, cls


# ---- the run --------------------------------------------------------------------------------------------------------


def try_case(case: Case, folder: Path) -> Result:
    arguments = {**baseline(case.cls, folder), **BESIDE.get((case.cls.__name__, case.argument), {})}
    try:
        case.cls(**{**arguments, case.argument: case.value})
    except Exception as error:  # the script counts errors of all types
        return Result(case, error)
    return Result(case, None)


def run(cases: int, seed: int, only: str | None = None, packages: Sequence[str] = PACKAGES) -> list[Result]:
    """Try a random sample of all cases and return the results.

    Args:
        cases: number of cases; if there are fewer, all are tried.
        seed: seed of the random sample.
        only: text that the names of the classes must contain; None = all classes.
        packages: packages whose classes are tried.

    Raises:
        RuntimeError: if a valid call fails.
    """
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = make_folder(Path(temporary) / "images")
        pool: list[Case] = []
        for package, cls in public_classes():
            if package not in packages or (only is not None and only not in cls.__name__):
                continue
            try:
                cls(**baseline(cls, folder))
            except Exception as error:
                raise RuntimeError(f"{cls.__name__}: the valid call fails: {error}") from error
            pool += cases_of(package, cls, folder)
        random.Random(seed).shuffle(pool)
        return [try_case(case, folder) for case in pool[:cases]]


def report(results: Sequence[Result]) -> bool:
    """Print the failures and the table; return whether the checks passed."""
    accepted = [r for r in results if r.error is None]
    errors = [r for r in results if r.error is not None]
    unnamed = [r for r in errors if not r.names_argument]
    others = [r for r in errors if not isinstance(r.error, ValueError | TypeError)]
    for title, listed in (
        ("accepted", accepted),
        ("without the argument's name", unnamed),
        ("of another kind", others),
    ):
        for r in sorted(listed, key=lambda r: (r.case.package, r.case.cls.__name__, r.case.argument)):
            told = "" if r.error is None else f": {type(r.error).__name__}: {str(r.error)[:120]!r}"
            print(f"{title}: {r.case.cls.__name__}({r.case.argument}={r.case.what}){told}")
    print(f"\n{'package':28}{'cases':>8}{'accepted':>10}{'errors':>8}{'named':>8}{'other kinds':>13}")
    by_package = collections.Counter(r.case.package for r in results)
    for package in [*by_package, "all"]:
        row = [
            sum(package in (r.case.package, "all") for r in part)
            for part in (results, accepted, errors, unnamed, others)
        ]
        named = 1 - row[3] / max(1, row[2])
        print(f"{package:28}{row[0]:8}{row[1]:10}{row[2]:8}{named:8.1%}{row[4]:13}")
    return not accepted and len(unnamed) <= (1 - SHARE_NAMED) * len(errors)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: %(default)s)")
    parser.add_argument("--only", help="part of the names of the classes to try")
    options = parser.parse_args()
    return 0 if report(run(options.cases, options.seed, options.only)) else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
