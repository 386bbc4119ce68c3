import pytest
import torch
from modules import build as build_module
from torch.utils.data import DataLoader, default_collate

from ssl_modules.augmentations import ReadyViews
from ssl_modules.utils.configurable import build, storable


def test_it_declares_the_sizes_of_the_loaders_views():
    augmentation = ReadyViews([32, 32, 16])
    assert augmentation.sizes == (32, 32, 16)
    assert augmentation.patches is None
    augmentation.check_channels(13)


@pytest.mark.parametrize("images", [torch.rand(4, 3, 8, 8), torch.zeros(4, 3, 8, 8, dtype=torch.uint8)])
def test_images_are_refused_with_what_the_loader_has_to_give(images):
    with pytest.raises(TypeError, match=r"augmentation: ReadyViews .* give \(\[view1, view2\], \.\.\.\), .* 32, 16"):
        ReadyViews((32, 16))(images)


def test_a_flat_batch_of_views_is_refused_and_both_ways_out_work():
    module = build_module(augmentation=ReadyViews([8, 8]))
    views, labels = torch.rand(2, 4, 3, 8, 8), torch.arange(4)
    flat = DataLoader(list(zip(*views, strict=True)), batch_size=4)
    with pytest.raises(
        TypeError, match=r"let the data set return \(\[view1, view2\], target\), or .* collate_fn=lambda"
    ):
        module.training_step(next(iter(flat)), 0)
    nested = [([first, second], label) for first, second, label in zip(*views, labels, strict=True)]
    (batch,) = DataLoader(nested, batch_size=4)
    assert module.training_step(batch, 0)["loss"].isfinite()
    (batch,) = DataLoader(flat.dataset, batch_size=4, collate_fn=lambda items: (default_collate(items),))
    assert module.training_step(batch, 0)["loss"].isfinite()


def test_it_can_be_stored_and_built_again():
    config = storable({"augmentation": ReadyViews([32, 16])})["augmentation"]
    assert build("augmentation", config).sizes == (32, 16)


@pytest.mark.parametrize("sizes", [[], 32, [0], ["32"], [32.0], "32", None])
def test_wrong_sizes_are_named(sizes):
    with pytest.raises(
        (TypeError, ValueError),
        match=r"sizes: expected (a list of int|positive numbers, .* give the side of each view in pixels)",
    ):
        ReadyViews(sizes)
