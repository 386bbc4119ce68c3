import pytest
import torch

from ssl_modules.extractions import AllViews


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
            x = (x / (1 + 1e-5) ** 0.5).relu()  # batch norm as it begins, in eval mode
    torch.testing.assert_close(heads(maps), x)


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
