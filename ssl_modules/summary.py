"""A summary of a module as text."""

from functools import partial
from typing import Any

from ssl_modules.augmentations import JointViews
from ssl_modules.utils.configurable import described

_SCREEN = 24  # longest augmentation, in lines, that is printed in full


def summary(module: Any) -> str:
    """The five aspects and the recipe of a :class:`~ssl_modules.ContrastiveModule`, one line each.

    Example:
        >>> from ssl_modules import SimCLR
        >>> print(summary(SimCLR()).splitlines()[-5].strip())
        loss: InfoNCE(temperature=0.1, l2=0.0, mode='out')
    """
    encoder = module.encoder
    parameters = sum(p.numel() for p in encoder.parameters())
    augmentation, optimizer = repr(module.augmentation), repr(module.optimizer)
    if augmentation.count("\n") > _SCREEN and isinstance(module.augmentation, JointViews):
        augmentation = "\n  ".join(["JointViews of", *map(described, module.augmentation.parts)])
    if isinstance(module.optimizer, partial) and isinstance(module.optimizer.func, type):
        arguments = ", ".join(f"{name}={value!r}" for name, value in module.optimizer.keywords.items())
        optimizer = f"{module.optimizer.func.__name__}({arguments})"
    size = f"{encoder.in_channels} x {encoder.image_size} x {encoder.image_size}"
    lines = {
        "augmentation": augmentation,
        "encoder": f"{encoder.name}, {parameters:,} parameters, {size}",
        "extraction": module.extraction,
        "similarity": module.similarity,
        "loss": module.loss,
        "optimizer": optimizer,
        "schedule": module.schedule,
        "base_batch_size": module.base_batch_size,
    }
    body = "".join(f"  {name}: {value}\n".replace("\n", "\n  ").rstrip(" ") for name, value in lines.items())
    return f"{type(module).__name__}(\n{body})"
