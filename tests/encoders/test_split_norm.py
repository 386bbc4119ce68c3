import pytest
import timm
import torch
from torch import nn

from ssl_modules import MoCo
from ssl_modules.encoders import Encoder, SplitBatchNorm2d
from ssl_modules.encoders.split_norm import split_batch_norms
from ssl_modules.extractions import Queue


def trained_norm():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3, eps=1e-3, momentum=0.3).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_each_part_is_normalised_as_by_a_device_of_its_own(interleaved, layout):
    norm, n = trained_norm(), 4
    x = torch.randn(12, 3, 5, 2, dtype=torch.float64)
    weight = torch.randn_like(x)
    split = SplitBatchNorm2d(norm, n).double()
    split.interleaved = interleaved
    own = x.clone().to(memory_format=layout).requires_grad_()
    y = split(own)
    (weight * y).sum().backward()

    rows = [torch.arange(12)[i::n] if interleaved else torch.arange(12)[3 * i : 3 * i + 3] for i in range(n)]
    theirs = x.clone().requires_grad_()
    means, variances = [], []
    for part in rows:
        device = trained_norm()
        out = device(theirs[part])
        torch.testing.assert_close(y[part], out, rtol=0, atol=1e-12)
        (weight[part] * out).sum().backward()
        means.append(device.running_mean)
        variances.append(device.running_var)
    torch.testing.assert_close(own.grad, theirs.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(split.running_mean, torch.stack(means).mean(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(split.running_var, torch.stack(variances).mean(0), rtol=0, atol=1e-12)


def test_momentum_zero_keeps_the_statistics_exactly():
    norm = SplitBatchNorm2d(nn.BatchNorm2d(64, momentum=0.0), 3)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    before = {name: buffer.clone() for name, buffer in norm.named_buffers() if "running" in name}
    norm(torch.randn(6, 64, 2, 2))
    for name, buffer in before.items():
        assert torch.equal(norm.get_buffer(name), buffer), name


def test_evaluation_and_weights_are_those_of_the_plain_norm():
    norm = trained_norm().eval()
    split = SplitBatchNorm2d(norm, 2).double().eval()
    x = torch.randn(3, 3, 2, 2, dtype=torch.float64)
    assert torch.equal(split(x), norm(x))
    assert split.state_dict().keys() == norm.state_dict().keys()


def test_the_network_keeps_its_weights_and_outputs():
    torch.manual_seed(0)
    plain = timm.create_model("resnet10t", in_chans=1).eval()
    model = timm.create_model("resnet10t", in_chans=1).eval()
    model.load_state_dict(plain.state_dict())
    split_batch_norms(model, 2)
    assert not any(type(m) is nn.BatchNorm2d for m in model.modules())
    x = torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(model.eval()(x), plain(x), rtol=0, atol=0)
    plain.load_state_dict(model.state_dict())


def test_no_image_meets_another_in_the_parts_of_both_networks():
    """A part of the student has consecutive images. A part of the teacher has every fourth image."""
    module = MoCo(encoder="resnet10t", extraction=Queue(size=64), batch_norm_splits=4)
    parts = {}
    for name, network in (("student", module.encoder), ("teacher", module.teacher.encoder)):
        norm = next(m for m in network.modules() if isinstance(m, SplitBatchNorm2d))
        norm.train()
        x = torch.randn(16, norm.num_features, 2, 2).requires_grad_()
        # Two images are in the same part if the output of one depends on the other.
        parts[name] = torch.stack(
            [torch.autograd.grad(norm(x)[i].square().sum(), x)[0].abs().sum((1, 2, 3)) > 0 for i in range(16)]
        )
        assert (parts[name].sum(1) == 4).all()
    assert torch.equal(parts["student"] & parts["teacher"], torch.eye(16, dtype=torch.bool))


@pytest.mark.parametrize(
    ("model", "splits", "message"),
    [
        (nn.Sequential(nn.BatchNorm2d(1)), 1, "batch_norm_splits: .* got 1"),
        (nn.Sequential(nn.Conv2d(1, 1, 1)), 2, "batch_norm_splits: Sequential has no batch norm"),
        (nn.Sequential(nn.BatchNorm2d(1, affine=False)), 2, "batch_norm_splits: expected .*, got BatchNorm2d"),
        (timm.create_model("efficientnet_b0"), 2, "batch_norm_splits: expected .*, got BatchNormAct2d"),
    ],
)
def test_refuses(model, splits, message):
    with pytest.raises(ValueError, match=message):
        split_batch_norms(model, splits)


def test_names_a_batch_that_has_no_equal_parts():
    encoder = Encoder("resnet10t", image_size=32, in_channels=1, batch_norm_splits=4)
    with pytest.raises(ValueError, match="batch: 6 images don't make batch_norm_splits=4 equal parts"):
        encoder(torch.rand(6, 1, 32, 32))
