"""Videos whose class is the kind of motion, which a single frame doesn't show.

Each video shows a garment of Fashion-MNIST that moves in one of six ways in front of a cluttered background. Garment,
background, place, size and angle of a single frame have the same distribution in all classes. All videos use the same
few garments and backgrounds, so a single frame hardly shows which video it is from. The videos are encoded as H.264.

``python examples/moving.py make data/moving`` writes them.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_modules.datamodules import FashionMNISTDataModule
from ssl_modules.datamodules.clips import write_video

SIDE, FPS, FRAMES = 48, 12, 36  # pixels, frames per second, frames per video
GROUNDS, GARMENTS = 8, 10
MOTIONS = {  # the phases that move: of x, y, size and angle. In "jumps", x and y stay for half a period.
    "vertical": [1],
    "horizontal": [0],
    "ellipse": [0, 1],
    "pulse": [2],
    "spin": [3],
    "jumps": [0, 1],
}


def motion(name: str, generator: torch.Generator) -> Tensor:
    """Return affine matrices [T, 2, 3] that map places on the canvas to places on the garment, both in [-1, 1].

    Place and size swing around a middle by the sine of a phase, and the angle is a phase itself. The phases that the
    motion changes depend on time. All other phases are random, so a single frame is equally likely in all classes.
    """

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    way = torch.sign(draw(-1, 1, 1)) * 2 * math.pi * torch.arange(FRAMES) / FPS / draw(0.8, 1.3, 1)  # [T]
    phases = draw(0, 2 * math.pi, 4, 1).expand(4, FRAMES).clone()
    if name == "jumps":
        half = (way.abs() / math.pi).long()  # number of the half period
        phases[:2] = draw(0, 2 * math.pi, 2, int(half.max()) + 1)[:, half]
    else:
        phases[MOTIONS[name]] += way
    x, y = draw(-0.15, 0.15, 2, 1) + draw(0.3, 0.4, 1) * phases[:2].sin()
    scale, angle = draw(0.4, 0.6, 1) * (1 + 0.45 * phases[2].sin()), phases[3]
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = (cos, sin, -(cos * x + sin * y), -sin, cos, sin * x - cos * y)
    return torch.stack(rows, dim=1).view(FRAMES, 2, 3)


def video(name: str, garments: Tensor, grounds: Tensor, generator: torch.Generator) -> Tensor:
    """Return a video of one moving garment, uint8 [3, T, SIDE, SIDE]."""
    garment = garments[torch.randint(len(garments), (), generator=generator)]
    ground = grounds[torch.randint(len(grounds), (), generator=generator)]
    grid = F.affine_grid(motion(name, generator), [FRAMES, 1, SIDE, SIDE], align_corners=False)
    shown = F.grid_sample(garment.expand(FRAMES, 1, -1, -1), grid, align_corners=False)
    mask = (shown * 4).clamp(0, 1)
    frames = ground * (1 - mask) + (0.3 + 0.7 * shown) * mask  # [T, 1, SIDE, SIDE]
    return (frames * 255).to(torch.uint8).transpose(0, 1).expand(3, -1, -1, -1)


def make(folder: Path, train: int, test: int, root: str) -> None:
    """Write the training and the test videos, with one folder for each class."""
    data = FashionMNISTDataModule(root)
    data.prepare_data()
    data.setup()
    images, targets = data.train_set.images, data.train_set.targets
    generator = torch.Generator().manual_seed(0)
    garments = torch.stack([images[targets == index % 10][index // 10] for index in range(GARMENTS)]) / 255
    names = [*MOTIONS]
    grounds = torch.stack([ground(images, generator) for _ in range(GROUNDS)])
    for part, count in (("train", train), ("test", test)):
        for index in range(count):
            name = names[index % len(names)]
            path = folder / part / name / f"{index:05d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, video(name, garments, grounds, generator), FPS, crf="20", g="12", preset="veryfast")


def ground(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return a background of darkened pieces of garments, [1, SIDE, SIDE]."""
    canvas = torch.zeros(1, SIDE, SIDE)
    for _ in range(30):
        piece = images[torch.randint(len(images), (), generator=generator)] / 255
        top, left = torch.randint(SIDE - 14, (2,), generator=generator).tolist()
        canvas[:, top : top + 14, left : left + 14] = 0.6 * piece[:, 7:21, 7:21]
    return canvas
