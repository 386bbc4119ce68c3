"""All public callbacks in other people's projects: they change nothing, and resume."""

import inspect
import pydoc
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from conformance.callbacks import CASES, Project
from jsonargparse import ArgumentParser
from lightning.fabric.utilities.apply_func import apply_to_collection
from strangers import (
    IMAGES,
    NAMESPACES,
    TARGETS,
    TEST,
    TRAIN,
    BackboneAndHead,
    Prototypes,
    Transformer,
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

from ssl_modules import callbacks
from ssl_modules.callbacks import (
    OnlineProbe,
)


def test_every_public_callback_has_an_entry():
    public = {getattr(callbacks, name) for name in callbacks.__all__}
    assert {cls for cls in public if issubclass(cls, pl.Callback)} == {*CASES}


@pytest.mark.parametrize("cls", CASES)
def test_the_entry_makes_the_callback(cls):
    assert isinstance(CASES[cls].make(PROJECTS["supervised"]), cls)


@pytest.mark.parametrize("cls", [cls for cls in CASES if issubclass(cls, OnlineProbe)])
def test_a_probe_shows_and_takes_the_whole_list_of_arguments(cls):
    parameters = inspect.signature(cls).parameters
    shared = inspect.signature(OnlineProbe).parameters
    assert parameters.keys() >= shared.keys()
    assert all(parameters[name].default == shared[name].default for name in shared if name != "name")
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())
    assert f"bank_size: int | None = {shared['bank_size'].default}" in pydoc.render_doc(cls, renderer=pydoc.plaintext)

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "it")
    options = {action.dest.removeprefix("it."): action.help for action in parser._actions if "it." in action.dest}
    assert {name for name in options if "." not in name} == {*parameters}
    assert all(options[name] for name in parameters)  # each is documented


def frozen():
    """Return a module in training mode that has one batch norm in eval mode."""
    module = stranger()
    module.encoder[1].eval()
    return module


def dicts(part, shuffle=False):
    data = [{"image": image, "label": label} for image, label in zip(IMAGES[part], TARGETS[part], strict=True)]
    return DataLoader(data, batch_size=32, shuffle=shuffle)


def rows(part, form):
    """Return a loader whose samples are ``form(image, label)``."""
    data = [form(image, label) for image, label in zip(IMAGES[part], TARGETS[part], strict=True)]
    return DataLoader(data, batch_size=32, shuffle=True)


def named_rows(part):
    return rows(part, lambda image, label: {"pixel_values": image, "labels": label})


PROJECTS = {
    "supervised": Project(lambda: stranger(validates=True), lambda: [train_loader(), test_loader()], "encoder"),
    "pytorch_lightning": Project(
        lambda: stranger(NAMESPACES[1], validates=True),
        lambda: [train_loader(), test_loader()],
        "encoder",
        namespace=NAMESPACES[1],
    ),
    "frozen": Project(frozen, lambda: [train_loader()], "encoder", own),
    "two optimisers": Project(
        TwoOptimizers,
        lambda: [dicts(slice(128), shuffle=True)],
        "body",
        data=lambda: {"train": dicts(slice(128, 400)), "test": dicts(slice(400, 500))},
        prepare=lambda batch: (batch["image"], batch["label"]),
        outliers=list(dicts(slice(600, 700))),
    ),
    "lightly": Project(
        BackboneAndHead,
        lambda: [DataLoader(TwoViews(), batch_size=32, shuffle=True)],
        "backbone",
        own,
        augmentation=None,  # the loader makes the views
    ),
    "without a forward": Project(
        Prototypes,
        lambda: [
            rows(slice(128), lambda image, label: {"views": torch.stack([image, image.roll(1, 2)]), "label": label})
        ],
        "backbone",
        data=lambda: {"train": TRAIN, "test": list(TEST)},  # data sets
        outliers=[{"pixel_values": IMAGES[600:700]}],
        augmentation=None,
        monitored={"key": "embedding"},
        read_views=lambda batch: (list(batch["views"].unbind(1)), batch["label"]),
    ),
    "transformer": Project(
        Transformer,
        lambda: [named_rows(slice(128)), [named_rows(slice(128, 160)), named_rows(slice(160, 192))]],
        lambda module, images: module.tokens(images).last_hidden_state.mean(1),
        data=lambda: {"train": named_rows(slice(128, 400)), "test": named_rows(slice(400, 500)).dataset},
        monitored={"features": "head"},
    ),
}


