"""The queue ranks the keys of several views, and ignores earlier keys of the same video."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from extractions.queues import queue, step, vectors

from ssl_modules import RINCE, SimCLR
from ssl_modules.augmentations import ClipViews, MoCoViews, SimCLRViews
from ssl_modules.batch import read_batch
from ssl_modules.extractions import LabelRanks, Queue
from ssl_modules.losses import InfoNCE, RINCELoss
from ssl_modules.objective import objective
from ssl_modules.similarities import Cosine, Dot

REFERENCE = Path(__file__).parents[1] / "reference"


def rows(*numbers):
    return torch.tensor(numbers)[:, None]


@pytest.mark.parametrize("mode", ["out", "in", "out-in"])
@pytest.mark.parametrize("block", [0, 1, 3])
def test_loss_and_gradient_of_ranked_clips_equal_those_of_the_official_code(mode, block):
    v = np.load(REFERENCE / "rince_ranked_clips.npz")
    q = torch.tensor(v["q"], requires_grad=True)
    keys = [*torch.tensor(v["keys"])]  # one for each rank, [N, D]
    extraction = queue(size=len(v["bank"]), dim=q.shape[1], view_ranks=(1, 2, 3))
    extraction.keys.copy_(torch.tensor(v["bank"]))
    [contrast] = extraction.eval()([q], keys, rows(*range(len(q))), None)
    loss = objective([contrast], Dot(), RINCELoss((0.1, 0.225, 0.35), mode), block)
    loss.backward()
    assert loss.item() == pytest.approx(v[f"loss_{mode}"].item(), abs=1e-12)
    np.testing.assert_allclose(q.grad.numpy(), v[f"grad_q_{mode}"], rtol=0, atol=1e-12)


def test_the_student_sees_the_first_view_and_the_teacher_the_others():
    extraction = Queue(view_ranks=(1, 2, 2))
    assert (*extraction.student_views(4),) == (0,)
    assert (*extraction.teacher_views(4),) == (1, 2, 3)
    for views in (2, 3, 5):
        with pytest.raises(ValueError, match=rf"view_ranks: .*of {views} views, got \(1, 2, 2\); .* 4 views"):
            extraction.student_views(views)
        with pytest.raises(ValueError, match="view_ranks"):
            RINCE(MoCoViews(8, views, blur=False), "test_resnet", extraction=extraction, image_size=8)


def test_own_keys_have_the_ranks_of_their_views_and_other_keys_of_the_batch_are_ignored():
    extraction = queue(size=4, view_ranks=(1, 2, 2))
    student, *keys = vectors(views=4, images=2)
    [contrast] = extraction.eval()([student], keys, rows(5, 6), None)
    assert contrast.relation[:].tolist() == [
        [1, -1, 2, -1, 2, -1, 0, 0, 0, 0],
        [-1, 1, -1, 2, -1, 2, 0, 0, 0, 0],
    ]
    assert contrast.relation[1:].tolist() == contrast.relation[torch.tensor([1])].tolist()
    torch.testing.assert_close(contrast.candidates[:6], F.normalize(torch.cat(keys), dim=1))
    assert torch.equal(contrast.candidates[6:], extraction.keys)


def test_the_keys_of_all_views_enter_the_queue():
    extraction = queue(size=9, view_ranks=(1, 2))
    student, *keys = vectors(views=3, images=2)
    extraction([student], keys, rows(5, 6), None)
    extraction.after_backward()
    torch.testing.assert_close(extraction.keys[:4], F.normalize(torch.cat(keys), dim=1))
    assert extraction.ids.flatten().tolist() == [5, 6, 5, 6, -1, -1, -1, -1, -1]
    with pytest.raises(ValueError, match="size: a queue of 3 can't take the 4 keys of a batch"):
        queue(size=3, view_ranks=(1, 2))([student], keys, rows(5, 6), None)


@pytest.mark.parametrize("given", [{}, {"view_ranks": (1, 2)}, {"symmetric": True}, {"reference": True}])
def test_a_video_ignores_its_earlier_keys(given):
    extraction = queue(size=8, **given)
    extraction.recurring_ids = True
    many = vectors(views=3 if "view_ranks" in given else 2, images=2)
    student, teacher = (many[:1], many[1:]) if "view_ranks" in given else (many, many)
    if not given.get("symmetric") and "view_ranks" not in given:
        student, teacher = many[1:], many[:1]
    extraction(student, teacher, rows(5, 6), None)
    extraction.after_backward()
    stored = extraction.ids.flatten()
    for contrast in extraction(student, teacher, rows(6, 7), None):
        of_queue = contrast.relation[:][:, -8:]
        for row, own in enumerate([6, 7] * (len(of_queue) // 2)):
            assert of_queue[row].tolist() == [-1 if key == own else 0 for key in stored.tolist()]
    plain = queue(size=8, **given)
    plain.load_state_dict(extraction.state_dict())
    for contrast in plain(student, teacher, rows(6, 7), None):
        assert contrast.relation[:][:, -8:].eq(0).all()


def slow_loss(anchors, keys, ids, queue, temperature):
    """Return the mean cross-entropy over anchors, whose negatives are all keys of other videos."""
    losses = []
    for number, anchor in enumerate(anchors):
        own = number % len(ids)
        others = [
            key
            for key, i in zip([*keys, *queue.keys], [*ids, *queue.ids.flatten().tolist()], strict=True)
            if i != ids[own]
        ]
        scores = torch.stack([F.cosine_similarity(anchor, key, dim=0) for key in (keys[own], *others)]) / temperature
        losses.append(torch.logsumexp(scores, 0) - scores[0])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("size", [0, 8])
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("block", [0, 2])
def test_keys_of_the_batch_are_negatives_unless_they_are_of_the_same_video(size, views, block):
    extraction = queue(size=size, keys_as_negatives=True)
    extraction.recurring_ids = True
    videos = [5, 6, 5, 7]  # the first video occurs twice
    if size:
        step(extraction, vectors(1, 4, seed=3)[0], first=4)  # videos 4 to 7
    anchors = [z.requires_grad_() for z in vectors(views - 1, 4)]
    [keys] = vectors(1, 4, seed=2)
    [contrast] = extraction.eval()(anchors, [keys], rows(*videos), None)
    loss = objective([contrast], Cosine(), InfoNCE(0.2), block)
    expected = slow_loss(torch.cat(anchors), keys, videos, extraction, temperature=0.2)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    for own, slow in zip(torch.autograd.grad(loss, anchors), torch.autograd.grad(expected, anchors), strict=True):
        torch.testing.assert_close(own, slow, rtol=0, atol=1e-12)


def test_labels_rank_the_queue_except_keys_of_the_same_video():
    extraction = queue(size=4, ranks=LabelRanks(1), view_ranks=(1, 2))
    extraction.recurring_ids = True
    student, *keys = vectors(views=3, images=2)
    ids = torch.tensor([[5, 0], [6, 1]])
    extraction([student], keys, ids, None)
    extraction.after_backward()
    [contrast] = extraction([student], keys, torch.tensor([[5, 0], [7, 1]]), None)
    assert contrast.relation[:][:, -4:].tolist() == [[-1, 0, -1, 0], [0, 1, 0, 1]]


def test_the_id_of_a_video_is_its_row_and_an_image_gets_a_new_id_in_each_step():
    batch = read_batch((torch.rand(2, 3, 8, 8), torch.zeros(2), torch.tensor([7, 9])))
    assert torch.equal(batch.ids(3, 1), batch.ids(3, 1, by_index=False))
    assert not torch.equal(batch.ids(3, 1), batch.ids(4, 1))
    of_rows = batch.ids(3, 1, by_index=True)
    assert torch.equal(of_rows, batch.ids(4, 1, by_index=True))
    assert (of_rows[1] - of_rows[0]).item() == 2
    assert of_rows.min() > batch.ids(10**9, 1).max()  # ids of rows never equal ids of steps
    without = read_batch((torch.rand(2, 3, 8, 8), torch.zeros(2)))
    assert torch.equal(without.ids(3, 1, by_index=True), batch.ids(3, 1))
    for encoder, recurring in (("test_resnet", False), ("r3d_small", True)):
        module = SimCLR(SimCLRViews(8, blur=False), encoder, image_size=8)
        assert module.extraction.recurring_ids == recurring


def test_a_step_on_clips_stores_the_rows_of_the_videos():
    part = MoCoViews(8, views=1, blur=False)
    module = RINCE(
        ClipViews([part] * 3, (0, 0, 1)),
        "r3d_small",
        extraction=Queue(out_dim=8, size=8, view_ranks=(1, 2)),
        image_size=8,
    )
    clips = torch.randint(256, (2, 2, 3, 4, 12, 12), dtype=torch.uint8)
    batch = read_batch((clips, torch.zeros(2), torch.tensor([7, 9]), torch.zeros(2, 2)))
    views = module.views(batch, torch.Generator())
    [contrast] = module.contrasts(batch, module.embed(views), torch.Generator())
    module.extraction.after_backward()
    assert (module.extraction.ids[:4, 0] - batch.ids(0, 1, by_index=True)[0]).tolist() == [0, 2, 0, 2]
    assert contrast.relation[:].tolist() == [[1, -1, 2, -1, *[0] * 8], [-1, 1, -1, 2, *[0] * 8]]
    [again] = module.contrasts(batch, module.embed(views), torch.Generator())
    assert again.relation[:].tolist() == [
        [1, -1, 2, -1, -1, 0, -1, 0, *[0] * 4],
        [-1, 1, -1, 2, 0, -1, 0, -1, *[0] * 4],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"view_ranks": ()}, r"view_ranks: expected ranks from 1 without gaps, such as \(1, 2, 3\), got \(\)"),
        ({"view_ranks": (2, 3)}, "view_ranks: expected ranks from 1"),
        ({"view_ranks": (1, 3)}, "view_ranks: expected ranks from 1"),
        ({"view_ranks": (1, 2), "symmetric": True}, "view_ranks: expected None with symmetric"),
        ({"view_ranks": (1, 2), "symmetric": True, "teacher_count": 2}, "view_ranks: expected None with symmetric"),
        ({"view_ranks": (1, 2), "keys_as_negatives": True}, "view_ranks: expected None with keys_as_negatives"),
        ({"view_ranks": (1, 2), "reference": True}, "view_ranks: expected None with reference"),
    ],
)
def test_arguments_that_do_not_fit_view_ranks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Queue(**arguments)


def test_a_rank_without_temperature_is_refused():
    with pytest.raises(ValueError, match="temperatures"):
        RINCE(MoCoViews(8, 4, blur=False), "test_resnet", extraction=Queue(view_ranks=(1, 2, 3)), image_size=8)


def test_images_can_have_ranked_views_too():
    module = RINCE(
        MoCoViews(8, 3, blur=False), "test_resnet", extraction=Queue(out_dim=8, size=8, view_ranks=(1, 2)), image_size=8
    )
    assert module.training_step(torch.rand(2, 3, 8, 8), 0)["loss"].isfinite()
