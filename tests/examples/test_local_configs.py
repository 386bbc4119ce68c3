"""Local methods' configs that are too large to run here can be built: their settings fit together."""

from pathlib import Path

import pytest
import torch

from ssl_modules.cli import ContrastiveCLI
from ssl_modules.optim import param_groups

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"
MILLIONS = {  # parameters of the encoder, without the heads
    "amdim_cifar10": 154,
    "amdim_stl10": 194,
    "amdim_imagenet": 194,
    "cpc_cifar10": 326,
    "cpc_stl10": 327,
    "cpc_imagenet": 328,
}


@pytest.mark.parametrize("name", MILLIONS)
def test_the_configs_for_large_images_build(name):
    path = CONFIGS / f"{name}.yaml"
    assert "Not run here." in path.read_text()
    with torch.device("meta"):  # allocates no memory
        cli = ContrastiveCLI(run=False, args=["--config", str(path)])
    module = cli.model
    assert round(sum(p.numel() for p in module.encoder.parameters()) / 1e6) == MILLIONS[name]
    assert set(module.augmentation.sizes) == {cli.datamodule.image_size}
    optimizer = module.optimizer(param_groups([module]))
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.defaults["betas"] == (0.8, 0.999)
