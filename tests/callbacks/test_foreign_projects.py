"""All callbacks together in projects of others: nothing of these projects moves, and their checkpoints go on."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.apply_func import apply_to_collection
from strangers import (
    IMAGES,
    TARGETS,
    BackboneAndHead,
    TwoOptimizers,
    TwoViews,
    own,
    pl,
    stranger,
    test_loader,
    train_loader,
    trainer,
)
from torch.utils.data import DataLoader

from ssl_modules.callbacks import (
    CollapseMonitor,
    EmbeddingPlot,
    NeighbourGrid,
    OnlineKNNProbe,
    OnlineLinearProbe,
    OnlineRetrieval,
    OnlineSGDProbe,
    OutOfDistributionProbe,
    ViewGrid,
)

OURS = ("probe/", "retrieval/", "ood/", "repr/")


@dataclass(frozen=True)
class Project:
    """What others have, and what our callbacks must be told of it."""

    module: Callable[[], pl.LightningModule]
    loaders: Callable[[], list[Any]]  # of the Trainer
    features: str
    data: Callable[[], dict[str, Any]] = dict  # of the probes; none: the Trainer's loaders
    prepare: Callable[[Any], Any] | None = None
    outliers: list[Any] = field(default_factory=lambda: [IMAGES[600:700].flip(2)])
    augmentation: Callable[[Any, Any], list[Any]] | None = None

    def callbacks(self) -> list[pl.Callback]:
        take = {**self.data(), "features": self.features, "prepare": self.prepare}
        return [
            ViewGrid(augmentation=self.augmentation, prepare=self.prepare, images=2),
            OnlineKNNProbe(**take, bank_size=200),
            OnlineLinearProbe(**take, bank_size=200),
            OnlineSGDProbe(**take, num_classes=10),
            OnlineRetrieval(**take, bank_size=200),
            OutOfDistributionProbe(**take, outliers=self.outliers, bank_size=200),
            CollapseMonitor(features=self.features),
            EmbeddingPlot(**take),
            NeighbourGrid(**take, queries=2, k=2, bank_size=200),
        ]


def dicts(part, shuffle=False):
    data = [{"image": image, "label": label} for image, label in zip(IMAGES[part], TARGETS[part], strict=True)]
    return DataLoader(data, batch_size=32, shuffle=shuffle)


def flips(images, generator):
    return [images.flip(3), images + torch.rand(1)]  # not from the generator


PROJECTS = {
    "supervised": Project(
        lambda: stranger(validates=True), lambda: [train_loader(), test_loader()], "encoder", augmentation=flips
    ),
    "two optimisers": Project(
        TwoOptimizers,
        lambda: [dicts(slice(128), shuffle=True)],
        "body",
        data=lambda: {"train": dicts(slice(128, 400)), "test": dicts(slice(400, 500))},
        prepare=lambda batch: (batch["image"], batch["label"]),
        outliers=list(dicts(slice(600, 700))),
        augmentation=flips,
    ),
    "lightly": Project(BackboneAndHead, lambda: [DataLoader(TwoViews(), batch_size=32, shuffle=True)], "backbone", own),
}


class Rows(pl.loggers.logger.Logger):
    """What the project logs, by step."""

    name, version = "rows", 0

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        kept = {name: value for name, value in metrics.items() if not name.startswith(("epoch", *OURS))}
        self.rows += [(step, kept)] if kept else []

    def log_hyperparams(self, *arguments, **options):
        pass


class RandomStates(pl.Callback):
    """Lets a run go on with the random numbers of its checkpoint, as a project must that resumes to the bit."""

    def state_dict(self):
        name, keys, *rest = np.random.get_state()  # noqa: NPY002
        return {"torch": torch.get_rng_state(), "numpy": [name, keys.tolist(), *rest], "random": random.getstate()}

    def load_state_dict(self, state_dict):
        torch.set_rng_state(state_dict["torch"])
        np.random.set_state(tuple(state_dict["numpy"]))  # noqa: NPY002
        random.setstate(state_dict["random"])


def fit(project, folder, segments):
    """The state of a project that was trained for two epochs: in segments of (last epoch, with our callbacks)."""
    logger, checkpoint = Rows(), None
    pl.seed_everything(5)
    for last, with_ours in segments:
        torch.manual_seed(5)
        module = project.module()
        callbacks = [RandomStates(), *(project.callbacks() if with_ours else [])]
        run = trainer(folder, callbacks, max_epochs=last, logger=logger, log_every_n_steps=1)
        run.fit(module, *project.loaders(), ckpt_path=checkpoint)
        checkpoint = folder / f"{last}.ckpt"
        run.save_checkpoint(checkpoint)
        if with_ours:
            assert {name.split("/")[0] + "/" for name in run.callback_metrics if "/" in name} == set(OURS)
            assert len(list((folder / "pictures").iterdir())) >= 3
    state = {
        "weights": module.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "logged": logger.rows,
        "random": RandomStates().state_dict(),
        "modes": [part.training for part in module.modules()],
        "hooks": [len(part._forward_hooks) for part in module.modules()],
    }
    return apply_to_collection(state, torch.Tensor, torch.Tensor.tolist)


@pytest.fixture(scope="module", params=PROJECTS)
def project_and_state(request, tmp_path_factory):
    project = PROJECTS[request.param]
    return project, fit(project, tmp_path_factory.mktemp("plain"), [(2, False)])


@pytest.mark.parametrize(
    "segments",
    [[(2, True)], [(1, True), (2, False)], [(1, False), (2, True)], [(1, True), (2, True)]],
    ids=["attached", "attached, then not", "attached later", "attached, and again"],
)
def test_a_project_with_all_callbacks_is_that_without(tmp_path, project_and_state, segments):
    project, expected = project_and_state
    found = fit(project, tmp_path, segments)
    assert len(expected["logged"]) >= 8  # a row a step
    assert found.keys() == expected.keys()
    for part in expected:
        assert found[part] == expected[part], part
