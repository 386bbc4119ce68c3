from dataclasses import replace

import numpy as np
import pytest
import torch
from modules import Net, pixels
from processes import run_in_processes
from torch.nn.functional import normalize

from ssl_modules import SupCon
from ssl_modules.augmentations import MoCoViews
from ssl_modules.extractions import AllViews
from ssl_modules.losses import GroCoLoss, InfoNCE, SupConLoss
from ssl_modules.objective import objective
from ssl_modules.similarities import Cosine


def contrast(views, images, dim=4):
    extraction = AllViews(out_dim=dim)
    z = list(torch.randn(views, images, dim).unbind(0))
    ids = 100 + torch.arange(images)[:, None]
    [c] = extraction(z, None, ids, None)
    return z, c


@pytest.mark.parametrize("views", [2, 3, 5])
def test_positives_are_the_other_views_of_the_same_image(views):
    images = 4
    z, c = contrast(views, images)
    relation = c.relation[:]
    for a in range(views * images):
        assert torch.equal(c.anchors[a], z[a // images][a % images])
        for b in range(views * images):
            expected = -1 if a == b else int(a % images == b % images)
            assert relation[a, b] == expected, (a, b)
    assert torch.equal(c.candidates, c.anchors)
    assert c.weight == 1
    assert c.reference is None


def test_all_views_go_through_the_student_and_none_through_a_teacher():
    assert list(AllViews().student_views(3)) == [0, 1, 2]
    assert list(AllViews().teacher_views(3)) == []


def of_same_view(views, images, dim=4, dtype=torch.float32, **options):
    z = torch.randn(views, images, dim, generator=torch.Generator().manual_seed(0), dtype=dtype).requires_grad_()
    return z, AllViews(same_view_negatives=True, **options)(list(z), None, torch.arange(images)[:, None], None)


@pytest.mark.parametrize(("views", "positives"), [(2, None), (4, None), (3, 2), (5, 3)])
def test_negatives_are_the_same_view_of_other_images(views, positives):
    images = 4
    z, contrasts = of_same_view(views, images, positive_count=positives)
    full = positives or views
    parts = [range(full), range(full, views)][: 1 if full == views else 2]
    assert [c.weight for c in contrasts] == pytest.approx([len(part) / views for part in parts])
    for c, part in zip(contrasts, parts, strict=True):
        torch.testing.assert_close(c.anchors, z[part].flatten(0, 1), rtol=0, atol=0)
        torch.testing.assert_close(c.candidates, z.flatten(0, 1), rtol=0, atol=0)
        relation = c.relation[:].view(len(part), images, views, images)
        for a, view in enumerate(part):
            for i in range(images):
                for u in range(views):
                    for j in range(images):
                        is_positive, is_negative = i == j and u != view and u < full, i != j and u == view
                        assert relation[a, i, u, j] == (1 if is_positive else 0 if is_negative else -1)


@pytest.mark.parametrize("stop", [False, True])
def test_candidates_may_be_without_gradient(stop):
    for extraction in (AllViews(stop_gradient=stop), AllViews(same_view_negatives=True, stop_gradient=stop)):
        z = [torch.randn(4, 3, requires_grad=True) for _ in range(2)]
        [c] = extraction(z, None, torch.arange(4)[:, None], None)
        assert c.anchors.requires_grad
        assert c.candidates.requires_grad != stop


@pytest.mark.parametrize(
    "loss", [GroCoLoss(3), InfoNCE(0.2), InfoNCE(0.2, mode="in", l2=0.1)], ids=lambda x: type(x).__name__
)
@pytest.mark.parametrize("options", [{}, {"stop_gradient": True}, {"positive_count": 2}])
def test_scores_of_the_pairs_that_matter_are_enough(loss, options):
    results = []
    z, contrasts = of_same_view(4, 6, dtype=torch.float64, **options)
    for dense in (False, True):
        given = [replace(c, relation=c.relation[:]) for c in contrasts] if dense else contrasts
        value = objective(given, Cosine(), loss)
        results.append((value.detach(), torch.autograd.grad(value, z, retain_graph=True)[0]))
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)


OPTIONS = [{}, {"stop_gradient": True}, {"positive_count": 2, "stop_gradient": True}]


def value_and_gradient(options, rows, block):
    g = torch.Generator().manual_seed(2)
    x, weight = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((3, 6, 5), (5, 4)))
    weight.requires_grad_()
    z = x[:, rows] @ weight
    contrasts = AllViews(same_view_negatives=True, **options)(list(z), None, torch.arange(6)[rows, None], None)
    value = objective(contrasts, Cosine(), GroCoLoss(4), block)
    value.backward()
    return value.detach(), weight.grad


