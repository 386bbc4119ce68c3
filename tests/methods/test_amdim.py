from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_modules import AMDIM
from ssl_modules.encoders import AMDIMEncoder
from ssl_modules.extractions import LocalMaps
from ssl_modules.extractions.local_maps import ResidualHead

REFERENCE = Path(__file__).parents[1] / "reference"


def test_the_vectors_that_are_compared_are_the_official_ones():
    v = np.load(REFERENCE / "amdim_6_encoder32_tiny.npz")
    module = AMDIM(encoder=AMDIMEncoder(32, width=2, features=10, depth=2)).double()
    of_encoder = [torch.tensor(v[name]) for name in v.files if name.startswith("w.layer_list.")]
    own = [x for name, x in module.encoder.backbone.state_dict().items() if not name.endswith("num_batches_tracked")]
    for x, given in zip(own, of_encoder, strict=True):
        x.copy_(given)
    for head, name in zip(module.extraction.heads.by_map.values(), ("rkhs_block_7", "rkhs_block_5"), strict=False):
        for layer, theirs in (("hidden", "conv1"), ("residual", "conv2"), ("skip", "shortcut"), ("norm", "bn_out.bn")):
            weight = getattr(head, layer).weight.data
            weight.copy_(torch.tensor(v[f"w.{name}.{theirs}.weight"]).view_as(weight))
        head.norm.bias.data.copy_(torch.tensor(v[f"w.{name}.bn_out.bn.bias"]))
    maps = module.encoder.backbone(torch.tensor(v["x"]).double())  # the backbone, because x is not in [0, 1]
    z = module.extraction.heads(maps)
    for i, name in enumerate(("r7", "r5", "r1")):
        expected = torch.tensor(v[name]).flatten(2).mT
        torch.testing.assert_close(z[i], expected, rtol=0, atol=1e-10)


def test_only_the_own_encoder_goes_without_a_head_for_its_deepest_map():
    of_own = AMDIM(encoder=AMDIMEncoder(32, width=4, features=24, depth=1)).extraction.heads.by_map
    assert {i: type(head) for i, head in of_own.items()} == {
        "0": ResidualHead,
        "1": ResidualHead,
        "2": torch.nn.Identity,
    }
    assert of_own["0"].norm.num_features == 24
    of_other = AMDIM(encoder="resnet10t").extraction.heads.by_map
    assert {i: (type(head), head.norm.num_features) for i, head in of_other.items()} == dict.fromkeys(
        ("2", "3", "4"), (ResidualHead, 512)
    )


@pytest.mark.parametrize(
    ("size", "width", "features", "depth", "live"),
    [
        (32, 64, 512, 3, 5_011_200),
        (32, 128, 1024, 3, 20_033_024),
        (64, 128, 1024, 3, 57_748_992),
        (128, 128, 1024, 3, 57_902_720),
        (32, 320, 1280, 10, 163_654_400),
        (128, 320, 2560, 10, 665_747_520),
    ],
)
def test_parameters_are_as_many_as_in_the_official_network(size, width, features, depth, live):
    with torch.device("meta"):
        encoder = AMDIMEncoder(size, width=width, features=features, depth=depth)
        extraction = LocalMaps(out_dim=None)
        extraction.build(encoder.out_channels)
    own = sum(p.numel() for part in (encoder, extraction) for p in part.parameters())
    assert own == live - 2 * features  # without the biases of both heads' skips: the norm cancels them
