"""Features of labelled images by any module, without changing the module or the run."""

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

Features = str | Callable[[Any, Any], Tensor] | None
Prepare = Callable[[Any], tuple[Any, Tensor]] | None


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Puts the module into eval mode without gradients, and leaves everything as it was.

    On leaving, every submodule gets its own mode back, and so do the global random states (PyTorch, CUDA, NumPy,
    Python): even an unshuffled loader draws from them. Inside, PyTorch's CPU state is the same each time and in every
    process, so that a shuffling loader gives one order.

    Example:
        >>> module = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with undisturbed(module):
        ...     [part.training for part in module]
        [False, False]
        >>> [part.training for part in module]
        [True, False]
    """
    modes = {part: part.training for part in module.modules()}
    # Set the attributes instead of calling module.eval(): some modules override train() to do more.
    for part in modes:
        part.training = False
    try:
        with isolate_rng(), torch.no_grad():
            torch.default_generator.manual_seed(0)
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def features_and_targets(
    module: nn.Module,
    batch: Any,
    *,
    features: Features = None,
    prepare: Prepare = None,
    precision: Any = None,
) -> tuple[Tensor, Tensor]:
    """Features and targets of one batch of a loader.

    Args:
        module: any module, on its device.
        batch: what the loader delivers.
        features: None for ``module(images)``; the dotted name of a submodule whose output in ``module(images)`` is
            taken; or a function ``(module, images) -> features``.
        prepare: batch to ``(images, targets)``, as the module expects them; None takes the first two of a tuple.
        precision: a Trainer's ``precision_plugin``, so that the module computes as in training; None for as it is.

    Returns:
        ``[N, D]`` in float32 or better, of an output ``[N, D]`` or ``[N, D, 1, 1]``, and the targets, integers
        ``[N, ...]``, both on the module's device.

    Raises:
        ValueError: names the argument to change: ``train`` or ``test`` for a loader without labels, ``prepare`` for
            batches that the module can't take, ``features`` for an output that is no vector.

    Example:
        >>> batch = torch.ones(4, 1, 2, 2), torch.arange(4)
        >>> features_and_targets(nn.Flatten(), batch)[0].shape
        torch.Size([4, 4])
    """
    images, targets = images_and_targets(batch, prepare)
    device = device_of(module)
    if targets.is_floating_point():
        raise ValueError(f"targets: expected class indices, got {targets.dtype}; give prepare= to make them so")
    images, targets = move_data_to_device(images, device), targets.to(device)
    if not callable(features) and _is_uint8_for_float(module, images):
        raise ValueError(
            f"images: expected floating-point numbers, as the weights of {type(module).__name__} are, got uint8; give "
            "prepare= a function of the batch that returns (images as the module expects them, targets)"
        )
    if precision is None:
        output = _output(module, images, features)
    else:
        with precision.forward_context():
            output = _output(module, precision.convert_input(images), features)
    source = "module(images)" if features is None else repr(features)
    if not isinstance(output, Tensor):
        raise ValueError(
            f"features: expected one tensor [N, D] from {source}, got a {type(output).__name__}; name the submodule "
            "whose output to judge, or give a function (module, images) -> tensor"
        )
    vectors = as_vectors(output)
    if vectors is None or len(vectors) != len(targets):
        raise ValueError(
            f"features: expected [{len(targets)}, D] from {source}, got {list(output.shape)}; pool it in a "
            "function: features=lambda module, images: module.encoder(images).mean((2, 3))"
        )
    return vectors.to(torch.promote_types(output.dtype, torch.float32)), targets


def as_vectors(output: Any) -> Tensor | None:
    """A module's output as one vector an image, ``[N, D]``; None for anything but ``[N, D]`` and ``[N, D, 1, ...]``.

    Example:
        >>> as_vectors(torch.zeros(2, 3, 1, 1)).shape, as_vectors(torch.zeros(2, 3, 2, 2))
        (torch.Size([2, 3]), None)
    """
    if not isinstance(output, Tensor) or output.ndim < 2 or output.shape[2:].numel() != 1:
        return None
    return output.flatten(1)


def classes(targets: Tensor, level: int | None) -> Tensor:
    """The classes ``[N]`` of targets ``[N]``, or those of one level of targets ``[N, levels]``.

    Args:
        targets: as a loader delivers them.
        level: the column of targets ``[N, levels]``; None for targets ``[N]``.

    Raises:
        ValueError: if the two do not fit.

    Example:
        >>> classes(torch.tensor([[7, 1], [4, 0]]), level=1)
        tensor([1, 0])
    """
    if targets.ndim == 2 and level is not None and -targets.shape[1] <= level < targets.shape[1]:
        return targets[:, level]
    if targets.ndim != 1 or level is not None:
        raise ValueError(
            f"level: expected a column of targets [N, levels], or None for targets [N], got {level} and targets "
            f"{list(targets.shape)}; for other targets give prepare="
        )
    return targets


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's first parameter; the CPU if it has none."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def find_submodule(module: nn.Module, name: str) -> nn.Module:
    """The submodule of a dotted name.

    Raises:
        ValueError: if there is none; lists similar names.

    Example:
        >>> find_submodule(nn.ModuleDict({"encoder": nn.Identity()}), "encoder")
        Identity()
    """
    parts = dict(module.named_modules())
    if name not in parts:
        near = difflib.get_close_matches(name, parts, n=3, cutoff=0.4) or [part for part, _ in module.named_children()]
        raise ValueError(
            f"features: expected a submodule of {type(module).__name__}, got {name!r}; near matches: {', '.join(near)}"
        )
    return parts[name]


def images_and_targets(batch: Any, prepare: Prepare = None) -> tuple[Any, Tensor]:
    """Images and targets of a loader's batch, as the module expects them.

    Args:
        batch: what the loader delivers.
        prepare: as of :func:`features_and_targets`.

    Raises:
        ValueError: for a batch without labels, or one that needs ``prepare``.

    Example:
        >>> images_and_targets([torch.zeros(2, 4), torch.arange(2), "more"])[1]
        tensor([0, 1])
    """
    if prepare is not None:
        prepared = prepare(batch)
        if not (isinstance(prepared, tuple | list) and len(prepared) == 2 and isinstance(prepared[1], Tensor)):
            raise ValueError(f"prepare: expected (images, targets), targets a tensor, got {_kind(prepared)}")
        images, targets = prepared
    elif isinstance(batch, Tensor) or (isinstance(batch, tuple | list) and len(batch) < 2):
        raise ValueError(
            "the loader: expected (images, targets), got images without labels; give the probe labelled loaders of its "
            "own: train= and test="
        )
    elif isinstance(batch, tuple | list) and isinstance(batch[0], Tensor) and isinstance(batch[1], Tensor):
        images, targets = batch[:2]
    else:
        raise ValueError(
            f"the loader: expected (images, targets), got {_kind(batch)}; give prepare= a function of the batch that "
            "returns them, or give the probe loaders of its own: train= and test="
        )
    return images, targets


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}({', '.join(type(item).__name__ for item in value)})"
    return type(value).__name__


def _is_uint8_for_float(module: nn.Module, images: Any) -> bool:
    takes_floats = any(parameter.is_floating_point() for parameter in module.parameters())
    is_uint8 = isinstance(images, Tensor) and images.dtype == torch.uint8
    return is_uint8 and takes_floats and not getattr(module, "accepts_uint8", False)


def _output(module: nn.Module, images: Any, features: Features) -> Any:
    if features is None:
        return module(images)
    if not isinstance(features, str):
        return features(module, images)
    outputs: list[Any] = []
    handle = find_submodule(module, features).register_forward_hook(lambda *call: outputs.append(call[-1]))
    try:
        module(images)
    finally:
        handle.remove()
    if len(outputs) != 1:
        raise ValueError(
            f"features: expected one call of {features!r} in a forward, got {len(outputs)}; give a function "
            "(module, images) -> tensor"
        )
    return outputs[0]
