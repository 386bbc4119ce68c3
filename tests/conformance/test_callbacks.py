"""All public callbacks in projects of others: they change nothing, resume, and give one value in two processes.

A new callback joins with one entry in CASES.
"""

import inspect
import os
import pydoc
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.fabric.utilities.apply_func import apply_to_collection
from PIL import Image
from processes import run_in_processes
from strangers import (
    IMAGES,
    NAMESPACES,
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
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ssl_modules import callbacks
from ssl_modules.callbacks import (
    CollapseMonitor,
    EmbeddingPlot,
    NeighbourGrid,
    OnlineKNNProbe,
    OnlineLinearProbe,
    OnlineProbe,
    OnlineRetrieval,
    OnlineSGDProbe,
    OutOfDistributionProbe,
    ViewGrid,
)
from ssl_modules.callbacks.pictures import _rendered


def flips(images, generator):
    return [images.flip(3), images + torch.rand(1)]  # not from the generator


@dataclass(frozen=True)
class Project:
    """What others have, and what our callbacks must be told of it."""

    module: Callable[[], Any]
    loaders: Callable[[], list[Any]]  # of the Trainer
    features: str
    data: Callable[[], dict[str, Any]] = dict  # of the probes; none: the Trainer's loaders
    prepare: Callable[[Any], Any] | None = None
    outliers: Any = field(default_factory=lambda: [IMAGES[600:700].flip(2)])
    augmentation: Callable[[Any, Any], list[Any]] | None = flips
    namespace: str = NAMESPACES[0]

    def probe(self) -> dict[str, Any]:
        """The arguments of every probe."""
        return {**self.data(), "features": self.features, "prepare": self.prepare, "bank_size": 200}


class NearestMeans(OnlineProbe):
    """A probe of one's own."""

    def measure(self, module, trainer):
        bank, labels = self.read("train", module, trainer)
        queries, targets = self.read("test", module, trainer)
        means = torch.stack([bank[labels == label].mean(dim=0) for label in range(10)])
        return {"mean_top1": (torch.cdist(queries, means).argmin(dim=1) == targets).double().mean().item()}


@dataclass(frozen=True)
class Case:
    """A callback, and what it gives in one process: metrics by name, or a figure."""

    make: Callable[[Project], pl.Callback]
    alone: Callable[[Any, nn.Module, "TwoProcesses"], Any] = lambda probe, module, run: probe.evaluate(module)


CASES = {
    OnlineProbe: Case(lambda project: NearestMeans(**project.probe())),
    OnlineKNNProbe: Case(lambda project: OnlineKNNProbe(**project.probe())),
    OnlineLinearProbe: Case(lambda project: OnlineLinearProbe(**project.probe())),
    OnlineSGDProbe: Case(lambda project: OnlineSGDProbe(**project.probe(), num_classes=10)),
    OnlineRetrieval: Case(lambda project: OnlineRetrieval(**project.probe())),
    OutOfDistributionProbe: Case(lambda project: OutOfDistributionProbe(**project.probe(), outliers=project.outliers)),
    EmbeddingPlot: Case(lambda project: EmbeddingPlot(**project.probe()), lambda plot, module, run: plot.draw(module)),
    NeighbourGrid: Case(
        lambda project: NeighbourGrid(**project.probe(), queries=2, k=2), lambda grid, module, run: grid.draw(module)
    ),
    CollapseMonitor: Case(
        lambda project: CollapseMonitor(features=project.features, size=201),
        # 101 features of each process, in turns; the oldest is one too many.
        lambda monitor, module, run: monitor.measure(
            torch.stack([x[-101:] for x in run.features], 1).flatten(0, 1)[1:]
        ),
    ),
    ViewGrid: Case(
        lambda project: ViewGrid(augmentation=project.augmentation, prepare=project.prepare, images=2),
        lambda grid, module, run: grid.draw(module, run.batch),
    ),
}


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


# ------------------------------------------------------------------------------------------- the projects of others


def frozen():
    """With a batch norm in eval mode while the rest trains."""
    module = stranger()
    module.encoder[1].eval()
    return module


def dicts(part, shuffle=False):
    data = [{"image": image, "label": label} for image, label in zip(IMAGES[part], TARGETS[part], strict=True)]
    return DataLoader(data, batch_size=32, shuffle=shuffle)


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
}


class Rows(pl.loggers.logger.Logger):
    """What is logged, by step."""

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
    """Lets a run go on with the random numbers of its checkpoint, as a project must that resumes to the bit."""

    def state_dict(self):
        name, keys, *rest = np.random.get_state()  # noqa: NPY002
        return {"torch": torch.get_rng_state(), "numpy": [name, keys.tolist(), *rest], "random": random.getstate()}

    def load_state_dict(self, state_dict):
        torch.set_rng_state(state_dict["torch"])
        np.random.set_state(tuple(state_dict["numpy"]))  # noqa: NPY002
        random.setstate(state_dict["random"])


