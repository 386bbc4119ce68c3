"""``ssl-modules export``: write a checkpoint's encoder to a weights file that timm or torchvision loads."""

from collections.abc import Sequence
from pathlib import Path

from ssl_modules.checkpoint import load_module
from ssl_modules.cli.failures import cannot_hold
from ssl_modules.cli.parser import Parser
from ssl_modules.encoders.export import check_suffix
from ssl_modules.module import ContrastiveModule
from ssl_modules.utils.configurable import NotInCheckpoint


def main(args: Sequence[str]) -> None:
    """Run ``ssl-modules export``.

    Args:
        args: command-line arguments after the command's name.
    """
    parser = Parser(prog="ssl-modules export", description=__doc__)
    parser.add_argument("--ckpt", type=str, required=True, help="checkpoint of a method, by Trainer or command line")
    parser.add_argument(
        "--model", type=type[ContrastiveModule] | None, help="class of the checkpoint, imported, if it is one's own"
    )
    parser.add_argument(
        "--out", type=str, default="encoder.safetensors", help="file to write, ending in .safetensors or .pt"
    )
    config = parser.parse_args(list(args))
    try:
        check_suffix(Path(config.out))
        module = load_module(config.ckpt)
        weights = module.export_encoder(config.out)
    except NotInCheckpoint as error:
        parser.error(cannot_hold(error.name, error.kind))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    count = sum(value.numel() for value in weights.values())
    print(f"{module.encoder.name}, {count:,} numbers in {len(weights)} tensors: {config.out}")
