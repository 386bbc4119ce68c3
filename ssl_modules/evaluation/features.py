"""Computes features of labelled images with any module, without changing the module or the run."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from ssl_modules.batch import fields

Features = str | Callable[[Any, Any], Tensor] | None
Prepare = Callable[[Any], tuple[Any, Tensor]] | None


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Context in which a module is in eval mode without gradients; everything is restored at the end.

    At the end, each submodule's mode and the global random states (PyTorch, CUDA, NumPy, Python) are restored, because
    even an unshuffled loader draws random numbers. Inside, PyTorch's CPU generator always has the same seed, in every
    process, so that a shuffling loader always gives the same order.

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
    """Compute the features of one batch of a loader, and return them with its targets.

    Args:
        module: any module, on its device.
        batch: a batch of the loader.
        features: None uses ``module(images)``. A dotted name uses the output of that submodule in ``module(images)``;
            if the module has no ``forward``, the outermost submodule along the name that has one is called instead. A
            function ``(module, images) -> features`` is called.
        prepare: function that maps a batch to ``(images, targets)`` as the module expects them; None uses the first two
            items of a tuple, or the entries of a mapping under the keys that :func:`~ssl_modules.batch.fields` lists.
        precision: a Trainer's ``precision_plugin``, to compute with the precision of training; None for that of the
            module.

    Returns:
        Features ``[N, D]``, float32 or better, from an output ``[N, D]`` or ``[N, D, 1, 1]``; and integer targets
        ``[N, ...]``. Both are on the module's device.

    Raises:
        ValueError: if the batch has no labels, the module can't take it, or the output is not one vector per image. The
            message names the argument to change: ``train`` or ``test``, ``prepare``, or ``features``. If the module
            itself raises an exception, it is raised again with a note that shows a function for ``features``.

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
    source = "the function" if callable(features) else "module(images)" if features is None else repr(features)
    if not isinstance(output, Tensor):
        raise ValueError(
            f"features: expected one tensor [N, D] from {source}, got {_described(output)}; give a function that "
            f"returns one, such as features=lambda module, images: {_vectors_of(features, output)}"
        )
    vectors = as_vectors(output)
    if vectors is None or len(vectors) != len(targets):
        raise ValueError(
            f"features: expected [{len(targets)}, D] from {source}, got {list(output.shape)}, not one vector for each "
            "target; pool the output in a function, such as features=lambda module, images: "
            f"{_vectors_of(features, output)}"
        )
    return vectors.to(torch.promote_types(output.dtype, torch.float32)), targets


def as_vectors(output: Any) -> Tensor | None:
    """Return a module's output ``[N, D]`` or ``[N, D, 1, ...]`` as ``[N, D]``; None for any other output.

    Example:
        >>> as_vectors(torch.zeros(2, 3, 1, 1)).shape, as_vectors(torch.zeros(2, 3, 2, 2))
        (torch.Size([2, 3]), None)
    """
    if not isinstance(output, Tensor) or output.ndim < 2 or output.shape[2:].numel() != 1:
        return None
    return output.flatten(1)


def classes(targets: Tensor, level: int | None) -> Tensor:
    """Return targets ``[N]`` as they are, or one column of targets ``[N, levels]``.

    Args:
        targets: targets of a loader, ``[N]`` or ``[N, levels]``.
        level: the column of targets ``[N, levels]``; None for targets ``[N]``.

    Raises:
        ValueError: if ``level`` does not fit the targets.

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
    """Return the device of a module's first parameter; the CPU if the module has no parameters."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def find_submodule(module: nn.Module, name: str) -> nn.Module:
    """Return the submodule with a dotted name.

    Raises:
        ValueError: if there is none; the message lists similar names.

    Example:
        >>> find_submodule(nn.ModuleDict({"encoder": nn.Identity()}), "encoder")
        Identity()
    """
    parts = {part: submodule for part, submodule in module.named_modules() if part}
    if name not in parts:
        near = difflib.get_close_matches(name, parts, n=3, cutoff=0.4) or [part for part, _ in module.named_children()]
        raise ValueError(
            f"features: expected a submodule of {type(module).__name__}, got {name!r}; near matches: {', '.join(near)}"
        )
    return parts[name]


