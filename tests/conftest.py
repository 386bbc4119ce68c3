import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # helpers of the tests, also in spawned processes
from processes import THREADS

torch.set_num_threads(THREADS)  # 1, or TORCH_THREADS: tensors are small, and test processes run beside each other
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 1.0  # a loader waits so long for its workers after one has died


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which the bolts environment doesn't have
def pytest_xdist_auto_num_workers(config):
    """None where single files are given: they are run before a second process has imported torch."""
    return 0 if all(Path(argument.partition("::")[0]).is_file() for argument in config.args) else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """The slow tests come first, so that no process waits for another's at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
