import pytest
import torch
from torch import nn

from ssl_modules.extractions.heads import MLP, PooledMLP


def linear(head):
    return [(m.in_features, m.out_features, m.bias is not None) for m in head.modules() if isinstance(m, nn.Linear)]


@pytest.mark.parametrize(
    ("arguments", "biases", "kinds"),
    [
        ({}, (False, False), [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]),
        ({"bias": True}, (False, True), [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]),  # BYOL
        ({"batch_norm": False, "bias": True}, (True, True), [nn.Linear, nn.ReLU, nn.Linear]),  # MoCo v2
        ({"batch_norm": False}, (True, False), [nn.Linear, nn.ReLU, nn.Linear]),
    ],
)
def test_layers(arguments, biases, kinds):
    mlp = MLP(6, 7, 5, **arguments)
    assert [type(layer) for layer in mlp] == kinds
    assert linear(mlp) == [(6, 7, biases[0]), (7, 5, biases[1])]
    assert linear(PooledMLP(6, 7, 5, **arguments)) == linear(mlp)


def test_the_pooled_one_is_the_plain_one_of_the_deepest_maps_mean():
    head = PooledMLP(6, 7, 5, batch_norm=False, bias=True)
    maps = (torch.rand(3, 2, 8, 8), torch.rand(3, 6, 2, 4, 4))
    first, _, last = head.mlp
    x = maps[1].mean((2, 3, 4))
    x = (x @ first.weight.T + first.bias).relu() @ last.weight.T + last.bias
    torch.testing.assert_close(head(maps), x)


def test_names_of_weights_are_those_of_earlier_checkpoints():
    names = [name for name, _ in PooledMLP(6, 7, 5).named_parameters()]
    assert names == ["mlp.0.weight", "mlp.1.weight", "mlp.1.bias", "mlp.3.weight"]


def test_one_image_is_too_few_for_batch_norm_alone():
    x = torch.rand(1, 6)
    with pytest.raises(ValueError, match=r"batch: 1 image is too few .*drop_last=True"):
        MLP(6, 7, 5)(x)
    for mlp in (MLP(6, 7, 5).eval(), MLP(6, 7, 5, batch_norm=False), MLP(6, 5)):
        assert mlp(x).isfinite().all()
