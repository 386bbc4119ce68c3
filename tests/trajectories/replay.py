"""Repeat training runs of official programs by public arguments, and compare every step.

    python tests/trajectories/replay.py [FILE...]

Each file holds a run of an official program: 12 steps of a small network in float64, with its views, its initial
weights and, after each step, the weights of student and teacher, the running statistics of their batch norms, the
queue, the learning rate and the loss. ``meta`` has the program and its settings. For each file the script builds our
method with these settings, trains it with Lightning, and prints the largest relative difference of each record, the
tolerance, and what it set by hand. It exits with 1 if a difference exceeds the tolerance.

The tolerance is 1e-9. It is 1e-7 for runs with Adam, which magnifies the rounding of gradients that are 0, and for
lightning-bolts' loss, which adds 1e-6 to its denominator.
"""

import argparse
import ast
import json
import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from timm.optim import Lars
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from ssl_modules import AMDIM, BYOL, RINCE, SCE, ContrastiveModule, GroCo, MoCo, SimCLR
from ssl_modules.augmentations import ReadyViews
from ssl_modules.encoders import AMDIMEncoder
from ssl_modules.extractions import AllViews, LabelRanks, LocalMaps, Predictor, Queue
from ssl_modules.extractions.heads import PooledMLP
from ssl_modules.losses import GroCoLoss, InfoNCE, RINCELoss, SCELoss
from ssl_modules.optim import Constant, EpochCosine, MultiStep, Schedule, TorchSchedule, WarmupCosine
from ssl_modules.optim.schedules import FactorSchedule, cosine

FILES = sorted(Path(__file__).parent.glob("*.npz"))


class TinyNet(nn.Module):
    """The encoder of all runs but AMDIM's: two convolutions, with or without batch norm."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, 2, 1, bias=not norm), nn.BatchNorm2d(6) if norm else nn.Identity()
        self.conv2, self.bn2 = nn.Conv2d(6, 10, 3, 2, 1, bias=not norm), nn.BatchNorm2d(10) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()


class Run:
    """A file: its arrays, its method and its settings."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.arrays = {name: file[name] for name in file.files}
        meta = json.loads(str(self.arrays["meta"]))
        self.name, self.method, self.source = path.stem, meta["method"], meta["source"]
        self.settings: dict[str, Any] = meta["settings"]
        self.views = [torch.as_tensor(self.arrays[f"views_{i}"]) for i in range(self._count("views"))]
        self.epochs, self.batches = self.settings["epochs"], self.settings["batches_per_epoch"]

    def _count(self, prefix: str) -> int:
        return sum(name.startswith(f"{prefix}_") and name[len(prefix) + 1 :].isdigit() for name in self.arrays)

    def weights(self, part: str) -> list[Tensor]:
        """The initial weights of a part: enc, head, pred, or tenc and thead for a teacher of its own."""
        return [torch.as_tensor(self.arrays[f"{part}_{i}"]) for i in range(self._count(part))]

    @property
    def warmup(self) -> float:
        """The warm-up as a share of the run."""
        return self.settings.get("warmup_epochs", 0) / self.epochs


@dataclass
class Replay:
    """Our method for a run, and what arguments can't say."""

    method: type[ContrastiveModule]
    arguments: dict[str, Any]  # in addition to those that all methods get
    by_hand: list[str] = field(default_factory=list)
    prepare: Callable[[ContrastiveModule], None] = lambda module: None
    ignored: str = ""  # the record that differs all the same
    tolerance: float = 1e-9


