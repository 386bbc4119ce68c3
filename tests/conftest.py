import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))  # helpers of the tests, also in spawned processes
torch.set_num_threads(1)  # the tensors are small, and test processes run beside each other
