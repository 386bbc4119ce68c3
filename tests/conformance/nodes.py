"""Train every method for some steps and save the results. ``torchrun`` starts this program on each node.

``torchrun nodes.py FOLDER`` writes ``FOLDER/<rank>.pt``.
"""

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from conformance.cases import CASES, fixed_views, trainer
from lightning.pytorch import Callback, seed_everything
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ssl_modules.encoders import SplitBatchNorm2d
from ssl_modules.utils.distributed import rank, world_size

NODES, STEPS, IMAGES = 2, 5, 6  # images per step
NORMS = ("fixed", "own")  # batch norms in eval mode, or with statistics of each process's images
SETTINGS = [(index, norms) for index in range(len(CASES)) for norms in NORMS]


class Shares(Dataset):
    """The views of each step. Each process gets an equal share of the images."""

    def __init__(self, views: list[torch.Tensor]) -> None:
        self.views = views

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, step: int) -> tuple[list[torch.Tensor], None]:
        own = IMAGES // world_size()
        start = step * IMAGES + rank() * own
        return [view[start : start + own] for view in self.views], None


class Norms(Callback):
    """Seeds the run, and puts batch norms of the given classes in eval mode."""

    def __init__(self, kinds: tuple[type, ...]) -> None:
        self.kinds = kinds

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        seed_everything(0, verbose=False)  # the fit then draws its own seed

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        for module in pl_module.modules():
            if isinstance(module, self.kinds):
                module.eval()
            if isinstance(module, SplitBatchNorm2d):
                module.interleaved = False  # student and teacher split a batch into the same parts

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        assert trainer.global_step == STEPS


def train(setting: tuple[int, str], is_one: bool = True, **flags: Any) -> dict[str, Any]:
    """Train a case in float64 with SGD; return its weights, buffers and optimiser.

    Args:
        setting: one of SETTINGS.
        is_one: whether one process trains on all images, instead of several that share them.
        flags: further arguments of the Trainer.
    """
    index, norms = setting
    case = CASES[index]
    given: dict[str, Any] = {"optimizer": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9)}
    if norms == "own":
        # With one pass per view, each part holds the images of one process.
        given |= {"view_statistics": "each", "micro_batch": None}
        given |= {"batch_norm_splits": NODES if is_one else None}
        if "teacher_batch_norm_splits" in case.settings:
            given["teacher_batch_norm_splits"] = None
    seed_everything(0, verbose=False)
    module = case.build(**given).double()
    views = fixed_views(case, STEPS * IMAGES, torch.float64)
    kinds = (nn.modules.batchnorm._BatchNorm,) if norms == "fixed" else (nn.BatchNorm1d,)
    run = trainer(max_epochs=1, callbacks=[Norms(kinds)], use_distributed_sampler=False, **{"devices": 1, **flags})
    run.fit(module, DataLoader(Shares(views), batch_size=None))
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    state = {name: value for name, value in module.state_dict().items() if not name.endswith(statistics)}
    state.pop("extraction.ids", None)  # unique numbers, which depend on the number of processes
    optimizer = run.optimizers[0].state_dict()["state"] if run.optimizers else {}  # ddp_notebook has none after the fit
    return {"module": state, "optimizer": {str(number): values for number, values in optimizer.items()}}


if __name__ == "__main__":
    torch.set_num_threads(1)
    results = {setting: train(setting, is_one=False, num_nodes=NODES, strategy="ddp") for setting in SETTINGS}
    torch.save(results, Path(sys.argv[1], f"{rank()}.pt"))
