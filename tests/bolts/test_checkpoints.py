"""We read checkpoints that lightning-bolts writes: the encoders give the same output."""

import pytest
import pytorch_lightning
import torch
from pl_bolts.datamodules import CIFAR10DataModule
from pl_bolts.models.self_supervised import AMDIM, CPC_v2, SimCLR, resnets
from pl_bolts.models.self_supervised.cpc import cpc_module
from pl_bolts.models.self_supervised.cpc.networks import CPCResNet, LNBottleneck, cpc_resnet50

from ssl_modules.encoders import Encoder
from ssl_modules.interop.bolts import cpc_encoder, load_encoder, resnet


def randomised(module):
    """Move every parameter and running statistic away from its initial value; return the module in eval mode."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(torch.rand_like(buffer))
    return module.eval()


def written(module, path):
    """Save the module as bolts does at the start of a fit; return the encoder that we read from the file."""
    trainer = pytorch_lightning.Trainer(
        max_epochs=0, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.strategy.connect(randomised(module))
    trainer.strategy._lightning_module = module
    trainer.save_checkpoint(path)
    encoder = load_encoder(path)
    path.unlink()
    return encoder


def pixels(size):
    return torch.rand(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("arguments", [{}, {"first_conv": False, "maxpool1": False}, {"maxpool1": False}])
def test_simclr(arguments, tmp_path):
    module = SimCLR(
        gpus=0, num_samples=8, batch_size=4, dataset="cifar10", arch="resnet18", hidden_mlp=512, **arguments
    )
    encoder = Encoder(written(module, tmp_path / "simclr.ckpt"), image_size=64, in_channels=3).double().eval()
    close(encoder(pixels(64))[-1].mean((2, 3)), module.double()(pixels(64)))


@pytest.mark.parametrize("image_size", [32, 64, 128])
@pytest.mark.parametrize("use_bn", [False, True])
def test_amdim(image_size, use_bn, tmp_path):
    module = AMDIM(
        datamodule=CIFAR10DataModule(str(tmp_path)),  # tests an object among the hyper-parameters
        image_height=image_size,
        encoder_feature_dim=4,
        embedding_fx_dim=40,
        conv_block_depth=2,
        use_bn=use_bn,
    )
    encoder = written(module, tmp_path / "amdim.ckpt").double().eval()
    theirs = module.encoder.double()
    x = pixels(image_size)
    seven, five, one = encoder(x)
    embedded = [one, theirs.rkhs_block_5(five), theirs.rkhs_block_7(seven)]
    for ours, expected in zip(embedded, theirs(x), strict=True):
        close(ours, expected)


def test_cpc(tmp_path, monkeypatch):
    monkeypatch.setattr(cpc_module, "cpc_resnet101", lambda batch: CPCResNet(batch, LNBottleneck, [1, 1, 2, 1]))
    module = CPC_v2(patch_size=16)
    encoder = written(module, tmp_path / "cpc.ckpt").double()
    close(encoder(pixels(16))[-1], module.encoder.double()(pixels(16)))


def test_cpc_of_the_size_of_resnet_50():
    theirs = randomised(cpc_resnet50(torch.zeros(2, 3, 8, 8))).double()
    close(cpc_encoder(theirs.state_dict(), 8).double()(pixels(8))[-1], theirs(pixels(8)))


def test_cpc_with_a_resnet(tmp_path):
    module = CPC_v2(encoder_name="resnet18", patch_size=8)
    encoder = Encoder(written(module, tmp_path / "cpc.ckpt"), image_size=8, in_channels=3).double().eval()
    close(encoder(pixels(8))[-1], module.encoder.double()(pixels(8))[-1][:, :, None, None])


@pytest.mark.parametrize("name", ["resnet34", "resnext50_32x4d", "wide_resnet50_2"])
def test_other_resnets(name):
    theirs = randomised(getattr(resnets, name)(return_all_feature_maps=True)).double()
    encoder = Encoder(resnet(theirs.state_dict()), image_size=32, in_channels=3).double().eval()
    for ours, expected in zip(encoder(pixels(32)), theirs(pixels(32))[1:], strict=True):
        close(ours, expected)
