from collections import UserDict

import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from ssl_modules.batch import fields, read_batch

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
        ({"image": X}, X, None, None, None),
        ({"image": X, "label": Y}, X, None, Y, None),
        ({"img": X, "fine_label": Y, "index": NAMES}, X, None, None, NAMES),
        ({"pixel_values": X, "labels": Y, "path": NAMES}, X, None, Y, None),
        ({"images": [X, SMALL], "target": Y}, None, [X, SMALL], Y, None),
        (UserDict(targets=Y, views=(X, SMALL), crs=None), None, [X, SMALL], Y, None),
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
        ([], "expected images, or .* got a list of nothing"),
        (None, "got a NoneType"),
        (("a.png", Y), "got a tuple of a str, a tensor"),
        (([], Y), "got a tuple of a list of nothing, a tensor"),
        ({"image": "a.png", "label": Y}, "got a dict of image: a str, label: a tensor"),
        ((X.numpy(), Y), r"got a tuple of a ndarray, .*torch's default collate_fn"),
        ((list(X), Y), r"a list of 4 times a tensor \[3, 8, 8\] .*torch's default collate_fn"),
        (torch.rand(4, 8, 8), r"expected images \[N, ch, height, width\], got a tensor \[4, 8, 8\] of torch.float32"),
        ((torch.rand(4, 64), Y), r"got a tensor \[4, 64\]"),
        ({"a": 1}.items(), "got a dict_items"),
    ],
)
def test_anything_else_is_refused_by_name(batch, message):
    with pytest.raises(TypeError, match=f"batch: .*{message}"):
        read_batch(batch)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"pixels": X, "label": Y}, "expected a key for images, one of image, .*, got the keys pixels, label"),
        ({"image": X, "pixel_values": X}, "expected one key for images out of .*, got the keys image, pixel_values"),
        ({"image": X, "label": Y, "labels": Y}, "expected one key for targets out of"),
    ],
)
def test_unknown_or_ambiguous_keys_raise_an_error(batch, message):
    with pytest.raises(ValueError, match=f"batch: {message}.*collate_fn"):
        read_batch(batch)


def rename(rows):
    return default_collate([(row["pixels"], row["class"]) for row in rows])


@pytest.mark.parametrize(
    ("item", "refused", "advised"),
    [
        ({"pixels": X[0], "class": 1}, default_collate, rename),
        ((X[0].numpy(), 1), lambda rows: tuple(zip(*rows, strict=True)), default_collate),
        ((X[0], 1), lambda rows: tuple(zip(*rows, strict=True)), default_collate),
    ],
)
def test_following_the_advice_in_the_messages_works(item, refused, advised):
    with pytest.raises((TypeError, ValueError), match="collate_fn"):
        read_batch(next(iter(DataLoader([item] * 4, batch_size=4, collate_fn=refused))))
    batch = read_batch(next(iter(DataLoader([item] * 4, batch_size=4, collate_fn=advised))))
    assert torch.equal(batch.images, X[:1].expand(4, -1, -1, -1))
    assert batch.targets.tolist() == [1, 1, 1, 1]


def test_one_sample_is_read_like_a_batch():
    assert fields({"image": "x", "label": 2}) == fields(("x", 2)) == ("x", 2, None)
    assert fields("x") == ("x", None, None)