def of_process(rank):
    rows = slice(3 * rank, 3 * rank + 3)
    return [value_and_gradient(options, rows, block) for options in OPTIONS for block in (0, 2)]


def test_negatives_come_from_all_processes():
    results = iter(zip(*run_in_processes(of_process), strict=True))
    for options in OPTIONS:
        value, gradient = value_and_gradient(options, slice(None), 0)
        for _ in (0, 2):
            first, second = next(results)
            torch.testing.assert_close((first[0] + second[0]) / 2, value, rtol=0, atol=1e-12)
            torch.testing.assert_close((first[1] + second[1]) / 2, gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("layers", "widths"), [(1, [(6, 5)]), (2, [(6, 7), (7, 5)]), (3, [(6, 7), (7, 7), (7, 5)])])
def test_the_projector_is_an_mlp_on_the_mean_of_the_deepest_map(layers, widths):
    extraction = AllViews(hidden_dim=7, out_dim=5, layers=layers)
    extraction.build(out_channels=(3, 6))
    heads = extraction.heads.eval()
    linear = [m for m in heads.modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == widths
    maps = (torch.rand(2, 3, 8, 8), torch.rand(2, 6, 2, 3))
    x = maps[1].mean((2, 3))
    for i, m in enumerate(linear):
        x = x @ m.weight.T
        if i < layers - 1:
            x = (x / (1 + 1e-5) ** 0.5).relu()  # batch norm with its initial statistics, in eval mode
    torch.testing.assert_close(heads(maps), x)


def test_a_batch_norm_without_parameters_may_come_last():
    extraction = AllViews(out_dim=5, output_norm=True)
    extraction.build(out_channels=(6,))
    plain = AllViews(out_dim=5)
    plain.build(out_channels=(6,))
    assert len(list(extraction.heads.parameters())) == len(list(plain.heads.parameters()))
    z = extraction.heads((torch.rand(200, 6, 2, 2),))
    torch.testing.assert_close(z.mean(0), torch.zeros(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.var(0, correction=0), torch.ones(5), rtol=1e-2, atol=0)


def test_the_last_batch_norm_may_have_a_scale_but_no_bias():
    extraction = AllViews(out_dim=5, output_norm="scale")
    extraction.build(out_channels=(6,))
    _, norm = extraction.heads
    assert [name for name, _ in norm.named_parameters()] == ["weight"]
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, 6.0))
    z = extraction.heads((torch.rand(200, 6, 2, 2),))
    torch.testing.assert_close(z.mean(0), torch.zeros(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std(0, correction=0), torch.arange(1.0, 6.0), rtol=1e-2, atol=0)


def test_hidden_width_is_the_encoders_by_default():
    extraction = AllViews()
    extraction.build(out_channels=(3, 6))
    assert [tuple(p.shape) for p in extraction.heads.parameters() if p.ndim == 2] == [(6, 6), (128, 6)]


@pytest.mark.parametrize("argument", ["hidden_dim", "out_dim", "layers"])
def test_numbers_must_be_positive(argument):
    with pytest.raises(ValueError, match=f"{argument}: expected a positive number, got 0"):
        AllViews(**{argument: 0})


def test_one_view_or_one_image_leaves_nothing_to_compare():
    with pytest.raises(ValueError, match="views: expected at least 2 per image, got 1"):
        contrast(views=1, images=4)
    with pytest.raises(ValueError, match=r"batch: 1 image has no negatives; .*at least 2 and drop_last=True"):
        contrast(views=2, images=1)


def test_views_have_the_same_images():
    with pytest.raises(ValueError, match=r"views: expected 3 images in each, got \[4, 2\]"):
        AllViews()([torch.zeros(4, 5), torch.zeros(2, 5)], None, torch.arange(3)[:, None], None)


@pytest.mark.parametrize(
    "options",
    [
        {"positive_count": 2},
        {"positive_count": "large"},
        {"positive_count": 1, "same_view_negatives": True},
        {"positive_count": "small", "same_view_negatives": True},
    ],
)
def test_positives_are_at_least_two_and_of_the_same_views_negatives(options):
    with pytest.raises(
        ValueError,
        match=r"positive_count: expected (\"large\", or a number of 2 or more, with same|int, 'large' or None, )",
    ):
        AllViews(**options)


def test_there_are_no_more_positives_than_views():
    with pytest.raises(ValueError, match="positive_count: expected at most the 2 views there are, got 3"):
        of_same_view(2, 4, positive_count=3)


def of_sizes(*sizes):
    extraction = AllViews(out_dim=4, same_view_negatives=True, positive_count="large")
    extraction.build(out_channels=(6,), sizes=sizes)
    return extraction


@pytest.mark.parametrize(
    ("sizes", "large"),
    [((8, 8), 2), ((8, 8, 6, 6), 2), ((8, 8, 8, 6), 3), ((8, 8, 6, 7), 2), ((None, None), 2)],
)
def test_large_positives_are_the_views_of_the_first_ones_size(sizes, large):
    views = [torch.rand(3, 4) for _ in sizes]
    counted = of_sizes(*sizes)(views, None, torch.arange(3)[:, None], None)
    expected = AllViews(out_dim=4, same_view_negatives=True, positive_count=large)(
        views, None, torch.arange(3)[:, None], None
    )
    assert len(counted) == len(expected) == 1 + (large < len(sizes))
    for one, other in zip(counted, expected, strict=True):
        assert torch.equal(one.relation[:], other.relation[:])
        assert torch.equal(one.anchors, other.anchors)
        assert one.weight == other.weight


def test_large_views_come_first_and_are_as_many_as_counted():
    with pytest.raises(
        ValueError, match=r"augmentation: makes views of \[6, 8\] pixels; let the large ones come first"
    ):
        of_sizes(6, 8).student_views(2)
    with pytest.raises(ValueError, match=r'views: got 3, but positive_count="large" was counted .* 2 views; pass aug'):
        of_sizes(8, 8).student_views(3)


# ---- labels ----------------------------------------------------------------------------------------------------------


def test_labels_relate_views_and_minus_one_matches_nothing():
    """In SupCon, the views of the same image have rank 1, and other images with the same label have rank 2."""
    extraction = AllViews(out_dim=4, label_levels=1)
    extraction.build(out_channels=(6,))
    labels = [3, -1, 3, 5, -1]
    ids = torch.stack([torch.arange(5), torch.tensor(labels)], dim=1)
    [c] = extraction(list(torch.randn(2, 5, 4)), None, ids, None)
    for a in range(10):
        for b in range(10):
            same_label = labels[a % 5] == labels[b % 5] >= 0
            expected = -1 if a == b else 1 if a % 5 == b % 5 else 2 if same_label else 0
            assert c.relation[:][a, b] == expected


def test_supcon_equals_the_official_loss():
    """The numpy version takes all other views with the same label as positives. Its factor is temperature / 0.07."""
    extraction = AllViews(out_dim=4, label_levels=1)
    extraction.build(out_channels=(6,))
    labels = torch.tensor([0, 1, 0, 2, 1])
    ids = torch.stack([torch.arange(5), labels], dim=1)
    views = list(torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    found = objective(extraction(views, None, ids, None), Cosine(), SupConLoss(0.1, base_temperature=0.07))
    z = normalize(torch.cat(views), dim=1).numpy()
    of_view, scores, terms = np.tile(labels.numpy(), 2), z @ z.T / 0.1, []
    for a in range(10):
        others = [b for b in range(10) if b != a]
        positives = [b for b in others if of_view[a] == of_view[b]]
        total = np.log(np.exp(scores[a, others]).sum())
        terms.append(np.mean([total - scores[a, p] for p in positives]))
    assert found.item() == pytest.approx(0.1 / 0.07 * np.mean(terms), abs=1e-12)


@pytest.mark.parametrize("given", [None, torch.zeros(4, 2, dtype=torch.int64), torch.rand(4)])
def test_supcon_needs_one_level_of_labels(given):
    module = SupCon(MoCoViews(8, blur=False), Net(), image_size=8)
    with pytest.raises(ValueError, match=r"targets: .*AllViews\(\)"):
        module.training_step((pixels(4), given), 0)
    unlabelled = SupCon(MoCoViews(8, blur=False), Net(), AllViews(), image_size=8)  # as the error advises
    assert unlabelled.training_step((pixels(4), given), 0)["loss"].isfinite()


def test_labels_do_not_go_with_negatives_of_the_same_view():
    with pytest.raises(ValueError, match=r"label_levels: expected 0 with same_view_negatives=True, .* got 1"):
        AllViews(same_view_negatives=True, label_levels=1)


def test_a_projector_without_batch_norm_has_biases():
    extraction = AllViews(7, 4, batch_norm=False)
    extraction.build(out_channels=(6,))
    assert [(n, tuple(p.shape)) for n, p in extraction.heads.mlp.named_parameters()] == [
        ("0.weight", (7, 6)),
        ("0.bias", (7,)),
        ("2.weight", (4, 7)),
        ("2.bias", (4,)),
    ]
