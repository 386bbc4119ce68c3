"""A small queue, and the part of a training step that uses it."""

import torch

from ssl_modules.extractions import Queue


def queue(size=8, dim=5, **arguments):
    extraction = Queue(out_dim=dim, size=size, **arguments)
    extraction.build(out_channels=(6,))
    return extraction.double()


def vectors(views, images, dim=5, seed=1):
    g = torch.Generator().manual_seed(seed)
    return list(torch.randn(views, images, dim, generator=g, dtype=torch.float64))


def ids_of(images, first=0):
    return first + torch.arange(images)[:, None]


def step(extraction, keys, first=0):
    """Use the teacher's keys of one view as a training step does."""
    extraction([keys], [keys], ids_of(len(keys), first), None)
    extraction.after_backward()
