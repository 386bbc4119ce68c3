import pytest
import torch
from miniatures import write_fashion_mnist
from needs import needs_fashion_mnist

from ssl_modules.datamodules import (
    FashionMNISTDataModule,
    ScatteredFashionMNISTDataModule,
    TensorImages,
    pixel_statistics,
)
from ssl_modules.datamodules.scattered_fashion_mnist import scatter


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(FashionMNISTDataModule, "debian_folder", tmp_path / "debian")
    write_fashion_mnist(tmp_path)
    return tmp_path


def loaded(root, **given):
    data = ScatteredFashionMNISTDataModule(root, batch_size=4, **given)
    data.setup()
    return data


def canvases(images, size=40, pieces=0, seed=0):
    return scatter(images, size, pieces, torch.Generator().manual_seed(seed))


def test_parts_and_targets_are_those_of_fashion_mnist(root):
    plain = FashionMNISTDataModule(root, coarse=True)
    plain.setup()
    data = loaded(root, coarse=True)
    assert torch.equal(data.train_set.targets, plain.train_set.targets)
    assert torch.equal(data.test_set.targets, plain.test_set.targets)
    assert data.train_set.images.shape == (len(plain.train_set), 1, 40, 40)
    assert data.level_names == ("class", "coarse")


def test_the_canvas_depends_only_on_scatter_seed(root):
    first = loaded(root).train_set.images
    assert torch.equal(loaded(root, seed=7).train_set.images, first)
    assert not torch.equal(loaded(root, scatter_seed=1).train_set.images, first)
    subset = loaded(root, subset=5).train_set
    assert all((first == image).flatten(1).all(1).any() for image in subset.images)


def test_equal_garments_of_the_two_parts_have_different_places(root, monkeypatch):
    white = TensorImages(torch.full((4, 1, 28, 28), 255, dtype=torch.uint8), torch.zeros(4, dtype=torch.long))
    monkeypatch.setattr(FashionMNISTDataModule, "_part", lambda self, folder, part: white)
    data = loaded(root, pieces=0)
    assert not torch.equal(data.train_set.images, data.test_set.images)


def test_a_garment_keeps_its_shape_at_another_place_size_and_brightness():
    white = torch.full((200, 1, 28, 28), 255, dtype=torch.uint8)
    found = canvases(white)
    corners, sides, values = set(), set(), set()
    for canvas in found[:, 0]:
        rows, columns = canvas.nonzero().unbind(1)
        side = int(rows.max() - rows.min() + 1)
        assert int(columns.max() - columns.min() + 1) == side
        box = canvas[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert box.unique().numel() == 1  # one brightness
        corners.add((int(rows.min()), int(columns.min())))
        sides.add(side)
        values.add(int(box[0, 0]))
    assert min(sides) == 16
    assert max(sides) == 28
    assert len(corners) > 150
    assert found[:, 0].amax(dim=(0, 2)).min() > 0  # garments reach all four sides of the canvas
    assert found[:, 0].amax(dim=(0, 1)).min() > 0
    assert 102 <= min(values) < 130
    assert 230 < max(values) <= 255


def test_pieces_are_half_as_bright_and_behind_the_garment():
    black, white = torch.zeros(1, 1, 28, 28, dtype=torch.uint8), torch.full((3, 1, 28, 28), 255, dtype=torch.uint8)
    bare = canvases(torch.cat([white, black]))
    cluttered = canvases(torch.cat([white, black]), pieces=8)
    assert torch.equal(cluttered.maximum(bare), cluttered)
    assert (cluttered != bare).any()
    assert set(cluttered[3].unique().tolist()) <= {0, 127}  # no garment, only pieces of 255 / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 27}, "image_size: expected .* at least 28, got 27"),
        ({"pieces": -1}, "pieces: expected .* got -1"),
        ({"scatter_seed": -1}, "scatter_seed: expected .* got -1"),
    ],
)
def test_errors_name_the_wrong_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScatteredFashionMNISTDataModule(**arguments)


def test_a_canvas_may_be_as_small_as_the_images(root):
    assert loaded(root, image_size=28, pieces=0).train_set.images.shape[-2:] == (28, 28)


@pytest.mark.slow
@needs_fashion_mnist
def test_the_statistics_are_those_of_the_training_images():
    data = ScatteredFashionMNISTDataModule()
    data.setup()
    mean, std = pixel_statistics(data.train_set)
    assert mean == pytest.approx(data.mean, abs=1e-4)
    assert std == pytest.approx(data.std, abs=1e-4)
