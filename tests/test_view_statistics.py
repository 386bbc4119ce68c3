"""Batch norms normalise views of one size together or each view alone, as `view_statistics` sets."""

from copy import deepcopy

import pytest
import torch
from conformance.cases import ENCODER
from processes import run_in_processes
from torch import nn

import ssl_modules
from ssl_modules import BYOL, SCE, MoCo, SimCLR
from ssl_modules.augmentations import ReadyViews
from ssl_modules.encoders import SplitBatchNorm2d
from ssl_modules.encoders.views import over_views
from ssl_modules.extractions import Predictor, Queue

SIZES = (8, 6, 8)
TOGETHER = {"joint": ([0, 2], [1]), "each": ([0], [1], [2])}  # views that a batch norm normalises together, in order


def views(images=4):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(images, 3, size, size, generator=generator) for size in SIZES]


def byol(statistics, **given):
    torch.manual_seed(0)
    extraction = Predictor(16, 8, 16)
    return BYOL(ReadyViews(SIZES), ENCODER, extraction, image_size=8, view_statistics=statistics, **given)


def running(*modules):
    return {f"{i}.{name}": b for i, m in enumerate(modules) for name, b in m.named_buffers() if "running" in name}


@pytest.mark.parametrize("statistics", TOGETHER)
def test_all_networks_of_student_and_teacher_pass_the_same_views_together(statistics):
    module = byol(statistics)
    student = [module.encoder, module.extraction.heads, module.extraction.predictor]
    teacher = [module.teacher.encoder, module.teacher.heads]
    slow_student, slow_teacher = deepcopy(student), deepcopy(teacher)
    contrasts = module.contrasts(*_batch(module), None)
    expected = [None] * len(SIZES)
    for group in TOGETHER[statistics]:
        x = torch.cat([views()[i] for i in group])
        p = nn.Sequential(*slow_student)(x)
        nn.Sequential(*slow_teacher)(x)
        for i, part in zip(group, p.chunk(len(group)), strict=True):
            expected[i] = part
    torch.testing.assert_close(running(*student), running(*slow_student))
    torch.testing.assert_close(running(*teacher), running(*slow_teacher))
    anchors = [contrasts[0].anchors, contrasts[2].anchors, contrasts[4].anchors]  # two pairs for each view
    torch.testing.assert_close(anchors, expected)


def _batch(module):
    batch = ssl_modules.batch.read_batch((views(), torch.arange(4)), 3)
    return batch, module.embed(batch.views)


def test_joint_and_each_give_different_statistics():
    joint, each = byol("joint"), byol("each")
    for module in (joint, each):
        module.embed(views())
    first, second = (running(module.encoder, module.extraction.heads) for module in (joint, each))
    assert not any(torch.equal(value, second[name]) for name, value in first.items())


def test_joint_and_each_give_the_same_in_evaluation():
    joint, each = byol("joint").eval(), byol("each").eval()
    torch.testing.assert_close(joint.embed(views()).student, each.embed(views()).student)


@pytest.mark.parametrize(("statistics", "groups"), TOGETHER.items())
def test_splits_divide_what_is_passed_together(statistics, groups):
    norm = SplitBatchNorm2d(nn.BatchNorm2d(3), 2)
    result = over_views(norm, views(), statistics)
    plain = nn.BatchNorm2d(3)
    for group in groups:
        halves = torch.cat([views()[i] for i in group]).chunk(2)
        expected = torch.cat([plain(half) for half in halves]).chunk(len(group))
        for i, e in zip(group, expected, strict=True):
            torch.testing.assert_close(result[i], e)


def test_outputs_may_be_collections():
    outputs = over_views(lambda x: {"mean": x.mean((2, 3)), "maps": (x, -x)}, views(), "joint")
    for view, output in zip(views(), outputs, strict=True):
        torch.testing.assert_close(output, {"mean": view.mean((2, 3)), "maps": (view, -view)})


def test_only_the_teacher_is_split():
    module = SCE(encoder=ENCODER, extraction=Queue(size=64, reference=True), teacher_batch_norm_splits=4)
    norms = [m for m in module.teacher.encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(isinstance(m, SplitBatchNorm2d) and m.splits == 4 and m.interleaved for m in norms)
    assert not any(isinstance(m, SplitBatchNorm2d) for m in module.encoder.modules())
    assert not any(p.requires_grad for p in module.teacher.parameters())
    assert module.teacher.encoder.state_dict().keys() == module.encoder.state_dict().keys()


def test_student_and_teacher_may_have_different_splits():
    module = SCE(
        encoder=ENCODER, extraction=Queue(size=64, reference=True), batch_norm_splits=2, teacher_batch_norm_splits=4
    )
    for network, splits in ((module.encoder, 2), (module.teacher, 4)):
        assert {m.splits for m in network.modules() if isinstance(m, SplitBatchNorm2d)} == {splits}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"view_statistics": "both"}, "view_statistics: expected .*joint.*each.* got 'both'"),
        ({"teacher_batch_norm_splits": 2}, "teacher_batch_norm_splits: got 2, but AllViews has no teacher; pass None"),
        ({"extraction": Predictor(), "teacher_batch_norm_splits": 1}, "teacher_batch_norm_splits: expected .* got 1"),
    ],
)
def test_wrong_values_raise_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        SimCLR(encoder=ENCODER, **arguments)


@pytest.mark.parametrize("method", ["GroCo", "SCE", "BYOL", "AMDIM", "YADIM", "MoCo", "RINCE", "SimSiam", "ReSSL"])
def test_official_code_of_these_methods_passes_each_view_alone(method):
    assert getattr(ssl_modules, method)(**own_encoder(method)).view_statistics == "each"


@pytest.mark.parametrize("method", ["SimCLR", "S2R2", "CPC", "SwAV", "SupCon"])
def test_these_methods_pass_views_jointly(method):
    assert getattr(ssl_modules, method)(**own_encoder(method)).view_statistics == "joint"


def own_encoder(method):
    return {} if method in ("AMDIM", "CPC") else {"encoder": ENCODER}


def moco(**given):
    """Return a MoCo whose only batch norms are the encoder's, in float64."""
    torch.manual_seed(0)
    extraction = Queue(out_dim=16, size=24, batch_norm=False)
    module = MoCo(ReadyViews((8, 8)), ENCODER, extraction, image_size=8, **given).double()
    for m in module.modules():
        if isinstance(m, SplitBatchNorm2d):
            m.interleaved = False  # consecutive images, as in two processes
    return module


def trained_on(module, rows):
    """Return the gradient of a step in training mode, and the running statistics after it."""
    pixels = [torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(i)).double()[rows] for i in range(2)]
    module.training_step((pixels, None), 0)["loss"].backward()
    gradient = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return gradient, running(module.encoder, module.teacher.encoder)


def half_of_the_batch(rank):
    return trained_on(moco(), slice(6 * rank, 6 * rank + 6))


def test_two_processes_are_two_splits_of_one():
    first, second = run_in_processes(half_of_the_batch)
    gradient, statistics = trained_on(moco(batch_norm_splits=2), slice(None))
    mean = [{name: (first[i][name] + second[i][name]) / 2 for name in first[i]} for i in range(2)]
    torch.testing.assert_close(mean[0], gradient, rtol=0, atol=1e-10)
    torch.testing.assert_close(mean[1], statistics, rtol=0, atol=1e-10)
