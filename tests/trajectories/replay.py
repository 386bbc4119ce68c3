"""Repeat recorded training runs of official programs with our methods, and compare every step.

    python tests/trajectories/replay.py [FILE...]

Each file holds a run of an official program, which trains a small network for 12 steps in float64. The file has the
views and the initial weights. For each step it has the weights of student and teacher, the running statistics of their
batch norms, the queue, the learning rate and the loss. ``meta`` names the program and its settings.

For each file the script builds our method with these settings and trains it with Lightning. It prints the largest
relative difference of each record and the tolerance. It also prints the settings that it set by hand, because no
argument sets them. The exit status is 1 if a difference exceeds the tolerance.

The tolerance is 1e-9. It is 1e-7 for runs with Adam, because Adam magnifies rounding errors of gradients that are 0. It
is also 1e-7 for lightning-bolts' loss, which adds 1e-6 to its denominator.
"""

import argparse
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the script; pytest adds this path itself
from trajectories.programs import PROGRAMS, Replay
from trajectories.recorded import FILES, Run, TinyNet, put

from ssl_modules import ContrastiveModule
from ssl_modules.augmentations import ReadyViews


def build(run: Run, replay: Replay) -> ContrastiveModule:
    """Build our method with the run's settings and initial weights."""
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
    """Return the batches of an epoch, as views and targets."""
    views = run.views[::-1] if run.method in ("RINCE", "MoCo v2") else run.views  # our teacher encodes view 0
    targets = torch.as_tensor(run.arrays["labels"])
    if run.method == "RINCE":
        targets = torch.stack([targets, torch.as_tensor(run.arrays["superclass"])], dim=2)
    items = [([view[i].double() / 255 for view in views], targets[i]) for i in range(run.batches)]
    return DataLoader(items, batch_size=None)


class Recorder(pl.Callback):
    """Records the same values as the files, after each step."""

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
    if run.method == "MoCo v2":  # the recorded teacher is updated only in the next step
        first = np.concatenate([w.numpy().ravel() for w in run.weights("enc") + run.weights("head")])
        rows["teacher"] = [first, *rows["teacher"][:-1]]
    return rows


def differences(run: Run) -> tuple[dict[str, float], Replay]:
    """Return the largest difference of each record over all steps, relative to the record's largest entry."""
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
    """Return our record and the official one, in the same order."""
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
    """Return the initial queue, oldest keys first. RINCE's program stores the oldest batch last."""
    if run.method != "RINCE":
        return queue
    return queue.reshape(-1, run.settings["batch"], queue.shape[1])[::-1].reshape(queue.shape)


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=FILES, help="default: all files beside this script")
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
