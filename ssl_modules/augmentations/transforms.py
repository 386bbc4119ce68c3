"""Inspects other libraries' transforms and plain functions: what they are, and which image format they take."""

import functools
import inspect
from collections.abc import Iterator
from typing import Any, Literal

from torch import nn

from ssl_modules.augmentations.operation import Operation
from ssl_modules.augmentations.views import Augmentation

Per = Literal["image", "batch"]
Form = Literal["float", "tensor", "numpy", "pil"]  # input format of a transform

FROM_PIL = {("torchvision.transforms.transforms", name) for name in ("ToTensor", "PILToTensor")}


def describe(transform: Any) -> str:
    """Return a callable's kind, library and name in words, for error messages.

    Example:
        >>> describe(describe)
        'the function describe'
    """
    if inspect.isroutine(transform):
        return f"the function {transform.__name__}"
    kind = type(transform)
    library = kind.__module__.partition(".")[0]
    if library in ("__main__", "builtins"):
        return f"the {kind.__name__}"
    return f"{'an' if library[0] in 'aeiou' else 'a'} {library} {kind.__name__}"


def check_transform(transform: Any, per: Per) -> None:
    """Raise unless a transform can be wrapped as an augmentation.

    Args:
        transform: the value passed as a transform.
        per: whether it is called for each image or for the batch.

    Raises:
        TypeError: if it is not callable, is a class, or is an operation or augmentation of this package.
        ValueError: if it normalises, or if ``per`` is "batch" and it would not draw separately for each image.

    Example:
        >>> check_transform(nn.Identity(), "batch")
    """
    if isinstance(transform, type):
        raise TypeError(f"transform: got the class {transform.__name__}; give an instance, {transform.__name__}(...)")
    if isinstance(transform, Operation):
        name = type(transform).__name__
        raise TypeError(f"transform: got the operation {name} of this package; use Views([{name}(...)])")
    if isinstance(transform, Augmentation):
        raise TypeError(f"transform: {type(transform).__name__} is an augmentation already; give it as it is")
    if not callable(transform):
        raise TypeError(
            f"transform: expected a callable, such as torchvision.transforms.v2.Compose([...]), got {transform!r}"
        )
    for part in parts_of(transform):
        libraries = libraries_of(part)
        if "Normalize" in (kind.__name__ for kind in type(part).__mro__):
            raise ValueError(
                f"transform: {describe(transform)} normalises; leave Normalize out, as the encoder normalises (mean=, "
                "std=)"
            )
        if per == "batch" and "torchvision" in libraries and not inspect.isroutine(part):
            raise ValueError(
                f"per: {describe(transform)} would draw once for the whole batch; use per='image', or an augmentation "
                "of this package or of kornia"
            )
        if per == "batch" and "albumentations" in libraries:
            raise ValueError(f"per: {describe(transform)} takes one image at a time; use per='image'")


def parts_of(transform: Any) -> Iterator[Any]:
    """Yield a transform and all transforms that can be found inside it.

    Example:
        >>> [type(part).__name__ for part in parts_of(nn.Sequential(nn.Identity()))]
        ['Sequential', 'Identity']
    """
    yield transform
    inner: list[Any] = []
    if isinstance(transform, nn.Module):
        inner += transform.children()
    if isinstance(transform, functools.partial):
        inner.append(transform.func)
    # torchvision's Compose is a module, but does not register its transforms as submodules.
    listed = getattr(transform, "transforms", None)
    if isinstance(listed, list | tuple):
        inner += listed
    wrapped = getattr(transform, "transform", None)
    if callable(wrapped) and not inspect.isroutine(wrapped):
        inner.append(wrapped)
    for part in inner:
        yield from parts_of(part)


def libraries_of(part: Any) -> set[str]:
    """Return the packages that define a function, or an object's class and its bases.

    Example:
        >>> sorted(libraries_of(nn.Identity()))
        ['builtins', 'torch']
    """
    sources = [part] if inspect.isfunction(part) else type(part).__mro__
    return {source.__module__.partition(".")[0] for source in sources}


def form_of(transform: Any) -> Form:
    """Return the input format of a transform.

    Example:
        >>> form_of(nn.Identity())
        'float'
    """
    parts = [*parts_of(transform)]
    libraries = set().union(*map(libraries_of, parts))
    if "albumentations" in libraries:
        return "numpy"
    kinds = {(kind.__module__, kind.__name__) for part in parts for kind in type(part).__mro__}
    if kinds & FROM_PIL:
        return "pil"
    return "tensor" if "torchvision" in libraries else "float"
