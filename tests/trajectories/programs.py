"""The arguments with which our methods repeat the runs of official programs."""

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from timm.optim import Lars
from torch.optim.lr_scheduler import LambdaLR
from trajectories.by_hand import NormLars, Placed, PlainHead, Twice, head_norm_decays, one_step_longer
from trajectories.recorded import Run, put

from ssl_modules import AMDIM, BYOL, RINCE, SCE, ContrastiveModule, GroCo, MoCo, SimCLR
from ssl_modules.encoders import AMDIMEncoder
from ssl_modules.extractions import AllViews, LabelRanks, Predictor, Queue
from ssl_modules.losses import GroCoLoss, InfoNCE, RINCELoss, SCELoss
from ssl_modules.optim import Constant, EpochCosine, MultiStep, Schedule, TorchSchedule, WarmupCosine
from ssl_modules.optim.schedules import FactorSchedule


@dataclass
class Replay:
    """Our method, its arguments for a run, and the settings that have no argument."""

    method: type[ContrastiveModule]
    arguments: dict[str, Any]  # in addition to the arguments that all methods get
    by_hand: list[str] = field(default_factory=list)
    prepare: Callable[[ContrastiveModule], None] = lambda module: None
    ignored: str = ""  # name of the record that is not compared
    tolerance: float = 1e-9


def groco(run: Run) -> Replay:
    s = run.settings
    extraction = AllViews(
        hidden_dim=s.get("hidden_dim", 10),
        out_dim=s["out_dim"],
        layers=3,
        output_norm=True,
        same_view_negatives=True,
        positive_count=s["n_pos_augs"],
        stop_gradient=True,
    )
    loss = GroCoLoss(s["negatives"], s["steepness"])
    arguments = {"extraction": extraction, "loss": loss, "optimizer": sgd(s), "schedule": WarmupCosine(run.warmup)}
    mean = "the running mean of the projector's last batch norm"
    bias = "the official program has a frozen random bias before it"
    return Replay(GroCo, arguments, [f"not compared: {mean}, because {bias}"])


def sce(run: Run) -> Replay:
    s = run.settings
    splits = s.get("teacher_splits") or 1
    projector, predictor = (network(s[part]) for part in ("projector", "predictor"))
    wide = {} if projector is None else {"hidden_dim": projector["hidden_dims"][0], "layers": projector["num_layers"]}
    extraction = Queue(
        **wide,
        out_dim=s["out_dim"],
        batch_norm=True,
        output_norm=bool(projector and projector.get("last_norm")),
        size=s["queue"],
        symmetric=s["sym"],
        teacher_count=s["num_global_crops"] if s["num_local_crops"] else None,
        reference=True,
        predictor_dim=predictor["hidden_dims"][0] if predictor else None,
        momentum=s["teacher_momentum"],
        momentum_schedule="cosine-endpoint" if s["momentum_schedule"] == "cosine" else "constant",
    )
    arguments = {
        "extraction": extraction,
        "loss": SCELoss(s["temp"], s["temp_m"], s["coeff"], positive_target="zero"),
        "optimizer": sgd(s),
        "schedule": WarmupCosine(run.warmup, "s/(W-1)"),
        "teacher_batch_norm_splits": splits if splits > 1 else None,
    }
    by_hand = []
    if "lars" in s["optimizer"]:
        arguments["optimizer"] = partial(NormLars, lr=s["lr"], weight_decay=s["weight_decay"])
        by_hand.append("the official LARS, which adds the weight decay before it takes the norm of the gradient")

    def prepare(module: ContrastiveModule) -> None:
        put(module.teacher.encoder.network, run.weights("tenc"))
        put(module.teacher.heads, run.weights("thead"))

    if s["own_teacher"]:
        by_hand.append("the teacher's initial weights, because the official program doesn't copy the student's")
        return Replay(SCE, arguments, by_hand, prepare)
    return Replay(SCE, arguments, by_hand)


def rince(run: Run) -> Replay:
    s = run.settings
    cumulative = s["variant"].startswith("cumulative")
    extraction = Queue(
        size=s["queue"],
        ranks=LabelRanks(cumulative=cumulative),
        momentum=s["teacher_momentum"],
        teacher_update="before",
    )
    arguments = {
        "extraction": extraction,
        "loss": RINCELoss(s["temperatures"], modes="in" if cumulative else "out-in", cumulative=cumulative),
        "optimizer": sgd(s),
        "schedule": EpochCosine(2 if s["warm"] else 0, start=0.02, floor=0.001),
    }
    return Replay(RINCE, arguments)


def moco(run: Run) -> Replay:
    s = run.settings
    arguments = {
        "extraction": Queue(out_dim=s["out_dim"], size=s["queue"], momentum=s["teacher_momentum"]),
        "loss": InfoNCE(s["temperature"]),
        "optimizer": sgd(s),
        "schedule": WarmupCosine(0, per="epoch"),
    }
    return Replay(MoCo, arguments)


