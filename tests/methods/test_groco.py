import warnings

import pytest
import torch
from conformance.cases import trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ssl_modules import GroCo
from ssl_modules.augmentations import GroCoViews, JointViews, RandomResizedCrop, Views
from ssl_modules.extractions import AllViews

METRICS = {"val/loss", "val/contrast_top1", "val/contrast_ap"}


def test_the_projector_is_the_authors():
    layers = [m for m in GroCo().extraction.heads.modules() if not list(m.children())]
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear, nn.BatchNorm1d]
    assert [type(layer) for layer in layers] == kinds
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linear] == [(2048, 512), (2048, 2048), (2048, 2048)]
    assert all(layer.bias is None for layer in linear)
    assert [layer.affine for layer in layers if isinstance(layer, nn.BatchNorm1d)] == [True, True, False]


def test_the_recipe_is_the_authors():
    module = GroCo()
    [group] = module.optimizer(module.param_groups()).param_groups  # weight decay applies to biases and norms too
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (24, 0.9, 1e-6)
    assert (module.base_batch_size, module.schedule.warmup) == (1024, 0.01)


def test_multi_crop_sorts_rows_of_two_lengths():
    extraction = AllViews(16, 8, 2, same_view_negatives=True, positive_count=2, stop_gradient=True)
    module = GroCo(GroCoViews(16, small_views=3, small_size=8, blur=False), "test_resnet", extraction, image_size=16)
    views = module.augmentation(torch.rand(12, 3, 20, 20), torch.Generator().manual_seed(0))
    large, small = module.extraction(module.embed(views).student, None, torch.arange(12)[:, None], None)
    for c, anchors, positives in ((large, 24, 1), (small, 36, 2)):
        assert (c.relation[:] > 0).sum(1).tolist() == [positives] * anchors
        assert (c.relation[:] == 0).sum(1).tolist() == [11] * anchors


def test_the_large_crops_of_multi_crop_are_the_positives():
    for name, large, small in (("groco-multicrop", 2, 6), ("groco", 2, 0)):
        module = GroCo(name, "test_resnet", image_size=32)
        views = [module.extraction.heads(module.encoder(torch.rand(2, 3, 8, 8))) for _ in range(large + small)]
        contrasts = module.extraction(views, None, torch.arange(2)[:, None], None)
        assert [(c.relation[:] > 0).sum(1).unique().item() for c in contrasts] == [large - 1, large][: len(contrasts)]
        assert [len(c.anchors) for c in contrasts] == [2 * large, 2 * small][: 1 + (small > 0)]
    with pytest.raises(
        TypeError, match=r"augmentation: expected an Augmentation or the name of a policy, got \[32, 32\]"
    ):
        GroCo([32, 32])
    small_first = JointViews([Views([RandomResizedCrop(6)]), Views([RandomResizedCrop(8)])])
    with pytest.raises(
        ValueError, match=r"augmentation: makes views of \[6, 6, 8, 8\] .* let the large ones come first"
    ):
        GroCo(small_first, "test_resnet", image_size=8)


def loader(images, batch_size=16, **options):
    return DataLoader(TensorDataset(torch.rand(images, 1, 8, 8)), batch_size, **options)


def test_a_validation_part_that_is_too_small_is_said():
    views = GroCoViews(8, blur=False)
    module = GroCo(views, "test_resnet", AllViews(16, 8, 2, same_view_negatives=True), image_size=8, in_channels=1)
    with pytest.warns(UserWarning, match="val: the first batch has 5 images and is left out, as GroCoLoss compares 11"):
        assert trainer().validate(module, loader(5), verbose=False) == [{}]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "val: the first batch")
        assert trainer().validate(module, loader(21), verbose=False)[0].keys() == METRICS  # drops the last 5


def test_a_last_batch_that_is_too_small_is_told_before_the_first_step():
    views = GroCoViews(8, blur=False)
    module = GroCo(views, "test_resnet", AllViews(16, 8, 2, same_view_negatives=True), image_size=8, in_channels=1)
    steps = []
    module.on_train_batch_end = lambda *args: steps.append(args)
    with pytest.raises(ValueError, match=r"batch: the last one of an epoch has 5 images.* most the 4 that an anchor"):
        trainer(max_epochs=1).fit(module, loader(37))
    assert not steps
    trainer(max_epochs=1).fit(module, loader(37, drop_last=True))
    trainer(max_epochs=1, limit_train_batches=2).fit(module, loader(37))
    trainer(max_epochs=1).fit(module, loader(43))
    assert len(steps) == 2 + 2 + 3
