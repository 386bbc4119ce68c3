"""Files of encoder weights: writing them, and building encoders from them."""

import json
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile
from zlib import crc32

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ssl_modules.encoders.encoder import Encoder
from ssl_modules.encoders.names import NETWORKS, is_name
from ssl_modules.encoders.sharing import write_program, write_timm_folder
from ssl_modules.utils.checkpoint_io import check_sums
from ssl_modules.utils.files import replacing

_KEY = "ssl_modules"  # key of the metadata in a safetensors file
_SUM = "ssl_modules.crc32"  # key of the weights' checksum in the metadata


def save_weights(path: Path, weights: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write weights and the metadata needed to use them.

    Args:
        path: ends in ``.safetensors`` (the metadata as one JSON string under "ssl_modules") or ``.pt``.
        weights: names to tensors.
        metadata: plain data.

    Raises:
        ValueError: if the file ends in anything else.
        OSError: if the file can't be written; a previous file is unchanged.
    """
    if path.suffix not in (".safetensors", ".pt"):
        raise ValueError(f"path: expected a file ending in .safetensors or .pt, got {path.name!r}")
    with replacing("path", path) as file:
        if path.suffix == ".pt":
            torch.save({"state_dict": weights, "metadata": metadata}, file)
        else:
            texts = {_KEY: json.dumps(metadata), _SUM: checksum(weights)}
            file.write(save({k: v.contiguous() for k, v in weights.items()}, texts))


def check_suffix(path: Path) -> None:
    """Raise an error unless the path is one that :func:`export_encoder` can write.

    Example:
        >>> check_suffix(Path("encoder.txt"))
        Traceback (most recent call last):
        ...
        ValueError: path: expected a folder, or a file ending in .safetensors, .pt, .pt2 or .onnx, got 'encoder.txt'
    """
    if path.suffix not in ("", ".safetensors", ".pt", ".pt2", ".onnx"):
        raise ValueError(
            f"path: expected a folder, or a file ending in .safetensors, .pt, .pt2 or .onnx, got {path.name!r}"
        )


def export_encoder(
    encoder: Encoder, path: str | Path | None = None, card: str = "", *, frames: int | None = None
) -> dict[str, Tensor]:
    """Return the backbone's state dict, with the names of the plain timm or torchvision model without classifier.

    If the encoder has the stem for small images (``small_stem`` in the metadata), apply
    :func:`~ssl_modules.encoders.shrink_stem` to the plain model before loading the weights. :func:`load_encoder` builds
    an :class:`~ssl_modules.encoders.Encoder` from the file.

    Args:
        encoder: the encoder to export.
        path: path to write to. None = nothing is written. Folders are created if needed. The extension selects the
            format:

            - ``.safetensors`` is a file of weights, with architecture, image size, mean and std as metadata.
            - ``.pt`` is a file of a dict ``{"state_dict": ..., "metadata": ...}`` with the same content.
            - ``.pt2`` is a program of ``torch.export``, and ``.onnx`` is a program of ONNX. Both compute the
              representation ``[N, D]`` of float32 images ``[N, ch, H, W]``, or clips ``[N, ch, T, H, W]``, in [0, 1].
            - A path without extension is a folder, which ``timm.create_model("local-dir:FOLDER", pretrained=True)``
              loads.
        card: text of the model card, the ``README.md`` of the folder for timm.
        frames: number of frames T of the clips that a program takes. This number is required for programs of encoders
            of clips, and must be None otherwise.

    Returns:
        A dict from names to tensors, copied to the CPU.

    Raises:
        ValueError: if the path has another extension, timm can't build the encoder for a folder, or ``frames`` is
            missing or not needed.
        OSError: if a file can't be written. A file that existed before is then unchanged.

    Example:
        >>> weights = export_encoder(Encoder("test_resnet", image_size=32, in_channels=1), "encoder.safetensors")
        >>> list(weights)[0]
        'conv1.0.weight'
    """
    weights, metadata = encoder.export()
    if frames is not None and (path is None or Path(path).suffix not in (".pt2", ".onnx")):
        raise ValueError(f"frames: expected None unless path ends in .pt2 or .onnx, got {frames} and path={path}")
    if path is None:
        return weights
    path = Path(path)
    check_suffix(path)
    if not path.suffix:
        write_timm_folder(encoder, path, card)
    elif path.suffix in (".pt2", ".onnx"):
        write_program(encoder, path, frames)
    else:
        save_weights(path, weights, metadata)
    return weights


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights to the CPU, and their metadata. No code in the file is run.

    Args:
        path: file written by :func:`~ssl_modules.encoders.export.save_weights`, or a plain file that maps
            names to tensors. torch reads it unless its name ends in ``.safetensors``.

    Returns:
        A dict from names to tensors, and the metadata, which are empty for a plain file.

    Raises:
        ValueError: if the file is damaged or does not hold weights.

    Example:
        >>> save_weights(Path("layer.safetensors"), nn.Linear(2, 1).state_dict(), {"image_size": 32})
        >>> weights, metadata = load_weights("layer.safetensors")
        >>> list(weights), metadata
        (['bias', 'weight'], {'image_size': 32})
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return _load_safetensors(path)
        if is_zipfile(path):  # the format of torch.save, with checksums; older files are pickles
            with path.open("rb") as file:
                check_sums(file, path.name)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, EOFError, RuntimeError, LookupError, IsADirectoryError) as error:
        raise ValueError(
            f"path: {path.name} is not a file of tensors and plain data, or is damaged; give a file written by "
            "export_encoder, torch.save or safetensors"
        ) from error
    if isinstance(content, dict) and "pytorch-lightning_version" in content:
        raise ValueError(
            f"path: {path.name} is a checkpoint of a whole module; load that by load_from_checkpoint, and take its "
            "encoder, or write the encoder's file by its export_encoder"
        )
    weights, metadata = content, {}
    if isinstance(content, dict) and "state_dict" in content:
        weights, metadata = content["state_dict"], content.get("metadata", {})
    if not (isinstance(weights, dict) and weights and all(isinstance(w, Tensor) for w in weights.values())):
        raise ValueError(f"path: {path.name} holds no names to tensors, as a state dict does")
    return weights, metadata


def _load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, "pt") as file:
        texts = file.metadata() or {}
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    try:
        metadata = json.loads(texts.get(_KEY, "{}"))
    except json.JSONDecodeError as error:
        raise ValueError(f"path: {path.name} has damaged metadata ({error}); export the encoder again") from error
    if _SUM in texts and texts[_SUM] != checksum(weights):  # files of other libraries have no checksum
        raise ValueError(f"path: {path.name} is damaged: its weights have another checksum; export the encoder again")
    return weights, metadata


def checksum(weights: dict[str, Tensor]) -> str:
    """Return the CRC-32 checksum of weights and their names, as hexadecimal digits.

    Example:
        >>> checksum({"w": torch.zeros(2)})
        '72cbbab2'
    """
    total = 0
    for name in sorted(weights):
        numbers = memoryview(weights[name].contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        total = crc32(numbers, crc32(name.encode(), total))
    return f"{total:08x}"


def load_encoder(
    path: str | Path,
    encoder: str | nn.Module | None = None,
    *,
    image_size: int | None = None,
    in_channels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    small_stem: bool | None = None,
) -> Encoder:
    """Build an encoder with the weights of a file.

    A file of :meth:`~ssl_modules.ContrastiveModule.export_encoder` describes its encoder, unless that was built from a
    custom network. For a plain file, pass the description as arguments, including ``mean`` and ``std``: with a wrong
    normalisation, features are wrong but no error is raised.

    Args:
        path: see :func:`load_weights`.
        encoder: a timm name, or a network to load the weights into; None = from the metadata.
        image_size: side of the images, pixels; None = from the metadata.
        in_channels: number of image channels; None = from the metadata.
        mean: per channel, of pixels in [0, 1]; None = from the metadata.
        std: per channel; None = from the metadata.
        small_stem: whether a ResNet has the stem for small images; None = from the metadata, False for a plain file.

    Returns:
        The encoder, in training mode.

    Raises:
        ValueError: if neither the file nor the arguments give a value, or the weights don't fit.

    Example:
        >>> before = Encoder("test_resnet", image_size=32, in_channels=1, mean=[0.5])
        >>> save_weights(Path("encoder.pt"), *before.export())
        >>> load_encoder("encoder.pt").mean.item()
        0.5
    """
    path = Path(path)
    weights, metadata = load_weights(path)
    needed: dict[str, Any] = {
        "encoder": _network(metadata) if encoder is None else encoder,
        "image_size": metadata.get("image_size") if image_size is None else image_size,
        "in_channels": metadata.get("in_channels") if in_channels is None else in_channels,
        "mean": metadata.get("mean") if mean is None else mean,
        "std": metadata.get("std") if std is None else std,
    }
    if missing := [name for name, value in needed.items() if value is None]:
        kind = metadata.get("architecture")
        said = "says nothing of itself" if kind is None else f"is of a {kind}, which doesn't tell how to build it"
        raise ValueError(f"{', '.join(missing)}: {path.name} {said}; give load_encoder these arguments")
    loaded = Encoder(
        **needed,
        small_stem=metadata.get("small_stem", False) if small_stem is None else small_stem,
        patches=metadata.get("patches"),
    )
    loaded.load(weights)
    return loaded


def _network(metadata: dict[str, Any]) -> str | nn.Module | None:
    """The network or timm name in the metadata, if that is enough to build it, else None."""
    name = metadata.get("architecture")
    if name in NETWORKS:
        return NETWORKS[name](**metadata["arguments"])
    return name if name is not None and is_name(name) else None
