"""Networks and images that the encoder tests share."""

import torch
from torch import nn


def randomised(module):
    """Move every parameter and running statistic away from its initial value, so that each affects the output."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.2 * (p.abs().mean() + 0.05) * torch.randn(p.shape, generator=g))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.1 * torch.randn(buffer.shape, generator=g))
            elif name.endswith("running_var"):
                buffer.mul_(0.8 + 0.4 * torch.rand(buffer.shape, generator=g))
    return module.eval()


def pixels(n=2, channels=3, size=32):
    return torch.randint(256, (n, channels, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


class Vector(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 32 * 32, 5)

    def forward(self, x):
        return self.linear(x.flatten(1))


class TwoMaps(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3, stride=2)

    def forward(self, x):
        return self.a(x), self.b(self.a(x))


class Clips(nn.Module):
    """A user's own network for clips [B, ch, T, H, W]; it declares the attributes that ``Encoder`` reads."""

    out_channels = (4, 6)
    spatial_dims = 3

    def __init__(self):
        super().__init__()
        self.model = nn.Conv3d(3, 4, 3)
        self.last = nn.Conv3d(4, 6, 3)

    def forward(self, x):
        x = self.model(x)
        return x, self.last(x)
