"""Twelve steps of SwAV equal those of a short program that computes the official operations in the same order."""

import copy
import math
from functools import partial

import pytest
import torch
from conformance.cases import trainer
from lightning.pytorch import Callback, seed_everything
from timm.optim import Lars
from torch import nn
from torch.nn.functional import log_softmax, normalize
from torch.utils.data import DataLoader
from trajectories.recorded import TinyNet

from ssl_modules import SwAV
from ssl_modules.augmentations import ReadyViews
from ssl_modules.extractions import Prototypes
from ssl_modules.optim import WarmupCosine

EPOCHS, BATCHES, IMAGES = 4, 3, 6
RATE, DECAY, TEMPERATURE, EPSILON = 0.6, 1e-2, 0.1, 0.05
# Each command has some of the official options: a queue, or small views and a warm-up.
COMMANDS = {
    "queue": {"sizes": [8, 8], "queue": 14, "fills_after": 3, "frozen": 4, "warmup": 0, "batch_norm": True},
    "multi-crop": {"sizes": [8, 8, 6, 6], "queue": 0, "fills_after": 0, "frozen": 3, "warmup": 3, "batch_norm": False},
}


def official_rate(step, warmup):
    """Return the learning rate: a linear warm-up from 0, then half a cosine to a thousandth of the rate."""
    if step < warmup:
        return RATE * step / (warmup - 1)
    rest = EPOCHS * BATCHES - warmup
    floor = RATE / 1000
    return floor + (RATE - floor) * (1 + math.cos(math.pi * (step - warmup) / rest)) / 2


def official_assignment(scores):
    """Divide columns and rows of exp(scores / epsilon) by their sums, three times."""
    q = (scores / EPSILON).exp()
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(dim=0) / q.shape[1]
        q = q / q.sum(dim=1, keepdim=True) / q.shape[0]
    return q * q.shape[0]


def official_update(weights, momenta, rate):
    """Update all weights that have a gradient by LARS with weight decay, also biases and norms."""
    for weight in weights:
        if weight.grad is None:
            continue
        step, (length, slope) = weight.grad, (weight.detach().norm(), weight.grad.norm())
        if length > 0 and slope > 0:
            step = (step + DECAY * weight.detach()) * 0.001 * length / (slope + DECAY * length + 1e-8)
        momenta[weight] = 0.9 * momenta[weight] + step if weight in momenta else step.clone()
        weight.data -= rate * momenta[weight]


def official_program(encoder, head, prototypes, batches, command):
    """Train; return the weights, the queue, the rate and the loss of each step."""
    large = 2
    weights, momenta, records = [*encoder.parameters(), *head.parameters(), prototypes], {}, []
    queue = torch.zeros(large, command["queue"], prototypes.shape[1], dtype=torch.float64)
    for step, views in enumerate(batches * EPOCHS):
        prototypes.data = normalize(prototypes.data, dim=1)
        of_sizes = [torch.cat([v for v in views if v.shape[-1] == size]) for size in dict.fromkeys(command["sizes"])]
        maps = torch.cat([encoder(images).mean(dim=(2, 3)) for images in of_sizes])
        embeddings = normalize(head(maps), dim=1).split(IMAGES)
        scores = [z @ prototypes.T for z in embeddings]
        loss = 0.0
        for i in range(large):
            rows = scores[i].detach()
            if command["queue"] and (queue[i, -1] != 0).any():
                rows = torch.cat([queue[i] @ prototypes.detach().T, rows])
            targets = official_assignment(rows)[-IMAGES:]
            for v in range(len(views)):
                if v != i:
                    terms = (targets * log_softmax(scores[v] / TEMPERATURE, dim=1)).sum(dim=1)
                    loss = loss - terms.mean() / (len(views) - 1) / large
            if step >= command["fills_after"]:
                queue[i] = torch.cat([embeddings[i].detach(), queue[i]])[: command["queue"]]
        for weight in weights:
            weight.grad = None
        loss.backward()
        if step < command["frozen"]:
            prototypes.grad = None
        rate = official_rate(step, command["warmup"])
        official_update(weights, momenta, rate)
        records.append(record([encoder, head], prototypes, queue, rate, loss))
    return records


def record(networks, prototypes, queue, rate, loss):
    """Return the values that are compared after a step, with the running statistics of batch norms."""
    statistics = [b for n in networks for name, b in n.named_buffers() if "running" in name]
    found = {
        "student": [p.detach() for network in networks for p in network.parameters()],
        "statistics": statistics,
        "prototypes": prototypes.detach(),
        "queue": queue,
        "rate": torch.tensor(rate, dtype=torch.float64),
        "loss": loss.detach(),
    }
    return copy.deepcopy(found)


class Recorder(Callback):
    """Records the same values of our module."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        [self.rate] = {group["lr"] for group in optimizer.param_groups}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        part = pl_module.extraction
        networks = [pl_module.encoder.network, part.heads]
        self.steps.append(record(networks, part.prototypes, part.older, self.rate, outputs["loss"]))


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_step_equals_that_of_the_program(command):
    seed_everything(0)
    extraction = Prototypes(
        hidden_dim=12,
        out_dim=8,
        prototypes=7,
        batch_norm=command["batch_norm"],
        queue=command["queue"],
        queue_after=command["fills_after"],
        frozen_steps=command["frozen"],
    )
    module = SwAV(
        ReadyViews(command["sizes"]),
        TinyNet(True),
        extraction,
        optimizer=partial(Lars, lr=RATE, momentum=0.9, weight_decay=DECAY),
        schedule=WarmupCosine(command["warmup"], "s/(W-1)", floor=0.001),
        base_batch_size=None,
        image_size=8,
    ).double()
    with torch.no_grad():
        module.extraction.prototypes *= 3  # our method and the program normalise them before the first step
    batches = [[torch.rand(IMAGES, 3, s, s, dtype=torch.float64) for s in command["sizes"]] for _ in range(BATCHES)]
    parts = module.encoder.network, module.extraction.heads.mlp, nn.Parameter(module.extraction.prototypes.detach())
    expected = official_program(*copy.deepcopy(parts), batches, command)

    recorder, items = Recorder(), [(views, torch.zeros(IMAGES)) for views in batches]
    t = trainer(max_epochs=EPOCHS, precision="64-true", callbacks=[recorder])
    t.fit(module, DataLoader(items, batch_size=None))

    assert len(recorder.steps) == len(expected) == 12
    for found, official in zip(recorder.steps, expected, strict=True):
        torch.testing.assert_close(found, official, rtol=1e-9, atol=1e-12)
    first, last = expected[0], expected[-1]
    moved = [(first["prototypes"] - s["prototypes"]).norm().item() for s in expected]
    assert (torch.tensor(moved[: command["frozen"]]) < 1e-12).all()
    assert moved[command["frozen"]] > 1e-6
    assert all(not torch.equal(a, b) for a, b in zip(first["student"], last["student"], strict=True))
    if command["queue"]:
        assert (last["queue"] != 0).all()
