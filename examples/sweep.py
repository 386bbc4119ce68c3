"""Optuna searches three settings of SimCLR on scikit-learn's digits: temperature, embedding width and learning rate.

    python examples/sweep.py [--trials 20] [--epochs 10]
    python examples/sweep.py --trials 3 --epochs 1 --trainer.limit_train_batches=2

Each trial runs ``ssl-modules fit`` in this process, with the config of the digits and three options that override it.
Further arguments are passed to ``ssl-modules fit`` unchanged. A trial's score is the k-NN accuracy after its last
epoch on a validation part, which is taken from the training images. The search never reads the test images.
The sampler and all trials are seeded, so the same search gives the same table.
"""

import argparse
import csv
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import optuna

from ssl_modules.cli import main as ssl_modules

CONFIG = Path(__file__).parent / "configs" / "simclr_digits.yaml"
VALIDATION = 300  # of the 1,437 training images
METRIC = "probe/knn_top1"


def options(trial: optuna.Trial) -> list[str]:
    """Return the options that a trial changes. Each option changes one argument and leaves the rest as it is."""
    temperature = trial.suggest_float("temperature", 0.05, 1.0, log=True)
    out_dim = trial.suggest_categorical("out_dim", [32, 64, 128, 256])
    learning_rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    return [
        f"--model.loss.temperature={temperature:.3g}",
        f"--model.extraction.out_dim={out_dim}",
        f"--model.optimizer.lr={learning_rate:.3g}",
    ]


def fit(folder: Path, epochs: int, arguments: Sequence[str]) -> float:
    """Run the command; return the k-NN accuracy on the validation part after the last epoch."""
    ssl_modules(
        [
            "fit",
            f"--config={CONFIG}",
            f"--data.val_size={VALIDATION}",
            f"--trainer.max_epochs={epochs}",
            f"--trainer.default_root_dir={folder}",
            "--trainer.enable_checkpointing=false",
            "--trainer.enable_model_summary=false",
            "--trainer.enable_progress_bar=false",
            *arguments,
        ]
    )
    [metrics] = folder.rglob("metrics.csv")
    with metrics.open() as file:
        return [float(row[METRIC]) for row in csv.DictReader(file) if row[METRIC]][-1]


def search(trials: int, epochs: int, arguments: Sequence[str]) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        chosen = options(trial)
        trial.set_user_attr("options", chosen)
        with tempfile.TemporaryDirectory() as folder:
            return fit(Path(folder), epochs, [*chosen, *arguments])

    study.optimize(objective, n_trials=trials)
    return study


def table(study: optuna.Study) -> str:
    """Format the trials as a table, the best first."""
    lines = ["| trial | temperature | out_dim | learning rate | k-NN |", "|---|---|---|---|---|"]
    for trial in sorted(study.trials, key=lambda trial: trial.value, reverse=True):
        p = trial.params
        settings = f"{p['temperature']:.3g} | {p['out_dim']} | {p['learning_rate']:.3g}"
        lines.append(f"| {trial.number} | {settings} | {trial.value:.1%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=10, help="of each trial")
    args, arguments = parser.parse_known_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
    study = search(args.trials, args.epochs, arguments)
    print(f"\n{args.trials} trials of {args.epochs} epochs; k-NN accuracy on {VALIDATION} validation images\n")
    print(table(study))
    best = " ".join(study.best_trial.user_attrs["options"])
    print(f"\nbest: ssl-modules fit --config examples/configs/simclr_digits.yaml {best}")


if __name__ == "__main__":
    main()
