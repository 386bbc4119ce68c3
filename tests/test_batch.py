import pytest
import torch

from ssl_modules.batch import read_batch

X = torch.rand(4, 3, 8, 8)
SMALL = torch.rand(4, 3, 6, 6)
MASK = torch.rand(4, 1, 8, 8)
Y = torch.arange(4)
NAMES = ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("batch", "images", "views", "targets", "index"),
    [
        (X, X, None, None, None),
        ((X,), X, None, None, None),
        ([X], X, None, None, None),
        ((X, Y), X, None, Y, None),
        ([X, Y], X, None, Y, None),
        ((X, Y, NAMES), X, None, Y, NAMES),
        ((X, Y, Y, "more"), X, None, Y, Y),
        ((X, NAMES), X, None, None, None),
        ((X, None, NAMES), X, None, None, NAMES),
        ([X, SMALL], X, None, SMALL, None),
        ((X, MASK), X, None, MASK, None),
        ((X, SMALL, Y), X, None, SMALL, Y),
        ([[X, SMALL]], None, [X, SMALL], None, None),
        (([X, SMALL],), None, [X, SMALL], None, None),
        (([X, SMALL], Y), None, [X, SMALL], Y, None),
        (((X, SMALL), Y, NAMES), None, [X, SMALL], Y, NAMES),
        (([X],), None, [X], None, None),
        (torch.rand(4, 2, 2, 3, 8, 8), torch.rand(4, 2, 2, 3, 8, 8), None, None, None),
    ],
)
def test_every_usual_form_is_read(batch, images, views, targets, index):
    b = read_batch(batch)
    assert (b.images is None) == (images is None)
    if images is not None and images is X:
        assert b.images is X
    assert (b.views is None) == (views is None)
    for view, expected in zip(b.views or [], views or [], strict=True):
        assert view is expected
    assert b.targets is targets
    assert b.index is index
    assert len(b) == 4
    assert b.device == X.device


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"image": X, "label": Y}, r"a dict with keys \['image', 'label'\]; give a tuple instead"),
        ([], "expected images, or .* got a list"),
        (None, "got a NoneType"),
        (("a.png", Y), "expected images or a list of views first, got a str"),
        (([], Y), "expected images or a list of views first, got a list"),
        (torch.rand(4, 8, 8), r"expected images \[N, ch, height, width\], got a tensor \[4, 8, 8\] of torch.float32"),
        ((torch.rand(4, 64), Y), r"got a tensor \[4, 64\]"),
        ({"a": 1}.items(), "got a dict_items"),
    ],
)
def test_anything_else_is_refused_by_name(batch, message):
    with pytest.raises(TypeError, match=f"batch: .*{message}"):
        read_batch(batch)
