"""Compare convolutions of maps of few pixels with PyTorch's, by an encoder's forward and backward pass on a CPU.

    python examples/benchmarks/few_pixels.py [--images 512] [--threads 1] [--rounds 5]

If the images are small, the last maps of a ResNet have one or four pixels. The maps of CPC's network for patches are
as small. Both rows of a table have the same encoder, weights and images. "ours" is the encoder that each module builds.
"PyTorch's convolutions" is the same encoder with plain convolutions. As in a fit, the tensors of a ResNet have channels
last, and the process keeps the memory that it frees.
"""

import argparse
from copy import deepcopy
from functools import partial

import torch
from timing import interleaved, machine, print_table, threads
from torch import Tensor, nn

from ssl_modules.encoders import CPCEncoder, Encoder
from ssl_modules.encoders.few_pixels import FewPixelsConv2d
from ssl_modules.utils.memory import keep_freed_memory

CASES = {  # title: encoder, side of the images, small_stem
    "ResNet-10, 8 px": ("resnet10t", 8, None),
    "ResNet-10, 28 px": ("resnet10t", 28, False),
    "ResNet-10, 40 px": ("resnet10t", 40, False),
    "ResNet-18, 28 px": ("resnet18", 28, False),
    "CPC's network, patches of 8 px": (partial(CPCEncoder, 8, 1, layers=(1, 1, 1, 1), width=16), 8, None),
}


def pass_through(encoder: Encoder, images: Tensor) -> None:
    """Compute the last map and the gradients of its sum."""
    encoder.zero_grad()
    encoder(images)[-1].sum().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    keep_freed_memory()
    print(machine())
    with threads(args.threads):
        for title, (encoder, side, small_stem) in CASES.items():
            network = encoder if isinstance(encoder, str) else encoder()
            ours = Encoder(network, image_size=side, in_channels=1, small_stem=small_stem)
            plain = deepcopy(ours)
            for module in plain.modules():
                if isinstance(module, FewPixelsConv2d):
                    module.__class__ = nn.Conv2d
            images = torch.rand(args.images, 1, side, side)
            encoders = {"PyTorch's convolutions": plain, "ours": ours}
            seconds = interleaved({k: partial(pass_through, e, images) for k, e in encoders.items()}, args.rounds)
            rows = [(k, args.images / s, seconds["PyTorch's convolutions"] / s) for k, s in seconds.items()]
            print_table(f"{title}, {args.images} images", ("", "images/s", "ratio"), rows)


if __name__ == "__main__":
    main()
