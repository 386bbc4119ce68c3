"""The papers' main experiments, with the values of the official programs.

Each entry names the official files that its values come from.
"""

import math
from dataclasses import dataclass
from typing import Any

import pytest

FLIP = ("flip", 0.5)


def crop(
    smallest: float, interpolation: str, ratio: tuple[float, float] = (3 / 4, 4 / 3), largest: float = 1.0
) -> tuple:
    return ("crop", smallest, largest, interpolation, pytest.approx(ratio, abs=1e-6))


def jitter(*strengths: float) -> tuple:
    return ("jitter", *strengths, 0.8)


@dataclass
class Recipe:
    """Values of an official program."""

    source: str
    views: list[list[tuple]]  # the operations of each view
    images: int  # per step
    epochs: int
    rate: float  # learning rate after the warm-up, for this number of images per step
    optimizer: dict[str, Any]
    schedule: tuple[Any, ...]  # (step, factor of the learning rate) for some steps, with 10 steps per epoch
    model: dict[str, Any]
    extraction: dict[str, Any]
    loss: dict[str, Any]
    precision: str = "32-true"
    sync_batchnorm: bool = False


def half_cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


BYOL_VIEW = [crop(0.08, "bicubic"), FLIP, jitter(0.4, 0.4, 0.2, 0.1), ("gray", 0.2)]
SCE_VIEW = [crop(0.2, "bilinear"), jitter(0.4, 0.4, 0.2, 0.1), ("gray", 0.2)]
GROCO_VIEW = [crop(0.14, "bicubic"), FLIP, jitter(0.4, 0.4, 0.2, 0.1), ("gray", 0.2)]
AMDIM_VIEW = [FLIP, crop(0.3, "bicubic", (0.7, 1.4)), jitter(0.4, 0.4, 0.4, 0.1), ("gray", 0.25)]
STRONG_VIEW = [crop(0.2, "bilinear"), jitter(0.4, 0.4, 0.4, 0.1), ("gray", 0.2), ("blur", 0.5), FLIP]
SWAV_VIEW = [FLIP, jitter(0.8, 0.8, 0.8, 0.2), ("gray", 0.2), ("blur", 0.5)]
# RINCE's code is derived from SupContrast.
SUPCON_VIEW = [crop(0.2, "bilinear"), FLIP, jitter(0.4, 0.4, 0.4, 0.1), ("gray", 0.2)]
SUPCON_SCHEDULE = (
    (0, 0.01 / 0.5),
    (50, (0.01 / 0.5 + 0.001 + 0.999 * half_cosine(10 / 1000)) / 2),
    (5000, 0.001 + 0.999 * half_cosine(501 / 1000)),
    (9999, 0.001),
)
SOLARIZE = ("solarize", 0.5, 0.2)
LARS = {"name": "Lars", "momentum": 0.9, "trust_coeff": 0.001}
SGD = {"name": "SGD", "momentum": 0.9}
ADAM = {"name": "Adam", "betas": [0.8, 0.999], "weight_decay": 1e-5}

