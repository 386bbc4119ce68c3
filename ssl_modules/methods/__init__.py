"""One file a method: its paper's choice for the five aspects, and nothing else."""

from ssl_modules.methods.simclr import SimCLR

__all__ = ["SimCLR"]
