"""Two processes give the gradient of one, and the same training, also on two nodes that torchrun starts."""

from pathlib import Path

import pytest
import torch
from conformance import nodes
from conformance.cases import CASES, fixed_views
from lightning.pytorch import seed_everything
from processes import run_in_a_process, run_in_processes, run_on_nodes
from torch import nn

IMAGES = 6


def gradient(index, block, rows):
    """Return loss and gradient for some of the images, in float64, with batch norm in eval mode."""
    case = CASES[index]
    seed_everything(0)
    module = case.build(anchor_block=block).double()
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.eval()
    views = [view[rows] for view in fixed_views(case, IMAGES, torch.float64)]
    loss = module.training_step((views, None), 0)["loss"]
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def gradients_of_a_process(rank, settings):
    half = IMAGES // 2
    return [gradient(index, block, slice(half * rank, half * (rank + 1))) for index, block in settings]


@pytest.fixture(scope="module")
def of_two_processes():
    settings = [(index, block) for index in range(len(CASES)) for block in (0, 2)]
    return dict(zip(settings, zip(*run_in_processes(gradients_of_a_process, settings), strict=True), strict=True))


@pytest.mark.parametrize("block", [0, 2])
@pytest.mark.parametrize("index", range(len(CASES)), ids=[str(case) for case in CASES])
def test_two_processes_give_the_gradient_of_one(of_two_processes, index, block):
    first, second = of_two_processes[index, block]
    mean = {name: (first[name] + second[name]) / 2 for name in first}
    torch.testing.assert_close(mean, gradient(index, 0, slice(None)), rtol=0, atol=1e-10)


@pytest.fixture(scope="module")
def of_two_nodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    for node in run_on_nodes(str(Path(nodes.__file__)), str(folder)):
        assert node.returncode == 0, node.stdout[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(nodes.NODES)]


@pytest.mark.slow
@pytest.mark.parametrize("setting", nodes.SETTINGS, ids=[f"{CASES[i]}-{norms}" for i, norms in nodes.SETTINGS])
def test_five_steps_on_two_nodes_equal_those_of_one_process(of_two_nodes, setting):
    (first, second), one = (result[setting] for result in of_two_nodes), nodes.train(setting)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, one, rtol=1e-6, atol=1e-9)
    # The test can fail, because gradients are far larger than the tolerance.
    assert max(values["momentum_buffer"].abs().max() for values in one["optimizer"].values()) > 1e-4


def of_a_notebook(setting):
    return nodes.train(setting, is_one=False, devices=2, strategy="ddp_notebook")["module"]


@pytest.mark.slow
def test_ddp_notebook_gives_the_weights_of_one_process():
    setting = (2, "fixed")
    notebook, one = run_in_a_process(of_a_notebook, setting), nodes.train(setting)["module"]
    torch.testing.assert_close(notebook, one, rtol=1e-6, atol=1e-9)
