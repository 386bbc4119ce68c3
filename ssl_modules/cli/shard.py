"""``ssl-modules shard``: write the images of a data set to tar files, which StreamingDataModule reads."""

from collections.abc import Sequence
from pathlib import Path

from ssl_modules.cli.parser import Parser
from ssl_modules.datamodules import BaseDataModule, write_shards


def main(args: Sequence[str]) -> None:
    """Run ``ssl-modules shard``.

    Args:
        args: command-line arguments after the command's name.
    """
    parser = Parser(prog="ssl-modules shard", description=__doc__)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_subclass_arguments(
        BaseDataModule, "data", required=True, help="images to write; a folder stands for ImageFolderDataModule"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_function_arguments(write_shards, skip={"data", "out"})
    config = parser.parse_args(_with_folder(list(args)))
    if config.out.is_file():
        parser.error(f"out: {config.out} is a file; give a folder")
    try:
        built = parser.instantiate_classes(config)
        facts = write_shards(
            built.data, built.out, size=built.size, quality=built.quality, images_per_shard=built.images_per_shard
        )
    except (ValueError, TypeError, OSError) as error:
        parser.error(str(error))
    for name, shards in facts["parts"].items():
        print(f"{name}: {sum(shards):,} images in {len(shards)} shards")
    for path in facts["left_out"]:
        print(f"left out, because it can't be read: {path}")
    print(f"--data StreamingDataModule --data.url {config.out}")


def _with_folder(args: list[str]) -> list[str]:
    """Replace ``--data folder`` by an ImageFolderDataModule of that folder."""
    for place, argument in enumerate(args):
        name, _, value = argument.partition("=")
        if name == "--data":
            rest = args[place + 1 :]
            if not value and rest:
                value, *rest = rest
            if Path(value).is_dir():
                return [*args[:place], "--data", "ImageFolderDataModule", "--data.root", value, *rest]
    return args
