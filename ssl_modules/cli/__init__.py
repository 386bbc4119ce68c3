"""The command ``ssl-modules``."""

import sys
from collections.abc import Sequence

from ssl_modules.cli import evaluate, export, shard
from ssl_modules.cli.errors import did_you_mean
from ssl_modules.cli.training import ContrastiveCLI
from ssl_modules.version import __version__

__all__ = ["ContrastiveCLI", "main"]

_OTHERS = {"evaluate": evaluate.main, "export": export.main, "shard": shard.main}
_EPILOG = (
    "further commands: evaluate (a checkpoint, a timm model or a weights file), export (encoder weights), shard (write "
    "images to tar files)"
)


def main(args: Sequence[str] | None = None) -> None:
    """Run ``ssl-modules``.

    Args:
        args: command-line arguments; None for those of the process.
    """
    given = list(sys.argv[1:] if args is None else args)
    commands = [*ContrastiveCLI.subcommands(), *_OTHERS]
    if not given or not (given[0].startswith("-") or given[0] in commands):
        found = f"{given[0]!r}{did_you_mean(given[0], commands)}" if given else "none"
        sys.stderr.write(f"error: command: expected {', '.join(commands)}; got {found}\n")
        sys.exit(2)
    if given and given[0] in _OTHERS:
        _OTHERS[given[0]](given[1:])
    else:
        settings = {"prog": "ssl-modules", "epilog": _EPILOG, "version": __version__}
        ContrastiveCLI(parser_kwargs=settings, args=None if args is None else given)
