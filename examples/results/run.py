"""Train and evaluate all methods with the same budget, on Fashion-MNIST and on Fashion-MNIST scattered.

    python examples/results/run.py --search           # choose crop and learning rates on a validation part
    python examples/results/run.py                    # all rows, except those that the file already has
    python examples/results/run.py --only MoCo --seeds 0 --sets scattered
    python examples/results/run.py --large --device cuda --jobs 12

All methods have the same images, encoder (ResNet-10), batch size (256), number of steps (5 epochs, 1,170 steps) and
optimiser (AdamW). The learning rate warms up for a tenth of the run and then follows half a cosine. Only AMDIM and CPC
have their own encoders. ``--large`` trains a ResNet-18 for ten times the steps. Each run appends a line to
``<out>/<set>.jsonl`` or ``<out>/<set>_large.jsonl``.

The search uses Fashion-MNIST scattered. It trains on 50,000 training images and evaluates on the other 10,000 by k-NN,
so it never uses the test images. First, full runs of SimCLR choose the minimum area of a crop: 0.08, 0.2 or 0.4 of the
image. Then, short runs of 2 epochs choose one of two learning rates for each method. All other runs use these values,
on both sets and with ``--large``.

The metrics are computed on the 10,000 test images and given in %:

- k-NN accuracy (k = 20, T = 0.07) and linear accuracy (ridge regression) with 60,000 labels
- linear accuracy (logistic regression) with 1 % of the labels, mean over 3 subsets
- mean average precision of retrieval, with the ten classes and with the five coarse classes
- AUROC of separating scikit-learn's digits from garments by the distance to the 50th neighbour; the digits are drawn on
  the same canvases

Seconds and peak memory are those of the training.
"""

import argparse
import json
import logging
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rows import CROPS, EPOCHS, METHODS, OTHERS, RATES, ROWS, SEARCHED, SETS, STEPS, THREE_SEEDS


class Table:
    """The lines of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def find(self, **wanted: Any) -> list[dict[str, Any]]:
        return [line for line in self.lines if all(line[name] == value for name, value in wanted.items())]

    def add(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def find_job(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the lines of a job. The device doesn't matter."""
        return self.find(**{k: v for k, v in job.items() if k != "device"})

    def crop(self) -> float:
        """Return the smallest crop of SimCLR's best run in the search."""
        return self._best(row="SimCLR", kind="recipe")["crop"]

    def rate(self, row: str) -> float:
        """Return the learning rate of the best run of a row's method in the search."""
        return self._best(row=OTHERS[row][0] if row in OTHERS else row, kind="rate")["rate"]

    def _best(self, **wanted: Any) -> dict[str, Any]:
        found = self.find(**wanted)
        if not found:
            raise SystemExit(f"{self.path}: expected runs of a search for {wanted}, got none; run with --search first")
        return max(found, key=lambda line: line["knn"])


def recipe_jobs(device: str) -> list[dict[str, Any]]:
    """Return full runs of SimCLR with each crop and learning rate."""
    common = {"kind": "recipe", "row": "SimCLR", "set": SEARCHED, "seed": 0, "part": "val", "device": device}
    return [{**common, "crop": crop, "rate": rate, "epochs": EPOCHS["full"]} for crop in CROPS for rate in RATES]


def rate_jobs(table: Table, device: str) -> list[dict[str, Any]]:
    """Return short runs of each method with both learning rates."""
    common = {"kind": "rate", "set": SEARCHED, "seed": 0, "part": "val", "device": device, "crop": table.crop()}
    return [{**common, "row": row, "rate": rate, "epochs": EPOCHS["short"]} for row in METHODS for rate in RATES]


def row_jobs(
    name: str, search: Table, rows: Sequence[str], seeds: Sequence[int] | None, *, device: str, large: bool
) -> list[dict[str, Any]]:
    """Return the runs of rows. Without given seeds, each row has its own number of seeds."""
    common = {"kind": "row", "set": name, "part": "test", "device": device, "crop": search.crop()}
    common["epochs"] = EPOCHS["large" if large else "full"]
    return [
        {**common, "row": row, "seed": seed, "rate": search.rate(row)}
        for row in rows
        for seed in seeds or range(3 if row in THREE_SEEDS else 1)
    ]


def complete(
    name: str,
    rows: Sequence[str],
    seeds: Sequence[int] | None = None,
    *,
    device: str = "cpu",
    count: int = 1,
    large: bool = False,
    out: Path = Path(__file__).parent,
) -> list[dict[str, Any]]:
    """Train the runs of these rows that a table lacks, and return the lines of all runs of these rows."""
    table = Table(out / f"{name}{'_large' if large else ''}.jsonl")
    search = Table(out / "search.jsonl")
    jobs = row_jobs(name, search, rows, seeds, device=device, large=large)
    finish(jobs, table, count)
    return [line for job in jobs for line in table.find_job(job)]


def finish(jobs: list[dict[str, Any]], table: Table, count: int) -> None:
    """Run the jobs that a table lacks, several at a time. Each job uses one thread.

    A job that fails doesn't stop the others. After the last job, the script exits with an error if any failed.
    """
    missing = [job for job in jobs if not table.find_job(job)]
    if not missing:
        return
    estimate(missing, count)
    # On a CPU, we measure the peak memory of a process, so each job gets a new process.
    fresh = 1 if any(job["device"] == "cpu" for job in missing) else None
    failed = []
    with ProcessPoolExecutor(count, get_context("spawn"), _start, max_tasks_per_child=fresh) as pool:
        futures = {pool.submit(_run, job): job for job in missing}
        for future in as_completed(futures):
            job = futures[future]
            if error := future.exception():
                failed.append(f"{job['row']}, seed {job['seed']}")
                print(f"{failed[-1]} failed: {error!r}", flush=True)
            else:
                table.add({**job, **future.result()})
                print({k: v for k, v in table.lines[-1].items() if k not in ("device", "hardware", "part")}, flush=True)
    if failed:
        raise SystemExit(f"{len(failed)} of {len(missing)} runs failed: {'; '.join(failed)}")


def _run(job: dict[str, Any]) -> dict[str, Any]:
    from measure import measure  # noqa: PLC0415  # needs the extra "bench"

    return measure(job)


def _start() -> None:
    """Prepare a process that runs jobs."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def estimate(jobs: list[dict[str, Any]], count: int) -> None:
    """Print an estimate of the time.

    It assumes that SimCLR's step takes 1.7 core-seconds at 40 px and 0.82 at 28 px. With a ResNet-18, a step takes 1.4
    times as long.
    """
    cost = {name: step for name, (_, step) in {**METHODS, **OTHERS}.items()}
    step = {"fashion": 0.82, "scattered": 1.7}
    hours = sum(cost[job["row"]] * step[job["set"]] * STEPS * job["epochs"] for job in jobs) / 3600
    hours *= 1.4 if jobs[0]["epochs"] == EPOCHS["large"] else 1
    print(f"{len(jobs)} runs, about {hours:.1f} core-hours on a CPU with AVX2, {count} at a time", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", action="store_true", help="choose crop and learning rates on scattered, and stop")
    parser.add_argument("--large", action="store_true", help="a ResNet-18 and ten times the steps")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, metavar="ROW")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 to 2 for some rows, 0 for the others")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    if args.search:
        search = Table(args.out / "search.jsonl")
        finish(recipe_jobs(args.device), search, args.jobs)
        finish(rate_jobs(search, args.device), search, args.jobs)
        return
    for name in args.sets:
        complete(name, args.only, args.seeds, device=args.device, count=args.jobs, large=args.large, out=args.out)


if __name__ == "__main__":
    main()