class Rows(pl.loggers.logger.Logger):
    """Keeps the logged values of each step."""

    name, version = "rows", 0

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        kept = {name: value for name, value in metrics.items() if name != "epoch" and "/" not in name}
        self.rows += [(step, kept)] if kept else []

    def log_hyperparams(self, *arguments, **options):
        pass


class RandomStates(pl.Callback):
    """Saves and restores the random states. Without this, a resumed run would draw other numbers."""

    def state_dict(self):
        name, keys, *rest = np.random.get_state()  # noqa: NPY002
        return {"torch": torch.get_rng_state(), "numpy": [name, keys.tolist(), *rest], "random": random.getstate()}

    def load_state_dict(self, state_dict):
        torch.set_rng_state(state_dict["torch"])
        np.random.set_state(tuple(state_dict["numpy"]))  # noqa: NPY002
        random.setstate(state_dict["random"])


@dataclass(frozen=True)
class Run:
    """The results of a run."""

    project: dict[str, Any]  # state of the run, without our callbacks
    states: list[Any]  # states of our callbacks
    metrics: dict[str, float]  # metrics of our callbacks
    pictures: dict[str, bytes]


def fit(project, folder, segments, cases=CASES):
    """Train a project and return the results. A segment is (last epoch, whether our callbacks are used)."""
    logger, checkpoint = Rows(), None
    pl.seed_everything(5)
    for last, with_ours in segments:
        torch.manual_seed(5)
        module = project.module()
        ours = [CASES[cls].make(project) for cls in cases] if with_ours else []
        run = trainer(
            folder, [RandomStates(), *ours], project.namespace, max_epochs=last, logger=logger, log_every_n_steps=1
        )
        run.fit(module, *project.loaders(), ckpt_path=checkpoint)
        checkpoint = folder / f"{last}.ckpt"
        run.save_checkpoint(checkpoint)
    state = {
        "weights": module.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "logged": logger.rows,
        "random": RandomStates().state_dict(),
        "modes": [part.training for part in module.modules()],
        "hooks": [len(part._forward_hooks) for part in module.modules()],
    }
    return Run(
        apply_to_collection(state, torch.Tensor, torch.Tensor.tolist),
        apply_to_collection([callback.state_dict() for callback in ours], torch.Tensor, torch.Tensor.tolist),
        {name: value.item() for name, value in run.callback_metrics.items() if "/" in name},
        {file.name: file.read_bytes() for file in folder.glob("pictures/*.png")},
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Return a function that trains a project without our callbacks, once, and returns the results."""
    runs = {}

    def of(name):
        if name not in runs:
            runs[name] = fit(PROJECTS[name], tmp_path_factory.mktemp("plain"), [(2, False)])
            assert len(runs[name].project["logged"]) >= 8  # one row for each step
        return runs[name].project

    return of


def check_equal(found, expected):
    assert found.keys() == expected.keys()
    for part in expected:
        assert found[part] == expected[part], part


@pytest.mark.parametrize("name", ["supervised", "pytorch_lightning"])
@pytest.mark.parametrize("cls", CASES)
def test_a_callback_changes_nothing_and_resumes(tmp_path, plain, cls, name):
    whole = fit(PROJECTS[name], tmp_path / "whole", [(2, True)], [cls])
    check_equal(whole.project, plain(name))
    assert whole.metrics or whole.pictures

    resumed = fit(PROJECTS[name], tmp_path / "resumed", [(1, True), (2, True)], [cls])
    check_equal(resumed.project, plain(name))
    assert resumed.states == whole.states
    assert resumed.metrics == whole.metrics
    assert whole.pictures.items() <= resumed.pictures.items()  # views are drawn at the start of each fit


@pytest.mark.parametrize(
    "segments",
    [[(2, True)], [(1, True), (2, False)], [(1, False), (2, True)], [(1, True), (2, True)]],
    ids=["attached", "attached, then not", "attached later", "attached, and again"],
)
@pytest.mark.parametrize("name", PROJECTS)
def test_a_project_with_all_callbacks_is_that_without(tmp_path, plain, name, segments):
    found = fit(PROJECTS[name], tmp_path, segments)
    check_equal(found.project, plain(name))
    assert len(found.pictures) >= 3
    if segments[-1][1]:
        assert {metric.split("/")[0] for metric in found.metrics} == {"probe", "retrieval", "ood", "repr"}
