"""Write the tables and the figure of docs/results.md, and the table of the README, from the files beside this script.

    python examples/results/table.py            # after examples/results/run.py

Values are means over seeds. A row with several seeds also shows their standard deviation. The difference to SimCLR is
the mean over pairs of runs with the same seed. Its 95 % interval comes from Student's t distribution. If a row ran on
several machines, its seconds and MiB are means over the runs on the machine with the most runs.
"""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from paired import difference, gains
from rows import METHODS, RATES, REFERENCES, ROWS
from run import Table

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
PAGE = HERE.parents[1] / "docs" / "results.md"
BEGIN, END = "<!-- begin: examples/results/table.py -->\n", "<!-- end -->\n"
TABLES = {
    "scattered": "Fashion-MNIST scattered, 40 px, ResNet-10, 1,170 steps",
    "fashion": "Fashion-MNIST, 28 px, ResNet-10, 1,170 steps",
    "scattered_large": "Fashion-MNIST scattered, 40 px, ResNet-18, 11,700 steps",
    "fashion_large": "Fashion-MNIST, 28 px, ResNet-18, 11,700 steps",
}
COLUMNS = {
    "knn": "k-NN",
    "linear": "linear",
    "few": "1 % of labels",
    "retrieval": "retrieval",
    "coarse": "coarse retrieval",
    "ood": "OOD AUROC",
}
SHORT = (  # rows of the README's table
    *("raw pixels", "untrained", "SimCLR", "MoCo", "BYOL", "SCE", "RINCE, neighbours", "GroCo", "S2R2, 4 views"),
    *("YADIM", "AMDIM, its encoder", "CPC, its encoder", "SwAV", "supervised"),
)
WITH_LABELS = ("supervised", "SupCon, labels", "RINCE, labels", "RINCE, one rank", "RINCE, noisy ranks")


def lines(name: str) -> dict[str, list[dict[str, Any]]]:
    """Return the runs of a table by row, in the order of the rows and of the seeds."""
    path = HERE / f"{name}.jsonl"
    runs = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    by_row = {row: sorted((r for r in runs if r["row"] == row), key=lambda r: r["seed"]) for row in ROWS}
    return {row: found for row, found in by_row.items() if found}


def spread(values: list[float]) -> str:
    """Return the mean in %, with the standard deviation if there are several values."""
    text = f"{100 * mean(values):.1f}"
    return text if len(values) == 1 else f"{text} ± {100 * stdev(values):.1f}"


def machines(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the runs by the short name of their machine, such as "H100". The machine with the most runs is first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        gpu = run["hardware"].split(",")[0].removeprefix("NVIDIA ").split()[0]
        found.setdefault("CPU" if run["device"] == "cpu" else gpu, []).append(run)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0] == "CPU")))


def against(rows: dict[str, list[dict[str, Any]]], row: str) -> str:
    """Return the difference of a row's k-NN accuracy to SimCLR's with the same number of views."""
    simclr = "SimCLR, 4 views" if "4 views" in row else "SimCLR"
    return "" if row == simclr else difference(gains([*rows[row], *rows.get(simclr, [])], row, simclr, "knn"))


def table(name: str, title: str) -> str:
    """Return one table in Markdown."""
    rows = lines(name)
    header = ["", *COLUMNS.values(), "k-NN against SimCLR", "rate", "seeds", "s", "MiB", "on"]
    out = [f"### {title}\n", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row, runs in rows.items():
        cells = [row, *(spread([run[column] for run in runs]) for column in COLUMNS), against(rows, row)]
        if row in REFERENCES:
            cells += ["", str(len(runs)), "", "", ""]
        else:
            on = machines(runs)
            cost = [f"{mean(run[key] for run in next(iter(on.values()))):,.0f}" for key in ("seconds", "mib")]
            names = ", ".join(f"{len(found)} {machine}" for machine, found in on.items())
            cells += [f"{runs[0]['rate']}", str(len(runs)), *cost, names]
        out.append("| " + " | ".join(cells) + " |")
    used = machines([run for runs in rows.values() for run in runs])
    versions = sorted({f"{name}: {run['hardware']}" for name, found in used.items() for run in found})
    out.append(f"\n{'; '.join(versions)}.")
    if missing := [row for row in ROWS if row not in rows]:
        out.append(f"These rows have no runs yet: {'; '.join(missing)}.")
    return "\n".join(out) + "\n"


def search() -> str:
    """Say what was tuned, from the lines of the search."""
    searched = Table(HERE / "search.jsonl")
    crops = searched.find(kind="recipe")
    tried = ", ".join(f"{100 * r['knn']:.1f} % for {r['crop']} and {r['rate']}" for r in sorted(crops, key=_crop))
    low = [row for row in METHODS if searched.rate(row) != max(RATES)]
    return (
        "We chose the minimum area of a crop and the learning rates on Fashion-MNIST scattered, by k-NN accuracy on "
        f"10,000 training images, with one seed. {len(crops)} runs of SimCLR with 5 epochs chose the area. Their "
        f"accuracies for area and learning rate are: {tried}. All rows crop at least {searched.crop()} of the image. "
        f"Two runs of two epochs chose each method's learning rate from {' and '.join(map(str, RATES))}. The larger "
        f"rate was better for all but {' and '.join(low)}. The largest values that we tried were therefore often the "
        "best, and still larger ones may be better. The rows on both sets use the same area and learning rates. We "
        "searched nothing else: temperatures, momenta, heads and weight decay are those of the configs for "
        "Fashion-MNIST.\n"
    )


def _crop(run: dict[str, Any]) -> tuple[float, float]:
    return run["crop"], run["rate"]


def page() -> str:
    """Return the generated part of the page."""
    parts = [table(name, title) for name, title in TABLES.items() if (HERE / f"{name}.jsonl").exists()]
    return "\n".join([*parts, search()])


def draw(name: str, path: Path) -> None:
    """Draw a point for each run's k-NN accuracy, and a row for each method."""
    plt.rcParams["svg.hashsalt"] = "results"  # the same file for the same values
    rows = lines(name)
    figure, axes = plt.subplots(figsize=(7, 0.32 * len(rows) + 1), layout="constrained")
    names = sorted(rows, key=lambda row: mean(run["knn"] for run in rows[row]))
    for y, row in enumerate(names):
        values = [100 * run["knn"] for run in rows[row]]
        reference = row in (*REFERENCES, *WITH_LABELS)
        axes.scatter(values, [y] * len(values), s=28, alpha=0.8, color="tab:gray" if reference else "tab:blue")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("k-NN accuracy, %; one point per seed; gray: trained with labels, or not trained")
    axes.grid(axis="x", alpha=0.3)
    axes.set_title(TABLES[name], fontsize=10)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def short() -> str:
    """Return the table of the README."""
    rows = lines("scattered")
    columns = ("knn", "linear", "few", "retrieval")
    out = ["| representation | " + " | ".join(COLUMNS[column] for column in columns) + " |", "|" + "---|" * 5]
    for row in SHORT:
        out.append(f"| {row} | " + " | ".join(spread([run[column] for run in rows[row]]) for column in columns) + " |")
    return "\n".join(out) + "\n"


def filled(text: str, content: str) -> str:
    """Return a page with new content between the markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + content + "\n" + END + after


def main() -> None:
    for path, content in ((PAGE, page()), (README, short())):
        path.write_text(filled(path.read_text(), content))
    for name in TABLES:
        if (HERE / f"{name}.jsonl").exists():
            draw(name, PAGE.with_name(f"results_{name}.svg"))


if __name__ == "__main__":
    main()
