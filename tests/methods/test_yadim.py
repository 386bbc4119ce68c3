import pytest
import torch
from torch.nn.functional import cross_entropy

from ssl_modules import YADIM
from ssl_modules.augmentations import YADIMViews
from ssl_modules.batch import read_batch
from ssl_modules.extractions import LocalMaps
from ssl_modules.losses import InfoNCE
from ssl_modules.objective import objective
from ssl_modules.similarities import ScaledDot


@pytest.mark.parametrize("strategy", ["last", "multi-pair", "same-map", "random"])
@pytest.mark.parametrize("patches", [None, (8, 4)])
def test_all_strategies_with_and_without_patches(strategy, patches):
    torch.manual_seed(0)
    module = YADIM(YADIMViews(32, shift=4, patches=patches), "test_resnet", LocalMaps(strategy, out_dim=16))
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    batch, generator = read_batch(images), torch.Generator().manual_seed(0)
    embedded = module.embed(module.views(batch, generator))
    contrasts = module.contrasts(batch, embedded, generator)
    objective(contrasts, module.similarity, module.loss).backward()
    assert len(contrasts) == 2 * {"last": 1, "multi-pair": 3, "same-map": 3, "random": 1}[strategy]
    if patches:
        assert {len(c.candidates) for c in contrasts} == {4 * 7 * 7}  # a vector per patch
    assert embedded.features.shape == (4, module.encoder.out_channels[-1])
    assert all(p.grad is not None for p in module.encoder.backbone.model.layer4.parameters())


def test_last_on_one_location_is_the_cross_entropy_of_both_directions():
    """Without clip and penalty, the loss is the mean cross-entropy of the rows and columns of two views' scores."""
    extraction = LocalMaps("last", out_dim=8)
    extraction.build((6,))
    maps = [(torch.randn(5, 6, 1, 1, generator=torch.Generator().manual_seed(v)),) for v in range(2)]
    z = [extraction.heads(m) for m in maps]
    contrasts = extraction(z, None, torch.arange(5)[:, None], None)
    scores = z[0][0][:, 0] @ z[1][0][:, 0].T / 8**0.5
    own = torch.arange(5)
    expected = (cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2
    torch.testing.assert_close(objective(contrasts, ScaledDot(), InfoNCE()), expected)
