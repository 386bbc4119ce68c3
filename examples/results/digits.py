"""Train the configurations of scikit-learn's digits with three seeds, and write the spread into their headers.

    python examples/results/digits.py               # about 1.5 hours of one core
    python examples/results/digits.py --only moco_digits sce_digits

A run is the command in the header of a configuration, with ``--seed_everything``. It appends a line to digits.jsonl. A
run that the file has is not repeated. Values are accuracies of the online probes on the 360 test images, before
training and after the last epoch.
"""

import argparse
import logging
import tempfile
import textwrap
import warnings
from pathlib import Path
from typing import Any

import torch
from rows import CONFIGS
from run import Table

from ssl_modules.callbacks import OnlineKNNProbe, OnlineLinearProbe
from ssl_modules.cli import ContrastiveCLI

LINES = Path(__file__).with_name("digits.jsonl")
NAMES = sorted(path.stem for path in CONFIGS.glob("*_digits.yaml"))
SEEDS = (0, 1, 2)
ACCURACIES = {"k-NN": "probe/knn_top1", "linear": "probe/linear_top1"}


def measure(name: str, seed: int) -> dict[str, Any]:
    """Return the accuracies before and after a run, and the number of threads and the processor's instructions."""
    with tempfile.TemporaryDirectory() as folder:
        options = [
            f"--config={CONFIGS / name}.yaml",
            f"--seed_everything={seed}",
            f"--trainer.default_root_dir={folder}",
        ]
        options += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
        untrained = ContrastiveCLI(run=False, args=options)
        probes = [probe(datamodule=untrained.datamodule) for probe in (OnlineKNNProbe, OnlineLinearProbe)]
        before = {key: value for probe in probes for key, value in probe.evaluate(untrained.model).items()}
        after = ContrastiveCLI(args=["fit", *options]).trainer.callback_metrics
    found = {column: [float(before[key]), float(after[key])] for column, key in ACCURACIES.items()}
    hardware = (
        f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    )
    return {**found, "hardware": hardware}


def spread(values: list[float]) -> str:
    """Return the smallest and the largest value in %.

    Example:
        >>> spread([0.98, 0.992, 0.985])
        '98.0 to 99.2 %'
    """
    low, high = (f"{100 * value:.1f}" for value in (min(values), max(values)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def result(runs: list[dict[str, Any]]) -> str:
    """Return the lines of a header that give the accuracies of a configuration."""
    before, after = ([[run[column][i] for run in runs] for column in ACCURACIES] for i in (0, 1))
    text = (
        f"k-NN {spread(after[0])}, linear {spread(after[1])} after the last epoch (seeds 0 to {len(runs) - 1}; "
        f"untrained {spread(before[0])} and {spread(before[1])})"
    )
    return textwrap.fill(text, 120, initial_indent="#   result    ", subsequent_indent="#             ")


def with_result(text: str, lines: str) -> str:
    """Return a configuration whose header has these lines, in place of those that it had."""
    header = text[: text.index("seed_everything:")].splitlines()
    start = next((i for i, line in enumerate(header) if line.startswith("#   result ")), None)
    if start is None:
        start = end = next(i for i, line in enumerate(header) if line.startswith("#   time ")) + 1
    else:
        end = next((i for i in range(start + 1, len(header)) if not header[i].startswith("#      ")), len(header))
    return "\n".join([*header[:start], lines, *header[end:], ""]) + text[text.index("seed_everything:") :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="CONFIG")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    table = Table(LINES)
    for name in args.only:
        for seed in SEEDS:
            if not table.find(config=name, seed=seed):
                table.add({"config": name, "seed": seed, **measure(name, seed)})
                print(table.lines[-1], flush=True)
        path = CONFIGS / f"{name}.yaml"
        path.write_text(with_result(path.read_text(), result(table.find(config=name))))


if __name__ == "__main__":
    main()
