"""``ssl-modules export``: write a checkpoint's encoder for timm, torchvision, torch.export or ONNX."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule

from ssl_modules.checkpoint import load_module
from ssl_modules.cli.evaluate import table
from ssl_modules.cli.failures import cannot_hold
from ssl_modules.cli.parser import Parser
from ssl_modules.encoders.export import check_suffix, export_encoder
from ssl_modules.module import ContrastiveModule
from ssl_modules.utils.checkpoint_io import read_checkpoint
from ssl_modules.utils.configurable import NotInCheckpoint
from ssl_modules.version import __version__


def main(args: Sequence[str]) -> None:
    """Run ``ssl-modules export``.

    Args:
        args: command-line arguments after the command's name.
    """
    parser = Parser(prog="ssl-modules export", description=__doc__)
    parser.add_argument("--ckpt", type=str, required=True, help="checkpoint of a method, by Trainer or command line")
    parser.add_argument(
        "--model",
        type=type[ContrastiveModule] | None,
        help="import path of the checkpoint's class if it is your own, such as my_code.MyMethod",
    )
    parser.add_argument(
        "--out",
        type=str,
        default="encoder.safetensors",
        help="file to write, with the extension .safetensors, .pt, .pt2 (torch.export) or .onnx; a path without "
        "extension is a folder that timm loads, with a model card",
    )
    parser.add_argument("--evaluation", type=Path | None, help="file evaluation.json with results for the model card")
    parser.add_argument(
        "--frames", type=int | None, help="number of frames of a clip; .pt2 and .onnx files of clip encoders need it"
    )
    config = parser.parse_args(list(args))
    try:
        check_suffix(Path(config.out))
        results = None if config.evaluation is None else json.loads(config.evaluation.read_text())
        if results is not None and Path(config.out).suffix:
            parser.error(
                f"evaluation: the results go into the model card of a folder, but out is the file {config.out}; give a "
                "folder"
            )
        module = load_module(config.ckpt)
        card = model_card(module, Path(config.out).name, _data_of(config.ckpt), results)
        weights = export_encoder(module.encoder, config.out, card, frames=config.frames)
    except NotInCheckpoint as error:
        parser.error(cannot_hold(error.name, error.kind))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    count = sum(value.numel() for value in weights.values())
    print(f"{module.encoder.name}, {count:,} numbers in {len(weights)} tensors: {config.out}")


def model_card(
    module: ContrastiveModule, name: str, data: Mapping[str, Any], evaluation: Mapping[str, Any] | None = None
) -> str:
    """Return a model card for a folder of weights, as Markdown text.

    The card shows how to load the folder, the method and the data of the training, and the results of an evaluation.

    Args:
        module: the method.
        name: name of the folder.
        data: arguments of the data module of the training; empty if they are unknown.
        evaluation: content of an ``evaluation.json``. None = no results.

    Example:
        >>> from ssl_modules import SimCLR
        >>> print(model_card(SimCLR(encoder="resnet18", image_size=224), "folder", {}).splitlines()[5])
        # resnet18 by SimCLR
    """
    method, encoder = type(module).__name__, module.encoder
    parts = [
        "---\nlibrary_name: timm\ntags: [image-feature-extraction, self-supervised-learning]\n---",
        f"# {encoder.name} by {method}",
        f"The weights were trained by {method} of ssl-modules {__version__}. The model returns features "
        f"of images of {encoder.in_channels} x {encoder.image_size} x {encoder.image_size} pixels.",
        f"""```python
import timm

model = timm.create_model("local-dir:{name}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
features = model(transform(image)[None])  # image is a PIL image
```""",
        f"## Method\n\n```\n{module!r}\n```",
        f"## Data\n\n{_listing(data) or 'The checkpoint does not contain the arguments of the data module.'}",
    ]
    if evaluation is not None:
        parts.append(f"## Results\n\n{_results(evaluation)}")
    return "\n\n".join(parts) + "\n"


def _results(evaluation: Mapping[str, Any]) -> str:
    """Return a table of the results, with the data and the settings."""
    measured = {
        protocol: {metric: value for metric, value in metrics.items() if value is not None}
        for protocol, metrics in evaluation["results"].items()
    }
    settings = {"data": evaluation["data"], "protocol": evaluation["protocol"]}
    return f"{table(measured)}\n\n{_listing(settings)}"


def _listing(values: Mapping[str, Any]) -> str:
    return (
        f"```yaml\n{yaml.safe_dump(json.loads(json.dumps(values, default=str)), sort_keys=False)}```" if values else ""
    )


def _data_of(path: str) -> dict[str, Any]:
    """Return the arguments of the data module in a checkpoint; empty if it has none."""
    checkpoint = read_checkpoint(path, "meta")
    return dict(checkpoint.get(LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY, {}))