@dataclass(frozen=True)
class Run:
    """What a run has come to."""

    project: dict[str, Any]  # all that is not ours
    states: list[Any]  # of our callbacks
    metrics: dict[str, float]  # of our callbacks
    pictures: dict[str, bytes]


def fit(project, folder, segments, cases=CASES):
    """A project that is trained for two epochs, in segments of (last epoch, with our callbacks)."""
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
    """The projects without our callbacks, each trained once."""
    runs = {}

    def of(name):
        if name not in runs:
            runs[name] = fit(PROJECTS[name], tmp_path_factory.mktemp("plain"), [(2, False)])
            assert len(runs[name].project["logged"]) >= 8  # a row a step
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


# --------------------------------------------------------------------------------------------------- two processes


class Supervised(pl.LightningModule):
    """Keeps its first batch, and the features of all."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
        self.head = nn.Linear(16, 10)
        self.batch, self.seen = None, []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(images))

    def training_step(self, batch, batch_idx):
        self.batch = batch if self.batch is None else self.batch
        features = self.encoder(batch[0])
        self.seen.append(features.detach())
        return nn.functional.cross_entropy(self.head(features), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


def labelled(start, stop, **options):
    return DataLoader(TensorDataset(IMAGES[start:stop], TARGETS[start:stop]), **options)


# Neither the batches nor the samples divide by 2.
SHARED = Project(
    Supervised,
    lambda: [labelled(0, 331, batch_size=32, shuffle=True)],
    "encoder",
    lambda: {"train": labelled(0, 331, batch_size=32, shuffle=True), "test": labelled(500, 705, batch_size=50)},
    outliers=DataLoader(IMAGES[800:905].roll(1, dims=3), batch_size=33),
    augmentation=lambda images, generator: [images.flip(3)],
)
# Plain iterables; the test set is one batch, so that one process has none.
STREAMS = {"train": list(labelled(0, 331, batch_size=33)), "test": list(labelled(500, 705, batch_size=205))}
IN_TWO = {
    **{cls.__name__: case for cls, case in CASES.items()},
    "streams": Case(lambda project: OnlineKNNProbe(**{**project.probe(), **STREAMS}, name="stream")),
}


@dataclass(frozen=True)
class TwoProcesses:
    """What two processes have come to, each a dict, and the pictures that they drew."""

    processes: list[dict[str, Any]]
    pictures: dict[str, np.ndarray]

    @property
    def features(self) -> list[torch.Tensor]:
        return [process["seen"] for process in self.processes]

    @property
    def batch(self) -> Any:
        return self.processes[0]["batch"]


def fit_in_a_process(rank, folder):
    os.environ["LOCAL_RANK"] = str(rank)
    ours = {name: case.make(SHARED) for name, case in IN_TWO.items()}
    pl.seed_everything(1)
    module = Supervised()
    run = trainer(folder, [*ours.values()], max_epochs=1, devices=2, strategy="ddp")
    run.fit(module, *SHARED.loaders())
    return {
        "metrics": {name: value.item() for name, value in run.callback_metrics.items()},
        "states": {name: callback.state_dict() for name, callback in ours.items()},
        "module": module.state_dict(),
        "seen": torch.cat(module.seen),
        "batch": module.batch,
    }


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    processes = run_in_processes(fit_in_a_process, str(folder))
    return TwoProcesses(
        processes, {file.name: np.asarray(Image.open(file)) for file in (folder / "pictures").glob("*.png")}
    )


@pytest.mark.parametrize("name", IN_TWO)
def test_two_processes_give_the_values_of_one(two_processes, name):
    first, second = two_processes.processes
    plain = [apply_to_collection(x["states"][name], torch.Tensor, torch.Tensor.tolist) for x in (first, second)]
    assert plain[0] == plain[1]
    assert first["metrics"] == second["metrics"]

    module = Supervised()
    module.load_state_dict(first["module"])
    callback = IN_TWO[name].make(SHARED)
    callback.load_state_dict(first["states"][name])
    expected = IN_TWO[name].alone(callback, module, two_processes)
    if isinstance(expected, dict):
        assert expected
        for metric, value in expected.items():
            assert first["metrics"][metric] == np.float32(value)  # the Trainer logs float32
    else:
        [picture] = [x for file, x in two_processes.pictures.items() if file.startswith(f"{callback.name}_")]
        np.testing.assert_array_equal(picture, _rendered(expected))


def test_the_features_of_two_processes_are_worth_something(two_processes):
    assert [len(x) for x in two_processes.features] == [166, 166]
    assert two_processes.processes[0]["metrics"]["probe/knn_top1"] > 0.5
    assert two_processes.processes[0]["states"]["OnlineSGDProbe"]["head"]["weight"].abs().max() > 0
