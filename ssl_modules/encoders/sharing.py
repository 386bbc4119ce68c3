"""Write encoders for other programs: a folder for timm, a program of torch.export, or an ONNX file."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save

from ssl_modules.encoders.backbone import TimmBackbone
from ssl_modules.encoders.encoder import Encoder
from ssl_modules.encoders.representation import Representation
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.files import replacing


def write_timm_folder(encoder: Encoder, folder: Path, card: str = "") -> None:
    """Write a folder that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads.

    Args:
        encoder: an encoder that was built from the name of a timm model.
        folder: folder for ``config.json``, ``model.safetensors``, and ``README.md`` if there is a card.
        card: text of the model card.

    Raises:
        ValueError: if timm can't build the encoder.
        OSError: if a file can't be written.
    """
    weights, metadata = encoder.export()
    name = metadata["architecture"]
    if not (isinstance(encoder.backbone, TimmBackbone) and timm.is_model(name)):
        raise ValueError(f"path: a folder is for timm, which has no {name}; give a file ending in .safetensors")
    for what, reason in (("small_stem", "the stem for small images"), ("patches", "encoders of patches")):
        if metadata[what]:
            raise ValueError(f"path: a folder is for timm, which lacks {reason}; give a file ending in .safetensors")
    side, channels = metadata["image_size"], metadata["in_channels"]
    known: Any = timm.get_pretrained_cfg(name)
    arguments = {"in_chans": channels}
    if known is not None and known.fixed_input_size:
        arguments["img_size"] = side
    config = {
        "architecture": name,
        "num_classes": 0,
        "num_features": encoder.network.num_features,
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [channels, side, side],
            "fixed_input_size": "img_size" in arguments,
            "mean": metadata["mean"],
            "std": metadata["std"],
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "num_classes": 0,
            "first_conv": None,  # timm must not convert the weights, which already have the right number of channels
            "classifier": None,
        },
    }
    files = {
        "model.safetensors": save(weights, {"format": "pt"}),
        "config.json": json.dumps(config, indent=2).encode(),
        "README.md": card.encode(),
    }
    for file_name, content in files.items():
        if content:
            with replacing("path", folder / file_name) as file:
                file.write(content)


def write_program(encoder: Encoder, path: Path, frames: int | None = None) -> None:
    """Write a program of ``torch.export`` (.pt2) or ONNX (.onnx) that computes the representation ``[N, D]`` of images.

    The program takes float32 images ``[N, ch, H, W]``, or clips ``[N, ch, T, H, W]``, in [0, 1], and normalises them. N
    may be any number. The size must be that of the encoder, and T must be ``frames``.

    Args:
        encoder: any encoder that ``torch.export`` can trace. It is not changed.
        path: path that ends in ``.pt2`` or ``.onnx``.
        frames: number of frames of a clip, T. None = the encoder is not for clips.

    Raises:
        ValueError: if ONNX is not installed, the encoder cuts images into patches, or ``frames`` doesn't fit the
            encoder.
        OSError: if the file can't be written.
    """
    if path.suffix == ".onnx" and any(find_spec(name) is None for name in ("onnx", "onnxscript")):
        raise ValueError("path: ONNX needs two packages; pip install onnx onnxscript, or give a file ending in .pt2")
    if encoder.patches is not None:  # torch.export can't trace the merged axes for a variable number of images
        raise ValueError(
            "path: expected a file ending in .safetensors or .pt, because torch.export can't trace an encoder of "
            f"patches for batches of any size, got {path.name!r}"
        )
    of_clips = encoder.spatial_dims == 3
    if of_clips and frames is None:  # a program for any T fails on short clips, which the network reduces to one frame
        raise ValueError(
            f"frames: expected the number of frames of a clip, because a program of {encoder.name} takes clips of one "
            "length, got None; pass the data module's number, such as frames=8"
        )
    if frames is not None:
        if not of_clips:
            raise ValueError(f"frames: expected None, because {encoder.name} is not for clips, got {frames}")
        check_number("frames", frames, least=1)
    modes = {module: module.training for module in encoder.modules()}
    representation = Representation(encoder).eval()
    side = (encoder.image_size,) * encoder.spatial_dims if frames is None else (frames, *[encoder.image_size] * 2)
    images = torch.rand(2, encoder.in_channels, *side, device=encoder.mean.device, generator=torch.Generator())
    try:
        with torch.no_grad():
            program = torch.export.export(representation, (images,), dynamic_shapes=({0: torch.export.Dim("n")},))
    finally:
        for module, mode in modes.items():
            module.training = mode
    with replacing("path", path) as file:
        if path.suffix == ".pt2":
            torch.export.save(program, file)
        else:
            made: Any = torch.onnx.export(
                program, (images,), dynamo=True, input_names=["images"], output_names=["features"], verbose=False
            )
            file.write(made.model_proto.SerializeToString())
