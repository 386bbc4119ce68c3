import logging
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # tests import their helpers from here, also in spawned processes
from processes import THREADS

# Lightning's log messages reach pytest only if the root logger has a handler when Lightning is imported.
logging.getLogger().addHandler(logging.NullHandler())
torch.set_num_threads(THREADS)  # 1 by default: tensors are small, and tests run in parallel
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 1.0  # notice dead workers after one second


@pytest.hookimpl(optionalhook=True)  # pytest-xdist is missing in the bolts environment
def pytest_xdist_auto_num_workers(config):
    """Use no workers for single files: these finish before a second process has imported torch."""
    return 0 if all(Path(argument.partition("::")[0]).is_file() for argument in config.args) else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Run slow tests first, so that no process has to wait for a slow one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