# ---- the official programs -------------------------------------------------------------------------------------------


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
    bias = "the frozen random bias before the projector's last batch norm, which moves that norm's running mean"
    return Replay(GroCo, arguments, [f"not compared: {bias}"])


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
        by_hand.append("the official LARS, with the decay in the norm of the gradient")

    def prepare(module: ContrastiveModule) -> None:
        put(module.teacher.encoder.network, run.weights("tenc"))
        put(module.teacher.heads, run.weights("thead"))

    if s["own_teacher"]:
        by_hand.append("the teacher's own first weights, as the official program never gives it the student's")
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
    by_hand = ["not compared: the teacher's running statistics, as the official teacher sees the second view first"]
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
        by_hand = ["the official LARS, with the rate in the momentum", "the loss twice", "a schedule one step longer"]
        return Replay(SimCLR, arguments, by_hand)
    if "bolts" in run.source:
        return Replay(
            SimCLR,
            arguments
            | {"optimizer": head_norm_decays(partial(Lars, momentum=0.9), s), "schedule": found_schedule(run)},
            ["the weight decay of the head's batch norm, whose name the official program doesn't know"],
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
    return Replay(AMDIM, arguments, ["the recorded random places"], tolerance=1e-7)


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
    """The arguments of a network, if its description is a dictionary."""
    return ast.literal_eval(description) if description.startswith("{") else None


def sgd(s: dict[str, Any]) -> partial:
    return partial(torch.optim.SGD, lr=s["lr"], momentum=0.9, weight_decay=s["weight_decay"])


def adam(s: dict[str, Any]) -> partial:
    return partial(
        torch.optim.Adam, lr=s["lr"], weight_decay=s["weight_decay"], betas=tuple(s.get("betas", (0.9, 0.999)))
    )


def found_schedule(run: Run) -> Schedule:
    """The first of the official programs' schedules that gives the recorded rates, where the settings don't name it."""
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
    raise ValueError(f"{run.name}: no public schedule gives the rates {run.arrays['lr'].tolist()}")


# ---- by hand: what official programs do by accident ------------------------------------------------------------------


class NormLars(torch.optim.Optimizer):
    """LARS that divides by the norm of gradient and decay together; ``inside`` puts the rate into the momentum."""

    def __init__(self, groups: Any, lr: float, weight_decay: float, inside: bool = False) -> None:
        super().__init__(groups, {"lr": lr})
        self.weight_decay = weight_decay
        self.inside = inside

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            rate = group["lr"]
            for p in group["params"]:
                d = p.grad
                if p.ndim > 1:
                    d = d + self.weight_decay * p
                    d = d * (0.001 * p.norm() / d.norm())
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.mul_(0.9).add_(d, alpha=rate if self.inside else 1.0)
                p.sub_(momentum, alpha=1.0 if self.inside else rate)
        return loss


class Twice(InfoNCE):
    """Google's SimCLR adds the losses of both views, each of which is a mean."""

    def partial(self, *arguments: Any) -> Tensor:
        return 2 * super().partial(*arguments)


class PlainHead(AllViews):
    """sthalles' SimCLR has a projector without batch norm."""

    def build(self, out_channels: Any, sizes: Any = (), normalised: bool = False) -> None:
        self.heads = PooledMLP(out_channels[-1], out_channels[-1], self.out_dim, batch_norm=False, bias=True)


class Placed(LocalMaps):
    """AMDIM with recorded places of the anchors."""

    def __init__(self, places: Tensor) -> None:
        super().__init__("multi-pair", out_dim=None)
        self.places = list(places.flatten(0, 1))

    def _anchors(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        if z.shape[1] == 1 or not self.training:
            return super()._anchors(z, generator)
        return z[torch.arange(len(z)), self.places.pop(0)]


def one_step_longer(run: Run) -> Callable[[int], float]:
    """Google's SimCLR counts one step more than it takes."""
    steps, warmup = run.epochs * run.batches, round(run.warmup * run.epochs * run.batches)
    return lambda s: s / warmup if s < warmup else cosine((s - warmup) / (steps + 1 - warmup), 0.0)


def head_norm_decays(optimizer: partial, s: dict[str, Any]) -> Callable[[Any], torch.optim.Optimizer]:
    """lightning-bolts decays all weights but those named "bias" or "bn"; in its head the norm has a number."""

    def build(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        decayed, others = (group["params"] for group in groups)
        scale = others[-2]  # of the head's norm; its bias is last
        rest = [p for p in others if p is not scale]
        groups = [{"params": [*decayed, scale]}, {"params": rest, "weight_decay": 0.0}]
        return optimizer(groups, lr=s["lr"], weight_decay=s["weight_decay"])

    return build


def put(part: nn.Module, weights: list[Tensor]) -> None:
    """Set the parameters of a part to recorded ones."""
    own = list(part.parameters())
    found, expected = [list(p.shape) for p in own], [list(w.shape) for w in weights]
    if found != expected:
        raise ValueError(f"parameters: ours have the shapes {found}, the recorded ones {expected}")
    with torch.no_grad():
        for p, w in zip(own, weights, strict=True):
            p.copy_(w)


# ---- training and comparing ------------------------------------------------------------------------------------------


def build(run: Run, replay: Replay) -> ContrastiveModule:
    """Our method with the run's settings and initial weights."""
    sizes = [view.shape[-1] for view in run.views]
    common = {
        "augmentation": ReadyViews(sizes),
        "encoder": TinyNet(run.settings.get("encoder_batch_norm", True)),
        "image_size": sizes[0],
        "base_batch_size": None,
    }
    module = replay.method(**common | replay.arguments).double()
    parts = [(module.encoder.network, "enc"), (module.extraction.heads, "head")]
    if module.teacher is not None:
        parts += [(module.teacher.encoder.network, "enc"), (module.teacher.heads, "head")]
    if run.weights("pred"):
        parts.append((module.extraction.predictor, "pred"))
    for part, name in parts:
        put(part, run.weights(name))
    replay.prepare(module)
    if "queue_init" in run.arrays:
        module.extraction.keys.copy_(torch.as_tensor(oldest_first(run, run.arrays["queue_init"])))
    return module


def batches(run: Run) -> DataLoader:
    """The batches of an epoch, as views and targets."""
    views = run.views[::-1] if run.method in ("RINCE", "MoCo v2") else run.views  # our teacher sees view 0
    targets = torch.as_tensor(run.arrays["labels"])
    if run.method == "RINCE":
        targets = torch.stack([targets, torch.as_tensor(run.arrays["superclass"])], dim=2)
    items = [([view[i].double() / 255 for view in views], targets[i]) for i in range(run.batches)]
    return DataLoader(items, batch_size=None)


class Recorder(pl.Callback):
    """Records the same as the files do."""

    def __init__(self) -> None:
        self.rows: dict[str, list[np.ndarray]] = {}

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.rate = optimizer.param_groups[0]["lr"]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        extraction, teacher = pl_module.extraction, pl_module.teacher
        student = [pl_module.encoder.network, extraction.heads, getattr(extraction, "predictor", nn.Identity())]
        row = {"student": parameters(student), "buffers": statistics(student), "lr": np.array(self.rate)}
        row["loss"] = outputs["loss"].detach().numpy().copy()
        if teacher is not None:
            networks = [teacher.encoder.network, teacher.heads]
            row |= {"teacher": parameters(networks), "teacher_buffers": statistics(networks)}
        if hasattr(extraction, "keys"):
            row["queue"] = extraction.keys.numpy().copy()
        for name, value in row.items():
            self.rows.setdefault(name, []).append(value)


def parameters(networks: list[nn.Module]) -> np.ndarray:
    return np.concatenate([p.detach().numpy().ravel() for network in networks for p in network.parameters()])


def statistics(networks: list[nn.Module]) -> np.ndarray:
    buffers = [b for network in networks for name, b in network.named_buffers() if "running" in name]
    return np.concatenate([np.zeros(0), *(b.numpy().ravel() for b in buffers)])


def train(run: Run, replay: Replay) -> dict[str, list[np.ndarray]]:
    """Train our method on the run's batches; return each record after each step."""
    recorder = Recorder()
    trainer = pl.Trainer(
        max_epochs=run.epochs,
        accelerator="cpu",
        devices=1,
        precision="64-true",
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(build(run, replay), batches(run))
    rows = recorder.rows
    rows["loss"] = [loss - run.settings.get("loss_offset", 0.0) for loss in rows["loss"]]
    if run.method == "MoCo v2":  # recorded before the teacher's update, which the official program makes a step later
        first = np.concatenate([w.numpy().ravel() for w in run.weights("enc") + run.weights("head")])
        rows["teacher"] = [first, *rows["teacher"][:-1]]
    return rows


def differences(run: Run) -> tuple[dict[str, float], Replay]:
    """The largest difference of each record over all recorded steps, relative to the record's largest entry."""
    replay = PROGRAMS[run.method](run)
    rows = train(run, replay)
    worst = {}
    for name, ours in rows.items():
        if name == replay.ignored or f"{name}_rows" not in run.arrays:
            continue
        steps = [int(step) for step in run.arrays[f"{name}_rows"]]
        worst[name] = max(
            relative(*comparable(run, name, ours[step], theirs, step))
            for step, theirs in zip(steps, run.arrays[name], strict=True)
        )
    return worst, replay


def comparable(run: Run, name: str, ours: np.ndarray, theirs: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """A record of both, in the same order."""
    if run.method == "RINCE" and name == "queue":
        parts = ours.reshape(-1, run.settings["batch"], ours.shape[1])
        put_in = min(step + 1, len(parts))
        newest = [parts[(step - i) % len(parts)] for i in range(put_in)]
        kept = run.arrays["queue_init"][: len(ours) - put_in * run.settings["batch"]]
        return np.concatenate([*newest, kept]), theirs
    if run.method == "GroCo" and name == "buffers":  # without the running mean of the last norm
        width = run.settings["out_dim"]
        keep = np.r_[: len(ours) - 2 * width, len(ours) - width : len(ours)]
        return ours[keep], theirs[keep]
    return ours, theirs


def oldest_first(run: Run, queue: np.ndarray) -> np.ndarray:
    """The initial queue in the order in which our queue replaces its keys; RINCE's program replaces the last first."""
    if run.method != "RINCE":
        return queue
    return queue.reshape(-1, run.settings["batch"], queue.shape[1])[::-1].reshape(queue.shape)


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=FILES, help="all files beside this script")
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    failed = 0
    for path in parser.parse_args().files:
        run = Run(path)
        try:
            worst, replay = differences(run)
        except ValueError as error:
            print(f"{run.name}: FAILED: {error}")
            failed += 1
            continue
        equal = max(worst.values()) <= replay.tolerance
        failed += not equal
        found = ", ".join(f"{name} {value:.0e}" for name, value in worst.items())
        said = "equal" if equal else "DIFFERENT"
        print(f"{run.name}: {said} within {replay.tolerance:.0e}: {found}")
        print(f"    by hand: {'; '.join(['initial weights', *replay.by_hand])}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