def images_and_targets(batch: Any, prepare: Prepare = None) -> tuple[Any, Tensor]:
    """Return images and targets of a loader's batch, as the module expects them.

    Args:
        batch: a batch of the loader.
        prepare: as in :func:`features_and_targets`.

    Raises:
        ValueError: if the batch has no labels, or needs ``prepare``.

    Example:
        >>> images_and_targets([torch.zeros(2, 4), torch.arange(2), "more"])[1]
        tensor([0, 1])
    """
    if prepare is not None:
        prepared = prepare(batch)
        if not (isinstance(prepared, tuple | list) and len(prepared) == 2 and isinstance(prepared[1], Tensor)):
            raise ValueError(f"prepare: expected (images, targets), with targets as a tensor, got {kind_of(prepared)}")
        images, targets = prepared
        return images, targets
    try:
        images, targets, _ = fields(batch)
    except ValueError:  # a mapping with other keys
        images, targets = batch, batch
    if targets is None:
        keys = f" under the keys {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""
        fix = "select images and labels by prepare=lambda batch: (batch[...], batch[...]), or " if keys else ""
        raise ValueError(
            f"the loader: expected (images, targets), got images without labels{keys}; {fix}give the probe labelled "
            "loaders of its own: train= and test="
        )
    if isinstance(targets, tuple | list) and targets and isinstance(targets[0], str):
        raise ValueError(
            f"the loader: expected targets that are integers, got strings such as {targets[0]!r}; number the classes; "
            f"if names is the list of classes, pass prepare=lambda batch: ({_key(batch, images)}, "
            f"torch.tensor([names.index(name) for name in {_key(batch, targets)}]))"
        )
    if not isinstance(images, Tensor) or not isinstance(targets, Tensor):
        raise ValueError(
            f"the loader: expected (images, targets), got {kind_of(batch)}; pass prepare=, a function that takes the "
            "batch and returns them, or give the probe its own loaders: train= and test="
        )
    return images, targets


def _key(batch: Any, part: Any) -> str:
    """Return the Python expression for the entry ``part`` of a batch."""
    items = batch.items() if isinstance(batch, Mapping) else enumerate(batch)
    return next(f"batch[{key!r}]" for key, value in items if value is part)


def kind_of(value: Any) -> str:
    """Describe the types in a batch or a sample, for a message.

    Example:
        >>> kind_of((torch.zeros(1), ["cat"])), kind_of({"x": 1})
        ('tuple(Tensor, list)', 'dict(x: int)')
    """
    if isinstance(value, Mapping):
        return f"{type(value).__name__}({', '.join(f'{key}: {type(item).__name__}' for key, item in value.items())})"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}({', '.join(type(item).__name__ for item in value)})"
    return type(value).__name__


def _is_uint8_for_float(module: nn.Module, images: Any) -> bool:
    takes_floats = any(parameter.is_floating_point() for parameter in module.parameters())
    is_uint8 = isinstance(images, Tensor) and images.dtype == torch.uint8
    return is_uint8 and takes_floats and not getattr(module, "accepts_uint8", False)


def _output(module: nn.Module, images: Any, features: Features) -> Any:
    if callable(features):
        return features(module, images)
    if features is None:
        if not has_forward(module):
            raise ValueError(
                f"features: expected a module with a forward, got {type(module).__name__}, which has none; name one of "
                f"its submodules, such as features={_a_child(module)!r}, or give a function, such as "
                f"features=lambda module, images: module.{_a_child(module)}(images)"
            )
        return _call(module, "", images)
    outputs: list[Any] = []
    handle = find_submodule(module, features).register_forward_hook(lambda *call: outputs.append(call[-1]))
    start = _start(module, features)
    try:
        _call(module, start, images)
    finally:
        handle.remove()
    if len(outputs) != 1:
        raise ValueError(
            f"features: expected one call of {features!r} in {_expression(start)}, got {len(outputs)}; give a "
            f"function, such as features=lambda module, images: {_expression(features)}"
        )
    return outputs[0]


