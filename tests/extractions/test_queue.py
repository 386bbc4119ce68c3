from pathlib import Path

import numpy as np
import pytest
import torch
from extractions.queues import ids_of, queue, step, vectors
from torch import nn
from torch.nn.functional import normalize

from ssl_modules.extractions import Queue, Ranks, RankTable
from ssl_modules.losses import InfoNCE, RINCELoss, SCELoss
from ssl_modules.objective import objective
from ssl_modules.similarities import Cosine, Dot
from ssl_modules.utils.configurable import build, to_config

REFERENCE = Path(__file__).parents[1] / "reference"
BLOCKS = [0, 1, 3, None]


# ---- against the official code --------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("official", ["lightly", "solo"])
def test_moco_is_the_official_one(official, block):
    v = np.load(REFERENCE / "moco_1_infonce.npz")
    extraction = queue()
    extraction.keys.copy_(torch.tensor(v["queue"]))
    q = torch.tensor(v["q"], requires_grad=True)
    contrasts = extraction([q], [torch.tensor(v["k"])], ids_of(4), None)
    loss = objective(contrasts, Cosine(), InfoNCE(0.2), block)
    loss.backward()
    extraction.after_backward()
    assert loss.item() == pytest.approx(v[f"{official}_loss"].item(), abs=1e-10)
    np.testing.assert_allclose(q.grad.numpy(), v[f"{official}_dq"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(extraction.keys.numpy(), v["queue_after"], rtol=0, atol=1e-12)
    assert extraction.pointer == v["ptr_after"]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("case", "views", "arguments"),
    [
        ("asym2", 2, {}),
        ("sym2", 2, {"symmetric": True}),
        ("multi4", 4, {"symmetric": True, "teacher_count": 2}),
    ],
)
def test_sce_is_the_official_one_of_every_choice_of_views(case, views, arguments, block):
    v = np.load(REFERENCE / "sce_sym_multicrop.npz")
    extraction = queue(size=36, dim=12, reference=True, **arguments)
    extraction.keys.copy_(torch.tensor(v["queue"]))
    # The file's teacher sees crop 0 and its student crop 1 in "asym2", as ours do.
    student = {i: torch.tensor(v[f"q{i}"], requires_grad=True) for i in extraction.student_views(views)}
    teacher = [torch.tensor(v[f"k{j}"]) for j in extraction.teacher_views(views)]
    contrasts = extraction(list(student.values()), teacher, ids_of(6), None)
    loss = objective(contrasts, Dot(), SCELoss(0.1, 0.07, 0.5, positive_target="zero"), block)  # of unit vectors
    loss.backward()
    extraction.after_backward()
    assert loss.item() == pytest.approx(v[f"loss_{case}"].item(), abs=1e-10)
    for i, z in student.items():
        np.testing.assert_allclose(z.grad.numpy(), v[f"grad_q{i}_{case}"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(extraction.keys.numpy(), v[f"queue_after_{case}"], rtol=0, atol=1e-12)
    assert extraction.pointer == v[f"ptr_after_{case}"].item()


def test_first_in_first_out_as_in_bolts():
    v = np.load(REFERENCE / "moco_3_queue_bolts.npz")
    states, batches = (torch.tensor(v[name]) for name in ("states", "batches"))
    extraction = queue(size=6, dim=3)
    extraction.keys.copy_(states[0].T)
    pointers = []
    for batch, after in zip(batches, states[1:], strict=True):
        step(extraction, batch)
        pointers.append(extraction.pointer.item())
        torch.testing.assert_close(normalize(extraction.keys, dim=1), normalize(after.T, dim=1), rtol=0, atol=1e-12)
    assert pointers == [2, 4, 0, 2]


@pytest.mark.parametrize("block", BLOCKS)
def test_rince_is_the_official_one(block):
    v = np.load(REFERENCE / "rince_out_in.npz")
    q_labels, queue_labels = torch.tensor(v["q_labels"]), torch.tensor(v["queue_labels"])
    classes = int(max(q_labels.max(), queue_labels.max())) + 1
    table = torch.zeros(classes, classes, dtype=torch.int64)
    known = queue_labels >= 0
    table[q_labels[:, None], queue_labels[known]] = torch.tensor(v["ranks"])[:, known]
    extraction = queue(size=80, dim=16, ranks=RankTable(table.tolist()))
    extraction.keys.copy_(torch.tensor(v["queue"]))
    extraction.ids[:, 1] = queue_labels
    q = torch.tensor(v["q"], requires_grad=True)
    ids = torch.stack([torch.arange(10), q_labels], dim=1)
    [c] = extraction([q], [torch.tensor(v["k"])], ids, None)
    loss = objective([c], Dot(), RINCELoss(v["taus"].tolist(), modes="out-in"), block)
    loss.backward()
    assert loss.item() == pytest.approx(v["loss_strict"].item(), abs=1e-10)
    np.testing.assert_allclose(q.grad.numpy(), v["grad_q_strict"], rtol=0, atol=1e-10)
    extraction.after_backward()
    assert torch.equal(extraction.ids[:10], ids)
    assert torch.equal(extraction.ids[10:, 1], queue_labels[10:])


# ---- which vectors are compared -------------------------------------------------------------------------------------


def slow_relation(views, images, size, others):
    """Return the relation, view by view: own key 1, other keys of the batch ``others``, the queue 0."""
    rows = [[1 if c == i else others for c in range(images)] + [0] * size for _ in range(views) for i in range(images)]
    return torch.tensor(rows, dtype=torch.int8)


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("keys_as_negatives", [False, True])
def test_own_key_is_positive_and_the_queue_negative(views, symmetric, keys_as_negatives):
    images = 3
    extraction = queue(size=6 if views == 2 else 9, symmetric=symmetric, keys_as_negatives=keys_as_negatives)
    student = vectors(views if symmetric else views - 1, images)
    teacher = vectors(views if symmetric else 1, images, seed=2)
    contrasts = extraction(student, teacher, ids_of(images), None)
    assert [c.weight for c in contrasts] == [1 / len(teacher)] * len(teacher)
    others = 0 if keys_as_negatives else -1
    expected = slow_relation(views - 1, images, extraction.size, others)
    for j, (c, keys) in enumerate(zip(contrasts, teacher, strict=True)):
        anchors = [z for i, z in enumerate(student) if not symmetric or i != j]
        assert torch.equal(c.anchors, torch.cat(anchors))
        torch.testing.assert_close(c.candidates, torch.cat([normalize(keys, dim=1), extraction.keys]))
        assert torch.equal(c.relation[:], expected)
        assert torch.equal(c.relation[1:3], expected[1:3])
        assert torch.equal(c.relation[torch.tensor([2, 0])], expected[[2, 0]])
        assert c.reference is None


def test_the_reference_is_the_teachers_key_of_the_same_image():
    student, teacher = vectors(3, 4), vectors(2, 4, seed=2)
    contrasts = queue(reference=True, symmetric=True, teacher_count=2)(student, teacher, ids_of(4), None)
    for c, keys in zip(contrasts, teacher, strict=True):
        torch.testing.assert_close(c.reference, normalize(keys, dim=1).repeat(2, 1))


def test_without_a_queue_the_batchs_own_keys_are_the_candidates():
    extraction = queue(size=0, keys_as_negatives=True)
    [c] = extraction(vectors(1, 4), vectors(1, 4, seed=2), ids_of(4), None)
    extraction.after_backward()
    assert torch.equal(c.candidates, normalize(vectors(1, 4, seed=2)[0], dim=1))
    assert torch.equal(c.relation[:], torch.eye(4, dtype=torch.int8))


@pytest.mark.parametrize(
    ("arguments", "student", "teacher"),
    [
        ({}, [1, 2, 3], [0]),
        ({"symmetric": True}, [0, 1, 2, 3], [0, 1, 2, 3]),
        ({"symmetric": True, "teacher_count": 2}, [0, 1, 2, 3], [0, 1]),
    ],
)
def test_views_of_student_and_teacher(arguments, student, teacher):
    extraction = Queue(**arguments)
    assert list(extraction.student_views(4)) == student
    assert list(extraction.teacher_views(4)) == teacher


class Nearest(Ranks):
    """Gives rank 2 to the candidate that is closest for the teacher."""

    def forward(self, anchor_ids, candidate_ids, teacher_scores):
        scores = teacher_scores()
        assert scores.shape == (len(anchor_ids), len(candidate_ids))
        return torch.zeros_like(scores, dtype=torch.int8).scatter_(1, scores.argmax(1, keepdim=True), 2)


def test_a_rule_ranks_the_queue_by_what_the_teacher_says():
    extraction = queue(ranks=Nearest())
    student, [keys] = vectors(2, 3), vectors(1, 3, seed=2)
    [c] = extraction(student, [keys], ids_of(3), None)
    nearest = (normalize(keys, dim=1) @ extraction.keys.T).argmax(dim=1)
    expected = slow_relation(2, 3, 8, -1)
    for a in range(6):
        expected[a, 3 + nearest[a % 3]] = 2
    extraction.after_backward()  # the update of the queue doesn't change the ranks
    assert torch.equal(c.relation[:], expected)
    assert torch.equal(torch.cat([c.relation[0:2], c.relation[2:6]]), expected)


# ---- the networks ---------------------------------------------------------------------------------------------------


def test_heads_of_moco_v2_and_of_sce():
    def linear(module):
        return [(*m.weight.shape, m.bias is not None) for m in module.modules() if isinstance(m, nn.Linear)]

    moco = queue()
    assert linear(moco) == [(6, 6, True), (5, 6, True)]
    assert not any(isinstance(m, nn.BatchNorm1d) for m in moco.modules())
    sce = queue(hidden_dim=7, layers=3, batch_norm=True, predictor_dim=9)
    assert linear(sce.heads) == [(7, 6, False), (7, 7, False), (5, 7, True)]
    assert linear(sce.predictor) == [(9, 5, False), (5, 9, False)]


def test_maps_of_clips_are_pooled_over_time_as_well():
    extraction = queue()
    clips = torch.rand(3, 6, 2, 4, 4, dtype=torch.float64)
    frames = clips.flatten(2)[..., None]
    torch.testing.assert_close(extraction.heads((clips,)), extraction.heads((frames,)))


def test_the_student_alone_has_the_predictor():
    extraction = queue(predictor_dim=9)
    student, teacher = vectors(2, 4), vectors(1, 4, seed=2)
    [c] = extraction(student, teacher, ids_of(4), None)
    torch.testing.assert_close(c.anchors, extraction.predictor(torch.cat(student)))
    torch.testing.assert_close(c.candidates[:4], normalize(teacher[0], dim=1))


# ---- the queue's state ----------------------------------------------------------------------------------------------


def test_it_wraps_around_for_any_size_of_batch():
    extraction = queue(size=7)
    batches = vectors(6, 3)
    newest = [None] * 7
    pointer = 0
    for number, batch in enumerate(batches):
        step(extraction, batch, first=3 * number)
        for row, key in enumerate(batch):
            newest[(pointer + row) % 7] = (key / key.norm(), 3 * number + row)
        pointer = (pointer + 3) % 7
        assert extraction.pointer == pointer
        for place, entry in enumerate(newest):
            if entry is not None:
                torch.testing.assert_close(extraction.keys[place], entry[0])
                assert extraction.ids[place] == entry[1]
    assert extraction.ids.flatten().tolist() == [14, 15, 16, 17, 11, 12, 13]


def test_a_batch_may_fill_the_whole_queue():
    extraction = queue(size=4)
    step(extraction, vectors(1, 3)[0])
    keys = vectors(1, 4, seed=2)[0]
    step(extraction, keys, first=10)
    assert extraction.pointer == 3
    assert extraction.ids.flatten().tolist() == [11, 12, 13, 10]
    torch.testing.assert_close(extraction.keys, normalize(keys, dim=1)[[1, 2, 3, 0]])


def test_a_step_sees_the_queue_as_it_was_before_it():
    extraction = queue()
    q, k = vectors(2, 4)
    q.requires_grad_()
    before = extraction.keys.clone()
    [c] = extraction([q], [k], ids_of(4), None)
    loss = objective([c], Cosine(), InfoNCE(0.2), 0)
    extraction.after_backward()
    assert torch.equal(c.candidates[4:], before)
    assert not torch.equal(extraction.keys, before)
    loss.backward()  # updating the queue keeps the graph intact
    assert q.grad.abs().sum() > 0


def test_it_begins_with_the_same_random_directions_everywhere():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = Queue(out_dim=16, size=1000)
    first.build(out_channels=(6,))
    torch.manual_seed(2)
    second = Queue(out_dim=16, size=1000)
    second.build(out_channels=(6,))
    assert torch.equal(first.keys, second.keys)
    torch.testing.assert_close(first.keys.norm(dim=1), torch.ones(1000))
    assert first.keys.mean(0).abs().max() < 4 / (16 * 1000) ** 0.5  # four standard deviations
    assert (first.ids == -1).all()
    assert first.pointer == 0
    assert not torch.equal(state, torch.get_rng_state())  # the heads draw from it


def test_queue_and_pointer_are_saved():
    batches = vectors(4, 3)
    through, until = queue(size=7), queue(size=7)
    for number in range(4):
        step(through, batches[number], first=3 * number)
    for number in range(2):
        step(until, batches[number], first=3 * number)
    resumed = queue(size=7)
    resumed.load_state_dict(until.state_dict())
    for number in range(2, 4):
        step(resumed, batches[number], first=3 * number)
    for name in ("keys", "ids", "pointer"):
        assert torch.equal(getattr(resumed, name), getattr(through, name)), name


def test_only_training_moves_the_queue():
    extraction = queue()
    student, teacher = vectors(1, 4), vectors(1, 4, seed=2)
    before = {name: buffer.clone() for name, buffer in extraction.named_buffers()}
    extraction.after_backward()
    extraction.eval()
    extraction(student, teacher, ids_of(4), None)
    extraction.after_backward()
    extraction.train()
    with torch.no_grad():
        extraction(student, teacher, ids_of(4), None)
    extraction.after_backward()
    assert all(torch.equal(before[name], buffer) for name, buffer in extraction.named_buffers())
    extraction(student, teacher, ids_of(4), None)
    extraction.after_backward()
    extraction.after_backward()  # without new keys, nothing happens
    assert extraction.pointer == 4


def test_half_precision_keys_are_normalised_in_the_queues_precision():
    extraction = Queue(out_dim=5, size=8)
    extraction.build(out_channels=(6,))
    keys = (1000 * vectors(1, 4)[0]).half()
    step(extraction, keys)
    assert extraction.keys.dtype == torch.float32
    torch.testing.assert_close(extraction.keys[:4], normalize(keys.float(), dim=1))


def test_arguments_are_stored():
    extraction = Queue(size=16, symmetric=True, teacher_count=2, ranks=Nearest())
    again = build("extraction", to_config(extraction))
    assert isinstance(again.ranks, Nearest)
    assert (again.size, again.symmetric, again.teacher_count) == (16, True, 2)


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["hidden_dim", "out_dim", "layers", "predictor_dim"])
def test_numbers_must_be_positive(argument):
    with pytest.raises(ValueError, match=f"{argument}: expected a positive number, got 0"):
        Queue(**{argument: 0})


@pytest.mark.parametrize(("size", "keys_as_negatives"), [(0, False), (-1, True)])
def test_no_queue_needs_keys_as_negatives(size, keys_as_negatives):
    with pytest.raises(
        ValueError, match=f"size: expected a number of at least ., got {size}; 0 goes with keys_as_negatives=True"
    ):
        Queue(size=size, keys_as_negatives=keys_as_negatives)


def test_one_image_and_no_queue_leave_nothing_to_compare():
    with pytest.raises(ValueError, match=r"batch: 1 image has no negatives; .*at least 2 and drop_last=True"):
        queue(size=0, keys_as_negatives=True)(vectors(1, 1), vectors(1, 1), ids_of(1), None)


@pytest.mark.parametrize(("count", "symmetric"), [(2, False), (1, True), (0, True)])
def test_a_number_of_teacher_views_must_make_sense(count, symmetric):
    with pytest.raises(ValueError, match=f"teacher_count: .* got {count} with symmetric={symmetric}"):
        Queue(teacher_count=count, symmetric=symmetric)


def test_keys_of_the_batch_are_not_both_ranked_and_negative():
    with pytest.raises(ValueError, match="keys_as_negatives: expected False with ranks"):
        Queue(keys_as_negatives=True, ranks=Nearest())


def test_too_few_views_are_refused():
    for symmetric in (False, True):
        with pytest.raises(ValueError, match="views: expected at least 2 per image, got 1"):
            Queue(symmetric=symmetric).student_views(1)
    with pytest.raises(ValueError, match="teacher_count: expected at most the 2 views there are, got 3"):
        Queue(symmetric=True, teacher_count=3).teacher_views(2)
    with pytest.raises(ValueError, match="views: expected at least 2 per image, got 1"):
        queue()([], vectors(1, 4), ids_of(4), None)


def test_no_teacher_is_refused():
    with pytest.raises(ValueError, match="teacher: got None"):
        queue()(vectors(1, 4), None, ids_of(4), None)


def test_a_queue_smaller_than_a_batch_is_refused_in_training_alone():
    student, teacher = vectors(2, 5), vectors(2, 5, seed=2)
    extraction = queue(size=9, symmetric=True)
    with pytest.raises(ValueError, match=r"size: a queue of 9 can't take the 10 keys of a batch; give it 10 or more"):
        extraction(student, teacher, ids_of(5), None)
    assert len(extraction.eval()(student, teacher, ids_of(5), None)) == 2


def test_levels_that_no_rule_reads_are_refused():
    ids = ids_of(4).repeat(1, 2)
    with pytest.raises(ValueError, match=r"ids: expected \[N, 1\], .* ranks reads, got \[4, 2\]"):
        queue()(vectors(1, 4), vectors(1, 4), ids, None)


def test_the_projector_may_end_in_a_batch_norm_without_parameters():
    extraction = Queue(out_dim=5, size=8, layers=3, batch_norm=True, output_norm=True)
    extraction.build(out_channels=(6,))
    plain = Queue(out_dim=5, size=8, layers=3, batch_norm=True)
    plain.build(out_channels=(6,))
    shapes = [p.shape for p in plain.heads.parameters()]
    assert [p.shape for p in extraction.heads.parameters()] == shapes[:-1]  # no bias in the last layer
    z = extraction.heads((torch.rand(200, 6, 2, 2),))
    torch.testing.assert_close(z.mean(0), torch.zeros(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.var(0, correction=0), torch.ones(5), rtol=1e-2, atol=0)