def byol(run: Run) -> Replay:
    s = run.settings
    joint = s["views"].startswith("joint")
    with_adam = "adam" in s.get("optimizer", "")
    extraction = Predictor(
        s["hidden"],
        s["out_dim"],
        s["hidden"],
        momentum=s["teacher_momentum"],
        momentum_schedule=s["momentum_schedule"],
    )
    arguments = {
        "extraction": extraction,
        "optimizer": adam(s) if with_adam else sgd(s),
        "schedule": found_schedule(run),
        "decay_norms": True,
        "view_statistics": "joint" if joint else "each",
    }
    tolerance = 1e-7 if with_adam else 1e-9
    if joint:
        return Replay(BYOL, arguments, tolerance=tolerance)
    order = "the official teacher encodes the second view first"
    by_hand = [f"not compared: the teacher's running statistics, because {order}"]
    return Replay(BYOL, arguments, by_hand, ignored="teacher_buffers", tolerance=tolerance)


def simclr(run: Run) -> Replay:
    s = run.settings
    arguments = {
        "extraction": AllViews(hidden_dim=10, out_dim=s["out_dim"]),
        "loss": InfoNCE(s["temperature"]),
        "view_statistics": "joint" if s["views"].startswith("joint") else "each",
    }
    if "google" in run.source:
        arguments |= {
            "extraction": AllViews(hidden_dim=10, out_dim=s["out_dim"], output_norm="scale"),
            "loss": Twice(s["temperature"]),
            "optimizer": partial(NormLars, lr=s["lr"], weight_decay=s["weight_decay"], inside=True),
            "schedule": TorchSchedule(partial(LambdaLR, lr_lambda=one_step_longer(run)), interval="step"),
        }
        lars = "the official LARS, whose momentum buffer includes the learning rate"
        by_hand = [lars, "twice the loss", "a schedule of one more step"]
        return Replay(SimCLR, arguments, by_hand)
    if "bolts" in run.source:
        return Replay(
            SimCLR,
            arguments
            | {"optimizer": head_norm_decays(partial(Lars, momentum=0.9), s), "schedule": found_schedule(run)},
            ["weight decay for the scale of the projector's batch norm"],
            tolerance=1e-7,
        )
    arguments |= {
        "extraction": PlainHead(out_dim=s["out_dim"]),
        "optimizer": adam(s),
        "schedule": found_schedule(run),
        "decay_norms": True,
    }
    return Replay(SimCLR, arguments, ["a projector without batch norm"], tolerance=1e-7)


def amdim(run: Run) -> Replay:
    s = run.settings
    arguments = {
        "encoder": AMDIMEncoder(run.views[0].shape[-1], 3, width=s["ndf"], features=s["n_rkhs"], depth=s["n_depth"]),
        "extraction": Placed(torch.as_tensor(run.arrays["places"])),
        "loss": InfoNCE(clip=s["tclip"], l2=s["l2"]),
        "optimizer": adam(s),
        "schedule": found_schedule(run),
    }
    return Replay(AMDIM, arguments, ["the recorded random positions of the anchors"], tolerance=1e-7)


PROGRAMS = {
    "GroCo": groco,
    "SCE": sce,
    "RINCE": rince,
    "MoCo v2": moco,
    "BYOL": byol,
    "SimCLR": simclr,
    "AMDIM": amdim,
}


def network(description: str) -> dict[str, Any] | None:
    """Return the arguments of a network, or None if its description is not a dictionary."""
    return ast.literal_eval(description) if description.startswith("{") else None


def sgd(s: dict[str, Any]) -> partial:
    return partial(torch.optim.SGD, lr=s["lr"], momentum=0.9, weight_decay=s["weight_decay"])


def adam(s: dict[str, Any]) -> partial:
    return partial(
        torch.optim.Adam, lr=s["lr"], weight_decay=s["weight_decay"], betas=tuple(s.get("betas", (0.9, 0.999)))
    )


def found_schedule(run: Run) -> Schedule:
    """Return the first schedule that gives the recorded learning rates, for a run whose settings name no schedule."""
    factors = run.arrays["lr"] / run.settings["lr"]
    ramp = max(1, round(1 / factors[0])) if factors[0] else 1
    candidates: list[FactorSchedule] = [
        Constant(),
        WarmupCosine(run.warmup),
        WarmupCosine(run.warmup, "(s+1)/W"),
        WarmupCosine(run.warmup, per="epoch"),
        MultiStep((5 / 6, 14 / 15), gamma=0.2, warmup=ramp, ramp="(s+1)/W"),
        Constant(ramp, "(s+1)/W"),
    ]
    for schedule in candidates:
        if np.allclose([schedule(s, len(factors), run.batches) for s in range(len(factors))], factors, 1e-12, 1e-15):
            return schedule
    raise ValueError(f"{run.name}: no public schedule gives the learning rates {run.arrays['lr'].tolist()}")
