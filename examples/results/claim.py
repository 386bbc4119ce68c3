"""The command line of scripts that judge a paper's claim by rows of the results on Fashion-MNIST scattered."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from run import complete

Lines = list[dict[str, Any]]


def judge(
    script: str,
    description: str | None,
    rows: Sequence[str],
    verdicts: Callable[[Lines], list[str]],
    draw: Callable[[Lines, Path], None],
) -> None:
    """Read the command line, train the runs that are missing, print the verdicts and draw the figure.

    Args:
        script: path of the script. The figure has its name and the extension ``.png``, unless ``--out`` is given.
        description: text for ``--help``.
        rows: names of the rows that the script compares.
        verdicts: function that takes the runs of these rows and returns the lines to print.
        draw: function that draws the runs and writes the figure to a path.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path(Path(script).stem + ".png"))
    args = parser.parse_args()
    lines = complete("scattered", rows, args.seeds, device=args.device, count=args.jobs)
    print("\n".join(verdicts(lines)))
    draw(lines, args.out)
