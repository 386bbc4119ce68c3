import pytest
import torch
from extractions.queues import ids_of, queue, vectors
from processes import run_in_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ssl_modules.extractions import Queue
from ssl_modules.losses import SCELoss
from ssl_modules.objective import objective
from ssl_modules.similarities import Cosine

IMAGES = 6
SETTINGS = [
    {"size": size, "symmetric": symmetric, "keys_as_negatives": keys_as_negatives, "reference": True}
    for size, keys_as_negatives in ((16, False), (16, True), (0, True))
    for symmetric in (False, True)
]
CASES = [(settings, recurring) for settings in SETTINGS for recurring in (False, True)]


def two_steps(rows, settings, recurring):
    """Make two steps; return loss, gradient and queue after each.

    With ``recurring``, two videos occur twice in a batch, and all videos occur again in the second step.
    """
    weight = torch.eye(5, dtype=torch.float64).requires_grad_()
    extraction = queue(**settings)
    extraction.recurring_ids = recurring
    results = []
    for number in range(2):
        student = [z[rows] @ weight for z in vectors(2 if settings["symmetric"] else 1, IMAGES, seed=10 + number)]
        teacher = [z[rows] for z in vectors(2 if settings["symmetric"] else 1, IMAGES, seed=20 + number)]
        ids = ids_of(IMAGES) % 4 if recurring else ids_of(IMAGES, 100 * number)
        contrasts = extraction(student, teacher, ids[rows], None)
        loss = objective(contrasts, Cosine(), SCELoss(0.2, 0.1, 0.5), 2)
        [gradient] = torch.autograd.grad(loss, weight)
        extraction.after_backward()
        results.append((loss.detach(), gradient, *(buffer.clone() for _, buffer in extraction.named_buffers())))
    return results


def steps_of_a_process(rank):
    half = IMAGES // 2
    steps = [two_steps(slice(half * rank, half * (rank + 1)), *case) for case in CASES]
    return {"steps": steps, "buffers": buffers_after_a_step(rank)}


@pytest.fixture(scope="module")
def of_two_processes():
    return run_in_processes(steps_of_a_process)


def test_two_processes_are_one(of_two_processes):
    for case, *of_processes in zip(CASES, *(result["steps"] for result in of_two_processes), strict=True):
        for first, second, whole in zip(*of_processes, two_steps(slice(None), *case), strict=True):
            for x, y, expected in zip(first[:2], second[:2], whole[:2], strict=True):
                torch.testing.assert_close((x + y) / 2, expected, rtol=0, atol=1e-12)
            for x, y, expected in zip(first[2:], second[2:], whole[2:], strict=True):
                assert torch.equal(x, y)
                torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)


class Student(nn.Module):
    """A module with a queue for DDP. Only the queue's buffers are left out of the broadcast."""

    def __init__(self):
        super().__init__()
        self.extraction = queue()
        self.register_buffer("other", torch.zeros(1))
        names = Queue.replicated_buffers
        self._ddp_params_and_buffers_to_ignore = [f"extraction.{name}" for name in names]

    def forward(self, x, keys, ids):
        return self.extraction([self.extraction.heads((x,))], [keys], ids, None)[0].anchors.sum()


def buffers_after_a_step(rank):
    student = Student()
    wrapped = DistributedDataParallel(student)
    student.extraction.keys.fill_(rank)
    student.other.fill_(rank)
    x, keys = vectors(1, 4, dim=6)[0][..., None], vectors(1, 4)[0]
    wrapped(x, keys, ids_of(4)).backward()
    return student.extraction.keys.unique(), student.other


def test_the_queue_is_left_out_of_the_broadcast_of_buffers(of_two_processes):
    keys, other = zip(*(result["buffers"] for result in of_two_processes), strict=True)
    assert [x.tolist() for x in keys] == [[0], [1]]
    assert [x.tolist() for x in other] == [[0], [0]]  # DDP's default: broadcast from rank 0
