from pathlib import Path

import numpy as np
import pytest
import torch
from modules import Net, pixels
from processes import run_in_processes
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy

from ssl_modules import SimSiam
from ssl_modules.augmentations import MoCoViews
from ssl_modules.extractions import Predictor
from ssl_modules.losses import Alignment, InfoNCE
from ssl_modules.objective import objective
from ssl_modules.similarities import Cosine

REFERENCE = Path(__file__).parents[1] / "reference"


def without_predictor(dim):
    extraction = Predictor(hidden_dim=4, out_dim=dim, predictor_dim=4)
    extraction.build(out_channels=(8,))
    extraction.predictor = nn.Identity()
    return extraction


def vectors(views, images=5, dim=6):
    g = torch.Generator().manual_seed(1)
    return list(torch.randn(2, views, images, dim, generator=g, dtype=torch.float64))


@pytest.mark.parametrize("block", [0, 1, 3, None])
def test_loss_and_gradient_are_the_official_ones(block):
    v = np.load(REFERENCE / "byol_1_symmetric.npz")
    student = [torch.tensor(v[name], requires_grad=True) for name in ("p1", "p2")]
    teacher = [torch.tensor(v[name]) for name in ("z1", "z2")]
    contrasts = without_predictor(6)(student, teacher, torch.arange(4)[:, None], None)
    loss = objective(contrasts, Cosine(), Alignment(), block)
    loss.backward()
    assert loss.item() == pytest.approx(v["solo_total"].item(), abs=1e-10)
    assert loss.item() == pytest.approx(v["bolts_total"].item() + 4, abs=1e-10)  # bolts drops the constant
    for z, name in zip(student, ("dp1", "dp2"), strict=True):
        for official in ("solo", "bolts"):
            np.testing.assert_allclose(z.grad.numpy(), v[f"{official}_{name}"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("views", [2, 3, 4])
def test_every_pair_of_different_views_counts_alike(views):
    student, teacher = vectors(views)
    contrasts = without_predictor(6)(list(student), list(teacher), torch.arange(5)[:, None], None)
    pairs = [(i, j) for i in range(views) for j in range(views) if i != j]
    means = [(2 - 2 * cosine_similarity(student[i], teacher[j])).mean() for i, j in pairs]
    expected = 2 * torch.stack(means).mean()
    torch.testing.assert_close(objective(contrasts, Cosine(), Alignment()), expected, rtol=0, atol=1e-12)


def test_other_images_are_negatives():
    student, teacher = vectors(2)
    for c in without_predictor(6)(list(student), list(teacher), torch.arange(5)[:, None], None):
        assert torch.equal(c.relation[:], torch.eye(5, dtype=torch.int8))
        assert c.reference is None


def test_the_student_alone_has_the_predictor():
    torch.manual_seed(0)
    extraction = Predictor(hidden_dim=7, out_dim=6, predictor_dim=9)
    extraction.build(out_channels=(3, 8))
    shapes = {name: tuple(p.shape) for name, p in extraction.named_parameters() if p.ndim == 2 or "bias" in name}
    assert shapes == {
        "heads.mlp.0.weight": (7, 8),
        "heads.mlp.1.bias": (7,),
        "heads.mlp.3.weight": (6, 7),
        "heads.mlp.3.bias": (6,),
        "predictor.0.weight": (9, 6),
        "predictor.1.bias": (9,),
        "predictor.3.weight": (6, 9),
        "predictor.3.bias": (6,),
    }
    student, teacher = vectors(2)
    extraction.double()
    first, second = extraction(list(student), list(teacher), torch.arange(5)[:, None], None)
    together = extraction.predictor(torch.cat(list(student))).chunk(2)  # in one batch norm, as "joint" says
    torch.testing.assert_close((first.anchors, second.anchors), together)
    assert torch.equal(first.candidates, teacher[1])
    assert torch.equal(second.candidates, teacher[0])


def test_student_and_teacher_see_all_views():
    assert list(Predictor().student_views(3)) == list(Predictor().teacher_views(3)) == [0, 1, 2]


@pytest.mark.parametrize("argument", ["hidden_dim", "out_dim", "predictor_dim"])
def test_numbers_must_be_positive(argument):
    with pytest.raises(ValueError, match=f"{argument}: expected a positive number, got 0"):
        Predictor(**{argument: 0})


def test_one_view_and_no_teacher_are_refused():
    student, teacher = vectors(1)
    ids = torch.arange(5)[:, None]
    with pytest.raises(ValueError, match="views: expected at least 2 per image, got 1"):
        without_predictor(6)(list(student), list(teacher), ids, None)
    with pytest.raises(ValueError, match="teacher: got None"):
        without_predictor(6)(list(student), None, ids, None)


def loss_and_gradient(rows, loss):
    student, teacher = vectors(2, images=6)
    weight = torch.eye(6, dtype=torch.float64).requires_grad_()
    ids = torch.arange(6)[rows, None]
    contrasts = without_predictor(6)([z[rows] @ weight for z in student], [z[rows] for z in teacher], ids, None)
    value = objective(contrasts, Cosine(), loss)
    value.backward()
    return [value.detach(), weight.grad]


LOSSES = (Alignment(), InfoNCE(0.2))  # the first has no negatives; the second has those of all processes


def of_a_process(rank):
    return [x for loss in LOSSES for x in loss_and_gradient(slice(3 * rank, 3 * rank + 3), loss)]


def test_two_processes_give_the_gradient_of_one():
    results = run_in_processes(of_a_process)
    of_one = [x for loss in LOSSES for x in loss_and_gradient(slice(None), loss)]
    for first, second, whole in zip(*results, of_one, strict=True):
        torch.testing.assert_close((first + second) / 2, whole, rtol=0, atol=1e-12)


def test_the_other_images_of_the_teachers_view_are_the_negatives_of_info_nce():
    student, teacher = vectors(2)
    contrasts = without_predictor(6)(list(student), list(teacher), torch.arange(5)[:, None], None)
    expected = 0
    for anchors, keys in ((student[0], teacher[1]), (student[1], teacher[0])):
        scores = cosine_similarity(anchors[:, None], keys[None], dim=2) / 0.2
        expected = expected + cross_entropy(scores, torch.arange(5))
    torch.testing.assert_close(objective(contrasts, Cosine(), InfoNCE(0.2)), expected, rtol=0, atol=1e-12)


# ---- without a teacher -----------------------------------------------------------------------------------------------


def simsiam(dim=6, **given):
    extraction = Predictor(None, dim, 4, layers=3, output_norm=True, momentum=None, **given)
    extraction.build(out_channels=(8,))
    return extraction.double()


@pytest.mark.parametrize("block", [0, 2, None])
def test_without_a_teacher_the_loss_is_simsiams_plus_one(block):
    """The targets are the student's own embeddings, without gradient."""
    torch.manual_seed(0)
    extraction, student = simsiam(), [z.requires_grad_() for z in vectors(2)[0]]
    loss = objective(extraction(student, None, torch.arange(5)[:, None], None), Cosine(), Alignment(0.25), block)
    found = torch.autograd.grad(loss, student)
    p1, p2 = extraction.predictor(torch.cat(student)).chunk(2)
    z1, z2 = (z.detach() for z in student)
    expected = -(cosine_similarity(p1, z2).mean() + cosine_similarity(p2, z1).mean()) / 2
    torch.testing.assert_close(loss - 1, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(found, torch.autograd.grad(expected, student), rtol=0, atol=1e-12)


def test_without_stop_gradient_the_targets_have_a_gradient_too():
    torch.manual_seed(0)
    student = [z.requires_grad_() for z in vectors(2)[0]]
    stopped, through = simsiam(), simsiam(stop_gradient=False)
    through.load_state_dict(stopped.state_dict())
    both = []
    for extraction in (stopped, through):
        contrasts = extraction(student, None, torch.arange(5)[:, None], None)
        assert contrasts[0].candidates.requires_grad == (extraction is through)
        loss = objective(contrasts, Cosine(), Alignment(0.25), 0)
        both.append((loss.detach(), torch.autograd.grad(loss, student)[0]))
    assert both[0][0] == both[1][0]
    assert not torch.allclose(both[0][1], both[1][1])


def test_simsiams_heads_have_the_layers_of_the_official_code():
    extraction = simsiam()
    projector, norm = extraction.heads
    linear = [(layer.weight.shape, layer.bias is not None) for layer in projector.mlp if isinstance(layer, nn.Linear)]
    assert linear == [((8, 8), False), ((8, 8), False), ((6, 8), False)]
    assert sum(isinstance(layer, nn.BatchNorm1d) for layer in projector.mlp) == 2
    assert (norm.weight, norm.bias) == (None, None)
    first, batch_norm, _, last = extraction.predictor
    assert (first.weight.shape, first.bias, batch_norm.affine) == ((4, 6), None, True)
    assert (last.weight.shape, last.bias is not None) == ((6, 4), True)


def test_without_a_teacher_the_encoder_runs_once_per_view():
    module = SimSiam(MoCoViews(8, blur=False), Net(), simsiam_small(), image_size=8)
    assert module.teacher is None
    assert module.plan.teacher == ()
    seen = []
    module.encoder.register_forward_hook(lambda *_: seen.append(1))
    module.training_step((pixels(), None), 0)["loss"].backward()
    assert len(seen) == 2


def simsiam_small():
    return Predictor(None, 6, 4, layers=3, output_norm=True, momentum=None)


def test_gradient_through_a_teacher_is_refused():
    with pytest.raises(ValueError, match=r"stop_gradient: got False with momentum=0.996.* pass momentum=None"):
        Predictor(stop_gradient=False)