RECIPES = {
    "simclr_imagenet": Recipe(
        source="google-research/simclr 383d414: tf2/README.md, run.py, model.py, data_util.py, lars_optimizer.py",
        views=[[crop(0.08, "bicubic"), FLIP, jitter(0.8, 0.8, 0.8, 0.2), ("gray", 0.2), ("blur", 0.5)]] * 2,
        images=4096,
        epochs=100,
        rate=0.075 * math.sqrt(4096),
        optimizer=LARS | {"weight_decay": 1e-4},
        schedule=((0, 0.0), (50, 0.5), (100, 1.0), (550, half_cosine(450 / 900))),
        model={"decay_norms": False, "view_statistics": "joint"},
        extraction={"hidden_dim": 2048, "out_dim": 128, "layers": 3, "output_norm": "scale"},
        loss={"temperature": 0.1},
        sync_batchnorm=True,
    ),
    "moco_imagenet": Recipe(
        source="facebookresearch/moco 7397dfe: README.md, main_moco.py, moco/builder.py",
        views=[STRONG_VIEW] * 2,
        images=256,
        epochs=200,
        rate=0.03,
        optimizer=SGD | {"weight_decay": 1e-4},
        schedule=((0, 1.0), (9, 1.0), (10, half_cosine(1 / 200)), (1999, half_cosine(199 / 200))),
        model={"decay_norms": True, "view_statistics": "each", "batch_norm_splits": 8},
        extraction={
            "hidden_dim": 2048,
            "out_dim": 128,
            "layers": 2,
            "batch_norm": False,
            "size": 65536,
            "symmetric": False,
            "keys_as_negatives": False,
            "momentum": 0.999,
            "momentum_schedule": "constant",
        },
        loss={"temperature": 0.2},
    ),
    "byol_imagenet": Recipe(
        source="google-deepmind/deepmind-research 4822a45, byol/: configs/byol.py, byol_experiment.py, main_loop.py",
        views=[[*BYOL_VIEW, ("blur", 1.0)], [*BYOL_VIEW, ("blur", 0.1), SOLARIZE]],
        images=4096,
        epochs=1000,
        rate=0.2 * 4096 / 256,
        optimizer=LARS | {"weight_decay": 1.5e-6},
        schedule=((0, 0.0), (50, 0.5), (100, 1.0), (5050, half_cosine(4950 / 9900))),
        model={"decay_norms": False, "view_statistics": "each"},
        extraction={
            "hidden_dim": 4096,
            "out_dim": 256,
            "predictor_dim": 4096,
            "momentum": 0.996,
            "momentum_schedule": "cosine",
            "teacher_update": "after",
        },
        loss={},
        sync_batchnorm=True,
    ),
    "sce_imagenet": Recipe(
        source="CEA-LIST/SCE 07cbe63: sce/configs/run/pretrain/sce/resnet50/resnet50_imagenet.yaml and its defaults",
        views=[[*SCE_VIEW, ("blur", 1.0), FLIP], [*SCE_VIEW, ("blur", 0.1), SOLARIZE, FLIP]],
        images=4096,
        epochs=200,
        rate=0.3 * 4096 / 256,
        optimizer=LARS | {"weight_decay": 1e-6},
        schedule=((0, 0.0), (50, 50 / 99), (99, 1.0), (100, 1.0), (1050, half_cosine(950 / 1900))),
        model={"decay_norms": False, "view_statistics": "each", "teacher_batch_norm_splits": None},
        extraction={
            "hidden_dim": 2048,
            "out_dim": 256,
            "layers": 3,
            "batch_norm": True,
            "output_norm": True,
            "size": 65536,
            "symmetric": True,
            "keys_as_negatives": False,
            "reference": True,
            "predictor_dim": 4096,
            "momentum": 0.99,
            "momentum_schedule": "cosine-endpoint",
            "teacher_update": "after",
        },
        loss={"temperature": 0.1, "teacher_temperature": 0.07, "positive_weight": 0.5, "positive_target": "zero"},
        precision="16-mixed",
        sync_batchnorm=True,
    ),
    "sce_cifar10": Recipe(
        source="CEA-LIST/SCE 07cbe63: sce/configs/run/pretrain/sce/resnet18/resnet18_cifar10.yaml and its defaults",
        views=[
            [crop(0.2, "bilinear"), FLIP],
            STRONG_VIEW,
        ],
        images=256,
        epochs=200,
        rate=0.06,
        optimizer=SGD | {"weight_decay": 5e-4, "nesterov": False},
        schedule=((0, 0.0), (25, 25 / 49), (49, 1.0), (1025, half_cosine(975 / 1950))),
        model={"decay_norms": True, "view_statistics": "each", "teacher_batch_norm_splits": 8, "small_stem": True},
        extraction={
            "hidden_dim": 512,
            "out_dim": 128,
            "layers": 2,
            "batch_norm": True,
            "output_norm": False,
            "size": 4096,
            "symmetric": False,
            "reference": True,
            "predictor_dim": None,
            "momentum": 0.99,
            "momentum_schedule": "constant",
            "teacher_update": "after",
        },
        loss={"temperature": 0.1, "teacher_temperature": 0.05, "positive_weight": 0.5, "positive_target": "zero"},
        precision="16-mixed",
    ),
    "rince_cifar100": Recipe(
        source="boschresearch/rince 0b11e37, branch cifar: README.md, main_supcon.py, util.py, losses.py",
        views=[SUPCON_VIEW] * 2,
        images=512,
        epochs=1000,
        rate=0.5,
        optimizer=SGD | {"weight_decay": 1e-4},
        schedule=SUPCON_SCHEDULE,
        model={"decay_norms": True, "view_statistics": "each", "small_stem": True},
        extraction={
            "hidden_dim": 2048,
            "out_dim": 128,
            "layers": 2,
            "batch_norm": False,
            "size": 4096,
            "symmetric": False,
            "momentum": 0.99,
            "momentum_schedule": "constant",
            "teacher_update": "before",
        },
        loss={"temperatures": [0.1, pytest.approx(0.1 + 0.25 * (0.6 - 0.1))], "modes": "out-in", "cumulative": True},
    ),
    "groco_imagenet": Recipe(
        source="ninatu/learning_by_sorting 47c074e: configs/2views_100ep.yaml, train.py, dataloader/transforms.py",
        views=[[*GROCO_VIEW, ("blur", 1.0)], [*GROCO_VIEW, ("blur", 0.1), SOLARIZE]],
        images=1024,
        epochs=100,
        rate=0.75 * 32 * 1024 / 1024,
        optimizer=SGD | {"weight_decay": 1e-6},
        schedule=((0, 0.0), (5, 0.5), (10, 1.0), (505, half_cosine(495 / 990))),
        model={"decay_norms": True, "view_statistics": "each"},
        extraction={"hidden_dim": 2048, "out_dim": 2048, "layers": 3, "output_norm": True, "stop_gradient": True},
        loss={"negatives": 10, "steepness": 1.0, "network": "odd_even", "distribution": "cauchy"},
        precision="16-mixed",
        sync_batchnorm=True,
    ),
    "amdim_imagenet": Recipe(
        source="Philip-Bachman/amdim-public 8754ae1: README.md, train.py, datasets.py, task_self_supervised.py",
        views=[AMDIM_VIEW] * 2,
        images=480,
        epochs=50,
        rate=2e-4,
        optimizer=ADAM | {"eps": 1e-8},
        # In the program, the warm-up has 500 steps, more than the first epochs of 10 steps.
        schedule=((0, 1 / 500), (309, 310 / 500), (499, 1.0)),
        model={"decay_norms": True, "view_statistics": "each", "base_batch_size": None},
        extraction={"pairs": "multi-pair", "out_dim": None, "source": "random"},
        loss={"clip": 20.0, "l2": 0.05},
        precision="16-mixed",
    ),
    "cpc_imagenet": Recipe(
        source="lightning-bolts 0.7.0: cpc_module.py, cpc_transforms.py; docs/source/models/self_supervised.rst",
        views=[[*AMDIM_VIEW, ("patches", 32, 16)]],
        images=3072,
        epochs=1000,
        rate=4e-5,
        optimizer=ADAM | {"eps": 1e-7},
        schedule=((0, 1.0), (9999, 1.0)),
        model={"decay_norms": True, "base_batch_size": None},
        extraction={
            "out_dim": 64,
            "shared_predictor": True,
            "weights": "triangular",
            "directions": ["down"],
            "scale": 0.1,
        },
        loss={"temperature": 1.0},
    ),
    "swav_imagenet": Recipe(
        source="facebookresearch/swav 06b1b7c: scripts/swav_200ep_bs256_pretrain.sh, main_swav.py, multicropdataset.py",
        views=[[crop(0.14, "bilinear"), *SWAV_VIEW]] * 2 + [[crop(0.05, "bilinear", largest=0.14), *SWAV_VIEW]] * 6,
        images=256,
        epochs=200,
        rate=0.6,
        optimizer=LARS | {"weight_decay": 1e-6},
        schedule=((0, 1.0), (500, 0.001 + 0.999 * half_cosine(500 / 2000)), (1000, 0.001 + 0.999 / 2)),
        model={"decay_norms": True, "view_statistics": "joint"},
        extraction={
            "hidden_dim": 2048,
            "out_dim": 128,
            "layers": 2,
            "prototypes": 3000,
            "assigned": 2,
            "epsilon": 0.05,
            "iterations": 3,
            "queue": 3840,
            "queue_after": 15 * (1281167 // 256 + 1),
            "frozen_steps": 5005,
        },
        loss={"temperature": 0.1},
        precision="16-mixed",
        sync_batchnorm=True,
    ),
    "simsiam_imagenet": Recipe(
        source="facebookresearch/simsiam a7bc177: README.md, main_simsiam.py, simsiam/builder.py",
        views=[STRONG_VIEW] * 2,
        images=512,
        epochs=100,
        rate=0.05 * 512 / 256,
        optimizer=SGD | {"weight_decay": 1e-4},
        schedule=((0, 1.0), (9, 1.0), (10, half_cosine(1 / 100)), (999, half_cosine(99 / 100))),
        model={"decay_norms": True, "view_statistics": "each"},
        extraction={
            "hidden_dim": 2048,
            "out_dim": 2048,
            "predictor_dim": 512,
            "layers": 3,
            "output_norm": True,
            "stop_gradient": True,
            "momentum": None,
        },
        loss={"scale": 0.25},
        sync_batchnorm=True,
    ),
    "supcon_imagenet": Recipe(
        source="HobbitLong/SupContrast 66a8fe5: README.md, main_supcon.py, util.py, losses.py, networks/resnet_big.py",
        views=[SUPCON_VIEW] * 2,
        images=1024,
        epochs=1000,
        rate=0.5,
        optimizer=SGD | {"weight_decay": 1e-4},
        schedule=SUPCON_SCHEDULE,
        model={"decay_norms": True, "view_statistics": "joint"},
        extraction={"hidden_dim": 2048, "out_dim": 128, "layers": 2, "batch_norm": False, "label_levels": 1},
        loss={"temperature": 0.1, "base_temperature": 0.07, "mode": "out"},
    ),
    "ressl_imagenet": Recipe(
        source="KyleZheng1997/ReSSL 4d67daa: script/train.sh, ressl.py, network/ressl.py, data/augmentation.py",
        views=[[crop(0.2, "bilinear"), FLIP], STRONG_VIEW],
        images=256,
        epochs=200,
        rate=0.05,
        optimizer=SGD | {"weight_decay": 1e-4},
        schedule=((0, 0.0), (25, 0.5), (50, 1.0), (1025, half_cosine(975 / 1950))),
        model={"decay_norms": False, "view_statistics": "each", "batch_norm_splits": 8},
        extraction={
            "hidden_dim": 4096,
            "out_dim": 512,
            "layers": 2,
            "batch_norm": False,
            "size": 131072,
            "symmetric": False,
            "reference": True,
            "momentum": 0.999,
            "momentum_schedule": "constant",
        },
        loss={"temperature": 0.1, "target_temperature": 0.04, "candidates": "negatives"},
    ),
}
