import torch
from torch import nn

from ssl_modules import GroCo
from ssl_modules.augmentations import GroCoViews
from ssl_modules.extractions import AllViews


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
    decayed, others = module.optimizer(module.param_groups()).param_groups
    assert (decayed["lr"], decayed["momentum"], decayed["weight_decay"]) == (24, 0.9, 1e-6)
    assert (others["lr"], others["momentum"], others["weight_decay"]) == (24, 0.9, 0)
    assert (module.reference_batch_size, module.warmup) == (1024, 0.01)


def test_multi_crop_sorts_rows_of_two_lengths():
    extraction = AllViews(16, 8, 2, same_view_negatives=True, positive_count=2, stop_gradient=True)
    module = GroCo(GroCoViews(16, small_views=3, small_size=8, blur=False), "test_resnet", extraction, image_size=16)
    views = module.augmentation(torch.rand(12, 3, 20, 20), torch.Generator().manual_seed(0))
    student = [module.extraction.heads(m) for m in module.encode(views)]
    large, small = module.extraction(student, None, torch.arange(12)[:, None], None)
    for c, anchors, positives in ((large, 24, 1), (small, 36, 2)):
        assert (c.relation[:] > 0).sum(1).tolist() == [positives] * anchors
        assert (c.relation[:] == 0).sum(1).tolist() == [11] * anchors
