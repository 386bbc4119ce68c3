from functools import partial
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch
from conformance.cases import digits, trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from modules import Net, fit, loader
from processes import run_in_processes
from torch.nn.functional import normalize

from ssl_modules import SimCLR, SwAV
from ssl_modules.augmentations import SwAVViews
from ssl_modules.extractions import Prototypes
from ssl_modules.extractions.prototypes import sinkhorn
from ssl_modules.losses import AssignmentLoss, InfoNCE
from ssl_modules.objective import chance_level, objective
from ssl_modules.optim import Constant
from ssl_modules.similarities import Cosine, Dot

REFERENCE = Path(__file__).parents[1] / "reference"


def build(number=5, dim=8, **given):
    extraction = Prototypes(4, dim, prototypes=number, **given)
    extraction.build(out_channels=(6,))
    return extraction.double()


def vectors(views, images, dim=8, seed=1):
    g = torch.Generator().manual_seed(seed)
    return list(torch.randn(views, images, dim, generator=g, dtype=torch.float64))


def ids_of(images):
    return torch.arange(images)[:, None]


# ---- the official code -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [0, 1, 3, None])
@pytest.mark.parametrize("name", ["swav_two_views", "swav_multi_crop_queue"])
def test_steps_equal_those_of_the_official_code(name, block):
    v = np.load(REFERENCE / f"{name}.npz")
    steps, rows, dim = v["embeddings"].shape
    images, queue = v["targets"].shape[2], v["queue_after"].shape[2] if v["queue_after"].ndim == 4 else 0
    extraction = build(len(v["prototypes_before"]), dim, queue=queue)
    extraction.prototypes.data = torch.tensor(v["prototypes_before"])
    for step in range(steps):
        extraction.before_step(step)
        z = torch.tensor(v["embeddings"][step], requires_grad=True)
        extraction.prototypes.grad = None
        contrasts = extraction(z.split(images), None, ids_of(images), None)
        for contrast, targets in zip(contrasts, v["targets"][step], strict=True):
            found = contrast.reference(slice(None)).softmax(dim=1)
            expected = np.tile(targets, (rows // images - 1, 1))
            np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)
        loss = objective(contrasts, Dot(), AssignmentLoss(0.1), block)
        loss.backward()
        assert loss.item() == pytest.approx(v["loss"][step], abs=1e-12)
        np.testing.assert_allclose(z.grad.numpy(), v["grad_embeddings"][step], rtol=0, atol=1e-12)
        np.testing.assert_allclose(extraction.prototypes.grad.numpy(), v["grad_prototypes"][step], rtol=0, atol=1e-12)
        extraction.after_backward()
        if queue:
            np.testing.assert_allclose(extraction.older.numpy(), v["queue_after"][step], rtol=0, atol=1e-12)


# ---- the assignment --------------------------------------------------------------------------------------------------


def slow_assignment(scores, iterations):
    """Scale columns and rows of exp(scores) in turn, one number at a time."""
    q = [[exp(s) for s in row] for row in scores.tolist()]
    for _ in range(iterations):
        for k in range(len(q[0])):
            total = sum(row[k] for row in q)
            for row in q:
                row[k] /= total
        q = [[x / sum(row) for x in row] for row in q]
    return torch.tensor(q, dtype=torch.float64)


def assignment(scores, iterations=3, others=None):
    return (scores + sinkhorn(scores, iterations, others)).softmax(dim=1)


@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_the_assignment_equals_scaling_rows_and_columns_in_turn(iterations):
    scores = 5 * vectors(1, 7)[0]
    expected = slow_assignment(scores, iterations)
    torch.testing.assert_close(assignment(scores, iterations), expected, rtol=0, atol=1e-12)
    found = assignment(scores[:3], iterations, others=scores[3:])
    torch.testing.assert_close(found, expected[:3], rtol=0, atol=1e-12)


def test_many_iterations_give_all_prototypes_the_same_number_of_rows():
    found = assignment(5 * vectors(1, 12)[0], 300)
    torch.testing.assert_close(found.sum(dim=0), torch.full((8,), 1.5, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(12, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_assignment_has_the_symmetries_of_its_equations():
    scores, order = vectors(1, 6)[0], torch.tensor([3, 1, 5, 0, 2, 4])
    found = assignment(scores)
    torch.testing.assert_close(assignment(scores[order]), found[order], rtol=0, atol=1e-12)
    columns = torch.tensor([7, 1, 5, 0, 2, 4, 6, 3])
    torch.testing.assert_close(assignment(scores[:, columns]), found[:, columns], rtol=0, atol=1e-12)
    torch.testing.assert_close(assignment(scores.repeat(3, 1)), found.repeat(3, 1), rtol=0, atol=1e-12)
    shifted = scores + torch.arange(8)  # adding a number to a column changes only its offset
    torch.testing.assert_close(assignment(shifted), found, rtol=0, atol=1e-12)


def test_the_assignment_cannot_overflow():
    scores = vectors(1, 6)[0].float() * 1e4
    assert assignment(scores).isfinite().all()


# ---- contrasts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("views", "assigned"), [(2, 1), (2, 2), (5, 2), (3, 3)])
def test_no_view_is_compared_with_its_own_assignment(views, assigned):
    student = vectors(views, 6)
    extraction = build(assigned=assigned)
    contrasts = extraction(student, None, ids_of(6), None)
    assert [c.weight for c in contrasts] == [1 / assigned] * assigned
    for i, c in enumerate(contrasts):
        others = [normalize(z, dim=1) for v, z in enumerate(student) if v != i]
        torch.testing.assert_close(c.anchors, torch.cat(others), rtol=0, atol=1e-12)
        assert c.candidates is extraction.prototypes
        scores = normalize(student[i], dim=1) @ extraction.prototypes.detach().T / 0.05
        found = c.reference(slice(None)).softmax(dim=1)
        torch.testing.assert_close(found, assignment(scores).repeat(views - 1, 1), rtol=0, atol=1e-12)
        assert not found.requires_grad
        assert torch.equal(c.relation[:].argmax(dim=1), found.argmax(dim=1))
        rows = torch.tensor([4, 0])
        assert torch.equal(c.reference(rows), c.reference(slice(None))[rows])


def test_equal_images_give_the_loss_of_chance():
    student = [torch.ones(6, 8, dtype=torch.float64)] * 2
    contrasts = build()(student, None, ids_of(6), None)
    loss = AssignmentLoss(1e3)
    assert objective(contrasts, Dot(), loss).item() == pytest.approx(log(5), abs=1e-5)
    assert chance_level(contrasts, loss).item() == pytest.approx(log(5), abs=1e-6)
    assert chance_level(contrasts, InfoNCE(0.1)).item() == pytest.approx(log(5), abs=1e-6)


def test_prototypes_are_unit_vectors_and_evaluation_changes_nothing():
    extraction = build(queue=12)
    extraction.prototypes.data *= 3
    before = {name: x.clone() for name, x in extraction.state_dict().items()}
    extraction.eval()
    [contrast, _] = extraction(vectors(2, 6), None, ids_of(6), None)
    extraction.after_backward()
    torch.testing.assert_close(contrast.candidates.norm(dim=1), torch.ones(5, dtype=torch.float64))
    with torch.no_grad():
        extraction.train()(vectors(2, 6), None, ids_of(6), None)
        extraction.after_backward()
    for name, x in extraction.state_dict().items():
        assert torch.equal(x, before[name]), name
    extraction(vectors(2, 6), None, ids_of(6), None)
    torch.testing.assert_close(extraction.prototypes.norm(dim=1), torch.ones(5, dtype=torch.float64))


# ---- queue -----------------------------------------------------------------------------------------------------------


def test_the_queue_has_the_newest_embeddings_first_and_is_used_once_full():
    extraction, older = build(queue=10, queue_after=1), [[], []]
    for step in range(5):
        extraction.before_step(step)
        student = vectors(3, 4, seed=step)
        contrasts = extraction(student, None, ids_of(4), None)
        for i, c in enumerate(contrasts):
            known = torch.cat([normalize(student[i], dim=1), *older[i]])[: 4 + 10]
            rows = known if len(known) == 14 else known[:4]
            expected = assignment(rows @ extraction.prototypes.detach().T / 0.05)[:4]
            torch.testing.assert_close(c.reference(slice(0, 4)).softmax(dim=1), expected, rtol=0, atol=1e-12)
        extraction.after_backward()
        if step >= 1:  # the queue starts after queue_after steps
            for i in range(2):
                older[i].insert(0, normalize(student[i], dim=1))
        assert extraction.filled == min(10, 4 * step)
    torch.testing.assert_close(extraction.older[1], torch.cat(older[1])[:10], rtol=0, atol=1e-12)


def test_a_run_resumed_while_the_queue_fills_is_bitwise_the_same(tmp_path):
    def run(**given):
        seed_everything(0)
        module = swav(channels=1, queue=40, queue_after=1, frozen_steps=4)
        save = ModelCheckpoint(tmp_path, "{step}", auto_insert_metric_name=False, every_n_train_steps=1, save_top_k=-1)
        trainer(max_epochs=2, callbacks=[save], enable_checkpointing=True).fit(module, datamodule=digits(), **given)
        return module.state_dict()

    whole = run()
    kept = tmp_path / "3.ckpt"
    assert torch.load(kept)["state_dict"]["extraction.filled"] == 16
    assert whole["extraction.filled"] == 40
    torch.testing.assert_close(run(ckpt_path=kept), whole, rtol=0, atol=0)


# ---- frozen prototypes -----------------------------------------------------------------------------------------------


def swav(method=SwAV, channels=3, **given):
    views = SwAVViews(8, 2, 1, 6, blur=False)
    extraction = Prototypes(8, 8, prototypes=4, **given)
    sgd = partial(torch.optim.SGD, lr=0.1, weight_decay=0.5, momentum=0.9)
    recipe = {"optimizer": sgd, "schedule": Constant(), "base_batch_size": None}
    return method(views, Net(channels), extraction, image_size=8, in_channels=channels, **recipe)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("frozen", [3, 0.75])
def test_prototypes_are_frozen_for_the_given_number_of_optimiser_steps(accumulate, frozen):
    module = swav(frozen_steps=frozen)
    seen = []

    class Watched(SwAV):
        def optimizer_step(self, *arguments, **named):
            before = self.extraction.prototypes.clone()
            super().optimizer_step(*arguments, **named)
            seen.append(torch.equal(before, self.extraction.prototypes))

    fit(Watched(**module.arguments), max_steps=4, max_epochs=-1, accumulate_grad_batches=accumulate)
    assert seen == [True, True, True, False]


def test_a_freeze_or_a_queue_beyond_the_run_is_reported():
    with pytest.warns(UserWarning, match="frozen_steps: got 9, but the run ends after 2 steps"):
        fit(swav(frozen_steps=9), max_steps=2)
    with pytest.warns(UserWarning, match="queue_after: got 2, but the run ends after 2 steps"):
        fit(swav(queue=8, queue_after=2), max_steps=2)
    with pytest.raises(ValueError, match=r"frozen_steps: 0.5 is a share of the run, but its length is unknown"):
        swav(frozen_steps=0.5).extraction.on_fit_start(None, -1, float("inf"))


# ---- processes, precision, swaps -------------------------------------------------------------------------------------

IMAGES = 6


def three_steps(parts):
    """Make three steps with these images and a queue; return loss, gradients and queue after each step."""
    torch.manual_seed(0)
    extraction, weight = build(queue=13), torch.eye(8, dtype=torch.float64).requires_grad_()
    results = []
    for step, rows in enumerate(parts):
        extraction.before_step(step)
        student = [z[rows] @ weight for z in vectors(3, IMAGES, seed=step)]
        contrasts = extraction(student, None, ids_of(len(student[0])), None)
        loss = objective(contrasts, Dot(), AssignmentLoss(0.1), 2)
        gradients = torch.autograd.grad(loss, (weight, extraction.prototypes))
        if step < 3:
            extraction.after_backward()
        results.append((loss.detach(), *gradients, *(b.clone() for b in extraction.buffers())))
    return results


HALVES = [[slice(0, 3), slice(3, 6)]] * 3


def of_a_process(rank):
    uneven = [slice(0, 4), slice(4, 6)][rank]
    return three_steps([halves[rank] for halves in HALVES] + [uneven])


def test_two_processes_equal_one_also_with_uneven_batches():
    first, second = run_in_processes(of_a_process)
    for x, y, expected in zip(first, second, three_steps([slice(None)] * 4), strict=True):
        for a, b, whole in zip(x[:3], y[:3], expected[:3], strict=True):
            torch.testing.assert_close((a + b) / 2, whole, rtol=0, atol=1e-12)
        for a, b, whole in zip(x[3:], y[3:], expected[3:], strict=True):
            assert torch.equal(a, b)
            torch.testing.assert_close(a, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "bf16-mixed"])
def test_half_precision_is_finite_with_a_hard_assignment(precision):
    module = swav(epsilon=0.01, queue=8)
    t = trainer(max_steps=3, precision=precision)
    t.fit(module, loader(batch_size=4, n=16))
    assert all(x.isfinite().all() for x in module.state_dict().values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeddings_are_assigned_in_full_precision(dtype):
    student = [z.to(dtype) for z in vectors(2, 6)]
    extraction = build(epsilon=0.01).to(dtype)
    [contrast, _] = extraction.eval()(student, None, ids_of(6), None)
    assert contrast.reference(slice(None)).dtype == torch.float32
    full = extraction.double()([z.double() for z in student], None, ids_of(6), None)[0]
    found, expected = (c.reference(slice(None)).softmax(dim=1).double() for c in (contrast, full))
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-2 if dtype == torch.float16 else 0.3)
    assert objective([contrast], Dot(), AssignmentLoss(0.1)).isfinite()


@pytest.mark.parametrize(
    "given",
    [{"loss": InfoNCE(0.1)}, {"similarity": Cosine()}, {"method": SimCLR, "loss": AssignmentLoss()}],
    ids=["hard codes", "cosine", "in SimCLR"],
)
def test_its_aspects_can_be_swapped(given):
    method = given.pop("method", SwAV)
    module = method(**{**swav(method=method, **{}).arguments, **given})
    t = fit(module, max_steps=2)
    assert t.callback_metrics["train/loss"].isfinite()
    assert t.callback_metrics["train/chance"].item() == pytest.approx(log(4), rel=1e-5)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prototypes": 1}, "prototypes: expected a number of at least 2, got 1"),
        ({"epsilon": 0.0}, r"epsilon: expected a positive number, got 0.0"),
        ({"iterations": 0}, "iterations: expected a number of at least 1, got 0"),
        ({"assigned": 0}, "assigned: expected a number of at least 1, got 0"),
        ({"queue": -1}, "queue: expected a number of at least 0, got -1"),
        ({"frozen_steps": 1.5}, r"frozen_steps: expected a number in \[0, 1\], got 1.5"),
    ],
)
def test_arguments_outside_their_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Prototypes(**arguments)


def test_views_and_batches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="assigned: expected at most the 2 views there are, got 3"):
        build(assigned=3)(vectors(2, 4), None, ids_of(4), None)
    with pytest.raises(ValueError, match="views: expected at least 2 per image, got 1"):
        build()(vectors(1, 4), None, ids_of(4), None)
    with pytest.raises(ValueError, match="a queue of 5 can't take the 6 embeddings of a batch; give it 6 or more"):
        build(queue=5)(vectors(2, 6), None, ids_of(6), None)
