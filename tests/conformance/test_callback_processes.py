"""Each public callback gives the same result in two processes as in one."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from conformance.callbacks import CASES, Case, Project
from lightning.fabric.utilities.apply_func import apply_to_collection
from PIL import Image
from processes import run_in_processes
from strangers import (
    IMAGES,
    TARGETS,
    pl,
    trainer,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ssl_modules.callbacks import (
    OnlineKNNProbe,
)
from ssl_modules.callbacks.pictures import _rendered


class Supervised(pl.LightningModule):
    """Keeps its first batch, and the features of all batches."""

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


# The numbers of samples are odd, so they can't be divided equally between two processes.
SHARED = Project(
    Supervised,
    lambda: [labelled(0, 331, batch_size=32, shuffle=True)],
    "encoder",
    lambda: {"train": labelled(0, 331, batch_size=32, shuffle=True), "test": labelled(500, 705, batch_size=50)},
    outliers=DataLoader(IMAGES[800:905].roll(1, dims=3), batch_size=33),
    augmentation=lambda images, generator: [images.flip(3)],
)


# Plain iterables. The test set is one batch, so one process has no test samples.
STREAMS = {"train": list(labelled(0, 331, batch_size=33)), "test": list(labelled(500, 705, batch_size=205))}


IN_TWO = {
    **{cls.__name__: case for cls, case in CASES.items()},
    "streams": Case(lambda project: OnlineKNNProbe(**{**project.probe(), **STREAMS}, name="stream")),
}


@dataclass(frozen=True)
class TwoProcesses:
    """The results of two processes, a dict for each, and the pictures that they drew."""

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