def has_forward(module: nn.Module) -> bool:
    """Return whether a module defines a ``forward``; a LightningModule may lack one.

    Example:
        >>> has_forward(nn.Linear(2, 2)), has_forward(nn.ModuleList())
        (True, False)
    """
    # Names of the placeholder in torch, and in both lightning and pytorch_lightning.
    inherited = ("_forward_unimplemented", "LightningModule.forward")
    return getattr(module.forward, "__qualname__", "") not in inherited


def _start(module: nn.Module, name: str) -> str:
    """Return the name of the part to call so that submodule ``name`` runs: the outermost part that has a forward.

    "" stands for the module itself. A part without parameters raises an error, because it can't take the images.
    """
    path = name.split(".")
    for depth in range(len(path) + 1):
        start = ".".join(path[:depth])
        part = module.get_submodule(start)
        if has_forward(part):
            break
    if has_forward(part) and (not start or any(True for _ in part.parameters())):
        return start
    missing = "parameters" if has_forward(part) else "forward"
    raise ValueError(
        f"features: expected a submodule that takes images, as {type(module).__name__} has no forward, got {name!r}, a "
        f"{type(part).__name__} without {missing}; give a function, such as features=lambda module, images: "
        f"module.{_a_child(module)}(images)"
    )


def _call(module: nn.Module, start: str, images: Any) -> Any:
    try:
        return module.get_submodule(start)(images)
    except Exception as error:
        error.add_note(
            f"features: {_expression(start)} failed for images {_described(images)}; if {type(module).__name__} takes "
            "another input, give a function, such as "
            f"features=lambda module, images: module.{_a_child(module)}(images)"
        )
        raise


def _a_child(module: nn.Module) -> str:
    """Return the name of the first child with a forward and parameters, for an example in a message."""
    for name, child in module.named_children():
        if has_forward(child) and any(True for _ in child.parameters()):
            return name
    return "encoder"


def _expression(name: str | None) -> str:
    """Return the Python expression that calls a submodule, or the module itself if there is no name."""
    if not name:
        return "module(images)"
    is_attribute = all(part.isidentifier() for part in name.split("."))
    return f"module.{name}(images)" if is_attribute else f"module.get_submodule({name!r})(images)"


def _vectors_of(features: Features, output: Any) -> str:
    """Return the Python expression that gets vectors from an output, for a message."""
    expression = "module.encoder(images)" if callable(features) else _expression(features)
    accessor, tensor = next(iter(_tensors(output)), ("", None))
    if tensor is None or tensor.ndim < 3:
        return expression + accessor
    if tensor.ndim == 3:  # tokens [N, T, D]
        return f"{expression}{accessor}[:, 0], or {expression}{accessor}.mean(1)"
    return f"{expression}{accessor}.mean({tuple(range(2, tensor.ndim))})"


def _tensors(output: Any) -> list[tuple[str, Tensor]]:
    """Return the tensors in an output, each with the Python accessor that gets it, such as ".logits" or "[0]"."""
    if isinstance(output, Tensor):
        return [("", output)]
    if isinstance(output, Mapping):  # the outputs of transformers models also have attributes
        items = [(f".{key}" if hasattr(output, key) else f"[{key!r}]", value) for key, value in output.items()]
    elif isinstance(output, Sequence) and not isinstance(output, str):
        items = [(f"[{index}]", value) for index, value in enumerate(output)]
    else:
        items = [(f".{name}", value) for name, value in getattr(output, "__dict__", {}).items()]
    return [(accessor, value) for accessor, value in items if isinstance(value, Tensor)]


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{list(value.shape)}"
    parts = ", ".join(f"{accessor} {list(tensor.shape)}" for accessor, tensor in _tensors(value))
    return f"a {type(value).__name__}{f' of {parts}' if parts else ''}"
